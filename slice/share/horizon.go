package share

import (
	"math"
	"slices"
	"time"

	"seaway.dev/seaway/fleet"
)

// The steadiness of a View. A node that fell leaves at once; one that came back is watched first, longer each time it
// fell lately, so that a node that comes and goes is not in use half of the time.
const (
	firstWatch   = time.Second      // after the first fall
	longestWatch = 30 * time.Second // after many
	forgiven     = 2 * time.Minute  // without a fall: the next one counts as the first
	// margin is by how much a round trip must lie outside its class before the class changes: 25 %.
	margin = 1.25
	// shortest is the upper end of the first class. Each class reaches twice as far as the one before. Below it is one
	// site, where distance says nothing about cost.
	shortest = 2 * time.Millisecond
)

// Reaches is the longest round trip of a class.
func Reaches(class int) time.Duration { return shortest << (max(class, 1) - 1) }

// Horizon makes Views out of measurements. It is a step machine: the time comes in with each step. The zero Horizon
// has seen nothing.
type Horizon struct {
	nodes map[string]*track
}

// track is what is remembered of one node.
type track struct {
	sight Sight
	falls int       // lately
	fell  time.Time // the last time
	until time.Time // Back until then
}

// Step takes the newest measurements of all nodes and returns what follows for each, and when to step again without
// news; zero: never. Nodes that are measured no more are forgotten.
func (h *Horizon) Step(now time.Time, reach []fleet.Reach) (nodes map[string]Sight, again time.Time) {
	old := h.nodes
	h.nodes = make(map[string]*track, len(reach))
	nodes = make(map[string]Sight, len(reach))
	for _, r := range reach {
		t := old[r.Node]
		if t == nil {
			t = &track{}
		}
		h.nodes[r.Node] = t
		t.step(now, r)
		nodes[r.Node] = t.sight
		if t.sight.Back && (again.IsZero() || t.until.Before(again)) {
			again = t.until
		}
	}
	return nodes, again
}

func (t *track) step(now time.Time, r fleet.Reach) {
	s := &t.sight
	switch down := r.State == fleet.ReachDown; {
	case down && (!s.Down || s.Back):
		if now.Sub(t.fell) > forgiven {
			t.falls = 0
		}
		t.falls, t.fell = t.falls+1, now
		s.Down, s.Back, s.Why = true, false, r.Why
	case down: // why is told once: the words of a measurement change each time
	case s.Down && !s.Back:
		s.Back, s.Why = true, ""
		t.until = now.Add(watch(t.falls))
	}
	if s.Back && !now.Before(t.until) {
		s.Down, s.Back = false, false
	}
	s.Gray = r.State == fleet.ReachGray
	if r.RTT > 0 && !s.Down {
		s.Distance = class(r.RTT, s.Distance)
	}
}

// watch is how long a node is watched that fell so many times.
func watch(falls int) time.Duration {
	return min(firstWatch<<min(max(falls, 1)-1, 10), longestWatch)
}

// class of a round trip, given the class before: that stays unless the round trip lies clearly outside.
func class(rtt time.Duration, was int) int {
	if was > 0 && float64(rtt) <= float64(Reaches(was))*margin && (was == 1 || float64(rtt) >= float64(Reaches(was-1))/margin) {
		return was
	}
	if rtt <= shortest {
		return 1
	}
	return 1 + int(math.Ceil(math.Log2(float64(rtt)/float64(shortest))))
}

// Down lists the nodes of a view that are not reached, sorted. Those that are back are reached already: only their
// services wait.
func (v View) Down() []string {
	var out []string
	for id, s := range v.Nodes {
		if s.Down && !s.Back {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
