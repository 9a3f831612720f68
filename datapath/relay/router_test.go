package relay

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	wgdev "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// router is an internet in a test's process: it joins the wires of switches, delays, loses, translates addresses, and
// remembers what passed.
type router struct {
	mu    sync.Mutex
	hosts map[netip.AddrPort]*port
	delay time.Duration
	lose  func(from, to netip.AddrPort, p []byte) bool
	nats  map[netip.Addr]*nat // by inner address
	log   []string
	seen  func(from, to netip.AddrPort, p []byte)
}

// nat gives a host a public address and lets in answers only (endpoint-dependent mapping and filtering).
type nat struct {
	public netip.Addr
	next   uint16
	out    map[[2]netip.AddrPort]netip.AddrPort // inner and remote → outer
	in     map[[2]netip.AddrPort]netip.AddrPort // outer and remote → inner
}

func newRouter() *router {
	return &router{hosts: map[netip.AddrPort]*port{}, nats: map[netip.Addr]*nat{}, delay: time.Millisecond}
}

// port is a switch's wire at the router.
type port struct {
	r      *router
	addr   netip.AddrPort
	queue  chan train
	woken  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (r *router) plug(addr string) *port {
	p := &port{r: r, addr: netip.MustParseAddrPort(addr), queue: make(chan train, 4096), woken: make(chan struct{}, 1), closed: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hosts[p.addr] = p
	return p
}

func (p *port) read() ([]train, error) {
	select {
	case <-p.closed:
		return nil, net.ErrClosed
	case <-p.woken:
		return nil, errWoken
	case t := <-p.queue:
		out := []train{t}
		for len(p.queue) > 0 {
			out = append(out, <-p.queue)
		}
		return out, nil
	}
}

func (p *port) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *port) close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *port) write(pkts [][]byte, to *Endpoint, _ bool) error {
	for _, b := range pkts {
		if to.head != nil {
			b = append(to.head[:], b...)
		}
		p.r.send(p.addr, to.addr, bytes.Clone(b))
	}
	return nil
}

func (r *router) send(from, to netip.AddrPort, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.nats[from.Addr()]; n != nil {
		k := [2]netip.AddrPort{from, to}
		outer, ok := n.out[k]
		if !ok {
			n.next++
			outer = netip.AddrPortFrom(n.public, 40000+n.next)
			n.out[k], n.in[[2]netip.AddrPort{outer, to}] = outer, from
		}
		from = outer
	}
	for _, n := range r.nats {
		if to.Addr() == n.public {
			inner, ok := n.in[[2]netip.AddrPort{to, from}]
			if !ok {
				return
			}
			to = inner
		} else if r.nats[to.Addr()] == n {
			return // the inner address is not known outside
		}
	}
	if r.seen != nil {
		r.seen(from, to, p)
	}
	r.log = append(r.log, fmt.Sprintf("%v→%v type %d, %d B", from, to, p[0], len(p)))
	if r.lose != nil && r.lose(from, to, p) {
		return
	}
	dst := r.hosts[to]
	if dst == nil {
		return
	}
	time.AfterFunc(r.delay, func() {
		select {
		case dst.queue <- train{data: p, seg: len(p), from: At(from)}:
		default:
		}
	})
}

// rebind makes a NAT forget everything: the next packets leave from new ports.
func (r *router) rebind(n *nat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.out, n.in = map[[2]netip.AddrPort]netip.AddrPort{}, map[[2]netip.AddrPort]netip.AddrPort{}
}

