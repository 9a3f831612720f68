package capacity

import (
	"math"
	"testing"
	"time"

	"seaway.dev/seaway/scale"
)

// feed shows the model a service of n pods with 2 cores each whose true law is known, at loads from lo to hi.
func feed(m *Model, n int, lo, hi, beta float64, samples int) {
	at := time.Unix(1e9, 0)
	for i := range samples {
		u := lo + (hi-lo)*float64(i%20)/19
		at = at.Add(15 * time.Second)
		busy := u * 2 * float64(n)
		done := busy / 0.02 * 15
		bad := 0.0001 + math.Exp(-beta*(1-u))
		m.Observe(scale.Sample{At: at, Interval: 15 * time.Second, Rate: done / 15, Busy: busy, Done: done, Bad: done * math.Min(1, bad), Ready: n, InFlight: math.NaN()})
	}
}

func TestLearnsTheLaw(t *testing.T) {
	m := New(2)
	before := m.Bad(0.8*2*20, 20)
	feed(m, 20, 0.4, 0.85, 28, 3000)
	m.Refresh()
	if d := m.Demand(); math.Abs(d-0.02) > 1e-6 {
		t.Errorf("a request takes %g core-s, learnt %g", 0.02, d)
	}
	if math.Abs(m.Base-1e-4) > 1e-4 {
		t.Errorf("base %g", m.Base)
	}
	truth, got := math.Exp(-28*0.2), m.Bad(0.8*2*20, 20)
	if got < truth/2 || got > 3*truth {
		t.Errorf("at 0.8: %g goes bad, the model says %g (%g before)", truth, got, before)
	}
	if m.Bad(0.85*2*20, 20) < m.Bad(0.7*2*20, 20) {
		t.Error("more load, fewer bad")
	}
	n := m.Need(32, 1e-3, 1000)
	if m.Bad(32, n) > 1e-3 || m.Bad(32, n-1) <= 1e-3 {
		t.Errorf("need %d is not the least", n)
	}
}

// TestWhatWasNotSeenIsNotBelieved: having seen low loads alone, the model stays careful about high ones, and it never
// believes that a pod does more than it requests before it saw it.
func TestWhatWasNotSeenIsNotBelieved(t *testing.T) {
	m := New(2)
	feed(m, 20, 0.2, 0.5, 60, 3000)
	m.Refresh()
	if got := m.Bad(0.9*2*20, 20); got < 1e-2 {
		t.Errorf("at 0.9, never seen: the model says %g", got)
	}
	if c := m.Pod(); c > 2.05 {
		t.Errorf("a pod of 2 cores is believed to do %g", c)
	}
}

func TestHolesTeachNothing(t *testing.T) {
	m := New(1)
	nan := math.NaN()
	m.Observe(scale.Sample{Interval: 15 * time.Second, Rate: nan, Busy: nan, Done: nan, Bad: nan, Ready: 3})
	m.Observe(scale.Sample{Interval: 15 * time.Second, Rate: 10, Busy: 1, Done: 150, Ready: 0})
	if m.Demand() != 0 || m.Evidence() != 0 {
		t.Errorf("learnt %g, %g from nothing", m.Demand(), m.Evidence())
	}
}

func TestTableIsTheModel(t *testing.T) {
	m := New(1)
	feed(m, 10, 0.3, 0.9, 16, 500)
	for _, n := range []int{1, 3, 10, 57, 400} {
		row := m.Table().Row(n)
		for u := 0.05; u < 1.3; u += 0.05 {
			a, b := m.Bad(u*float64(n), n), row.Bad(u*float64(n))
			if math.Abs(a-b) > 0.02+0.1*a {
				t.Errorf("n %d, u %.2f: %g, by table %g", n, u, a, b)
			}
		}
	}
}

// TestWhatWasCarriedIsBelieved: minutes of a load that nobody suffered from are enough to order pods for it again.
func TestWhatWasCarriedIsBelieved(t *testing.T) {
	m := New(1)
	for i := range 60 {
		u := 0.45 + 0.005*float64(i) // up to 0.745
		m.Observe(calm(u, 40))
	}
	for range 5 {
		m.Observe(calm(0.88, 40))
	}
	m.Refresh()
	if got := m.Bad(0.88*40, 40); got > 0.001 {
		t.Errorf("after five samples without a bad request at 0.88 the model expects %.4f", got)
	}
	if got := m.Bad(1.02*40, 40); got < 0.02 {
		t.Errorf("at 1.02, where nobody was, the model expects only %.4f", got)
	}
}

// calm is a sample of n pods at u, without a bad request.
func calm(u float64, n int) scale.Sample {
	busy := u * float64(n)
	return scale.Sample{Interval: 15 * time.Second, Rate: 100 * busy, InFlight: 5 * busy, Busy: busy, Done: 1500 * busy, Ready: n}
}
