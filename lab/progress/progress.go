// Package progress tells a waiting person what is going on and for how long.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stages prints one line per stage: on a terminal the running ones are redrawn
// with their seconds; elsewhere a stage is one plain line when it ends, and one
// more whenever it has been running for another ten seconds.
type Stages struct {
	mu      sync.Mutex
	out     io.Writer
	tty     bool
	start   time.Time
	running []*stage
	drawn   int
	stop    chan struct{}
	wg      sync.WaitGroup
}

type stage struct {
	what   string
	start  time.Time
	warned time.Duration
}

// New starts the display; Close ends it.
func New(f *os.File) *Stages {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return start(f, err == nil)
}

func start(w io.Writer, tty bool) *Stages {
	s := &Stages{out: w, tty: tty, start: time.Now(), stop: make(chan struct{})}
	s.wg.Go(s.tick)
	return s
}

// Close ends the display.
func (s *Stages) Close() {
	close(s.stop)
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

// Begin names a stage that starts now; the returned function ends it.
func (s *Stages) Begin(format string, args ...any) func(error) {
	st := &stage{what: fmt.Sprintf(format, args...), start: time.Now()}
	s.mu.Lock()
	s.running = append(s.running, st)
	s.draw()
	s.mu.Unlock()
	return func(err error) { s.end(st, err) }
}

// Note prints a line.
func (s *Stages) Note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.line(time.Since(s.start), fmt.Sprintf(format, args...))
	s.draw()
}

func (s *Stages) end(st *stage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.running {
		if r == st {
			s.running = append(s.running[:i], s.running[i+1:]...)
		}
	}
	s.clear()
	what := "done: " + st.what
	if err != nil {
		what = "FAILED: " + st.what
	}
	s.line(time.Since(s.start), fmt.Sprintf("%s (%.1f s)", what, time.Since(st.start).Seconds()))
	s.draw()
}

func (s *Stages) line(at time.Duration, text string) {
	fmt.Fprintf(s.out, "%6.1f s  %s\n", at.Seconds(), text)
}

func (s *Stages) tick() {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		s.mu.Lock()
		s.refresh()
		s.mu.Unlock()
	}
}

func (s *Stages) refresh() {
	if s.tty {
		s.clear()
		s.draw()
		return
	}
	for _, r := range s.running {
		if d := time.Since(r.start); d-r.warned >= 10*time.Second {
			r.warned = d
			s.line(time.Since(s.start), fmt.Sprintf("still at it: %s (%.0f s)", r.what, d.Seconds()))
		}
	}
}

// clear takes the redrawn lines away.
func (s *Stages) clear() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *Stages) draw() {
	if !s.tty {
		return
	}
	s.clear()
	var b strings.Builder
	for _, r := range s.running {
		fmt.Fprintf(&b, "   … %5.1f s  %s\n", time.Since(r.start).Seconds(), r.what)
	}
	fmt.Fprint(s.out, b.String())
	s.drawn = len(s.running)
}
