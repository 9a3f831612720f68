package relay

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Bounds of the table.
const (
	maxIndexes   = 65536        // indexes of relayed sessions, two each
	lifetime     = 240 * second // of an index: WireGuard's own sessions end after 180 s (its RejectAfterTime)
	halfOpen     = 15 * second  // of a relayed initiation without an answer; WireGuard repeats after 5 s
	roamAfter    = 5 * second   // a side silent at its handshake's address for so long is sent to at a new one as well
	maxRecent    = 4096         // initiations remembered to tell copies
	maxEndpoints = 4            // of a target that are tried at once
)

// reason says why a packet was dropped.
type reason int

const (
	dropGarbage     reason = iota // not WireGuard: type, size, reserved bytes
	dropMac1                      // an initiation that names nobody known
	dropRate                      // an initiation over the limits
	dropIndex                     // an unknown or expired index
	dropCollision                 // a handshake whose index is in use by another session
	dropFull                      // the table is full
	dropLoop                      // would go back to where it came from
	dropSource                    // an answer from somebody who was not asked
	dropUnreachable               // a target whose whereabouts are unknown
	dropNoPath                    // a local device's initiation to a peer without any path
	dropDuplicate                 // another copy of an initiation, by another path
	dropSend                      // the socket did not take it
	dropStranger                  // Seaway's own message of, for or by a node that is not known
	dropForged                    // a probe whose MAC is wrong
	reasons
)

var reasonNames = [reasons]string{"garbage", "unknown-mac1", "rate", "unknown-index", "collision", "full", "loop",
	"unasked-source", "unreachable", "no-path", "duplicate", "send", "stranger", "forged"}

// device is a local WireGuard device in the table's eyes.
type device struct {
	slice string
	key   fleet.Key
	mac   mac1
	port  *Port // nil in the table's own tests
	peers map[fleet.Key]*peer

	mu       sync.RWMutex        // for what follows
	sessions map[uint32]*session // by the peer's index
}

// peer is another node on a local device's slice.
type peer struct {
	plan.Peer
	dev    *device
	mac    mac1
	paths  paths
	using  atomic.Pointer[Endpoint] // where WireGuard sends to: authenticated by it
	heard  *Endpoint                // as remembered from before a restart, until using is set
	node   atomic.Pointer[neighbor] // the node it is, if that is probed
	nudged int64                    // when a handshake was asked for because it still uses a lost session
}

func (p *peer) endpoint() netip.AddrPort {
	if e := p.using.Load(); e != nil {
		return e.addr
	}
	if p.heard != nil {
		return p.heard.addr
	}
	return netip.AddrPort{}
}

// target is a key that is relayed for.
type target struct {
	plan.Target
	mac  mac1
	good *Endpoint // that answered last
}

// side is one end of a relayed session.
type side struct {
	index uint32
	home  *Endpoint // where it was during the handshake
	seen  int64     // when it last sent from there
	// away is where a side that is silent at home seems to be now, because its NAT changed its address. Data only name
	// whom they are for, so anybody who saw one could claim to be that side: hence both places are sent to, until the
	// side speaks from home or shakes hands again. WireGuard drops what it gets twice.
	away *Endpoint
}

// flow is a relayed session: a asked, b answered.
type flow struct {
	a, b     side
	target   *target
	asked    []netip.AddrPort // where the initiation was forwarded to
	answered bool
	deadline int64
}

// entry is what an index belongs to: a local device's session or a flow.
type entry struct {
	dev      *device
	peer     *peer    // may be nil: whom the device talks to is known after the handshake only
	session  *session // nil before the handshake is complete
	flow     *flow
	deadline int64
}

// table decides where packets go. It is pure: no socket, no clock, no lock; the switch serialises the calls.
type table struct {
	devices map[string]*device
	targets map[fleet.Key]*target
	known   map[netip.Addr]bool // addresses that the configuration names
	index   map[uint32]*entry
	flows   int
	swept   int64                    // when expired indexes were last removed
	recent  map[[mac1Size]byte]int64 // mac1 of initiations for devices here → when they came
	callers map[uint32]caller        // their sender index → where they came from
	limit   limiter
	drops   [reasons]atomic.Uint64
	dirty   bool // something worth persisting changed
}

func newTable() *table {
	return &table{devices: map[string]*device{}, targets: map[fleet.Key]*target{}, known: map[netip.Addr]bool{}, index: map[uint32]*entry{},
		recent: map[[mac1Size]byte]int64{}, callers: map[uint32]caller{}}
}

// caller is where an initiation came from. WireGuard answers to where it heard the peer last, which by then may be
// another place, if data of an older session arrive all the time; the way by which this handshake came is the one
// that it must return by, because a relay on it waits for the answer.
type caller struct {
	from *Endpoint
	at   int64
}

// verdict says what to do with a packet: hand it to dev, send it to each of to, or drop it (both empty).
type verdict struct {
	dev *device
	to  []*Endpoint
	// same is set if the verdict holds for any later packet of the same source with the same receiver index.
	same bool
}

