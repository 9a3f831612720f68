package ctl

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells on standard error what is being done: a line a step, with the time it took. A step that takes more
// than two seconds shows its age: every second on a terminal, every ten elsewhere.
type progress struct {
	out   io.Writer
	color bool
}

func (c *cli) progress() *progress { return &progress{out: c.Err, color: c.Color} }

// step runs one step. What work returns is shown behind the step's name: a few words, or "".
func (p *progress) step(name string, work func(say func(string)) (string, error)) error {
	s := &step{p: p, name: name, start: time.Now(), done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(s.watch)
	result, err := work(s.say)
	close(s.done)
	wg.Wait()
	s.end(result, err)
	return err
}

type step struct {
	p     *progress
	name  string
	start time.Time
	done  chan struct{}

	mu   sync.Mutex
	note string
}

func (s *step) say(note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = note
}

func (s *step) line() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := fmt.Sprintf("  %s … %ds", s.name, int(time.Since(s.start).Seconds()))
	if s.note != "" {
		l += "  " + s.note
	}
	return l
}

func (s *step) watch() {
	every := 10 * time.Second
	if s.p.color {
		every = time.Second
	}
	first := time.NewTimer(2 * time.Second)
	defer first.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-first.C:
		case <-tick.C:
			if time.Since(s.start) < 2*time.Second {
				continue
			}
		}
		if s.p.color {
			fmt.Fprintf(s.p.out, "\r\x1b[K%s", s.line())
		} else {
			fmt.Fprintln(s.p.out, s.line())
		}
	}
}

func (s *step) end(result string, err error) {
	mark, clear := "ok", ""
	if s.p.color {
		mark, clear = "\x1b[32m✓\x1b[0m", "\r\x1b[K"
	}
	if err != nil {
		mark = "failed"
		if s.p.color {
			mark = "\x1b[31m✗\x1b[0m"
		}
	}
	if result != "" {
		result = ": " + result
	}
	took := time.Since(s.start).Round(10 * time.Millisecond)
	fmt.Fprintf(s.p.out, "%s%s %s%s (%s)\n", clear, mark, s.name, result, took)
}

// tell prints a line of advice or news.
func (p *progress) tell(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }
