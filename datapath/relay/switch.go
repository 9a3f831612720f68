package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Config is what the switch should know: the devices of this node and the keys to relay for.
type Config struct {
	Devices []Device
	Targets []plan.Target
	// Gateways are known by name: a peer's packets may come by one that is in no path of its own.
	Gateways []plan.Path
	// Neighbors are the nodes that are probed or answered. Self is this node's public key on the management slice, and
	// Cluster the name of its cluster. With Relay set, messages to neighbors are forwarded by name.
	Neighbors []Neighbor
	Self      fleet.Key
	Cluster   string
	Relay     bool
}

// Device is a local WireGuard device: its slice, public key and peers.
type Device struct {
	Slice string
	Key   fleet.Key
	Peers []plan.Peer
}

// Handshake asks for a new handshake of a slice's device with a peer. With renew set the present session is useless
// (its path is gone), so that not even WireGuard's five seconds between two handshakes are to be waited for.
type Handshake struct {
	Slice string
	Peer  fleet.Key
	Renew bool
}

// Switch owns the node's UDP port. Use [Switch.Listen], [Switch.Configure], [Switch.Bind] and [Switch.Run].
type Switch struct {
	log       *slog.Logger
	handshake func(Handshake)
	start     time.Time

	mu      sync.Mutex
	t       *table
	relays  map[netip.AddrPort]string // which gateway or node an endpoint belongs to
	port    uint16
	config  Config
	pending []Handshake
	kick    chan struct{}
	memory  memory

	configured bool

	readers [2]*reader // IPv4, IPv6
	wires   [2]atomic.Pointer[wire]
	closed  atomic.Bool
	board   *board

	// The prober's, under mu.
	self       nodeID
	cluster    string
	relaying   bool
	neighbors  map[string]*neighbor
	byID       map[nodeID]*neighbor
	byAddr     map[netip.AddrPort]*neighbor // where they are said to be, or were heard
	epoch      uint64                       // wall clock at the start, ns: numbers rise over restarts
	number     uint64
	nextProbe  time.Duration
	probeKick  chan struct{}
	askBucket  bucket
	reachDirty bool
	probes     struct{ asked, answered, moves atomic.Uint64 }

	forwarded, forwardedBytes atomic.Uint64
}

// New returns a switch that asks for handshakes by calling handshake, from one goroutine.
func New(log *slog.Logger, handshake func(Handshake)) *Switch {
	sw := &Switch{log: log, handshake: handshake, start: time.Now().Add(-time.Second), t: newTable(), kick: make(chan struct{}, 1), board: newBoard(),
		epoch: uint64(time.Now().UnixNano()), probeKick: make(chan struct{}, 1)}
	sw.readers = [2]*reader{newReader(sw), newReader(sw)}
	return sw
}

// now is the table's clock: never 0.
func (sw *Switch) now() int64 { return int64(time.Since(sw.start)) }

// Listen opens the UDP port, for both families, in the caller's network namespace; 0 picks a free one. Called again
// with another port it moves there, and what the devices have in hand continues.
func (sw *Switch) Listen(port uint16) error {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.port != 0 && (port == 0 || port == sw.port) {
		return nil
	}
	socks, actual, err := listenBoth(port)
	if err != nil {
		return err
	}
	for i, s := range socks {
		if s != nil {
			sw.attach(i, newUDP(s))
		}
	}
	sw.port = actual
	return nil
}

func (sw *Switch) attach(family int, w wire) {
	sw.wires[family].Store(&w)
	if old := sw.readers[family].attach(w); old != nil {
		old.close()
	}
}

// Port returns the UDP port.
func (sw *Switch) Port() uint16 {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return sw.port
}

// Run reads for relayed packets while no device reads, expires sessions and asks for handshakes, until ctx ends. Then
// the port is closed.
func (sw *Switch) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, r := range sw.readers {
		wg.Go(func() {
			_, err := r.receive(&r.idle, nil, nil, nil)
			if !errors.Is(err, net.ErrClosed) {
				sw.log.Error("the reader stopped", "err", err)
			}
		})
	}
	wg.Go(func() { sw.runProber(ctx) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-sw.kick:
		case <-tick.C:
			n++
			sw.tick(n%10 == 0)
		}
		sw.shake()
	}
	sw.close()
	wg.Wait()
	return nil
}

func (sw *Switch) close() {
	sw.closed.Store(true)
	for i, r := range sw.readers {
		if w := sw.wires[i].Load(); w != nil {
			(*w).close()
		}
		r.quit(&r.idle)
	}
}

