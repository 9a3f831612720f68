// Package guard keeps the autoscaler from being worse than what it replaces. It knows what an HPA would have done with
// the same load (its shadow) and what became of the requests, and bends what the policy wants accordingly. It also
// holds the modes, from only watching to being in charge, and what evidence leads from one to the next. Pure: time is
// an argument.
package guard

import (
	"fmt"
	"math"
	"time"

	"seaway.dev/seaway/scale"
)

// FirstSamples is for how many samples nothing is known better than HPA does: ten minutes of 15 s each (decision 0032 has
// what other lengths did).
const FirstSamples = 40

// Rules are the limits. The zero value takes the defaults.
type Rules struct {
	Burn     float64       // times the error budget's pace at which HPA's count becomes the floor; 0: 2
	Stale    time.Duration // age of the newest sample at which nothing is scaled down; 0: 60 s
	Coverage float64       // share of outcomes that must stay below the forecast's 0.95 quantile; 0: 0.85
	Cost     float64       // most that may be spent compared with HPA, unless the SLO needs it; 0: 1.05
	Learning float64       // samples below which HPA's count is taken as it is; 0: FirstSamples
	Pin      int           // replicas that a person has set; 0: none
}

func (r Rules) defaults() Rules {
	def := func(x *float64, v float64) {
		if *x == 0 {
			*x = v
		}
	}
	def(&r.Burn, 2)
	def(&r.Coverage, 0.85)
	def(&r.Cost, 1.05)
	def(&r.Learning, FirstSamples)
	if r.Stale == 0 {
		r.Stale = time.Minute
	}
	return r
}

// Window counts requests with forgetting.
type Window struct {
	Half      float64 // seconds
	Done, Bad float64
}

func (w *Window) add(dt, done, bad float64) {
	f := math.Exp2(-dt / w.Half)
	w.Done, w.Bad = w.Done*f+done, w.Bad*f+bad
}

// Burn is how fast the error budget is used: 1 is just as fast as allowed.
func (w *Window) Burn(good float64) float64 {
	if w.Done < 1 {
		return 0
	}
	return w.Bad / w.Done / math.Max(1-good, 1e-6)
}

// State is what the guard remembers; plain data.
type State struct {
	Short, Long  Window
	Ours, HPA    float64   // what was paid lately, with forgetting
	Newest       time.Time // end of the newest sample with a rate
	Sick         time.Time // until then HPA's count is the floor
	Why          string
	Stepped      time.Time // when the present step of the rate limit began, and from how many
	StepFrom     int
	Last         time.Time
	Samples      float64
	Base         float64 // share of requests that is bad whatever is done
	Contemplated Tally   // evidence for promotion
	Mode         Mode
	Since        time.Time
}

// New is the state at the beginning.
func New() State {
	return State{Short: Window{Half: 150}, Long: Window{Half: 1800}}
}

// Observe takes note of a sample.
func (s *State) Observe(m scale.Sample) {
	if !math.IsNaN(m.Rate) && m.At.After(s.Newest) {
		s.Newest = m.At
		s.Samples++
	}
	if math.IsNaN(m.Done) || math.IsNaN(m.Bad) {
		return
	}
	bad := math.Max(0, m.Bad-s.Base*m.Done)
	s.Short.add(m.Interval.Seconds(), m.Done, bad)
	s.Long.add(m.Interval.Seconds(), m.Done, bad)
}

// Wish is what the policy wants, and what the guard needs to know to judge it.
type Wish struct {
	Now      time.Time
	Want     int // pods
	HPA      int // pods that HPA would have
	Current  int
	Need     int // pods below which the SLO would break at the load of this moment
	Rollout  bool
	Coverage float64 // NaN: unknown yet
	Price    func(pods int) float64
}

// Verdict is the guarded count, and the rail that decided, "" when none did.
type Verdict struct {
	Pods int
	Rail string
}

// Judge bends a wish.
func (s *State) Judge(w Wish, t scale.Terms, r Rules) Verdict {
	r = r.defaults()
	s.pay(w)
	v := Verdict{Pods: w.Want}
	floor := func(n int, rail string) {
		if v.Pods < n {
			v = Verdict{Pods: n, Rail: rail}
		}
	}
	cap := func(n int, rail string) {
		if v.Pods > n {
			v = Verdict{Pods: n, Rail: rail}
		}
	}
	switch {
	case r.Pin > 0:
		return Verdict{Pods: bound(r.Pin, t), Rail: "pinned by hand"}
	case s.Samples < r.Learning:
		floor(w.HPA, "still learning: as HPA does")
		cap(w.HPA, "still learning: as HPA does")
	}
	s.diagnose(w, t, r)
	if w.Now.Before(s.Sick) {
		floor(w.HPA, s.Why)
	}
	// What is beyond HPA's cost may be spent where the SLO is not kept without: half an hour says that, a minute does not.
	if s.HPA > 0 && s.Ours > r.Cost*s.HPA && s.Long.Burn(t.Good) <= 1 {
		cap(max(w.HPA, w.Need), fmt.Sprintf("cost guard: lately %.2f times HPA's cost", s.Ours/s.HPA))
	}
	if !s.Newest.IsZero() && w.Now.Sub(s.Newest) > r.Stale {
		floor(w.Current, fmt.Sprintf("metrics are %s old: nothing is scaled down", w.Now.Sub(s.Newest).Round(time.Second)))
	}
	if w.Rollout {
		floor(w.Current, "a rollout is going on: nothing is scaled down")
	}
	if w.Now.Sub(s.Stepped) >= 15*time.Second || w.Now.Before(s.Stepped) {
		s.Stepped, s.StepFrom = w.Now, w.Current
	}
	cap(max(2*s.StepFrom, s.StepFrom+4), "at most twice as many in 15 s")
	cap(max(2*max(w.Need, w.HPA), w.Current), "at most twice what the load of this moment needs")
	if n := bound(v.Pods, t); n != v.Pods {
		v = Verdict{Pods: n, Rail: "the Autoscaler's bounds"}
	}
	return v
}

// diagnose finds reasons not to trust the policy for a while.
func (s *State) diagnose(w Wish, t scale.Terms, r Rules) {
	sick := func(d time.Duration, why string) {
		if end := w.Now.Add(d); end.After(s.Sick) {
			s.Sick, s.Why = end, why
		}
	}
	if b := s.Short.Burn(t.Good); b > r.Burn && s.Short.Bad > 5 {
		sick(10*time.Minute, fmt.Sprintf("error budget burns %.1f times too fast (5 min): not below HPA", b))
	}
	if b := s.Long.Burn(t.Good); b > r.Burn && s.Long.Bad > 20 {
		sick(5*time.Minute, fmt.Sprintf("error budget burns %.1f times too fast (1 h): not below HPA", b))
	}
	if w.Coverage < r.Coverage {
		sick(5*time.Minute, fmt.Sprintf("the forecast's 0.95 quantile holds only %.0f %% of outcomes: not below HPA", 100*w.Coverage))
	}
}

// pay notes what both would have paid since the last time; half is forgotten in six hours.
func (s *State) pay(w Wish) {
	dt := w.Now.Sub(s.Last).Seconds()
	s.Last = w.Now
	if dt <= 0 || dt > 3600 || w.Price == nil {
		return
	}
	f := math.Exp2(-dt / 21600)
	s.Ours, s.HPA = s.Ours*f+dt*w.Price(w.Current), s.HPA*f+dt*w.Price(w.HPA)
}

func bound(n int, t scale.Terms) int {
	n = max(n, t.Min)
	if t.Max > 0 {
		n = min(n, t.Max)
	}
	return n
}
