package relay

import (
	"net/netip"

	"seaway.dev/seaway/fleet"
)

// Counters say what the switch has done since it started.
type Counters struct {
	Forwarded      uint64            `json:"forwarded"`      // packets relayed
	ForwardedBytes uint64            `json:"forwardedBytes"` // UDP payload bytes of these
	Flows          int               `json:"flows"`          // relayed sessions now, half-open ones included
	Targets        int               `json:"targets"`        // keys relayed for
	Dropped        map[string]uint64 `json:"dropped,omitempty"`
	Asked          uint64            `json:"asked"`    // probes sent
	Answered       uint64            `json:"answered"` // and answered
	Moved          uint64            `json:"moved"`    // times that a node's packets took another path
}

// Counters returns the counters.
func (sw *Switch) Counters() Counters {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	c := Counters{Forwarded: sw.forwarded.Load(), ForwardedBytes: sw.forwardedBytes.Load(),
		Flows: sw.t.flows, Targets: len(sw.t.targets), Dropped: map[string]uint64{},
		Asked: sw.probes.asked.Load(), Answered: sw.probes.answered.Load(), Moved: sw.probes.moves.Load()}
	for i := range sw.t.drops {
		if n := sw.t.drops[i].Load(); n > 0 {
			c.Dropped[reasonNames[i]] = n
		}
	}
	return c
}

// Path says which way a slice's packets to a peer take now: "direct 10.0.0.1:51871", "relay c2/g1 10.0.0.9:51871" or
// "none".
func (sw *Switch) Path(slice string, key fleet.Key) string {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	d := sw.t.devices[slice]
	if d == nil || d.peers[key] == nil {
		return "none"
	}
	p := d.peers[key]
	e := p.using.Load()
	if e == nil {
		return "none"
	}
	if r := p.steered(); r != nil {
		return r.label
	}
	label, _ := sw.label(p, e.addr)
	return label
}

// label names the way by which a peer is reached at an endpoint. A private peer that dialled in by a relay is seen at
// the relay's address, which is some other node's. The caller holds mu.
func (sw *Switch) label(p *peer, ep netip.AddrPort) (text string, relayed bool) {
	for _, w := range p.Paths {
		if w.Endpoint == ep && w.Relay == "" {
			return "direct " + ep.String(), false
		}
	}
	for _, w := range p.Paths {
		if w.Endpoint == ep {
			return "relay " + w.Relay + " " + ep.String(), true
		}
	}
	if id := sw.relays[ep]; id != "" && id != p.ID {
		return "relay " + id + " " + ep.String(), true
	}
	return "direct " + ep.String(), false
}
