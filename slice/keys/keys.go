// Package keys decides of which generations a node holds a key on a slice, while the slice's keys are changed. It is a
// step machine without clock or I/O: what is known goes in, the generations to hold come out.
//
// Each generation has a device of its own, whose peers are the keys of the same generation. A node takes up the newest
// generation when it hears of it and drops an older one when every peer that has a key of it can be spoken with by a
// newer, and the older has had its rest. Nobody waits for anybody else's clock, and nothing is dropped that somebody
// may still need:
//
//	          told of 3          all peers live on 3      rest over
//	hold {2} ───────────▶ {2, 3} ──────────────────▶ {2, 3} ─────▶ {3}
//	                        │ a peer without a key of 3, or without a session on it: as long as that lasts
package keys

import (
	"maps"
	"slices"
	"time"
)

// Bounds of what a node holds.
const (
	// Most is how many generations are held at once: a further one waits until another is dropped. Two is what a change
	// needs, more are held if changes follow on each other faster than the rest; the hub begins none before all nodes
	// have published keys of the one before, so that nobody is left without a generation in common with another.
	Most = 6
	// Rest is how long an older generation is kept after it was last needed or heard. It is shorter than the 10 s after
	// which WireGuard answers silence with a keepalive (KeepaliveTimeout), which would be heard as if it were needed.
	Rest = 5 * time.Second
	// Gone is how long a peer that has published a key of the newest generation may be without a session by it. After
	// that time no session by an older one can be left either: WireGuard's end after 180 s.
	Gone = 4 * time.Minute
)

// View is what a node knows of one slice's keys.
type View struct {
	Now    time.Time
	Target uint64 // what the intent says
	Peers  []Peer
	// Heard is how much has come in by each generation's device so far, bytes.
	Heard map[uint64]uint64
	// Single says that the node's tunnel cannot hold two generations of a slice: it keeps the one it has.
	Single bool
}

// Peer is another node on the slice.
type Peer struct {
	Published []uint64        // generations of its keys, as the intent says
	Live      map[uint64]bool // generations by which there is a session with it
}

// Ring is a node's generations on one slice.
type Ring struct {
	held map[uint64]*generation
}

type generation struct {
	since time.Time
	idle  time.Time // since when it is not needed; zero: it is
	heard uint64
}

// NewRing returns the ring of a node that has keys of these generations already.
func NewRing(held []uint64, now time.Time) *Ring {
	r := &Ring{held: map[uint64]*generation{}}
	for _, g := range held {
		r.held[g] = &generation{since: now}
	}
	return r
}

// Held lists the generations to hold, rising.
func (r *Ring) Held() []uint64 { return slices.Sorted(maps.Keys(r.held)) }

// Changing tells whether older generations are still held.
func (r *Ring) Changing() bool { return len(r.held) > 1 }

// Step takes in what is known now and tells whether the generations to hold are others.
func (r *Ring) Step(v View) (changed bool) {
	before := r.Held()
	r.take(v)
	newest := r.newest(v)
	for g, s := range r.held {
		switch {
		case g == newest || r.needed(g, newest, v):
			s.idle = time.Time{}
		case s.idle.IsZero() || v.Heard[g] != s.heard:
			s.idle = v.Now
		case v.Now.Sub(s.idle) >= Rest:
			delete(r.held, g)
		}
		s.heard = v.Heard[g]
	}
	return !slices.Equal(before, r.Held())
}

// take adds the generations that are to be held.
func (r *Ring) take(v View) {
	hold := func(g uint64) {
		if r.held[g] == nil && len(r.held) < Most {
			r.held[g] = &generation{since: v.Now}
		}
	}
	if v.Single && len(r.held) > 0 {
		return
	}
	hold(v.Target)
	if v.Single {
		return
	}
	for _, p := range v.Peers { // for those who lag behind, what they have
		if n := len(p.Published); n > 0 && !slices.ContainsFunc(p.Published, func(g uint64) bool { return r.held[g] != nil }) {
			hold(p.Published[n-1])
		}
	}
}

// newest is the generation that is never dropped: the target, or the highest before that.
func (r *Ring) newest(v View) uint64 {
	if r.held[v.Target] != nil {
		return v.Target
	}
	all := r.Held()
	return all[len(all)-1]
}

// needed tells whether a peer may still have to be spoken with by an older generation.
func (r *Ring) needed(g, newest uint64, v View) bool {
	for _, p := range v.Peers {
		if !slices.Contains(p.Published, g) {
			continue
		}
		best, live := uint64(0), false
		for _, o := range p.Published {
			if p.Live[o] && r.held[o] != nil && (!live || o == newest || o > best && best != newest) {
				best, live = o, true
			}
		}
		switch {
		case live && best != g && (best == newest || best > g):
			continue
		case !live && slices.Contains(p.Published, newest) && v.Now.Sub(r.held[newest].since) >= Gone:
			continue
		}
		return true
	}
	return false
}
