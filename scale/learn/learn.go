// Package learn chooses how much risk to take with a service, by outcomes. It keeps a small twin of the service for each
// of some fifty rules of scaling (arms): how full pods should be, for how long capacity is kept, whether nodes are
// ordered for the load that is forecast. Every twin meets the real load as it was measured, with pods and nodes that take
// as long as was learnt, and goes bad by the law that was learnt of this very service. So every arm's cost and violations
// are known, whichever is in charge (full information, which a bandit that sees only its own arm's outcome lacks), and
// what the one in charge was predicted to let down is corrected by what it really did.
//
// The arm in charge is the cheapest of those that keep within a share of the error budget and under a ceiling of cost;
// where none does, the one that gives the most for its money. Nothing is drawn by chance: the same inputs lead to the same choices.
package learn

import (
	"fmt"
	"math"
	"slices"

	"seaway.dev/seaway/scale/decide"
)

// Rule is how an arm scales.
type Rule struct {
	Target float64 // share of a pod's cores that should be in use
	Window int64   // seconds for which the highest count recommended is kept
	Ahead  Ahead
}

// Ahead is for what load nodes are ordered that are not there yet.
type Ahead int

// The ways to order nodes: when pods need them, for the expected load, for more than that.
const (
	Never Ahead = iota
	Expected
	Likely
)

var (
	targets = [...]float64{0.5, 0.56, 0.61, 0.65, 0.68, 0.71, 0.74, 0.77, 0.81}
	windows = [...]int64{300, 600}
)

const (
	slack    = 0.1        // as HPA's: how far from the target is no reason to change
	halfLife = 36 * 3600. // seconds in which outcomes lose half their weight
	linger   = 300        // seconds for which a twin's empty node stays
	most     = 1 << 20    // pods
	patience = 300        // seconds between two choices
	ceiling  = 1.12       // of the yardstick's cost: what more buys is not worth it
	trial    = 3 * 3600.  // seconds of outcomes before an arm may be in charge that keeps pods fuller than the yardstick
)

// Rules are all arms. The first is the yardstick: HPA at 70 %.
func Rules() []Rule {
	all := []Rule{{0.7, 300, Never}}
	for _, t := range targets {
		for _, w := range windows {
			for a := Never; a <= Likely; a++ {
				all = append(all, Rule{t, w, a})
			}
		}
	}
	return all
}

// Order is something that was asked for and is there later.
type Order struct {
	At int64 // Unix seconds
	N  int
}

// Arm is a rule, its twin, and what came of it.
type Arm struct {
	Want     int
	Nodes    int // paid
	Needed   int64
	Pods     []Order // not ready yet
	Machines []Order
	Keep     decide.Keep
	Cost     float64 // of late
	Bad      float64 // requests
}

// Model is all that was learnt. Plain data.
type Model struct {
	Arms     []Arm
	Chosen   int
	Looked   int64 // Unix seconds
	Last     int64
	Requests float64
	Seconds  float64
	Said     float64 // bad requests that were predicted with the pods that really were there
	Seen     float64 // that there were
}

// World is what the twins need to know of a moment.
type World struct {
	Now               int64   // Unix seconds
	Seconds           float64 // since the last moment
	Requests          float64 // in them
	Bad               float64 // of those, beyond what always is; NaN: unknown
	Ready             int     // pods that really were
	Load              float64 // cores
	Expected, Likely  float64 // cores, when a node ordered now would be ready
	Cores             float64 // that a pod requests
	PerNode           int
	PodHour, NodeHour float64
	PodLead, NodeLead int64 // seconds
	Law               func(load float64, pods int) float64
	Min, Max          int
}

// Step lets every twin live through a moment.
func (m *Model) Step(w World, pods int) {
	rules := Rules()
	if len(m.Arms) != len(rules) {
		*m = Model{Arms: make([]Arm, len(rules))}
		for i := range m.Arms {
			m.Arms[i].Want = pods
			m.Arms[i].Nodes = nodesFor(pods, w.PerNode)
		}
	}
	f := math.Exp2(-w.Seconds / halfLife)
	m.Requests, m.Seconds = m.Requests*f+w.Requests, m.Seconds*f+w.Seconds
	if !math.IsNaN(w.Bad) && w.Ready > 0 {
		m.Said, m.Seen = m.Said*f+w.Requests*w.Law(w.Load, w.Ready), m.Seen*f+w.Bad
	}
	for i := range m.Arms {
		a := &m.Arms[i]
		ready := a.ready(w)
		a.Cost = a.Cost*f + w.Seconds/3600*(w.PodHour*float64(a.Want)+w.NodeHour*float64(a.Nodes))
		a.Bad = a.Bad*f + w.Requests*w.Law(w.Load, ready)
		a.follow(rules[i], w)
	}
	m.Last = w.Now
}

// ready is how many pods serve now.
func (a *Arm) ready(w World) int {
	a.Pods, a.Machines = due(a.Pods, w.Now), due(a.Machines, w.Now)
	n := a.Want
	for _, o := range a.Pods {
		n -= o.N
	}
	if w.PerNode > 0 {
		room := a.Nodes
		for _, o := range a.Machines {
			room -= o.N
		}
		n = min(n, room*w.PerNode)
	}
	return max(n, 1)
}

// due leaves those orders that are not there yet.
func due(orders []Order, now int64) []Order {
	keep := orders[:0]
	for _, o := range orders {
		if o.At > now && o.At <= now+3600 && o.N > 0 { // later ones are of a clock that jumped
			keep = append(keep, o)
		}
	}
	return keep
}

