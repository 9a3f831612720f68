package relay

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// session is a local device's session with a peer, as far as it can be seen from outside: the indexes that were chosen
// in its handshake, and the ways it is known to work over.
//
// WireGuard keeps one endpoint for a peer and moves it with every genuine packet, of whichever session. When a session
// by a relay is followed by one over a direct path, late packets of the old one move the endpoint back to the relay,
// which has not seen the new one's handshake and would drop its data. So data go to WireGuard's endpoint only if their
// own session was heard from there, and else to where its handshake went.
type session struct {
	peer     *peer // may be nil
	home     *Endpoint
	away     [4]netip.AddrPort // other places that data of this session came from, the latest ones
	next     int               // of away, to be replaced
	deadline int64
	proof    atomic.Bool // the first data sent on it prove that the peer's response was genuine: WireGuard has checked it
}

// begin notes that a device's handshake ended: its data will carry the peer's index, and go to home.
func (d *device) begin(index uint32, p *peer, home *Endpoint, now int64) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions == nil {
		d.sessions = make(map[uint32]*session)
	}
	for i, s := range d.sessions { // a few per peer, and this happens once in two minutes and peer
		if now >= s.deadline {
			delete(d.sessions, i)
		}
	}
	s := &session{peer: p, home: home, deadline: now + lifetime}
	d.sessions[index] = s
	return s
}

// heard notes where data of a session came from. Only one goroutine at a time calls it, the one that holds the table.
func (d *device) heard(s *session, from netip.AddrPort) {
	if s.from(from) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.away[s.next] = from
	s.next = (s.next + 1) % len(s.away)
}

func (s *session) from(a netip.AddrPort) bool {
	if s.home.addr == a {
		return true
	}
	for _, w := range s.away {
		if w == a {
			return true
		}
	}
	return false
}

// route says where data for a peer's index go, when WireGuard wants them to go to e, where else until that is certain,
// and whose they are, if known. proof is set once, when these data prove that the peer has answered a handshake.
func (d *device) route(index uint32, e *Endpoint) (to *Endpoint, hedge []*Endpoint, of *peer, proof bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := d.sessions[index]
	if s == nil {
		return e, nil, nil, false
	}
	proof = s.proof.Load() && s.proof.CompareAndSwap(true, false)
	if r := s.peer.steered(); r != nil {
		return r.use, r.hedge, s.peer, proof
	}
	if s.from(e.addr) {
		return e, nil, s.peer, proof
	}
	return s.home, nil, s.peer, proof
}

// steered returns where the prober says that data go to a peer, nil if it says nothing.
func (p *peer) steered() *route {
	if p == nil {
		return nil
	}
	if nb := p.node.Load(); nb != nil {
		return nb.route.Load()
	}
	return nil
}

// speaks notes that data of a peer came in. Only one goroutine at a time calls it, the one that holds the table.
func (p *peer) speaks(from *Endpoint, now int64) {
	if p == nil {
		return
	}
	nb := p.node.Load()
	if nb == nil || nb.pair == nil {
		return
	}
	for i, w := range nb.ways {
		if w.to.addr == from.addr && (w.to.head == nil) == (from.head == nil) {
			nb.pair.Data(i, time.Duration(now))
			return
		}
	}
}
