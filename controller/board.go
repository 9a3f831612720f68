package controller

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

// board holds the facts as they come in. Writers edit it; the loop takes snapshots of it.
type board struct {
	mu    sync.Mutex
	facts roster.Facts
	dirty chan struct{} // holds one element while the facts differ from the last snapshot
}

func newBoard(cluster, software string) *board {
	return &board{
		dirty: make(chan struct{}, 1),
		facts: roster.Facts{
			Cluster: cluster, Software: software,
			Namespaces: map[string]map[string]string{},
			Nodes:      map[string]roster.Node{},
			Pods:       map[string]*roster.Pod{},
			Sets:       map[string]roster.Set{},
			Needed:     map[string][]netip.Addr{},
			Leases:     map[string]map[string][]netip.Addr{},
			Reports:    map[string]*fleet.Report{},
			Heard:      map[string]bool{},
			Bulletins:  map[string]*fleet.Bulletin{},
		},
	}
}

// edit changes the facts; fn tells whether anything changed. Values that are on the board are never changed, only
// replaced, because snapshots share them.
func (b *board) edit(fn func(*roster.Facts) bool) {
	b.mu.Lock()
	changed := fn(&b.facts)
	if changed {
		b.facts.Here++
	}
	b.mu.Unlock()
	if changed {
		b.touch()
	}
}

// hear changes nothing but what another cluster says.
func (b *board) hear(fn func(bulletins map[string]*fleet.Bulletin) bool) {
	b.mu.Lock()
	changed := fn(b.facts.Bulletins)
	b.mu.Unlock()
	if changed {
		b.touch()
	}
}

// say changes nothing but what this cluster's autoscaler says.
func (b *board) say(words []fleet.Scaling) {
	b.mu.Lock()
	changed := !slices.Equal(b.facts.Scaling, words)
	b.facts.Scaling = words
	b.mu.Unlock()
	if changed {
		b.touch()
	}
}

// touch has the loop look again.
func (b *board) touch() {
	select {
	case b.dirty <- struct{}{}:
	default:
	}
}

// left tells whether the cluster leaves the fleet: for that, nothing of the fleet needs to be known.
func (b *board) left() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.facts.Leaving
}

// snapshot returns the facts as they are now.
func (b *board) snapshot() *roster.Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.facts
	f.Members = slices.Clone(f.Members)
	f.Slices = slices.Clone(f.Slices)
	f.Policies = slices.Clone(f.Policies)
	f.Namespaces = maps.Clone(f.Namespaces)
	f.Nodes = maps.Clone(f.Nodes)
	f.Pods = maps.Clone(f.Pods)
	f.Sets = maps.Clone(f.Sets)
	f.Needed = maps.Clone(f.Needed)
	f.Leases = maps.Clone(f.Leases)
	f.Reports = maps.Clone(f.Reports)
	f.Heard = maps.Clone(f.Heard)
	f.Bulletins = maps.Clone(f.Bulletins)
	return &f
}
