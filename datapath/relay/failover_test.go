package relay

import (
	"bytes"
	"crypto/ecdh"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/tun/tuntest"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// knows makes hosts neighbors of each other: those of peers probe each other, by relays as well.
func knows(peers []*host, relays ...*host) {
	all := append(append([]*host(nil), peers...), relays...)
	public := map[*host]fleet.Key{}
	for _, h := range all {
		public[h] = h.keyFor(fleet.ManagementSlice)
		h.cfg.Self, h.cfg.Cluster = public[h], h.id[:strings.Index(h.id, "/")]
	}
	for _, r := range relays {
		r.cfg.Relay = true
	}
	for i, h := range all {
		for j, o := range all {
			if h == o {
				continue
			}
			n := Neighbor{Neighbor: plan.Neighbor{ID: o.id, Key: public[o]}, Secret: h.shared(o, public[o])}
			if h.r.nats[o.addr.Addr()] == nil {
				n.Endpoints = []netip.AddrPort{o.addr}
			}
			if i < len(peers) && j < len(peers) {
				n.Peer = true
				for _, r := range relays {
					n.Relays = append(n.Relays, r.id)
				}
			}
			h.cfg.Neighbors = append(h.cfg.Neighbors, n)
		}
	}
}

func (h *host) shared(o *host, key fleet.Key) [32]byte {
	priv, err := ecdh.X25519().NewPrivateKey(h.private[fleet.ManagementSlice])
	if err != nil {
		h.t.Fatal(err)
	}
	pub, err := ecdh.X25519().NewPublicKey(key[:])
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := priv.ECDH(pub)
	if err != nil {
		h.t.Fatal(err)
	}
	return [32]byte(s)
}

// cuts makes the router lose what goes between pairs of hosts, both ways.
type cuts map[[2]netip.AddrPort]bool

func (c cuts) lose(from, to netip.AddrPort, _ []byte) bool { return c[[2]netip.AddrPort{from, to}] }

func (r *router) setCut(c cuts, on bool, pairs ...[2]*host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range pairs {
		c[[2]netip.AddrPort{p[0].addr, p[1].addr}] = on
		c[[2]netip.AddrPort{p[1].addr, p[0].addr}] = on
	}
	r.lose = c.lose
}

// steady sends a packet every 10 ms each way, and measures the longest time without one at either end.
type steady struct {
	stop chan struct{}
	done chan struct{}
	gaps [2]time.Duration
	got  [2]int
	sent int
}

func stream(a, b *host) *steady {
	s := &steady{stop: make(chan struct{}), done: make(chan struct{}, 3)}
	addr := []netip.Addr{netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.2.1")}
	for i, h := range []*host{a, b} {
		go func() {
			last := time.Now()
			for {
				select {
				case <-h.tuns["pay"].Inbound:
					s.gaps[i] = max(s.gaps[i], time.Since(last))
					last = time.Now()
					s.got[i]++
				case <-s.stop:
					s.gaps[i] = max(s.gaps[i], time.Since(last))
					s.done <- struct{}{}
					return
				}
			}
		}()
	}
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				a.tuns["pay"].Outbound <- tuntest.Ping(addr[1], addr[0])
				b.tuns["pay"].Outbound <- tuntest.Ping(addr[0], addr[1])
				s.sent++
			case <-s.stop:
				s.done <- struct{}{}
				return
			}
		}
	}()
	return s
}

func (s *steady) end() (longest time.Duration) {
	close(s.stop)
	for range 3 {
		<-s.done
	}
	return max(s.gaps[0], s.gaps[1])
}

