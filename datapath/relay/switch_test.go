package relay

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

func allow(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func to(h *host) plan.Path  { return plan.Path{Endpoint: h.addr} }
func via(g *host) plan.Path { return plan.Path{Endpoint: g.addr, Relay: g.id} }

// pair makes a and b peers on slice pay: a's pods are 10.0.1.0/24, b's 10.0.2.0/24.
func pair(a, b *host, ab, ba []plan.Path, keepalive int) {
	ka, kb := a.keyFor("pay"), b.keyFor("pay")
	a.device("pay", plan.Peer{ID: b.id, Key: kb, Allowed: allow("10.0.2.0/24"), Paths: ab, Keepalive: keepalive})
	b.device("pay", plan.Peer{ID: a.id, Key: ka, Allowed: allow("10.0.1.0/24"), Paths: ba})
}

func (h *host) relaysFor(others ...*host) {
	for _, o := range others {
		h.cfg.Targets = append(h.cfg.Targets, plan.Target{ID: o.id, Slice: "pay", Key: o.keyFor("pay"), Endpoints: []netip.AddrPort{o.addr}})
	}
}

func there(t *testing.T, a, b *host) {
	t.Helper()
	if !crosses(a, b, "pay", "10.0.1.1", "10.0.2.1", 3*time.Second) {
		t.Fatal("no packet from a to b")
	}
}

func back(t *testing.T, a, b *host) {
	t.Helper()
	if !crosses(b, a, "pay", "10.0.2.1", "10.0.1.1", 3*time.Second) {
		t.Fatal("no packet from b to a")
	}
}

func TestDirect(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b := newHost(t, r, "c1/a", "10.1.0.1:51871"), newHost(t, r, "c2/b", "10.2.0.1:51871")
		defer a.halt()
		defer b.halt()
		pair(a, b, []plan.Path{to(b)}, []plan.Path{to(a)}, 0)
		a.apply()
		b.apply()
		there(t, a, b)
		back(t, a, b)
		for range 5 { // rekeying included
			time.Sleep(100 * time.Second)
			there(t, a, b)
		}
	})
}

// relayed are two nodes that reach each other by a gateway only, until r.lose is taken away.
func relayed(t *testing.T, r *router) (a, b, g *host) {
	a, b, g = newHost(t, r, "c1/a", "10.1.0.1:51871"), newHost(t, r, "c2/b", "10.2.0.1:51871"), newHost(t, r, "c2/g", "10.2.0.9:51871")
	r.lose = func(from, to netip.AddrPort, _ []byte) bool {
		return from == a.addr && to == b.addr || from == b.addr && to == a.addr
	}
	pair(a, b, []plan.Path{to(b), via(g)}, nil, 0)
	g.relaysFor(b)
	for _, h := range []*host{g, a, b} {
		h.apply()
	}
	return a, b, g
}

// TestUpgrade: a session by a relay moves to the direct path once that opens, and no packet is lost meanwhile.
func TestUpgrade(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g := relayed(t, r)
		defer g.halt()
		defer a.halt()
		defer b.halt()
		there(t, a, b)
		back(t, a, b)
		kb := a.cfg.Devices[0].Peers[0].Key
		if p := a.path("pay", kb); !strings.HasPrefix(p, "relay c2/g ") {
			t.Fatal("path: ", p)
		}
		for i := range 700 { // seven rekeyings by relay, with attempts at the direct path in between
			time.Sleep(time.Second)
			if i == 600 {
				r.mu.Lock()
				r.lose = nil
				r.mu.Unlock()
			}
			there(t, a, b)
			back(t, a, b)
		}
		for !strings.HasPrefix(a.path("pay", kb), "direct ") {
			time.Sleep(time.Second)
			if time.Now().Year() > 2000 {
				t.Fatal("still by ", a.path("pay", kb))
			}
			there(t, a, b)
			back(t, a, b)
		}
		was := g.sw.Counters().Forwarded
		there(t, a, b)
		back(t, a, b)
		if n := g.sw.Counters().Forwarded - was; n != 0 {
			t.Errorf("%d packets by the relay after the move", n)
		}
	})
}

