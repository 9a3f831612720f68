package guard

import (
	"math"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/scale"
)

var t0 = time.Unix(1e9, 0)

func terms() scale.Terms { return scale.Terms{Min: 2, Max: 50, Good: 0.999} }

// grown is a guard that has seen enough not to be learning any more.
func grown(bad float64) *State {
	s := New()
	for i := range 200 {
		s.Observe(scale.Sample{At: t0.Add(time.Duration(i-200) * 15 * time.Second), Interval: 15 * time.Second, Rate: 100, Done: 1500, Bad: 1500 * bad})
	}
	return &s
}

func wish(want int) Wish {
	return Wish{Now: t0, Want: want, HPA: 10, Current: 10, Need: 8, Coverage: math.NaN(), Price: func(n int) float64 { return float64(n) }}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		state *State
		wish  func(*Wish)
		rules Rules
		pods  int
		rail  string
	}{
		"nothing amiss":     {grown(0), nil, Rules{}, 7, ""},
		"still learning":    {func() *State { s := New(); return &s }(), nil, Rules{}, 10, "learning"},
		"budget burns":      {grown(0.01), nil, Rules{}, 10, "budget"},
		"coverage is lost":  {grown(0), func(w *Wish) { w.Coverage = 0.7 }, Rules{}, 10, "quantile"},
		"metrics are stale": {grown(0), func(w *Wish) { w.Now = t0.Add(3 * time.Minute) }, Rules{}, 10, "old"},
		"rollout":           {grown(0), func(w *Wish) { w.Rollout = true }, Rules{}, 10, "rollout"},
		"pinned":            {grown(0), nil, Rules{Pin: 13}, 13, "pinned"},
		"too fast":          {grown(0), func(w *Wish) { w.Want, w.Need = 45, 40 }, Rules{}, 20, "twice"},
		"runs away":         {grown(0), func(w *Wish) { w.Want, w.Need, w.HPA, w.Current = 49, 8, 9, 17 }, Rules{}, 18, "twice"},
		"bounds":            {grown(0), func(w *Wish) { w.Want = 1 }, Rules{}, 2, "bounds"},
		"too dear":          {func() *State { s := grown(0); s.Ours, s.HPA = 150, 100; return s }(), func(w *Wish) { w.Want = 14 }, Rules{}, 10, "cost"},
		"dear but needed":   {func() *State { s := grown(0.0015); s.Ours, s.HPA = 150, 100; return s }(), func(w *Wish) { w.Want = 14 }, Rules{}, 14, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := wish(7)
			if c.wish != nil {
				c.wish(&w)
			}
			v := c.state.Judge(w, terms(), c.rules)
			if v.Pods != c.pods || (c.rail == "") != (v.Rail == "") || !strings.Contains(v.Rail, c.rail) {
				t.Errorf("%d pods by %q; want %d by %q", v.Pods, v.Rail, c.pods, c.rail)
			}
		})
	}
}

func TestModesArePromotedOnEvidence(t *testing.T) {
	s := grown(0)
	s.Samples, s.Mode = 500, Observe
	now := t0
	step := func(cost, bad float64, days int) {
		for range days * 24 {
			now = now.Add(time.Hour)
			s.Contemplated.Note(now, 3600, cost, 1, bad, 1e-5, 1)
		}
		m, _ := s.Promotion(now, Full, 0.999, 0.95, 3)
		s.Promote(now, m)
	}
	step(0.8, 0, 0)
	if s.Mode != Shadow {
		t.Fatalf("mode %s after enough samples", s.Mode)
	}
	step(0.8, 0, 2)
	if s.Mode != Shadow {
		t.Fatalf("mode %s after two days", s.Mode)
	}
	step(0.8, 0, 2)
	if s.Mode != Floor {
		t.Fatalf("mode %s after days of gain", s.Mode)
	}
	step(0.8, 0, 4)
	if s.Mode != Full {
		t.Fatalf("mode %s after more of them", s.Mode)
	}
	step(1.2, 1e-3, 2)
	if s.Mode != Floor {
		t.Fatalf("mode %s after a day that cost more for nothing", s.Mode)
	}
	s.Mode, s.Contemplated = Shadow, Tally{}
	step(0.8, 1e-2, 5)
	if s.Mode != Shadow {
		t.Fatalf("mode %s: what is saved at the users' cost is no gain", s.Mode)
	}
	if m, _ := s.Promotion(now, Observe, 0.999, 0.95, 3); m != Observe {
		t.Fatalf("mode %s, Observe was asked for", m)
	}
}