// tick lets time pass: upgrades to direct paths, expiry.
func (sw *Switch) tick(sweep bool) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	now := sw.now()
	for _, d := range sw.t.devices {
		for _, p := range d.peers {
			e := p.using.Load()
			if e == nil || now-p.paths.received > lifetime || p.steered() != nil {
				continue
			}
			_, relayed := sw.label(p, e.addr)
			if p.paths.tick(e.addr, relayed, now) {
				sw.pending = append(sw.pending, Handshake{Slice: d.slice, Peer: p.Key})
			}
		}
	}
	if sweep {
		sw.t.sweep(now)
	}
}

// shake performs the handshakes that are due.
func (sw *Switch) shake() {
	sw.mu.Lock()
	due := sw.pending
	sw.pending = nil
	sw.mu.Unlock()
	for _, h := range due {
		sw.handshake(h)
	}
}

// ask makes the loop look at what is pending. The caller holds mu.
func (sw *Switch) ask(h Handshake) {
	sw.pending = append(sw.pending, h)
	select {
	case sw.kick <- struct{}{}:
	default:
	}
}

// Configure makes the switch know exactly what c says, and tells whether that is anything new. Sessions of what stays
// are not touched.
func (sw *Switch) Configure(c Config) (changed bool) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.configured && reflect.DeepEqual(sw.config, c) {
		return false
	}
	sw.config, sw.configured = c, true
	known := map[netip.Addr]bool{}
	sw.relays = map[netip.AddrPort]string{}
	devices := make(map[string]*device, len(c.Devices))
	for _, want := range c.Devices {
		d := sw.t.devices[want.Slice]
		if d == nil || d.key != want.Key {
			d = &device{slice: want.Slice, key: want.Key, mac: newMac1(want.Key), peers: map[fleet.Key]*peer{}}
			d.port = newPort(sw, d)
		}
		devices[want.Slice] = d
		sw.setPeers(d, want.Peers)
		for _, p := range want.Peers {
			for _, w := range p.Paths {
				known[w.Endpoint.Addr()] = true
				if w.Relay != "" {
					sw.relays[w.Endpoint] = w.Relay
				} else if sw.relays[w.Endpoint] == "" {
					sw.relays[w.Endpoint] = p.ID
				}
			}
		}
	}
	for _, g := range c.Gateways {
		sw.relays[g.Endpoint] = g.Relay
	}
	sw.dropDevices(devices)
	targets := make(map[fleet.Key]*target, len(c.Targets))
	for _, want := range c.Targets {
		tg := sw.t.targets[want.Key]
		if tg == nil {
			tg = &target{mac: newMac1(want.Key)}
		}
		if !slices.Equal(tg.Endpoints, want.Endpoints) {
			tg.good = nil
		}
		tg.Target = want
		targets[want.Key] = tg
		for _, e := range want.Endpoints {
			known[e.Addr()] = true
		}
	}
	sw.t.devices, sw.t.targets, sw.t.known = devices, targets, known
	sw.cluster = c.Cluster
	sw.setNeighbors(c)
	sw.restoreFlows()
	return true
}

// setPeers brings a device's peers up to date. The caller holds mu.
func (sw *Switch) setPeers(d *device, want []plan.Peer) {
	peers := make(map[fleet.Key]*peer, len(want))
	for _, w := range want {
		p := d.peers[w.Key]
		if p == nil {
			p = &peer{dev: d, mac: newMac1(w.Key)}
			if ep := sw.memory.endpoint(d.slice, w.Key); ep.IsValid() {
				p.heard = At(ep)
				sw.ask(Handshake{Slice: d.slice, Peer: w.Key}) // there was a session before the restart
			}
		}
		p.Peer = w
		if p.paths.change(w.Paths, p.endpoint()) {
			p.using.Store(nil)
			p.heard = nil
			sw.ask(Handshake{Slice: d.slice, Peer: w.Key, Renew: true})
		}
		peers[w.Key] = p
	}
	d.peers = peers
}

// dropDevices forgets the indexes of devices and peers that are gone. The caller holds mu.
func (sw *Switch) dropDevices(now map[string]*device) {
	for i, e := range sw.t.index {
		if e.dev == nil {
			continue
		}
		d := now[e.dev.slice]
		if d != e.dev || e.peer != nil && d.peers[e.peer.Key] == nil {
			delete(sw.t.index, i)
		}
	}
}

