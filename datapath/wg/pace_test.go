package wg

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: who is ahead waits until what it took in was given out, and never for longer than stuck.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, timer, began := newPace(), stopped(), time.Now()
		took := func() time.Duration { return time.Since(began) }
		p.took(int(p.limit))
		if p.wait(timer); took() != 0 {
			t.Errorf("waited %v with room", took())
		}
		p.took(10)
		go func() {
			time.Sleep(stuck / 4)
			p.gave(5) // too little
			time.Sleep(stuck / 4)
			p.gave(5)
		}()
		if p.wait(timer); took() != stuck/2 {
			t.Errorf("waited %v, want until there was room, %v", took(), stuck/2)
		}

		p.took(1)
		began = time.Now()
		if p.wait(timer); took() != stuck || p.ahead.Load() != 0 {
			t.Errorf("waited %v for packets that were dropped, %d left: want %v and a new count", took(), p.ahead.Load(), stuck)
		}

		p.gave(3) // of WireGuard's own
		if n := p.ahead.Load(); n != 0 {
			t.Errorf("%d ahead after giving out more than was taken in", n)
		}

		p.took(int(p.limit) + 1)
		p.gave(1) // leaves a token that nobody waits for
		p.took(1)
		began = time.Now()
		if p.wait(timer); took() != stuck {
			t.Errorf("an old token ended a wait after %v", took())
		}
	})
}

func TestAtLeast(t *testing.T) {
	if n := atLeast(1, []int{0, 1, 1400, 0}); n != 2 {
		t.Errorf("%d packets, want 2", n)
	}
}
