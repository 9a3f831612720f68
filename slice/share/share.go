// Package share decides which of a service's endpoints get which share of a node's traffic, and why.
//
// [Of] is a pure function of a service and of a [View]: what this node knows of where the others are and whether it
// reaches them. The service address (plan, then nftables) and the order of addresses in DNS answers are made of the
// same decision, and `seaway explain service` prints it. [Horizon] turns measurements into a View without flapping.
//
// Who gets traffic, in this order:
//
//  1. An endpoint that is not ready, does not expose the port, or is on a node that cannot be reached gets nothing.
//     One that was out of reach is watched for a while first, unless there is nobody else. If that leaves nobody although
//     some are ready, reachability is disregarded: the last answer is kept, and said so.
//
//  2. internalTrafficPolicy Local: the client's own node's endpoints, or nobody (Kubernetes' rule).
//
//  3. Otherwise the nearest ring that has anybody gets everything; the next one takes over when it has nobody ready.
//     The rings depend on trafficDistribution:
//
//     unset            own cluster │ all others, nearer ones more: a distance twice as long gets half
//     PreferClose      own cluster │ the nearest distance │ the next …
//     PreferSameZone   the same: a cluster is our zone
//     PreferSameNode   own node │ own cluster │ the nearest distance │ …
//
//  4. Within a ring each endpoint gets its weight.
package share

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"seaway.dev/seaway/fleet"
)

// View is what a node knows of the others when it decides. The zero Sight of a node that is not in it means: nothing
// measured, taken to be there.
type View struct {
	Cluster, Node string           // whose view it is
	Nodes         map[string]Sight // by cluster/node
}

// Sight is how another node looks from here.
type Sight struct {
	Down bool `json:"down,omitempty"` // its endpoints are not used
	// Back is set while a node that was down can be reached again but is not trusted yet.
	Back bool `json:"back,omitempty"`
	// Distance is the class of its round trip, see Horizon; 0: not measured.
	Distance int `json:"distance,omitempty"`
	// Gray says that it answers with loss or delay: it counts as further away.
	Gray bool   `json:"gray,omitempty"`
	Why  string `json:"why,omitempty"` // of Down
}

// State says up, gray, returning or down.
func (s Sight) State() string {
	switch {
	case s.Back:
		return "returning"
	case s.Down:
		return "down"
	case s.Gray:
		return "gray"
	}
	return "up"
}

// State is how an endpoint stands.
type State string

// The states of an endpoint.
const (
	Ready       State = "ready"
	NotReady    State = "not ready"
	Unreachable State = "unreachable" // on a node that is down as seen from here
	Returning   State = "returning"   // reachable again, and watched for a while first
	NoPort      State = "no port"     // its cluster does not expose the port
	NoAddress   State = "no address"  // none of the family
)

// Standing is one endpoint's part.
type Standing struct {
	Endpoint fleet.Endpoint `json:"endpoint"`
	State    State          `json:"state"`
	Ring     int            `json:"ring"`     // nearest is 0
	Distance string         `json:"distance"` // "this node", "this cluster", "up to 32ms", "not measured"
	Weight   int            `json:"weight"`   // relative; 0: it gets nothing
	Share    float64        `json:"share"`    // of the service port's new connections, 0 to 1
	Why      string         `json:"why"`
}

// Ruling is the decision about one service port.
type Ruling struct {
	Rule      string     `json:"rule"`           // which rule decided
	Kept      bool       `json:"kept,omitempty"` // nobody can be reached: the last answer stands
	Standings []Standing `json:"endpoints"`      // nearest first, then by cluster and address
	early     bool       // nobody is in use but those that are just back
}

const (
	// graySteps is how many classes further away a node counts that answers badly: at eight times the distance it is
	// used when nothing near is left, and a little when all are far.
	graySteps = 3
	// maxStep bounds how much less the farthest gets than the nearest: 1/64.
	maxStep = 6
	// unmeasured is the ring of what has no distance yet: behind all that has one (2^21 classes are never reached).
	unmeasured = 64
)

// Ask is what is asked of a service. The zero Ask is about all endpoints, whatever they expose.
type Ask struct {
	Port   *string // by its name
	Family int     // 4 or 6: only endpoints with such an address
}

// Of decides about a service, or about one port of it in one address family.
func Of(s *fleet.Service, v View, ask Ask) Ruling {
	r := Ruling{Standings: make([]Standing, 0, len(s.Endpoints))}
	reachable, returning, unreachable := 0, 0, 0
	for i := range s.Endpoints {
		st := v.standing(s, &s.Endpoints[i], ask)
		switch st.State {
		case Ready:
			reachable++
		case Returning:
			returning++
		case Unreachable:
			unreachable++
		}
		r.Standings = append(r.Standings, st)
	}
	slices.SortStableFunc(r.Standings, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Ring, b.Ring), cmp.Compare(a.Endpoint.Cluster, b.Endpoint.Cluster),
			slices.CompareFunc(a.Endpoint.Addrs, b.Endpoint.Addrs, netip.Addr.Compare), cmp.Compare(a.Endpoint.Pod, b.Endpoint.Pod))
	})
	r.early = reachable == 0 && returning > 0
	r.Kept = reachable == 0 && returning == 0 && unreachable > 0
	r.weigh(s, v)
	r.explain()
	return r
}

