package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// teller writes the story on the screen: what is being done, how long it took, what was seen. On a terminal the line
// of a step counts its seconds; elsewhere it says now and then that it still goes on.
type teller struct {
	mu    sync.Mutex
	out   io.Writer
	tty   bool
	start time.Time
	chart []row
}

// row is a line of the table at the end.
type row struct {
	what, result string
	took         time.Duration
}

const width = 78

func (t *teller) bold(s string) string { return t.style("1", s) }
func (t *teller) dim(s string) string  { return t.style("2", s) }

func (t *teller) style(code, s string) string {
	if !t.tty {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *teller) print(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, format, args...)
}

// chapter opens a part of the story.
func (t *teller) chapter(title string) {
	t.print("\n%s\n", t.bold("── "+title+" "+strings.Repeat("─", max(0, width-4-len([]rune(title))))))
}

// text says something in between.
func (t *teller) text(format string, args ...any) {
	for l := range strings.SplitSeq(strings.TrimSpace(fmt.Sprintf(format, args...)), "\n") {
		t.print("  %s\n", l)
	}
}

// seen shows what a command printed.
func (t *teller) seen(text string) {
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		t.print("    %s\n", t.dim(l))
	}
}

// typed shows a command as a person would type it.
func (t *teller) typed(command string) { t.print("  $ %s\n", t.bold(command)) }

// step does something and notes how long it took. What do returns is the step's result in the table.
func (t *teller) step(what string, do func() (string, error)) error {
	start := time.Now()
	ended := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() { t.count(what, start, ended) })
	result, err := do()
	close(ended)
	ticking.Wait()
	took := time.Since(start)
	mark := "✓"
	if err != nil {
		mark, result = "✗", "failed"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tty {
		fmt.Fprint(t.out, "\r\x1b[K")
	}
	fmt.Fprintf(t.out, "  %s %-56s %7.1f s  %s\n", mark, what, took.Seconds(), t.dim(result))
	t.chart = append(t.chart, row{what, result, took})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// count shows that something goes on.
func (t *teller) count(what string, start time.Time, ended <-chan struct{}) {
	every := 10 * time.Second
	if t.tty {
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			if t.tty {
				t.print("\r\x1b[K  … %-56s %7.1f s", what, time.Since(start).Seconds())
			} else {
				t.print("  … %s (%.0f s)\n", what, time.Since(start).Seconds())
			}
		}
	}
}

// table ends the story.
func (t *teller) table() {
	t.chapter("What happened, and how long it took")
	var sum time.Duration
	for _, r := range t.chart {
		sum += r.took
		t.print("  %-52s %7.1f s   %s\n", r.what, r.took.Seconds(), r.result)
	}
	t.print("  %s\n  %-52s %7.1f s\n", strings.Repeat("─", width-2), "all together", time.Since(t.start).Seconds())
}
