package story

import (
	"context"
	"fmt"
	"io"
	"time"
)

// running is a line that goes on in the background.
type running struct {
	input  *io.PipeWriter
	cancel context.CancelFunc
	done   chan struct{}
	out    string
	err    error
}

type inputKey struct{}

// input is what a background line's probe reads; nil in the foreground.
func input(ctx context.Context) io.Reader {
	r, _ := ctx.Value(inputKey{}).(io.Reader)
	return r
}

func start(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want a name and a line")
	}
	name := args[0]
	if p.running[name] != nil {
		return "", misused("%s was started already", name)
	}
	in, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.WithValue(ctx, inputKey{}, io.Reader(in)))
	r := &running{input: w, cancel: cancel, done: make(chan struct{})}
	p.running[name] = r
	go func() {
		defer close(r.done)
		r.out, r.err = p.do(ctx, args[1:])
		in.Close()
	}()
	return "", nil
}

// grace is how long a background line may take to end after its input did.
const grace = 10 * time.Second

func finish(p *play, _ context.Context, args []string) (string, error) {
	if len(args) != 1 || p.running[args[0]] == nil {
		return "", misused("want the name of something that was started")
	}
	r := p.running[args[0]]
	delete(p.running, args[0])
	r.stop()
	if r.err != nil {
		return r.out, fmt.Errorf("%s: %w", args[0], r.err)
	}
	return r.out, nil
}

// stop ends the line, kindly and then not.
func (r *running) stop() {
	defer r.cancel()
	r.input.Close()
	select {
	case <-r.done:
		return
	case <-time.After(grace):
	}
	r.cancel()
	<-r.done
}