// TestRelayHoldsNoKey: the relay has neither device nor key; what it passes on is what came in, bit by bit.
func TestRelayPassesUnread(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		in, out := map[string]bool{}, map[string]bool{}
		a, b, g := relayed(t, r)
		r.seen = func(from, to netip.AddrPort, p []byte) {
			if to == g.addr {
				in[string(p)] = true
			}
			if from == g.addr {
				out[string(p)] = true
			}
		}
		defer g.halt()
		defer a.halt()
		defer b.halt()
		there(t, a, b)
		back(t, a, b)
		if len(g.cfg.Devices) != 0 || len(g.private) != 0 {
			t.Error("the relay has devices or keys")
		}
		if len(out) < 4 {
			t.Errorf("only %d packets by the relay", len(out))
		}
		for p := range out {
			if !in[p] {
				t.Error("the relay sent a packet of its own or changed one")
			}
		}
	})
}

// TestRelayRestart: a relay that comes back with its memory carries the sessions on without a new handshake; one
// without it drops them until the nodes shake hands anew.
func TestRelayRestart(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g := relayed(t, r)
		defer func() { g.halt() }()
		defer a.halt()
		defer b.halt()
		there(t, a, b)
		back(t, a, b)
		memory, changed := g.sw.Memory()
		if !changed {
			t.Fatal("nothing to remember")
		}
		g.halt()
		g.boot(memory)
		g.apply()
		handshakes := 0
		r.mu.Lock()
		r.seen = func(_, _ netip.AddrPort, p []byte) {
			if p[0] == typeInitiation {
				handshakes++
			}
		}
		r.mu.Unlock()
		there(t, a, b)
		back(t, a, b)
		r.mu.Lock()
		defer r.mu.Unlock()
		if handshakes != 0 {
			t.Errorf("%d new handshakes", handshakes)
		}
	})
}

// TestBothPrivate: two nodes behind NATs meet at a third cluster's gateway, which forwards to where its management
// device last heard them; when a NAT forgets, they meet again.
func TestBothPrivate(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g := newHost(t, r, "c1/a", "192.168.1.1:51871"), newHost(t, r, "c3/b", "192.168.3.1:51871"), newHost(t, r, "c2/g", "10.2.0.9:51871")
		defer g.halt()
		defer a.halt()
		defer b.halt()
		r.nat("192.168.1.1", "203.0.113.1")
		nb := r.nat("192.168.3.1", "203.0.113.3")
		const m = fleet.ManagementSlice
		mg := g.keyFor(m)
		for i, h := range []*host{a, b} {
			h.device(m, plan.Peer{ID: g.id, Key: mg, Allowed: allow("10.99.0.9/32"), Paths: []plan.Path{to(g)}, Keepalive: 25})
			g.cfg.Targets = append(g.cfg.Targets, plan.Target{ID: h.id, Slice: "pay", Key: h.keyFor("pay"), Management: h.keyFor(m)})
			_ = i
		}
		g.device(m, plan.Peer{ID: a.id, Key: a.keyFor(m), Allowed: allow("10.99.0.1/32")}, plan.Peer{ID: b.id, Key: b.keyFor(m), Allowed: allow("10.99.0.2/32")})
		pair(a, b, []plan.Path{via(g)}, []plan.Path{via(g)}, 25)
		for _, h := range []*host{g, a, b} {
			h.apply()
		}
		time.Sleep(6 * time.Second) // the first handshake may come before the other side's registration
		there(t, a, b)
		back(t, a, b)
		r.rebind(nb)
		lost := 0
		for range 120 {
			time.Sleep(time.Second)
			if !crosses(a, b, "pay", "10.0.1.1", "10.0.2.1", 500*time.Millisecond) {
				lost++
			}
		}
		there(t, a, b)
		back(t, a, b)
		t.Logf("a NAT forgot: %d of 120 packets, one a second, lost", lost)
		if lost > 40 {
			t.Errorf("too many: b speaks every 25 s at the latest, and is followed then")
		}
	})
}

