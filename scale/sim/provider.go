package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
	"time"
)

// Span is a log-normal duration by its median and its 95th percentile, which is how start times are reported.
type Span struct{ Median, P95 time.Duration }

// z95 is the normal distribution's 95th percentile.
const z95 = 1.6449

// draw takes one duration, in seconds.
func (s Span) draw(r *rand.Rand) float64 {
	m := s.Median.Seconds()
	if m <= 0 {
		return 0
	}
	return m * math.Exp(r.NormFloat64()*math.Log(s.P95.Seconds()/m)/z95)
}

// mean is the distribution's mean, in seconds.
func (s Span) mean() float64 {
	m := s.Median.Seconds()
	if m <= 0 {
		return 0
	}
	sigma := math.Log(s.P95.Seconds()/m) / z95
	return m * math.Exp(sigma*sigma/2)
}

// Profile is how a provider gives and takes nodes, and how pods start on them.
type Profile struct {
	Name string
	// Node is the time from the request for a node until pods can start on it; Scan the time between two looks of the
	// node autoscaler; AtOnce how many nodes are made at a time (0: any number).
	Node   Span
	Scan   time.Duration
	AtOnce int
	// NodeFails is the share of nodes that never come, which is noticed after up to GiveUp; they are paid until then.
	NodeFails float64
	GiveUp    time.Duration
	// Linger is for how long a node that nothing runs on stays.
	Linger time.Duration
	// Cached and Pulled are the time from a pod's scheduling to its readiness with the image on the node and without.
	Cached, Pulled Span
	// Grace is for how long a pod that is told to stop is still paid for.
	Grace time.Duration
}

// Profiles are the providers that the simulator knows, made after published measurements of managed clusters: a node
// autoscaler that asks for machines directly (fast), the classic one on node groups (slow), and one that makes nodes
// itself, a few at a time, and fails more often (managed).
func Profiles() map[string]Profile {
	sec := func(m, p float64) Span {
		return Span{time.Duration(m * float64(time.Second)), time.Duration(p * float64(time.Second))}
	}
	cached, pulled := sec(5, 8), sec(25, 60)
	return map[string]Profile{
		"fast": {Name: "fast", Node: sec(50, 90), Scan: 2 * time.Second, NodeFails: 0.01, GiveUp: 5 * time.Minute,
			Linger: 30 * time.Second, Cached: cached, Pulled: pulled, Grace: 30 * time.Second},
		"slow": {Name: "slow", Node: sec(210, 360), Scan: 10 * time.Second, NodeFails: 0.01, GiveUp: 15 * time.Minute,
			Linger: 10 * time.Minute, Cached: cached, Pulled: pulled, Grace: 30 * time.Second},
		"managed": {Name: "managed", Node: sec(120, 240), Scan: 10 * time.Second, AtOnce: 3, NodeFails: 0.02, GiveUp: 15 * time.Minute,
			Linger: 5 * time.Minute, Cached: cached, Pulled: pulled, Grace: 30 * time.Second},
	}
}

// ProfileNamed finds a profile, or says which there are.
func ProfileNamed(name string) (Profile, error) {
	all := Profiles()
	if p, ok := all[name]; ok {
		return p, nil
	}
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	sort.Strings(names)
	return Profile{}, fmt.Errorf("no provider profile %q: there are %s", name, strings.Join(names, ", "))
}
