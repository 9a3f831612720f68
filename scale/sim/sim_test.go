package sim

import (
	"math"
	"testing"
	"time"

	"seaway.dev/seaway/scale/trace"
)

func flat(rate float64, length time.Duration) *trace.Load {
	l := &trace.Load{Name: "flat", Rate: make([]float64, int(length/time.Second)), Hold: 1}
	for i := range l.Rate {
		l.Rate[i] = rate
	}
	return l
}

func play(t *testing.T, l *trace.Load, conf Config, name string, seed uint64) *Result {
	t.Helper()
	m, err := Named(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(l, conf, m(conf, l, seed), seed)
	if err != nil {
		t.Fatal(err)
	}
	r.DecideP99 = 0
	return r
}

func TestSameSeedSameRun(t *testing.T) {
	l := flat(1000, 2*time.Hour)
	for i := range l.Rate {
		l.Rate[i] *= 1 + 0.8*math.Sin(float64(i)/900)
	}
	conf := Default(Profiles()["slow"])
	a, b, c := play(t, l, conf, "hpa70", 1), play(t, l, conf, "hpa70", 1), play(t, l, conf, "hpa70", 2)
	if a.Bad != b.Bad || a.PodHours != b.PodHours || a.NodeHours != b.NodeHours {
		t.Errorf("the same seed came to %+v and %+v", a, b)
	}
	if a.Requests == c.Requests {
		t.Error("another seed met the same arrivals")
	}
}
