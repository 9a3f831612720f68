package story

import (
	"context"
	"fmt"
	"io"
	"sync"
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

type (
	inputKey struct{}
	liveKey  struct{}
)

// live gets the output of a background line while it comes; nil in the foreground.
func live(ctx context.Context) io.Writer {
	w, _ := ctx.Value(liveKey{}).(io.Writer)
	return w
}

// first tells when something was written.
type first struct {
	once sync.Once
	c    chan struct{}
}

// Write implements io.Writer.
func (f *first) Write(b []byte) (int, error) {
	f.once.Do(func() { close(f.c) })
	return len(b), nil
}

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
	word := &first{c: make(chan struct{})}
	ctx = context.WithValue(context.WithValue(ctx, inputKey{}, io.Reader(in)), liveKey{}, io.Writer(word))
	ctx, cancel := context.WithCancel(ctx)
	r := &running{input: w, cancel: cancel, done: make(chan struct{})}
	p.running[name] = r
	go func() {
		defer close(r.done)
		r.out, r.err = p.do(ctx, args[1:])
		in.Close()
	}()
	// What was started has begun when it says its first word.
	select {
	case <-word.c:
		return "", nil
	case <-r.done:
		return r.out, fmt.Errorf("%s ended at once: %w", name, r.err)
	case <-time.After(grace):
		return "", fmt.Errorf("%s said nothing for %s", name, grace)
	}
}

// How long a background line may take to begin, and to end after its input did: a connection that has just survived a
// cut is silent until its next retransmission, which may be most of a minute away.
const (
	grace    = 30 * time.Second // the third watcher of a busy machine has taken 10
	farewell = 75 * time.Second
)

func finish(p *play, _ context.Context, args []string) (string, error) {
	if len(args) != 1 || p.running[args[0]] == nil {
		return "", misused("want the name of something that was started")
	}
	r := p.running[args[0]]
	delete(p.running, args[0])
	r.stop(farewell)
	if r.err != nil {
		return r.out, fmt.Errorf("%s: %w", args[0], r.err)
	}
	return r.out, nil
}

// stop ends the line, kindly and then not.
func (r *running) stop(patience time.Duration) {
	defer r.cancel()
	r.input.Close()
	select {
	case <-r.done:
		return
	case <-time.After(patience):
	}
	r.cancel()
	<-r.done
}
