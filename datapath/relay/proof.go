package relay

import (
	"slices"
	"strings"
	"time"
)

// A node's life is proved by a handshake that came about, in either direction. The switch has no key and cannot tell
// a genuine handshake message from a forged one; WireGuard can, and what it sends next says what it found.

// proved notes that a peer has proved its life.
func (sw *Switch) proved(pr *peer) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	nb := pr.node.Load()
	if nb == nil || nb.pair == nil {
		return
	}
	nb.pair.Proof(time.Duration(sw.now()))
	nb.wake = 0
	sw.kickProber()
}

// provedBy notes that a device has answered the handshake to which it gave this index.
func (sw *Switch) provedBy(index uint32) {
	sw.mu.Lock()
	e := sw.t.index[index]
	sw.mu.Unlock()
	if e != nil && e.peer != nil {
		sw.proved(e.peer)
	}
}

// prove asks for a handshake with a neighbor, on any slice that it is a peer on. The caller holds mu.
func (sw *Switch) prove(nb *neighbor) {
	var found []*peer
	for _, d := range sw.t.devices {
		for _, p := range d.peers {
			if p.node.Load() == nb {
				found = append(found, p)
			}
		}
	}
	if len(found) == 0 {
		return
	}
	p := slices.MinFunc(found, func(a, b *peer) int { return strings.Compare(a.dev.slice, b.dev.slice) })
	sw.ask(Handshake{Slice: p.dev.slice, Peer: p.Key})
}