func (t *table) drop(r reason) verdict {
	t.drops[r].Add(1)
	return verdict{}
}

// incoming decides about a packet from the network.
func (t *table) incoming(p []byte, m message, from *Endpoint, now int64) verdict {
	switch m.kind {
	case typeInitiation:
		return t.initiation(p, m, from, now)
	case typeResponse, typeCookie, typeData:
	default:
		return t.drop(dropGarbage)
	}
	e := t.lookup(m.receiver, now)
	switch {
	case e == nil:
		return t.drop(dropIndex)
	case e.flow != nil:
		return t.relay(e.flow, m, from, now)
	}
	if e.peer != nil {
		e.peer.paths.received = now
	}
	switch {
	case m.kind == typeResponse:
		if e.peer != nil {
			e.peer.paths.answered(now)
		}
		e.session = e.dev.begin(m.sender, e.peer, from, now)
		e.session.proof.Store(true)
	case e.session != nil && m.kind == typeData:
		e.dev.heard(e.session, from.addr)
		e.session.peer.speaks(from, now)
	}
	return verdict{dev: e.dev, same: m.kind == typeData}
}

func (t *table) lookup(index uint32, now int64) *entry {
	e := t.index[index]
	if e == nil || now >= e.deadline {
		return nil
	}
	return e
}

// initiation finds whom a handshake initiation names.
func (t *table) initiation(p []byte, m message, from *Endpoint, now int64) verdict {
	if !t.limit.allow(from.addr.Addr(), t.known[from.addr.Addr()], now) {
		return t.drop(dropRate)
	}
	for _, d := range t.devices {
		if d.mac.names(p, mac1Initiation) {
			if t.again([mac1Size]byte(p[mac1Initiation:]), now) {
				return t.drop(dropDuplicate)
			}
			if c, ok := t.callers[m.sender]; !ok || now-c.at >= halfOpen {
				t.callers[m.sender] = caller{from, now}
			}
			return verdict{dev: d}
		}
	}
	for _, tg := range t.targets {
		if tg.mac.names(p, mac1Initiation) {
			return t.forward(tg, m.sender, from, now)
		}
	}
	return t.drop(dropMac1)
}

// again tells whether an initiation with this mac1 came before. A peer sends each over several paths; WireGuard would
// drop all copies but the first as replays, but wireguard-go answers two that come at the same instant, each with a
// session of its own, of which the two sides then may pick different ones.
func (t *table) again(mac [mac1Size]byte, now int64) bool {
	if seen, ok := t.recent[mac]; ok && now-seen < halfOpen {
		return true
	}
	if len(t.recent) >= maxRecent {
		clear(t.recent)
		clear(t.callers)
	}
	t.recent[mac] = now
	return false
}

// forward opens a flow to a target.
func (t *table) forward(tg *target, sender uint32, from *Endpoint, now int64) verdict {
	to := t.whereabouts(tg)
	if len(to) == 0 {
		return t.drop(dropUnreachable)
	}
	asked := make([]netip.AddrPort, 0, len(to))
	for _, e := range to {
		if e.addr == from.addr {
			return t.drop(dropLoop)
		}
		asked = append(asked, e.addr)
	}
	if e := t.lookup(sender, now); e != nil {
		f := e.flow
		if f == nil || f.answered || f.a.index != sender || f.target != tg || f.a.home.addr != from.addr {
			return t.drop(dropCollision)
		}
		return verdict{to: to} // the network doubled it
	}
	if t.flows*2 >= maxIndexes && now-t.swept >= second { // not for each packet of a flood
		t.sweep(now)
	}
	if t.flows*2 >= maxIndexes {
		return t.drop(dropFull)
	}
	t.remove(sender)
	f := &flow{a: side{index: sender, home: from, seen: now}, target: tg, asked: asked, deadline: now + halfOpen}
	t.index[sender] = &entry{flow: f, deadline: f.deadline}
	t.flows++
	tg.good = nil // until it answers, the next one is tried everywhere
	return verdict{to: to}
}

// whereabouts lists the endpoints to forward an initiation to.
func (t *table) whereabouts(tg *target) []*Endpoint {
	if !tg.Management.IsZero() {
		if d := t.devices[fleet.ManagementSlice]; d != nil {
			if p := d.peers[tg.Management]; p != nil {
				if e := p.using.Load(); e != nil && e.addr.IsValid() {
					return []*Endpoint{e}
				}
				if p.heard != nil {
					return []*Endpoint{p.heard}
				}
			}
		}
		return nil
	}
	if tg.good != nil {
		return []*Endpoint{tg.good}
	}
	var to []*Endpoint
	for _, ep := range tg.Endpoints[:min(len(tg.Endpoints), maxEndpoints)] {
		to = append(to, At(ep))
	}
	return to
}

