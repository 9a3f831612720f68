package steer

import (
	"testing"
	"time"

	"seaway.dev/seaway/failover/detect"
)

const s = time.Second

func ways(states ...detect.WayState) []Way {
	out := []Way{{Class: Direct, RTT: 20 * time.Millisecond}, {Class: Near, RTT: 22 * time.Millisecond}, {Class: Far, RTT: 40 * time.Millisecond}}
	for i, st := range states {
		out[i].State = st
		out[i].Seen = s
	}
	return out
}

func TestStep(t *testing.T) {
	const A, D, X, F = detect.Alive, detect.Doubt, detect.Dead, detect.Fresh
	harden := func(ws []Way) []Way { ws[0].Lost, ws[1].Seen = hardened, 2*s; return ws }
	worse := func(ws []Way) []Way { ws[0].Worse = true; return ws }
	for name, c := range map[string]struct {
		use  int
		ways []Way
		want Choice
	}{
		"nothing works":                         {-1, ways(F, F, F), only(-1)},
		"the first that works":                  {-1, ways(F, F, A), only(2)},
		"direct is best":                        {-1, ways(A, A, A), only(0)},
		"a worse one is kept for now":           {1, ways(A, A, A), only(1)},
		"in doubt: hedged by near and far":      {0, ways(D, A, A), Choice{0, [2]int{1, 2}, -1}},
		"in doubt, another has answered since":  {0, func() []Way { w := ways(D, A, A); w[1].Seen = 2 * s; return w }(), Choice{0, [2]int{1, -1}, -1}},
		"the doubt hardens":                     {0, harden(ways(D, A, A)), only(1)},
		"it hardens, and nothing else is known": {0, func() []Way { w := ways(D, A, A); w[0].Lost = 99; return w }(), Choice{0, [2]int{1, 2}, -1}},
		"dead":                                  {0, ways(X, A, A), only(1)},
		"dead, the near one too":                {0, ways(X, X, A), only(2)},
		"dead, the others in doubt":             {0, ways(X, D, D), only(1)},
		"all dead: it stays":                    {0, ways(X, X, X), only(0)},
		"all in doubt":                          {0, ways(D, D, D), Choice{0, [2]int{1, 2}, -1}},
		"gray is left when something is better": {0, worse(ways(A, A, A)), only(0)}, // after a while, see below
	} {
		t.Run(name, func(t *testing.T) {
			p := Pair{}
			p.Reset(c.use)
			if got := p.Step(c.ways, 10*s); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestReturn: the better way is taken after it has worked for 3 s, not before it was asked again, and each time that it
// fails soon after, the wait doubles, up to a minute.
func TestReturn(t *testing.T) {
	p := Pair{}
	p.Reset(1)
	now := 10 * s
	back := func() time.Duration { // how long until direct is taken
		start := now
		for ; now < start+200*s; now += s / 10 {
			ws := ways(detect.Alive, detect.Alive, detect.Alive)
			if c := p.Step(ws, now); c.Ask >= 0 {
				ws[c.Ask].Seen = now
				p.Step(ws, now)
			}
			if p.use == 0 {
				return (now - start).Round(s)
			}
		}
		return -1
	}
	for i, want := range []time.Duration{3 * s, 6 * s, 12 * s, 24 * s, 48 * s, 60 * s, 60 * s} {
		if got := back(); got != want {
			t.Errorf("return %d after %v, want %v", i, got, want)
		}
		now += 2 * s
		p.Step(ways(detect.Dead, detect.Alive, detect.Alive), now)
		if p.use != 1 {
			t.Fatalf("the way in use is dead, and it is still %d", p.use)
		}
		now += 5 * s
	}
	p.Step(ways(detect.Alive, detect.Alive, detect.Alive), now)
	back()
	now += 10 * time.Minute
	p.Step(ways(detect.Dead, detect.Alive, detect.Alive), now)
	if got := back(); got != 3*s {
		t.Errorf("after a long good time it returned after %v, want 3 s", got)
	}
	gray := Pair{}
	gray.Reset(0)
	ws := ways(detect.Alive, detect.Alive, detect.Alive)
	ws[0].Worse = true
	gray.Step(ws, now)
	ws[1].Seen = now + 3*s
	if c := gray.Step(ws, now+3*s); c.Use != 1 {
		t.Errorf("a way with loss is kept: %+v", c)
	}
}

// TestHedgesAreOthers: no way is hedged by itself or by a way that does not work.
func TestHedgesAreOthers(t *testing.T) {
	states := []detect.WayState{detect.Fresh, detect.Alive, detect.Doubt, detect.Dead}
	for n := range 4 * 4 * 4 * 3 {
		ws := ways(states[n%4], states[n/4%4], states[n/16%4])
		p := Pair{}
		p.Reset(n / 64)
		c := p.Step(ws, 9*s)
		for _, h := range c.Hedge {
			if h >= 0 && (h == c.Use || ws[h].State == detect.Dead || ws[h].State == detect.Fresh) {
				t.Errorf("%v using %d: %+v", ws, n/64, c)
			}
		}
		if c.Hedge[0] >= 0 && c.Hedge[0] == c.Hedge[1] {
			t.Errorf("%v: hedged twice by one: %+v", ws, c)
		}
	}
}

// TestHush: while a steady flow has stopped and nobody knows why, data go by others as well, and nothing is changed.
func TestHush(t *testing.T) {
	ways := []Way{{Class: Direct, State: detect.Alive, Hush: true}, {Class: Near, State: detect.Alive}, {Class: Far, State: detect.Alive}}
	p := Pair{chosen: true}
	if got, want := p.Step(ways, time.Second), (Choice{0, [2]int{1, 2}, -1}); got != want {
		t.Errorf("hushed: %+v, want %+v", got, want)
	}
	ways[0].Hush = false
	if got, want := p.Step(ways, 2*time.Second), only(0); got != want {
		t.Errorf("then: %+v, want %+v", got, want)
	}
	if got := Hedge(ways[:1], 0); got != [2]int{-1, -1} {
		t.Errorf("without another way: %v", got)
	}
}
