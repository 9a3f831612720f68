package hpa

import (
	"math"
	"time"

	"seaway.dev/seaway/scale"
)

// Select says which of several policies counts.
type Select string

// Values of selectPolicy.
const (
	SelectMax Select = "Max" // the one that allows most (default)
	SelectMin Select = "Min"
	Disabled  Select = "Disabled" // never scale in this direction
)

// Behavior is the HPA's spec.behavior.
type Behavior struct{ Up, Down Rules }

// Rules limit one direction.
type Rules struct {
	// Window is for how long the most cautious recommendation counts; negative means the default (up 0 s, down 300 s).
	Window   time.Duration
	Policies []Limit // none: the defaults
	Select   Select
}

// Limit is one policy: at most Pods, or Percent of what there was at the period's start, within Period.
type Limit struct {
	Pods, Percent int
	Period        time.Duration
}

// DefaultBehavior is what the API server fills into a behavior that is given but empty.
func DefaultBehavior() Behavior {
	return Behavior{
		Up:   Rules{Window: 0, Select: SelectMax, Policies: []Limit{{Pods: 4, Period: 15 * time.Second}, {Percent: 100, Period: 15 * time.Second}}},
		Down: Rules{Window: DefaultDownDelay, Select: SelectMax, Policies: []Limit{{Percent: 100, Period: 15 * time.Second}}},
	}
}

func (b Behavior) withDefaults(downDelay time.Duration) Behavior {
	def := DefaultBehavior()
	def.Down.Window = downDelay
	fill := func(r, d Rules) Rules {
		if r.Window < 0 {
			r.Window = d.Window
		}
		if r.Policies == nil {
			r.Policies = d.Policies
		}
		if r.Select == "" {
			r.Select = d.Select
		}
		return r
	}
	return Behavior{Up: fill(b.Up, def.Up), Down: fill(b.Down, def.Down)}
}

// normalise turns what the metric asks for into what is done: stabilised, limited, within the bounds.
func (h *HPA) normalise(now time.Time, current, want int, why string) scale.Decision {
	stable := h.stabilise(now, current, want)
	if stable != want {
		why += "; stabilised"
	}
	lo, hi := h.conf.Min, h.conf.Max
	if b := h.conf.Behavior; b == nil {
		hi = min(hi, max(2*current, 4))
	} else if stable > current {
		hi = min(hi, max(current, h.limit(now, current, b.Up, +1)))
		lo = stable
	} else if stable < current {
		lo = max(lo, min(current, h.limit(now, current, b.Down, -1)))
		hi = stable
	}
	got := stable
	switch {
	case stable > hi:
		got, why = hi, why+"; limited to a step up"
		if hi == h.conf.Max {
			why = "maxReplicas"
		}
	case stable < lo:
		got, why = lo, why+"; limited to a step down"
		if lo == h.conf.Min {
			why = "minReplicas"
		}
	}
	return scale.Decision{Replicas: got, Why: why}
}

// stabilise remembers what was asked for and answers with the most cautious recommendation of each direction's window.
// The two forms differ at the window's very edge, as the controller's two forms do.
func (h *HPA) stabilise(now time.Time, current, want int) int {
	up, down := want, want
	upFrom, downFrom := now, now.Add(-h.conf.DownDelay)
	b := h.conf.Behavior
	if b != nil {
		upFrom, downFrom = now.Add(-b.Up.Window), now.Add(-b.Down.Window)
	}
	oldest := downFrom
	if upFrom.Before(oldest) {
		oldest = upFrom
	}
	kept := h.state.Recommendations[:0]
	for _, r := range h.state.Recommendations {
		if r.At.Before(oldest) || r.At.After(now) { // too old, or the clock went back
			continue
		}
		kept = append(kept, r)
		if b == nil || r.At.After(downFrom) {
			down = max(down, r.N)
		}
		if r.At.After(upFrom) {
			up = min(up, r.N)
		}
	}
	h.state.Recommendations = append(kept, recommendation{now, want})
	if b == nil {
		return down
	}
	return min(max(current, up), down)
}

// limit is how far a direction's policies let the replicas go now.
func (h *HPA) limit(now time.Time, current int, r Rules, sign int) int {
	if r.Select == Disabled {
		return current
	}
	best := math.NaN()
	for _, p := range r.Policies {
		start := float64(current - sum(now, p.Period, h.state.Ups) + sum(now, p.Period, h.state.Downs))
		var v float64
		switch {
		case p.Pods > 0:
			v = start + float64(sign*p.Pods)
		case sign > 0:
			v = math.Ceil(start * (1 + float64(p.Percent)/100))
		default:
			v = math.Trunc(start * (1 - float64(p.Percent)/100))
		}
		farther := float64(sign)*v > float64(sign)*best
		if math.IsNaN(best) || farther == (r.Select == SelectMax) {
			best = v
		}
	}
	if math.IsNaN(best) {
		return current
	}
	return int(min(best, math.MaxInt32))
}

func sum(now time.Time, period time.Duration, changes []change) (n int) {
	for _, c := range changes {
		if c.at.After(now.Add(-period)) {
			n += c.n
		}
	}
	return n
}

// record keeps the changes that the behaviour's periods still count.
func (h *HPA) record(now time.Time, before, after int) {
	b := h.conf.Behavior
	if b == nil || before == after {
		return
	}
	add := func(list []change, rules Rules, n int) []change {
		longest := time.Duration(0)
		for _, p := range rules.Policies {
			longest = max(longest, p.Period)
		}
		kept := list[:0]
		for _, c := range list {
			if !c.at.Before(now.Add(-longest)) && !c.at.After(now) {
				kept = append(kept, c)
			}
		}
		return append(kept, change{now, n})
	}
	if after > before {
		h.state.Ups = add(h.state.Ups, b.Up, after-before)
	} else {
		h.state.Downs = add(h.state.Downs, b.Down, before-after)
	}
}