// triangle are a and b, with a gateway in b's cluster and one in a third, 20 ms apart.
func triangle(t *testing.T, r *router) (a, b, g, w *host, c cuts) {
	r.delay = 10 * time.Millisecond
	a, b = newHost(t, r, "c1/a", "10.1.0.1:51871"), newHost(t, r, "c2/b", "10.2.0.1:51871")
	g, w = newHost(t, r, "c2/g", "10.2.0.9:51871"), newHost(t, r, "c3/w", "10.3.0.9:51871")
	pair(a, b, []plan.Path{to(b)}, []plan.Path{to(a)}, 0)
	knows([]*host{a, b}, g, w)
	for _, h := range []*host{g, w, a, b} {
		h.apply()
	}
	there(t, a, b)
	back(t, a, b)
	time.Sleep(5 * time.Second)
	return a, b, g, w, cuts{}
}

func reach(t *testing.T, h *host, node string) fleet.Reach {
	t.Helper()
	synctest.Wait() // for what is being published
	_, all, _ := h.sw.Reach()
	for _, r := range all {
		if r.Node == node {
			return r
		}
	}
	t.Fatalf("%s holds nothing of %s: %v", h.id, node, all)
	return fleet.Reach{}
}

// TestFailover: a path dies, and the stream goes on by another within 200 ms, without a handshake; when it is back the
// stream returns without a loss.
func TestFailover(t *testing.T) {
	for name, cut := range map[string]func(a, b, g, w *host) [][2]*host{
		"direct": func(a, b, g, w *host) [][2]*host { return [][2]*host{{a, b}} },
		"pair":   func(a, b, g, w *host) [][2]*host { return [][2]*host{{a, b}, {a, g}} },
	} {
		t.Run(name, func(t *testing.T) {
			network(t, func(t *testing.T, r *router) {
				a, b, g, w, c := triangle(t, r)
				for _, h := range []*host{a, b, g, w} {
					defer h.halt()
				}
				if got := reach(t, a, "c2/b"); got.State != fleet.ReachUp || !strings.HasPrefix(got.Path, "direct ") || got.RTT < 20*time.Millisecond || got.RTT > 22*time.Millisecond {
					t.Errorf("before: %+v", got)
				}
				handshakes := 0
				r.mu.Lock()
				r.seen = func(_, _ netip.AddrPort, p []byte) {
					if p[0] == typeInitiation || p[0] == typeRelayed && p[sizeHead] == typeInitiation {
						handshakes++
					}
				}
				r.mu.Unlock()
				s := stream(a, b)
				time.Sleep(time.Second)
				r.setCut(c, true, cut(a, b, g, w)...)
				time.Sleep(2 * time.Second)
				gap := s.end()
				t.Logf("longest gap %v; then by %s", gap, a.path("pay", a.cfg.Devices[0].Peers[0].Key))
				if gap > 250*time.Millisecond {
					t.Errorf("longest gap %v", gap)
				}
				for _, h := range []*host{a, b} {
					if p := h.path("pay", h.cfg.Devices[0].Peers[0].Key); !strings.HasPrefix(p, "relay ") {
						t.Errorf("%s sends by %s", h.id, p)
					}
				}
				if r := reach(t, a, "c2/b"); r.State != fleet.ReachUp || !strings.Contains(r.Why, "no answer") {
					t.Errorf("then: %+v", r)
				}
				s = stream(a, b)
				r.setCut(c, false, cut(a, b, g, w)...)
				time.Sleep(8 * time.Second)
				gap = s.end()
				time.Sleep(100 * time.Millisecond)
				if gap > 60*time.Millisecond || s.got[0] < s.sent-3 || s.got[1] < s.sent-3 {
					t.Errorf("on the way back: longest gap %v; %d sent each way, %v arrived", gap, s.sent, s.got)
				}
				if p := a.path("pay", a.cfg.Devices[0].Peers[0].Key); !strings.HasPrefix(p, "direct ") {
					t.Errorf("afterwards by %s", p)
				}
				if handshakes > 0 {
					t.Errorf("%d handshakes", handshakes)
				}
			})
		})
	}
}

