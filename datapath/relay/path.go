package relay

import (
	"net/netip"
	"slices"

	"seaway.dev/seaway/slice/plan"
)

// Times of the path decisions, in nanoseconds.
const (
	relayHandicap   = 15_000_000   // a relay's copy of an initiation leaves so much later than the direct ones
	silence         = 10 * second  // WireGuard answers data within 10 s (its KeepaliveTimeout): later, the path is suspect
	upgradeFirst    = 5 * second   // back-off of attempts to move a relayed session to a direct path
	upgradeLast     = 300 * second //
	upgradePatience = second       // an attempt that WireGuard did not turn into an initiation by then is off
)

// paths decides over which ways a peer's handshakes are tried. WireGuard answers the first copy of an initiation to
// arrive and drops the others as replays, so the source of the answer is the way that won; the data follow by
// WireGuard's own authenticated roaming. It has no clock: the callers say what happened, and when.
//
//	            initiation: all ways (direct first)          path lost
//	┌─────────┐ ───────────────────────────────▶ ┌─────────┐ ─────────▶ again over all
//	│ unknown │                                  │ in use  │
//	└─────────┘ ◀─────────────────────────────── └─────────┘ ⟲ by relay: direct ways tried, 5 s … 5 min
//	             unanswered, or silent for 10 s
type paths struct {
	ways       []plan.Path // as configured, the preferred one first
	unanswered int         // initiations since the last answer
	received   int64       // when the last message for our index came in
	direct     int64       // until then, an initiation goes over direct ways only
	upgradeAt  int64       // when to try next
	backoff    int64
}

// attempt is one set of endpoints and how long to wait before sending to them.
type attempt struct {
	to    []netip.AddrPort
	at    []*Endpoint // the same, where more than an address is known
	after int64
}

// initiation says where to send an initiation that the device wants to send now. using is the endpoint in use, or zero.
func (p *paths) initiation(using netip.AddrPort, now int64) []attempt {
	var direct, relayed []netip.AddrPort
	for _, w := range p.ways {
		if w.Relay == "" {
			direct = add(direct, w.Endpoint)
		} else {
			relayed = add(relayed, w.Endpoint)
		}
	}
	if now < p.direct && len(direct) > 0 {
		p.direct = 0
		return []attempt{{to: direct}}
	}
	k := p.unanswered
	p.unanswered++
	healthy := using.IsValid() && k == 0 && now-p.received < silence
	switch {
	case healthy && len(direct) > 0 && p.relayed(using):
		return []attempt{{to: direct}, {to: []netip.AddrPort{using}, after: relayHandicap}}
	case healthy:
		return []attempt{{to: []netip.AddrPort{using}}}
	}
	all := slices.Clone(direct)
	if using.IsValid() {
		all = add(all, using) // a peer behind NAT may be reachable there only
	}
	if k == 0 && len(direct) > 0 && len(relayed) > 0 {
		return []attempt{{to: all}, {to: relayed, after: relayHandicap}}
	}
	all = append(all, relayed...)
	if k >= 3 && k%2 == 1 && len(all) > 1 {
		// A way that carries initiations but not their answers would win every race: give each a turn alone.
		i := (k / 2) % len(all)
		all = all[i : i+1]
	}
	if len(all) == 0 {
		return nil
	}
	return []attempt{{to: all}}
}

// answered notes that a response came.
func (p *paths) answered(now int64) {
	p.unanswered, p.received = 0, now
}

// relayed tells whether an endpoint is one of the peer's relays, and not a direct way.
func (p *paths) relayed(ep netip.AddrPort) bool {
	relay := false
	for _, w := range p.ways {
		if w.Endpoint == ep {
			if w.Relay == "" {
				return false
			}
			relay = true
		}
	}
	return relay
}

// hasDirect tells whether there is a direct way to try.
func (p *paths) hasDirect() bool {
	return slices.ContainsFunc(p.ways, func(w plan.Path) bool { return w.Relay == "" })
}

// tick tells whether to start a handshake over the direct ways now, because the session goes by a relay (using,
// viaRelay) though the peer might be reached without.
func (p *paths) tick(using netip.AddrPort, viaRelay bool, now int64) bool {
	if !using.IsValid() || !viaRelay || !p.hasDirect() {
		p.upgradeAt, p.backoff = 0, 0
		return false
	}
	if p.backoff == 0 {
		p.backoff, p.upgradeAt = upgradeFirst, now+upgradeFirst
	}
	if now < p.upgradeAt {
		return false
	}
	p.backoff = min(2*p.backoff, upgradeLast)
	p.upgradeAt = now + p.backoff
	p.direct = now + upgradePatience
	return true
}

// change sets new ways. It tells whether the endpoint in use is gone and a handshake over the others is due at once.
func (p *paths) change(ways []plan.Path, using netip.AddrPort) (lost bool) {
	has := func(ws []plan.Path) bool {
		return slices.ContainsFunc(ws, func(w plan.Path) bool { return w.Endpoint == using })
	}
	switch {
	case slices.Equal(p.ways, ways):
		return false
	case using.IsValid():
		lost = len(ways) > 0 && has(p.ways) && !has(ways)
	default:
		lost = len(ways) > 0 && p.unanswered > 0 // it had been tried in vain: do not wait for the next retry
	}
	p.ways = ways
	p.upgradeAt, p.backoff = 0, 0
	if lost {
		p.unanswered = 1
	}
	return lost
}

func add(list []netip.AddrPort, ep netip.AddrPort) []netip.AddrPort {
	if slices.Contains(list, ep) {
		return list
	}
	return append(list, ep)
}