func (r *router) nat(inner, public string) *nat {
	n := &nat{public: netip.MustParseAddr(public)}
	r.rebind(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nats[netip.MustParseAddr(inner)] = n
	return n
}

// host is a node: a switch and its devices.
type host struct {
	t       *testing.T
	r       *router
	id      string
	addr    netip.AddrPort
	sw      *Switch
	cfg     Config
	devs    map[string]*wgdev.Device
	tuns    map[string]*tuntest.ChannelTUN
	private map[string][]byte
	stop    context.CancelFunc
	done    chan struct{}
}

func newHost(t *testing.T, r *router, id, addr string) *host {
	h := &host{t: t, r: r, id: id, addr: netip.MustParseAddrPort(addr), devs: map[string]*wgdev.Device{},
		tuns: map[string]*tuntest.ChannelTUN{}, private: map[string][]byte{}}
	h.boot(nil)
	return h
}

// boot starts the switch with what it remembers from before.
func (h *host) boot(memory []byte) {
	h.sw = New(slog.New(slog.DiscardHandler), func(hs Handshake) {
		d := h.devs[hs.Slice]
		if d == nil {
			return
		}
		if p := d.LookupPeer(wgdev.NoisePublicKey(hs.Peer)); p != nil {
			if hs.Renew {
				p.ExpireCurrentKeypairs()
			}
			_ = p.SendHandshakeInitiation(false)
		}
	})
	if memory != nil {
		if err := h.sw.Remember(memory); err != nil {
			h.t.Fatal(err)
		}
	}
	h.sw.attach(0, h.r.plug(h.addr.String()))
	ctx, stop := context.WithCancel(context.Background())
	h.stop, h.done = stop, make(chan struct{})
	go func() {
		defer close(h.done)
		_ = h.sw.Run(ctx)
	}()
}

func (h *host) halt() {
	h.stop()
	for s := range h.devs {
		h.closeDevice(s)
	}
	<-h.done
}

// graveyard keeps peers from the garbage collector: WireGuard's finalizers read channels, which outside of the bubble
// that made them is fatal.
var graveyard struct {
	sync.Mutex
	peers []*wgdev.Peer
}

func (h *host) closeDevice(slice string) {
	d := h.devs[slice]
	delete(h.devs, slice)
	d.Close()
}

func (h *host) keyFor(slice string) fleet.Key {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	if old := h.private[slice]; old != nil {
		k, _ = ecdh.X25519().NewPrivateKey(old)
	}
	h.private[slice] = k.Bytes()
	return fleet.Key(k.PublicKey().Bytes())
}

func (h *host) device(slice string, peers ...plan.Peer) {
	for i := range h.cfg.Devices {
		if h.cfg.Devices[i].Slice == slice {
			h.cfg.Devices[i].Peers = peers
			return
		}
	}
	h.cfg.Devices = append(h.cfg.Devices, Device{Slice: slice, Key: h.keyFor(slice), Peers: peers})
}

// apply configures the switch and the devices.
func (h *host) apply() {
	cfg := h.cfg
	cfg.Devices = append([]Device(nil), h.cfg.Devices...)
	h.sw.Configure(cfg)
	for _, d := range cfg.Devices {
		dev := h.devs[d.Slice]
		if dev == nil {
			h.tuns[d.Slice] = tuntest.NewChannelTUN()
			dev = wgdev.NewDevice(h.tuns[d.Slice].TUN(), h.sw.Bind(d.Slice), wgdev.NewLogger(wgdev.LogLevelSilent, ""))
			h.devs[d.Slice] = dev
			if err := dev.IpcSet("private_key=" + hex.EncodeToString(h.private[d.Slice]) + "\n"); err != nil {
				h.t.Fatal(err)
			}
			if err := dev.Up(); err != nil {
				h.t.Fatal(err)
			}
		}
		for _, p := range d.Peers {
			if dev.LookupPeer(wgdev.NoisePublicKey(p.Key)) != nil {
				continue
			}
			text := fmt.Sprintf("public_key=%s\nendpoint=auto\npersistent_keepalive_interval=%d\n", hex.EncodeToString(p.Key[:]), p.Keepalive)
			for _, a := range p.Allowed {
				text += "allowed_ip=" + a.String() + "\n"
			}
			if err := dev.IpcSet(text); err != nil {
				h.t.Fatal(err)
			}
			graveyard.Lock()
			graveyard.peers = append(graveyard.peers, dev.LookupPeer(wgdev.NoisePublicKey(p.Key)))
			graveyard.Unlock()
		}
	}
}

// network runs a test with a router in a bubble of its own time.
func network(t *testing.T, f func(t *testing.T, r *router)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter()
		defer func() {
			if t.Failed() {
				for _, l := range r.log[max(0, len(r.log)-40):] {
					t.Log(l)
				}
			}
		}()
		f(t, r)
	})
}

// crosses sends a packet from one node's pod to another's and tells whether it arrives within the time.
func crosses(from, to *host, slice string, src, dst string, wait time.Duration) bool {
	p := tuntest.Ping(netip.MustParseAddr(dst), netip.MustParseAddr(src))
	select {
	case from.tuns[slice].Outbound <- p:
	case <-time.After(wait):
		return false
	}
	deadline := time.After(wait)
	for {
		select {
		case got := <-to.tuns[slice].Inbound:
			if bytes.Equal(got, p) {
				return true
			}
		case <-deadline:
			return false
		}
	}
}

func (h *host) path(slice string, k fleet.Key) string { return h.sw.Path(slice, k) }