// TestRelayDies: the relay in use dies, and the stream goes on by the other.
func TestRelayDies(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g, w, c := triangle(t, r)
		for _, h := range []*host{a, b, g, w} {
			defer h.halt()
		}
		r.setCut(c, true, [2]*host{a, b})
		time.Sleep(2 * time.Second)
		if p := a.path("pay", a.cfg.Devices[0].Peers[0].Key); !strings.HasPrefix(p, "relay c2/g ") {
			t.Fatal("by ", p)
		}
		s := stream(a, b)
		time.Sleep(time.Second)
		r.setCut(c, true, [2]*host{a, g}, [2]*host{b, g}, [2]*host{w, g})
		time.Sleep(2 * time.Second)
		gap := s.end()
		p := a.path("pay", a.cfg.Devices[0].Peers[0].Key)
		t.Logf("longest gap %v; then by %s", gap, p)
		if gap > 250*time.Millisecond || !strings.HasPrefix(p, "relay c3/w ") {
			t.Errorf("longest gap %v, then by %s", gap, p)
		}
		if r := reach(t, a, "c2/g"); r.State != fleet.ReachDown {
			t.Errorf("the relay is %+v", r)
		}
		if n := w.sw.Counters().Forwarded; n == 0 {
			t.Error("the third cluster's gateway relayed nothing")
		}
	})
}

// TestNodeDies: a dead node is down within half a second, with a witness, and up again when it is back.
func TestNodeDies(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g, w, c := triangle(t, r)
		for _, h := range []*host{a, b, g, w} {
			defer h.halt()
		}
		others := [][2]*host{{a, b}, {g, b}, {w, b}}
		rev, _, _ := a.sw.Reach()
		start := time.Now()
		r.setCut(c, true, others...)
		for reach(t, a, "c2/b").State != fleet.ReachDown && time.Since(start) < 2*time.Second {
			_, _, news := a.sw.Reach()
			select {
			case <-news:
			case <-time.After(time.Second):
			}
		}
		got := reach(t, a, "c2/b")
		t.Logf("after %v: %+v", time.Since(start), got)
		if got.State != fleet.ReachDown || time.Since(start) > 500*time.Millisecond || !strings.Contains(got.Why, "c3/w") {
			t.Errorf("after %v: %+v", time.Since(start), got)
		}
		if now, _, _ := a.sw.Reach(); now == rev {
			t.Error("the revision is the same")
		}
		r.setCut(c, false, others...)
		time.Sleep(3 * time.Second)
		if got := reach(t, a, "c2/b"); got.State != fleet.ReachUp {
			t.Errorf("back for 3 s: %+v", got)
		}
		there(t, a, b)
	})
}

// TestOldNeighbor: a node whose software knows no probes stays unknown, and is sent to as ever.
func TestOldNeighbor(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b := newHost(t, r, "c1/a", "10.1.0.1:51871"), newHost(t, r, "c2/b", "10.2.0.1:51871")
		defer a.halt()
		defer b.halt()
		pair(a, b, []plan.Path{to(b)}, []plan.Path{to(a)}, 0)
		knows([]*host{a, b})
		b.cfg.Neighbors = nil
		a.apply()
		b.apply()
		there(t, a, b)
		time.Sleep(time.Minute)
		there(t, a, b)
		back(t, a, b)
		if got := reach(t, a, "c2/b"); got.State != fleet.ReachUnknown {
			t.Errorf("%+v", got)
		}
	})
}