// classify sorts a batch: what is for devices here goes to r.items, the rest is sent on.
func (sw *Switch) classify(r *reader, trains []train) {
	r.items, r.at, r.outs, r.sends = r.items[:0], 0, r.outs[:0], r.sends[:0]
	fam := 0
	if r == sw.readers[1] {
		fam = 1
	}
	sw.mu.Lock()
	now := sw.now()
	var last struct {
		verdict
		index uint32
		from  *Endpoint
	}
	for _, tr := range trains {
		for data := tr.data; len(data) > 0; {
			p, from := data[:min(tr.seg, len(data))], tr.from
			data = data[len(p):]
			if p[0] == typeRelayed {
				inner, at, to := sw.carried(p, from, now)
				if to != nil {
					r.push([]*Endpoint{to}, p)
				}
				if p, from = inner, at; p == nil {
					continue
				}
			}
			if p[0] == typeProbe {
				r.sends = sw.probed(p, from, now, r.sends)
				continue
			}
			m := parse(p)
			if !last.same || m.kind != typeData || last.index != m.receiver || last.from != from {
				last.verdict, last.index, last.from = sw.t.incoming(p, m, from, now), m.receiver, from
				if last.dev == nil && last.to == nil && m.kind == typeData {
					sw.nudge(from.addr, now)
				}
			}
			switch {
			case last.dev != nil:
				if pt := last.dev.port; pt != nil {
					r.items = append(r.items, item{pt.turns[fam].Load(), p, from})
				}
			case last.to != nil && from.head != nil: // it was forwarded once, and is not again
				sw.t.drop(dropLoop)
			case last.to != nil:
				r.push(last.to, p)
			}
		}
	}
	sw.mu.Unlock()
	sw.sendAll(r.sends)
	sw.forward(r.outs)
	clear(r.outs)
	clear(r.sends)
}

// push adds a packet to be sent on, together with its predecessors to the same place.
func (r *reader) push(to []*Endpoint, p []byte) {
	if n := len(r.outs); n > 0 && len(to) == 1 && len(r.outs[n-1].to) == 1 && r.outs[n-1].to[0] == to[0] {
		r.outs[n-1].pkts = append(r.outs[n-1].pkts, p)
		return
	}
	n := len(r.outs)
	if n < cap(r.outs) {
		r.outs = r.outs[:n+1]
		r.outs[n].to, r.outs[n].pkts = to, append(r.outs[n].pkts[:0], p)
		return
	}
	r.outs = append(r.outs, out{to: to, pkts: [][]byte{p}})
}

func (sw *Switch) forward(outs []out) {
	for _, o := range outs {
		for _, to := range o.to {
			if err := sw.write(o.pkts, to, false); err != nil {
				sw.t.drops[dropSend].Add(uint64(len(o.pkts)))
				continue
			}
			sw.forwarded.Add(uint64(len(o.pkts)))
			n := 0
			for _, p := range o.pkts {
				n += len(p)
			}
			sw.forwardedBytes.Add(uint64(n))
		}
	}
}

// nudge asks for a handshake with peers that still send by a session which this node has lost in a restart. Only
// direct endpoints of peers without a session count, each once in five seconds, so that forged packets achieve little.
// The caller holds mu.
func (sw *Switch) nudge(from netip.AddrPort, now int64) {
	if sw.relays[from] == "" {
		return
	}
	for _, d := range sw.t.devices {
		for _, p := range d.peers {
			if p.using.Load() != nil || now-p.nudged < 5*second || p.nudged != 0 && now < p.nudged {
				continue
			}
			if slices.ContainsFunc(p.Paths, func(w plan.Path) bool { return w.Relay == "" && w.Endpoint == from }) {
				p.nudged = now
				sw.ask(Handshake{Slice: d.slice, Peer: p.Key})
			}
		}
	}
}

// write sends packets to an endpoint by the socket of its family.
func (sw *Switch) write(pkts [][]byte, to *Endpoint, wait bool) error {
	fam := 1
	if to.addr.Addr().Is4() {
		fam = 0
	}
	w := sw.wires[fam].Load()
	if w == nil {
		return errors.New("no socket for " + to.addr.String() + "'s address family")
	}
	return (*w).write(pkts, to, wait)
}

// readFailed handles what a read returned instead of packets.
func (sw *Switch) readFailed(r *reader, w wire, err error) {
	switch {
	case errors.Is(err, errWoken):
		return
	case errors.Is(err, net.ErrClosed):
		r.mu.Lock()
		if r.wire == w { // not replaced: the switch is closing
			r.wire = nil
		}
		r.mu.Unlock()
	default:
		sw.log.Warn("read from the UDP port", "err", err)
	}
}
