// Package steer decides which way packets to another node take: direct, by a gateway, or by a third cluster's gateway.
// It is a step machine without clock or I/O: what is known of the ways and the time go in, the choice comes out.
//
//   - A way that works is kept, so that nothing flaps.
//   - While it is in doubt, packets go by a second way as well (hedging): if the doubt was right nothing is lost, if
//     not WireGuard drops what comes twice.
//   - So they do for a moment when a steady flow stops, until an answer says that the way works.
//   - When the doubt hardens and another way answers, packets go there alone.
//   - A better way that is back is taken again after it has worked for a while; each time that it fails soon after,
//     that while doubles.
package steer

import (
	"time"

	"seaway.dev/seaway/failover/detect"
)

// Class is how good a kind of way is, the lowest the best.
type Class int

// The classes.
const (
	Direct Class = iota
	Near         // by a gateway of one of the two clusters
	Far          // by a gateway of a third cluster
)

// Way is what is known of one way to a node.
type Way struct {
	Class Class
	State detect.WayState
	RTT   time.Duration // 0: not measured
	Lost  int           // asks in a row without answer
	Seen  time.Duration // last evidence that it works
	Worse bool          // than it usually is: loss or delay
	Hush  bool          // a steady flow by it has stopped: nobody knows yet why
}

const (
	hold       = 3 * time.Second  // that a better way must work before it is taken, at first
	holdMost   = time.Minute      // the most this grows to
	relapse    = 30 * time.Second // a way that fails within so long of being taken was taken too soon
	forgive    = 5 * time.Minute  // after so long without a failure hold is as at first
	hardened   = 6                // asks lost in a row that make a doubt a reason to leave
	nearlySame = 3 * time.Millisecond
)

// Choice is which ways to use, by index; -1 is none.
type Choice struct {
	Use   int
	Hedge [2]int // further ways for as long as the first is in doubt
	Ask   int    // a way that is to be asked on now, to be sure of it before it is taken
}

func only(use int) Choice { return Choice{use, [2]int{-1, -1}, -1} }

// Pair remembers what was chosen for one node. The zero value has chosen nothing.
type Pair struct {
	chosen bool
	use    int
	since  time.Duration // of use
	back   bool          // use was taken because it is better, not because another failed
	better int           // index of a better way that may be taken
	from   time.Duration // since when it works
	holds  time.Duration // how long it must, 0: as at first
	failed time.Duration // when a way was last left because it failed
}

// Reset forgets the choice: the list of ways is another one, in which the one in use has this index (-1: none).
func (p *Pair) Reset(use int) {
	p.better = -1
	p.use, p.chosen = use, use >= 0
}

// Step chooses. The ways' order decides between equals, so let it differ from pair to pair to spread them.
func (p *Pair) Step(ways []Way, now time.Duration) Choice {
	if !p.chosen || p.use >= len(ways) {
		p.take(best(ways, -1, -1), now)
		return only(p.use)
	}
	cur := ways[p.use]
	switch {
	case cur.State == detect.Dead || cur.State == detect.Fresh:
		if b := best(ways, p.use, -1); b >= 0 {
			p.leave(b, now)
		}
		return only(p.use)
	case cur.State == detect.Doubt:
		b := best(ways, p.use, -1)
		proven := b >= 0 && ways[b].State == detect.Alive && ways[b].Seen > cur.Seen
		if proven && cur.Lost >= hardened {
			p.leave(b, now)
			return only(p.use)
		}
		c := Choice{p.use, [2]int{b, -1}, -1}
		if b >= 0 && !proven { // what broke the way in use may have broken this one, too
			c.Hedge[1] = best(ways, p.use, ways[b].Class)
		}
		return c
	}
	c := only(p.use)
	if cur.Hush {
		c.Hedge = Hedge(ways, p.use)
		return c
	}
	c.Ask = p.consider(ways, now)
	c.Use = p.use
	return c
}

// Hedge returns the ways that data are to take besides one in use of which nothing is known for the moment: the best
// other one, and one of another class, because what broke the way in use may have broken that, too.
func Hedge(ways []Way, use int) [2]int {
	b := best(ways, use, -1)
	if b < 0 {
		return [2]int{-1, -1}
	}
	return [2]int{b, best(ways, use, ways[b].Class)}
}

// take begins to use a way, -1 for none.
func (p *Pair) take(way int, now time.Duration) {
	p.use, p.since, p.chosen, p.better = way, now, way >= 0, -1
}

// leave takes another way because the one in use failed.
func (p *Pair) leave(to int, now time.Duration) {
	switch {
	case p.back && now-p.since < relapse:
		p.holds = min(2*max(p.holds, hold), holdMost)
	case now-p.failed > forgive:
		p.holds = hold
	}
	p.failed = now
	p.take(to, now)
	p.back = false
}

// consider looks for a better way than one that works, and returns the way to ask on before it is taken, or -1.
func (p *Pair) consider(ways []Way, now time.Duration) int {
	if p.better >= 0 && p.better < len(ways) && ways[p.better].State == detect.Doubt {
		return -1 // it will be known in a moment
	}
	b := best(ways, -1, -1)
	if b < 0 || b == p.use || !clearlyBetter(ways[b], ways[p.use]) {
		p.better = -1
		return -1
	}
	if b != p.better {
		p.better, p.from = b, now
	}
	due := p.from + max(p.holds, hold)
	switch {
	case now < due:
	case ways[b].Seen < due: // it may have failed since it was last asked on
		return b
	default:
		p.take(b, now)
		p.back = true
	}
	return -1
}

// best returns the best way that works, except for one and for those of one class; -1 if there is none.
func best(ways []Way, except int, not Class) int {
	b := -1
	for i, w := range ways {
		if i == except || w.Class == not || w.State != detect.Alive && w.State != detect.Doubt {
			continue
		}
		if b < 0 || prefers(w, ways[b]) {
			b = i
		}
	}
	return b
}

// prefers tells whether a is to be taken rather than b, of which neither is in use.
func prefers(a, b Way) bool {
	switch {
	case (a.State == detect.Alive) != (b.State == detect.Alive):
		return a.State == detect.Alive
	case a.Worse != b.Worse:
		return b.Worse
	case a.Class != b.Class:
		return a.Class < b.Class
	}
	return faster(a.RTT, b.RTT)
}

// clearlyBetter tells whether it is worth moving from b, which works, to a.
func clearlyBetter(a, b Way) bool {
	switch {
	case a.State != detect.Alive || a.Worse:
		return false
	case b.Worse:
		return true
	case a.Class != b.Class:
		return a.Class < b.Class
	}
	return faster(2*a.RTT, b.RTT)
}

// faster compares two round trips; what differs by a quarter or 3 ms is equal.
func faster(a, b time.Duration) bool { return a > 0 && b > 0 && a+a/4+nearlySame < b }