// relay passes on a message of a flow.
func (t *table) relay(f *flow, m message, from *Endpoint, now int64) verdict {
	if m.receiver == f.a.index && !f.answered {
		return t.answer(f, m, from, now)
	}
	src, dst := &f.a, &f.b
	if m.receiver == f.a.index {
		src, dst = &f.b, &f.a
	}
	if m.kind == typeResponse {
		return t.drop(dropSource) // a second response to one initiation
	}
	same := m.kind == typeData
	switch {
	case from.addr == src.home.addr:
		src.seen = now
		if src.away != nil {
			src.away, t.dirty = nil, true
		}
	case src.away != nil && from.addr == src.away.addr:
	case m.kind == typeCookie:
		return t.drop(dropSource)
	case now-src.seen >= roamAfter:
		src.away, t.dirty = from, true
	default:
		same = false
	}
	to := make([]*Endpoint, 0, 2)
	for _, e := range []*Endpoint{dst.home, dst.away} {
		// What does not come from the side's home may have come from another gateway, which holds this one for a place where
		// the other side is: only homes, which go the way of one handshake, are sure not to go in a circle.
		if e != nil && e.addr != from.addr && (e != dst.away || from.addr == src.home.addr) {
			to = append(to, e)
		}
	}
	if len(to) == 0 {
		return t.drop(dropLoop)
	}
	return verdict{to: to, same: same}
}

// answer handles what comes back for an initiation that was forwarded.
func (t *table) answer(f *flow, m message, from *Endpoint, now int64) verdict {
	if m.kind == typeData || !slices.Contains(f.asked, from.addr) {
		return t.drop(dropSource)
	}
	if m.kind == typeCookie {
		return verdict{to: []*Endpoint{f.a.home}}
	}
	if t.lookup(m.sender, now) != nil {
		return t.drop(dropCollision)
	}
	t.remove(m.sender)
	f.b = side{index: m.sender, home: from, seen: now}
	f.answered, f.deadline = true, now+lifetime
	f.target.good = from
	t.index[f.a.index] = &entry{flow: f, deadline: f.deadline}
	t.index[f.b.index] = &entry{flow: f, deadline: f.deadline}
	t.dirty = true
	return verdict{to: []*Endpoint{f.a.home}}
}

// outgoing decides about a handshake message that a local device sends to an endpoint. An initiation goes where the
// attempts say, a response to the endpoint that is returned; neither: it must not leave.
func (t *table) outgoing(d *device, p []byte, m message, to *Endpoint, now int64) ([]attempt, *Endpoint) {
	off := mac1Initiation
	if m.kind == typeResponse {
		off = mac1Response
	}
	var pr *peer
	for _, q := range d.peers {
		if q.mac.names(p, off) {
			pr = q
			break
		}
	}
	if e := t.lookup(m.sender, now); e != nil && (e.dev != d || m.kind == typeInitiation) {
		t.drop(dropCollision)
		return nil, nil // WireGuard tries again with another index
	}
	t.remove(m.sender)
	t.index[m.sender] = &entry{dev: d, peer: pr, deadline: now + lifetime}
	if m.kind == typeResponse {
		if c, ok := t.callers[m.receiver]; ok {
			to = c.from
		}
		t.index[m.sender].session = d.begin(m.receiver, pr, to, now)
		if pr != nil {
			pr.paths.received = now
			t.use(pr, to)
		}
		return nil, to
	}
	if pr == nil { // just removed: WireGuard's last gasp
		return nil, nil
	}
	first := pr.paths.unanswered == 0
	out := pr.paths.initiation(pr.endpoint(), now)
	if r := pr.steered(); r != nil {
		known := attempt{at: append([]*Endpoint{r.use}, r.hedge...)}
		if first { // by the ways that are known to work; if they do not, by all
			return []attempt{known}, nil
		}
		out = append([]attempt{known}, out...)
	}
	if len(out) == 0 {
		t.drop(dropNoPath)
	}
	return out, nil
}

// use notes where WireGuard sends a peer's packets.
func (t *table) use(p *peer, to *Endpoint) {
	if old := p.using.Swap(to); old == nil || old.addr != to.addr {
		t.dirty = true
	}
}

// remove takes an index out of the table.
func (t *table) remove(index uint32) {
	e := t.index[index]
	if e == nil {
		return
	}
	delete(t.index, index)
	if f := e.flow; f != nil {
		delete(t.index, f.a.index)
		if f.answered {
			delete(t.index, f.b.index)
		}
		t.flows--
	}
}

// sweep removes what has expired.
func (t *table) sweep(now int64) {
	t.swept = now
	for i, e := range t.index {
		if now >= e.deadline {
			t.remove(i)
		}
	}
	for m, seen := range t.recent {
		if now-seen >= halfOpen {
			delete(t.recent, m)
		}
	}
	for i, c := range t.callers {
		if now-c.at >= halfOpen {
			delete(t.callers, i)
		}
	}
	t.limit.forget(now)
}
