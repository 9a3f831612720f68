package forecast

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"seaway.dev/seaway/scale"
)

var start = time.Unix(1.7e9, 0)

// feed shows the model seconds of a load, a sample each 15 s, with Poisson's noise.
func feed(m *Model, r *rand.Rand, from, to int, rate func(s int) float64) {
	for s := from; s < to; s += 15 {
		v := rate(s)
		m.Observe(start.Add(time.Duration(s)*time.Second), 15*time.Second, math.Max(0, v+math.Sqrt(v/15)*r.NormFloat64()))
	}
}

func daily(s int) float64 { return 500 - 300*math.Cos(2*math.Pi*float64(s)/86400) }

// TestFindsTheDay: after some days the day is found, not given, and half an hour ahead is known better than by the
// last value.
func TestFindsTheDay(t *testing.T) {
	m := New(Options{})
	r := rand.New(rand.NewPCG(1, 1))
	feed(m, r, 0, 4*86400, daily)
	if p := m.Seasons[0].Period * 300; math.Abs(float64(p)-86400) > 1800 {
		t.Fatalf("period %d s", p)
	}
	var ours, last float64
	for s := 4 * 86400; s < 5*86400; s += 1800 {
		feed(m, r, s, s+1800, daily)
		p := m.At(start.Add(time.Duration(s+3600) * time.Second))
		ours += math.Abs(p.Mid - daily(s+3600))
		last += math.Abs(m.Level[0] - daily(s+3600))
	}
	if ours > 0.6*last {
		t.Errorf("error %.0f, of the last value %.0f", ours, last)
	}
}

// TestFanHolds: the 0.95 quantile holds about 95 % of the outcomes.
func TestFanHolds(t *testing.T) {
	m := New(Options{})
	r := rand.New(rand.NewPCG(2, 2))
	walk := 500.
	feed(m, r, 0, 86400, func(int) float64 { walk = math.Max(50, walk+5*r.NormFloat64()); return walk })
	for _, d := range []time.Duration{30 * time.Second, 2 * time.Minute, 8 * time.Minute} {
		if share, judged := m.Coverage(d); judged < 50 || share < 0.88 || share > 0.995 {
			t.Errorf("%s: %.3f of %.0f outcomes below the 0.95 quantile", d, share, judged)
		}
	}
	p := m.At(start.Add(86400*time.Second + time.Minute))
	for i := 1; i < len(p.Fan); i++ {
		if p.Fan[i] < p.Fan[i-1] {
			t.Errorf("the fan crosses itself: %v", p.Fan)
		}
	}
}

// TestHolesAndOutages: what was not measured, and a busy service that shows no load at all, are not learnt.
func TestHolesAndOutages(t *testing.T) {
	m := New(Options{})
	r := rand.New(rand.NewPCG(3, 3))
	feed(m, r, 0, 3600, func(int) float64 { return 500 })
	for s := 3600; s < 3900; s += 15 {
		v := 0.
		if s > 3700 {
			v = math.NaN()
		}
		m.Observe(start.Add(time.Duration(s)*time.Second), 15*time.Second, v)
	}
	if p := m.At(start.Add(3960 * time.Second)); math.Abs(p.Mid-500) > 50 {
		t.Errorf("after five minutes without metrics %.0f is expected", p.Mid)
	}
}

func TestAnnounced(t *testing.T) {
	m := New(Options{})
	r := rand.New(rand.NewPCG(4, 4))
	feed(m, r, 0, 3600, func(int) float64 { return 500 })
	now := start.Add(3600 * time.Second)
	before := m.At(now.Add(10 * time.Minute)).Mid
	m.Announce([]scale.Announced{{From: now.Add(5 * time.Minute), To: now.Add(time.Hour), Factor: 3}})
	if got := m.At(now.Add(10*time.Minute)).Mid / before; math.Abs(got-3) > 0.01 {
		t.Errorf("announced threefold, expected %.2f", got)
	}
	if got := m.At(now.Add(time.Minute)).Mid / before; got > 1.2 {
		t.Errorf("before it begins: %.2f", got)
	}
}

// TestClockGoesBack: an hour is lived twice, and learning goes on.
func TestClockGoesBack(t *testing.T) {
	m := New(Options{})
	r := rand.New(rand.NewPCG(5, 5))
	feed(m, r, 0, 7200, func(int) float64 { return 500 })
	feed(m, r, 3600, 5400, func(int) float64 { return 900 })
	if p := m.At(start.Add(5430 * time.Second)); math.Abs(p.Mid-900) > 90 {
		t.Errorf("expects %.0f", p.Mid)
	}
	if err := m.Check(); err != nil {
		t.Error(err)
	}
}

// TestSoon: what the load hardly exceeds is near it in calm, and ahead of it on a ramp.
func TestSoon(t *testing.T) {
	m := New(Options{})
	r := rand.New(rand.NewPCG(4, 1))
	feed(m, r, 0, 7200, func(int) float64 { return 400 })
	if v := m.Soon(60); v < 395 || v > 440 {
		t.Errorf("calm: %.0f, of 400", v)
	}
	feed(m, r, 7200, 7500, func(s int) float64 { return 400 + float64(s-7200) })
	if v := m.Soon(60); v < 715 || v > 900 {
		t.Errorf("a ramp: %.0f in a minute, it will be 760", v)
	}
}