// TestLostPath: when the configuration takes away the relay in use, the session is moved to another at once.
func TestLostPath(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g := newHost(t, r, "c1/a", "10.1.0.1:51871"), newHost(t, r, "c2/b", "10.2.0.1:51871"), newHost(t, r, "c2/g", "10.2.0.9:51871")
		g2 := newHost(t, r, "c2/g2", "10.2.0.8:51871")
		for _, h := range []*host{a, b, g, g2} {
			defer h.halt()
		}
		pair(a, b, []plan.Path{via(g), via(g2)}, nil, 0)
		g.relaysFor(b)
		g2.relaysFor(b)
		for _, h := range []*host{g, g2, a, b} {
			h.apply()
		}
		there(t, a, b)
		time.Sleep(time.Second)
		inUse := a.path("pay", b.keyFor("pay"))
		gone, left := g, g2
		if strings.Contains(inUse, g2.id+" ") {
			gone, left = g2, g
		}
		gone.halt()
		p := a.cfg.Devices[0].Peers[0]
		p.Paths = []plan.Path{via(left)}
		a.device("pay", p)
		start := time.Now()
		a.apply()
		for !crosses(a, b, "pay", "10.0.1.1", "10.0.2.1", 10*time.Millisecond) && time.Since(start) < time.Second {
			continue // what was on the old path is lost
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("moved after %v: want a few round trips of 4 ms", took)
		}
		back(t, a, b)
		gone.boot(nil) // so that the deferred halt has something to do
	})
}

// TestSlicesShareThePort: devices of many slices read the one socket, each its own packets, while others come and go.
func TestSlicesShareThePort(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b := newHost(t, r, "c1/a", "10.1.0.1:51871"), newHost(t, r, "c2/b", "10.2.0.1:51871")
		defer a.halt()
		defer b.halt()
		var names []string
		for i := range 8 {
			s := fmt.Sprintf("s%d", i)
			names = append(names, s)
			ka, kb := a.keyFor(s), b.keyFor(s)
			a.device(s, plan.Peer{ID: b.id, Key: kb, Allowed: allow("10.0.2.0/24"), Paths: []plan.Path{to(b)}})
			b.device(s, plan.Peer{ID: a.id, Key: ka, Allowed: allow("10.0.1.0/24")})
		}
		a.apply()
		b.apply()
		for round := range 3 {
			for _, s := range names {
				if !crosses(a, b, s, "10.0.1.1", "10.0.2.1", 3*time.Second) || !crosses(b, a, s, "10.0.2.1", "10.0.1.1", 3*time.Second) {
					t.Fatalf("round %d: slice %s does not pass", round, s)
				}
			}
			s := names[round]
			for _, h := range []*host{a, b} { // one leaves, even while it may be the reader
				h.closeDevice(s)
				h.cfg.Devices = h.cfg.Devices[1:]
				h.apply()
			}
			names[round] = names[7]
		}
		synctest.Wait()
	})
}

// TestFlood: garbage, forged indexes and initiations for nobody pass by without harm to a session, and nothing is
// ever answered.
func TestFlood(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g := relayed(t, r)
		defer g.halt()
		defer a.halt()
		defer b.halt()
		there(t, a, b)
		evil := r.plug("203.0.113.66:666")
		answered := 0
		r.mu.Lock()
		r.seen = func(_, to netip.AddrPort, _ []byte) {
			if to == evil.addr {
				answered++
			}
		}
		r.mu.Unlock()
		for i := range uint32(500) {
			for _, h := range []*host{g, b} {
				for _, p := range [][]byte{[]byte("hello"), forge(typeData, 0, i, key(0)), forge(typeInitiation, i, 0, key(9)),
					forge(typeResponse, i, i+1, key(9)), forge(typeCookie, 0, i, key(9)), make([]byte, 9000)} {
					_ = evil.write([][]byte{p}, At(h.addr), false)
				}
			}
		}
		time.Sleep(time.Second)
		there(t, a, b)
		back(t, a, b)
		if answered != 0 {
			t.Errorf("%d answers to forged packets", answered)
		}
		if d := g.sw.Counters().Dropped; d["garbage"] != 1000 || d["unknown-mac1"] == 0 || d["unknown-index"] == 0 {
			t.Errorf("counted: %v", d)
		}
	})
}

// TestReplay: initiations recorded and sent again from elsewhere move nothing.
func TestReplay(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g := relayed(t, r)
		defer g.halt()
		defer a.halt()
		defer b.halt()
		var recorded [][]byte
		r.seen = func(_, to netip.AddrPort, p []byte) {
			if to == g.addr {
				recorded = append(recorded, p)
			}
		}
		there(t, a, b)
		back(t, a, b)
		evil := r.plug("203.0.113.66:666")
		for range 3 {
			time.Sleep(6 * time.Second)
			r.mu.Lock()
			again := append([][]byte(nil), recorded...)
			r.mu.Unlock()
			_ = evil.write(again, At(g.addr), false)
			_ = evil.write(again, At(b.addr), false)
			time.Sleep(100 * time.Millisecond)
			there(t, a, b)
			back(t, a, b)
		}
	})
}
