package relay

import (
	"hash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"seaway.dev/seaway/failover/detect"
	"seaway.dev/seaway/failover/steer"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Neighbor is a node that is probed or answered, with the secret that it shares with this one.
type Neighbor struct {
	plan.Neighbor
	Secret [32]byte
}

// neighbor is another node in the prober's eyes.
type neighbor struct {
	plan.Neighbor
	id      nodeID
	secret  [32]byte
	key     hash.Hash
	watched bool // this end probes it; else it only answers and relays
	lead    bool
	pair    *detect.Pair
	steer   steer.Pair
	ways    []*way // as the pair's
	ways0   int    // of those, how many are configured; the others were learned
	numbers byte   // of ways, handed out so far

	heard   *Endpoint // where it was directly heard last, freshly and by its own key
	heardAt int64
	newest  uint64                       // the highest number heard of it, to echo
	seen    map[byte]remote              // what was heard by each of its ways
	behind  map[netip.AddrPort]*Endpoint // it, as seen through relays
	answers bucket                       // what it may be answered
	stale   bucket                       // what somebody who may not be it may be
	wake    time.Duration

	route atomic.Pointer[route] // where data go; nil: as WireGuard says
	sent  atomic.Int64          // when data last went to it

	hedging sync.Mutex // for hedges
	hedges  bucket     // what may go to it by a second way

	reach    fleet.Reach // as published
	reportAt time.Duration
	dead     uint64 // which ways are, as published
}

// remote is what was heard by one of the other end's ways.
type remote struct{ number, echo uint64 }

// way is one route to a neighbor.
type way struct {
	name    string
	class   steer.Class
	relay   string // the gateway's ID; "" is direct
	to      *Endpoint
	number  byte
	learned time.Duration // when, 0: configured
}

// route is where data to a neighbor go: to use, and for as long as that is in doubt to others as well.
type route struct {
	use   *Endpoint
	hedge []*Endpoint
	label string
	relay bool
}

// Bounds.
const (
	maxLearned   = 4                // ways that were learned from a neighbor's asks
	forgetAfter  = time.Minute      // a learned way that is dead for so long is forgotten
	freshFor     = 10 * time.Second // an echo proves a message fresh for so long
	heardFor     = 30 * second      // a relay sends to where it heard a node, for so long
	answerRate   = 400.0            // answers per second and neighbor; its bursts are 67 per way
	staleRate    = 20.0             // answers per second and neighbor to what may be a replay
	hedgeAtMost  = 16               // packets sent at once; larger batches are bulk, which is not sent twice
	hedgeRate    = 50.0             // packets by a second way, per second and neighbor: a busy fleet must not send all twice
	hedgeBurst   = 1000.0           // and so many at once, which bridge a second of 1000 packets
	reportEvery  = time.Second      // changes of the round trip and of loss are published so often at most
	askRate      = 1000.0           // asks per second of this node, to all neighbors
	paceOfLeads  = 4 * time.Millisecond
	relayStandby = time.Second // between asks to a neighbor that only relays
)

// setNeighbors brings the neighbors up to date. The caller holds mu.
func (sw *Switch) setNeighbors(c Config) {
	old := sw.neighbors
	sw.self, sw.relaying = idOf(c.Self), c.Relay
	sw.neighbors = make(map[string]*neighbor, len(c.Neighbors))
	sw.byID = make(map[nodeID]*neighbor, len(c.Neighbors))
	relays := map[string]bool{}
	for _, want := range c.Neighbors {
		for _, r := range want.Relays {
			relays[r] = true
		}
		nb := old[want.ID]
		if nb == nil || nb.Key != want.Key || nb.secret != want.Secret {
			nb = &neighbor{id: idOf(want.Key), secret: want.Secret, key: newProbeKey(want.Secret), seen: map[byte]remote{},
				behind: map[netip.AddrPort]*Endpoint{}}
		}
		nb.Neighbor = want.Neighbor
		sw.neighbors[want.ID], sw.byID[nb.id] = nb, nb
	}
	sw.byAddr = map[netip.AddrPort]*neighbor{}
	for _, nb := range sw.neighbors {
		for _, ep := range nb.Endpoints {
			sw.byAddr[ep] = nb
		}
	}
	now := sw.now()
	for _, nb := range sw.neighbors {
		if nb.heard != nil && now-nb.heardAt < heardFor {
			sw.byAddr[nb.heard.addr] = nb
		}
		nb.watched = nb.Peer || relays[nb.ID]
		nb.lead = !nb.Peer || slices.Compare(c.Self[:], nb.Key[:]) < 0
		if nb.watched {
			sw.setWays(nb)
		} else {
			nb.pair, nb.ways = nil, nil
			nb.route.Store(nil)
		}
	}
	sw.pace()
	for _, d := range sw.t.devices {
		for _, p := range d.peers {
			p.node.Store(sw.neighbors[p.ID])
		}
	}
	sw.reachDirty = true
	sw.kickProber()
}

// pace bounds what all probes together cost.
func (sw *Switch) pace() {
	leads := 0
	for _, nb := range sw.neighbors {
		if nb.watched && nb.Peer && nb.lead {
			leads++
		}
	}
	def := detect.Default()
	active := max(def.Active, time.Duration(leads)*paceOfLeads)
	standby := def.Standby * active / def.Active
	for _, nb := range sw.neighbors {
		switch {
		case !nb.watched:
		case nb.Peer:
			nb.pair.SetPace(active, standby)
		default:
			nb.pair.SetPace(max(relayStandby, active), max(relayStandby, active))
		}
	}
}

// setWays makes a neighbor's ways the configured ones and those learned. The caller holds mu.
func (sw *Switch) setWays(nb *neighbor) {
	if nb.pair == nil {
		nb.pair = detect.New(detect.Default(), nb.lead)
	}
	var ways []*way
	add := func(w *way) {
		for _, o := range nb.ways {
			if o.name == w.name {
				o.class, o.to, o.learned = w.class, o.to.or(w.to), w.learned
				w = o
			}
		}
		if !slices.ContainsFunc(ways, func(o *way) bool { return o.name == w.name }) {
			if w.number == 0 {
				nb.numbers++
				w.number = nb.numbers
			}
			ways = append(ways, w)
		}
	}
	for _, ep := range nb.Endpoints[:min(len(nb.Endpoints), maxEndpoints)] {
		add(&way{name: "direct " + ep.String(), class: steer.Direct, to: At(ep)})
	}
	for _, id := range nb.Relays {
		if g := sw.neighbors[id]; g != nil && g != nb {
			if at := g.whereabouts(sw.now()); at != nil {
				add(&way{name: "relay " + id, class: sw.classOf(nb, id), relay: id, to: &Endpoint{addr: at.addr, head: headFor(nb.id)}})
			}
		}
	}
	configured := len(ways)
	for _, w := range nb.ways {
		if w.learned > 0 {
			add(w)
		}
	}
	nb.ways0 = configured
	sw.tellWays(nb, ways)
}

// or keeps an endpoint if it is at the same place.
func (e *Endpoint) or(other *Endpoint) *Endpoint {
	if e.addr == other.addr {
		return e
	}
	return other
}

func (sw *Switch) tellWays(nb *neighbor, ways []*way) {
	use := -1
	if i := nb.pair.InUse(); i >= 0 {
		use = slices.Index(ways, nb.ways[i])
	}
	nb.ways = ways
	names := make([]string, len(ways))
	for i, w := range ways {
		names[i] = w.name
	}
	nb.pair.SetWays(names)
	nb.steer.Reset(use)
	nb.wake = 0
}

// classOf tells a near gateway from a far one. This node's own cluster is not configured; a gateway that is no near one
// of the other's counts as far only if none of the pair's is it, which the order of Relays says: near ones come first.
func (sw *Switch) classOf(nb *neighbor, relay string) steer.Class {
	theirs, _, _ := strings.Cut(nb.ID, "/")
	its, _, _ := strings.Cut(relay, "/")
	if its == theirs || its == sw.cluster {
		return steer.Near
	}
	return steer.Far
}

// whereabouts is where to send what is for a neighbor directly: where it was heard, else where it is said to be.
func (nb *neighbor) whereabouts(now int64) *Endpoint {
	switch {
	case nb.heard != nil && now-nb.heardAt < heardFor:
		return nb.heard
	case len(nb.Endpoints) > 0:
		return At(nb.Endpoints[0])
	}
	return nil
}

// wayBy finds the way by which something came in, or learns it; -1 if there is no room.
func (sw *Switch) wayBy(nb *neighbor, from *Endpoint, learn bool) int {
	for i, w := range nb.ways {
		if w.to.addr == from.addr && (w.to.head == nil) == (from.head == nil) {
			return i
		}
	}
	if !learn {
		return -1
	}
	w := &way{name: "direct " + from.addr.String(), class: steer.Direct, to: from, learned: time.Duration(sw.now())}
	if from.head != nil {
		g := sw.byAddr[from.addr]
		if g == nil {
			return -1
		}
		w.name, w.relay, w.class = "relay "+g.ID, g.ID, sw.classOf(nb, g.ID)
		for i, o := range nb.ways {
			if o.name == w.name { // the gateway is at another place now
				o.to = from
				return i
			}
		}
	}
	ways := append([]*way(nil), nb.ways...)
	if len(ways)-nb.ways0 >= maxLearned {
		ways = slices.Delete(ways, nb.ways0, nb.ways0+1)
	}
	nb.numbers++
	w.number = nb.numbers
	sw.tellWays(nb, append(ways, w))
	return len(ways)
}

// mayHedge tells whether so many packets may go to a neighbor by another way, too.
func (nb *neighbor) mayHedge(packets int, now int64) bool {
	nb.hedging.Lock()
	defer nb.hedging.Unlock()
	return nb.hedges.takeMany(float64(packets), now, hedgeRate, hedgeBurst)
}

// forgetWays drops learned ways that do not work any more.
func (sw *Switch) forgetWays(nb *neighbor, now time.Duration) {
	var keep []*way
	for i, w := range nb.ways {
		d := nb.pair.Ways()[i]
		if w.learned > 0 && d.State == detect.Dead && now-max(d.Seen(), w.learned) > forgetAfter {
			continue
		}
		keep = append(keep, w)
	}
	if len(keep) < len(nb.ways) {
		sw.tellWays(nb, keep)
	}
}
