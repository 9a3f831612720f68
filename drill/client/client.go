// Package client is the drill's own client of a service: it opens a TCP connection every 20 ms, holds some others open,
// and writes a note of each, one a line.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"seaway.dev/seaway/drill/sight"
)

const (
	every   = 20 * time.Millisecond
	dialing = time.Second
	held    = 4   // connections that stay
	waiting = 100 // connections that may wait at once
)

// Run asks until ctx ends. The flows are `dial`, a connection for each question, answered when it is open; and `held`,
// which is noted only when such a connection breaks.
func Run(ctx context.Context, w io.Writer, addr string) error {
	p := &pen{w: w}
	var wg sync.WaitGroup
	for range held {
		wg.Go(func() { hold(ctx, p, addr) })
	}
	free := make(chan struct{}, waiting)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			select {
			case free <- struct{}{}:
				wg.Go(func() {
					defer func() { <-free }()
					ask(ctx, p, addr)
				})
			default:
			}
		}
	}
	wg.Wait()
	return p.err
}

// pen writes notes, one at a time.
type pen struct {
	mu  sync.Mutex
	w   io.Writer
	err error
}

func (p *pen) note(flow string, begin time.Time, err error, who string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, werr := fmt.Fprintln(p.w, sight.Note{Flow: flow, Outcome: Outcome(err), Begin: begin, End: time.Now(), Who: who}); werr != nil && p.err == nil {
		p.err = werr
	}
}

func ask(ctx context.Context, p *pen, addr string) {
	begin := time.Now()
	c, err := (&net.Dialer{Timeout: dialing}).DialContext(ctx, "tcp", addr)
	if ctx.Err() != nil {
		return
	}
	who := ""
	if err == nil {
		who = c.RemoteAddr().String()
		c.Close()
	}
	p.note("dial", begin, err, who)
}

// hold keeps a connection and says when it breaks under it. A service that ends connections that say nothing is not
// broken: an end in peace is no note.
func hold(ctx context.Context, p *pen, addr string) {
	for ctx.Err() == nil {
		c, err := (&net.Dialer{Timeout: dialing}).DialContext(ctx, "tcp", addr)
		if err == nil {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			_, err = c.Read(make([]byte, 1))
			if stop() && err != nil && !errors.Is(err, io.EOF) {
				p.note("held", time.Now(), err, c.RemoteAddr().String())
			}
			c.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

// Outcome names an error as a client would tell it.
func Outcome(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return "reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "unreachable"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, net.ErrClosed), strings.Contains(err.Error(), "EOF"):
		return "closed"
	}
	return "error"
}