// standing is an endpoint's state and place, before anything is shared out.
func (v View) standing(s *fleet.Service, e *fleet.Endpoint, ask Ask) Standing {
	st := Standing{Endpoint: *e, State: Ready}
	sight := v.sight(e)
	st.Ring, st.Distance = v.ring(e, sight, s.TrafficDistribution)
	exposed := true
	if ask.Port != nil {
		_, exposed = e.Ports[*ask.Port]
	}
	switch {
	case !exposed:
		st.State, st.Why = NoPort, "its cluster does not expose this port"
	case ask.Family != 0 && !slices.ContainsFunc(e.Addrs, func(a netip.Addr) bool { return a.Is4() == (ask.Family == 4) }):
		st.State, st.Why = NoAddress, fmt.Sprintf("it has no IPv%d address on the slice", ask.Family)
	case !e.Ready:
		st.State, st.Why = NotReady, "its pod is not ready"
	case sight.Back:
		st.State, st.Why = Returning, "its node can be reached again and is watched for a while first"
	case sight.Down:
		st.State, st.Why = Unreachable, "its node "+e.Cluster+"/"+e.Node+" cannot be reached from here"
		if sight.Why != "" {
			st.Why += ": " + sight.Why
		}
	}
	return st
}

func (v View) sight(e *fleet.Endpoint) Sight {
	if v.own(e) {
		return Sight{}
	}
	return v.Nodes[e.Cluster+"/"+e.Node]
}

func (v View) own(e *fleet.Endpoint) bool {
	return e.Cluster == v.Cluster && e.Node == v.Node && e.Node != ""
}

// ring is how many rings lie between here and an endpoint.
func (v View) ring(e *fleet.Endpoint, s Sight, distribution string) (int, string) {
	switch {
	case v.own(e) && distribution == preferSameNode:
		return 0, "this node"
	case v.own(e):
		return 1, "this node"
	case e.Cluster == v.Cluster:
		return 1, "this cluster"
	case s.Distance == 0:
		return 1 + unmeasured, "not measured"
	}
	text := "up to " + Reaches(s.Distance).String()
	if s.Gray {
		return 1 + min(s.Distance+graySteps, unmeasured-1), text + ", gray"
	}
	return 1 + min(s.Distance, unmeasured-1), text
}

// The values of trafficDistribution that are known (Kubernetes' ServiceTrafficDistribution).
const (
	preferClose    = "PreferClose"
	preferSameZone = "PreferSameZone"
	preferSameNode = "PreferSameNode"
)

// usable tells whether an endpoint may get anything.
func (r *Ruling) usable(st *Standing) bool {
	return st.State == Ready || r.early && st.State == Returning || r.Kept && st.State == Unreachable
}

// weigh gives those who are to get traffic their weights.
func (r *Ruling) weigh(s *fleet.Service, v View) {
	first, last := math.MaxInt, 0
	if s.InternalTrafficPolicy == "Local" {
		r.Rule = "internalTrafficPolicy Local: this node's endpoints, or none"
		for i := range r.Standings {
			if st := &r.Standings[i]; r.usable(st) && v.own(&st.Endpoint) {
				st.Weight = weight(&st.Endpoint)
			}
		}
		return
	}
	for i := range r.Standings {
		if st := &r.Standings[i]; r.usable(st) {
			first = min(first, st.Ring)
			if st.Ring <= unmeasured {
				last = max(last, st.Ring)
			}
		}
	}
	spread := false
	switch s.TrafficDistribution {
	case preferClose, preferSameZone:
		r.Rule = "trafficDistribution " + s.TrafficDistribution + ": the nearest that are ready"
	case preferSameNode:
		r.Rule = "trafficDistribution PreferSameNode: this node's, then the nearest that are ready"
	default:
		r.Rule = "this cluster's if any are ready, else all others by distance"
		spread = first > 1
	}
	// Who has no distance yet counts like the farthest that has one.
	nearest := min(first, max(last, 1))
	for i := range r.Standings {
		st := &r.Standings[i]
		switch {
		case !r.usable(st):
		case spread:
			ring := st.Ring
			if ring > unmeasured {
				ring = max(last, nearest)
			}
			st.Weight = weight(&st.Endpoint) << (maxStep - min(ring-nearest, maxStep))
		case st.Ring == first:
			st.Weight = weight(&st.Endpoint)
		}
	}
}

// weight is what the endpoint's cluster says of it.
func weight(e *fleet.Endpoint) int { return min(max(e.Weight, 1), heaviest) }

// heaviest bounds an endpoint's weight, so that weights and distances multiply without harm.
const heaviest = 1000

// explain fills shares and reasons.
func (r *Ruling) explain() {
	sum, best := 0, ""
	for i := range r.Standings {
		sum += r.Standings[i].Weight
		if r.Standings[i].Weight > 0 && best == "" {
			best = r.Standings[i].Distance
		}
	}
	for i := range r.Standings {
		st := &r.Standings[i]
		switch {
		case st.Weight > 0 && r.Kept:
			st.Why += "; kept, because nobody of this service can be reached"
		case st.Weight > 0 && r.early:
			st.Why = "gets traffic: just back, and there is nobody else"
		case st.Weight > 0:
			st.Why = "gets traffic"
		case st.State == Ready:
			st.Why = "nearer ones are ready (" + best + ")"
			if best == "" {
				st.Why = "not on this node"
			}
		}
		if sum > 0 {
			st.Share = float64(st.Weight) / float64(sum)
		}
	}
}

// String says "10.0.0.1 c1 ready this cluster 50 %: gets traffic".
func (s Standing) String() string {
	return fmt.Sprintf("%v %s/%s %s, %s, %.0f %%: %s", s.Endpoint.Addrs, s.Endpoint.Cluster, s.Endpoint.Pod, s.State, s.Distance, 100*s.Share, s.Why)
}
