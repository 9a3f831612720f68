package progress

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// safe is a buffer that the display's own goroutine may write to as well.
type safe struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *safe) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func TestPlainLines(t *testing.T) {
	var b safe
	s := start(&b, false)
	a := s.Begin("build %s", "x")
	c := s.Begin("wait")
	s.Note("hello")
	a(nil)
	c(errors.New("no"))
	s.Close()
	want := `^ +\d+\.\d s  hello\n +\d+\.\d s  done: build x \(\d+\.\d s\)\n +\d+\.\d s  FAILED: wait \(\d+\.\d s\)\n$`
	if !regexp.MustCompile(want).MatchString(b.b.String()) {
		t.Errorf("%q", b.b.String())
	}
}

func TestTerminalIsLeftClean(t *testing.T) {
	var b safe
	s := start(&b, true)
	done := s.Begin("work")
	done(nil)
	s.Close()
	out := b.b.String()
	if !strings.Contains(out, "\x1b[1A\x1b[J") || !strings.HasSuffix(out, "s)\n") {
		t.Errorf("%q", out)
	}
}