// TestPrivateNode: a node that nobody can dial is reached at the address it asks from, and by a relay to which it does.
func TestPrivateNode(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		r.delay = 10 * time.Millisecond
		r.nat("192.168.0.2", "203.0.113.1")
		a, b, w := newHost(t, r, "c1/a", "192.168.0.2:51871"), newHost(t, r, "c2/b", "10.2.0.1:51871"), newHost(t, r, "c3/w", "10.3.0.9:51871")
		for _, h := range []*host{a, b, w} {
			defer h.halt()
		}
		pair(a, b, []plan.Path{to(b)}, nil, 20)
		knows([]*host{a, b}, w)
		for _, h := range []*host{w, a, b} {
			h.apply()
		}
		there(t, a, b)
		time.Sleep(8 * time.Second) // if b leads, it hears of the direct way at a's second fresh ask only
		for _, h := range []*host{a, b} {
			got := reach(t, h, map[*host]string{a: "c2/b", b: "c1/a"}[h])
			if got.State != fleet.ReachUp || !strings.HasPrefix(got.Path, "direct ") {
				t.Errorf("%s: %+v", h.id, got)
			}
		}
		s := stream(a, b)
		time.Sleep(time.Second)
		r.mu.Lock()
		r.lose = func(from, to netip.AddrPort, _ []byte) bool {
			return from == b.addr && to != w.addr || to == b.addr && from != w.addr
		}
		r.mu.Unlock()
		time.Sleep(2 * time.Second)
		gap := s.end()
		p := b.path("pay", b.cfg.Devices[0].Peers[0].Key)
		t.Logf("longest gap %v; then by %s", gap, p)
		if gap > 250*time.Millisecond || !strings.HasPrefix(p, "relay c3/w ") {
			t.Errorf("longest gap %v, then by %s", gap, p)
		}
	})
}

// TestNoCircle: whatever is sent to gateways that all relay for each other, none forwards what was forwarded.
func TestNoCircle(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g, w, _ := triangle(t, r)
		for _, h := range []*host{a, b, g, w} {
			defer h.halt()
		}
		forwards := 0
		r.mu.Lock()
		r.seen = func(from, to netip.AddrPort, p []byte) {
			if p[0] == typeRelayed && p[1] == 1 && bytes.Contains(p, []byte("circle")) {
				forwards++
			}
		}
		r.mu.Unlock()
		data := append(forge(typeData, 0, 77, key(0)), "circle"...)
		for _, to := range []*host{a, b, g, w} {
			for _, by := range []*host{a, b, g, w} {
				for flag := range byte(2) {
					p := append(headFor(idOf(to.cfg.Self))[:], data...)
					p[1] = flag
					for _, from := range []*host{a, b, g, w} {
						r.send(from.addr, by.addr, bytes.Clone(p))
						r.send(from.addr, by.addr, append(headFor(idOf(to.cfg.Self))[:], p...)) // one in another
					}
				}
			}
		}
		time.Sleep(10 * time.Second)
		forwards -= 4 * 4 * 4 // what the test itself marked as forwarded
		// Forwarded at most once each: 2 gateways, 4 senders, 4 destinations, less those to or from itself.
		if forwards <= 0 || forwards > 2*4*4 {
			t.Errorf("%d messages were forwarded", forwards)
		}
		was := forwards
		time.Sleep(time.Minute)
		if forwards != was {
			t.Error("messages still go around")
		}
		// A relayed session's packets are not relayed on either, when they come forwarded.
		flow := &flow{a: side{index: 501, home: At(a.addr)}, b: side{index: 502, home: At(b.addr)}, answered: true, deadline: w.sw.now() + lifetime}
		w.sw.mu.Lock()
		w.sw.t.index[501], w.sw.t.index[502] = &entry{flow: flow, deadline: flow.deadline}, &entry{flow: flow, deadline: flow.deadline}
		loops := w.sw.t.drops[dropLoop].Load()
		w.sw.mu.Unlock()
		p := append(headFor(idOf(a.cfg.Self))[:], forge(typeData, 0, 502, key(0))...)
		p[1] = 1
		r.send(g.addr, w.addr, p)
		time.Sleep(time.Second)
		if n := w.sw.t.drops[dropLoop].Load() - loops; n != 1 {
			t.Errorf("a forwarded packet of a relayed session: %d dropped for its loop, want 1", n)
		}
	})
}