// recommend is the count that the rule holds to be right.
func (r Rule) recommend(w World, want, room int) int {
	rec := want
	if u := w.Load / (float64(want) * r.Target * w.Cores); math.Abs(u-1) > slack {
		rec = int(math.Ceil(w.Load / (r.Target * w.Cores)))
	}
	ahead := 0.
	switch r.Ahead {
	case Expected:
		ahead = w.Expected / r.Target
	case Likely:
		ahead = w.Likely / math.Min(0.95, r.Target*1.1)
	}
	if n := int(math.Ceil(ahead / w.Cores)); w.PerNode > 0 && n > room {
		rec = max(rec, n)
	}
	rec = min(rec, max(2*want, want+4), most)
	if w.Max > 0 {
		rec = min(rec, w.Max)
	}
	return max(rec, w.Min, 1)
}

// follow brings the twin to what its rule recommends.
func (a *Arm) follow(r Rule, w World) {
	rec := r.recommend(w, a.Want, a.Nodes*w.PerNode)
	want := min(max(a.Want, rec), a.Keep.Hold(w.Now, rec, r.Window))
	if d := want - a.Want; d > 0 {
		a.Pods = append(a.Pods, Order{w.Now + w.PodLead, d})
	} else if d < 0 {
		a.Pods = cancel(a.Pods, -d)
	}
	a.Want = want
	if w.PerNode <= 0 {
		return
	}
	switch n := nodesFor(want, w.PerNode); {
	case n > a.Nodes:
		a.Machines = append(a.Machines, Order{w.Now + w.NodeLead, n - a.Nodes})
		a.Nodes, a.Needed = n, w.Now
	case n == a.Nodes:
		a.Needed = w.Now
	case w.Now-a.Needed > linger:
		a.Machines = cancel(a.Machines, a.Nodes-n)
		a.Nodes = n
	}
}

// cancel takes n back from the newest orders.
func cancel(orders []Order, n int) []Order {
	for i := len(orders) - 1; i >= 0 && n > 0; i-- {
		d := min(n, orders[i].N)
		orders[i].N -= d
		n -= d
	}
	return slices.DeleteFunc(orders, func(o Order) bool { return o.N <= 0 })
}

func nodesFor(pods, perNode int) int {
	if perNode <= 0 {
		return 0
	}
	return (pods + perNode - 1) / perNode
}

// Choice is the arm in charge.
type Choice struct {
	Pods  int
	Rule  Rule
	Share float64 // of requests that it is believed to let down
	Price float64 // compared with the yardstick
}

// String says the choice in words.
func (c Choice) String() string {
	how := ""
	switch c.Rule.Ahead {
	case Expected:
		how = ", nodes for the load expected"
	case Likely:
		how = ", nodes for the load likely"
	}
	return fmt.Sprintf("pods %.0f %% full, kept for %d s%s: of late ×%.2f of HPA's cost, %.3f %% bad", 100*c.Rule.Target, c.Rule.Window, how, c.Price, 100*c.Share)
}

// Correction is how many times more goes bad than was predicted.
func (m *Model) Correction() float64 {
	prior := 20 + 1e-5*m.Requests
	return math.Max(0.3, math.Min(4, (m.Seen+prior)/(m.Said+prior)))
}

// Choose answers with the arm in charge; share is what of the requests may go bad.
func (m *Model) Choose(now int64, share float64) Choice {
	rules := Rules()
	if now-m.Looked >= patience || now < m.Looked {
		m.Looked = now
		m.choose(share)
	}
	a := m.Arms[m.Chosen]
	return Choice{Pods: a.Want, Rule: rules[m.Chosen], Share: m.share(m.Chosen), Price: a.Cost / math.Max(m.Arms[0].Cost, 1e-9)}
}

func (m *Model) share(i int) float64 {
	return m.Correction() * m.Arms[i].Bad / math.Max(m.Requests, 1)
}

func (m *Model) choose(share float64) {
	rules := Rules()
	worth := func(i int) float64 {
		price := m.Arms[i].Cost / math.Max(m.Arms[0].Cost, 1e-9)
		over := m.share(i) / share
		v := price + 0.02*over + 3*math.Max(0, price-ceiling)
		if over > 1 {
			v += 0.15*math.Log(over) - 0.02*(over-1)
		}
		if m.Seconds < trial && rules[i].Target > rules[0].Target {
			v += 10
		}
		return v
	}
	best := m.Chosen
	least := worth(best) - 0.01 // what is in charge stays unless another is better by something
	for i := range m.Arms {
		if v := worth(i); v < least {
			best, least = i, v
		}
	}
	m.Chosen = best
}

// Check tells whether a model that was read back is whole.
func (m *Model) Check() error {
	if len(m.Arms) > 0 && (m.Chosen < 0 || m.Chosen >= len(m.Arms)) {
		return fmt.Errorf("arm %d of %d is in charge", m.Chosen, len(m.Arms))
	}
	for i := range m.Arms {
		if a := &m.Arms[i]; a.Want < 1 || a.Want > most || a.Nodes < 0 || a.Nodes > most || len(a.Keep.Times) != len(a.Keep.Wants) {
			return fmt.Errorf("arm %d has %d pods and %d nodes", i, a.Want, a.Nodes)
		}
	}
	return nil
}
