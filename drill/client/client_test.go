package client

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"seaway.dev/seaway/drill/sight"
)

type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safe) notes(t *testing.T) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := sight.Read(bytes.NewReader(s.b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, n := range list {
		out[n.Flow+" "+n.Outcome]++
	}
	return out
}

// TestItSeesWhatBreaks: answers while somebody listens, a reset of what is held when that ends hard, and refusals.
func TestItSeesWhatBreaks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []*net.TCPConn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c.(*net.TCPConn))
			mu.Unlock()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	var out safe
	done := make(chan error)
	go func() { done <- Run(ctx, &out, l.Addr().String()) }()
	until(t, "answers", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return out.notes(t)["dial ok"] > 10 && len(open) > held+10
	})
	l.Close()
	mu.Lock()
	for _, c := range open {
		_ = c.SetLinger(0)
		c.Close()
	}
	mu.Unlock()
	until(t, "a reset and refusals", func() bool { n := out.notes(t); return n["held reset"] >= held && n["dial refused"] > 5 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("no %s", what)
		case <-tick.C:
		}
	}
}
