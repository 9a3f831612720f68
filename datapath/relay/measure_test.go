package relay

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// TestDistance: both ends follow a round trip that changes, and say so within seconds.
func TestDistance(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g, w, _ := triangle(t, r)
		for _, h := range []*host{a, b, g, w} {
			defer h.halt()
		}
		for _, delay := range []time.Duration{40, 5, 100, 1} {
			r.mu.Lock()
			r.delay = delay * time.Millisecond
			r.mu.Unlock()
			time.Sleep(25 * time.Second)
			for _, h := range []*host{a, b} {
				got := reach(t, h, map[*host]string{a: "c2/b", b: "c1/a"}[h])
				if off := got.RTT - 2*delay*time.Millisecond; got.State == fleet.ReachDown || off < -3*time.Millisecond-delay*time.Millisecond/10 || off > 5*time.Millisecond+delay*time.Millisecond/10 {
					t.Errorf("%s, one way %d ms: %+v", h.id, delay, got)
				}
			}
		}
	})
}

// TestManyNeighbors: with hundreds of peers a node slows its probes down and stays below its total, and notices a
// dead one still.
func TestManyNeighbors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter()
		a := newHost(t, r, "c1/a", "10.1.0.1:51871")
		defer a.halt()
		all := []*host{a}
		for i := range 300 {
			h := newHost(t, r, fmt.Sprintf("c2/n%d", i), fmt.Sprintf("10.2.%d.%d:51871", i/200, i%200+1))
			defer h.halt()
			all = append(all, h)
		}
		keys := map[*host]fleet.Key{}
		for _, h := range all {
			keys[h] = h.keyFor(fleet.ManagementSlice)
		}
		know := func(h, o *host) {
			h.cfg.Self, h.cfg.Cluster = keys[h], h.id[:2]
			h.cfg.Neighbors = append(h.cfg.Neighbors, Neighbor{Secret: h.shared(o, keys[o]),
				Neighbor: plan.Neighbor{ID: o.id, Key: keys[o], Peer: true, Endpoints: []netip.AddrPort{o.addr}}})
		}
		for _, h := range all[1:] {
			know(a, h)
			know(h, a)
			h.apply()
		}
		a.apply()
		time.Sleep(30 * time.Second)
		was := a.sw.Counters().Asked
		time.Sleep(20 * time.Second)
		rate := float64(a.sw.Counters().Asked-was) / 20
		t.Logf("%.0f asks/s to 300 peers", rate)
		if rate > 300 {
			t.Errorf("%.0f asks/s", rate)
		}
		up := 0
		synctest.Wait()
		_, held, _ := a.sw.Reach()
		for _, x := range held {
			if x.State == fleet.ReachUp {
				up++
			}
		}
		if up != 300 {
			t.Errorf("%d of 300 are up", up)
		}
		c := cuts{}
		r.setCut(c, true, [2]*host{a, all[7]})
		start := time.Now()
		for reach(t, a, all[7].id).State != fleet.ReachDown && time.Since(start) < 10*time.Second {
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("down after %v", time.Since(start))
		if time.Since(start) > 5*time.Second {
			t.Error("too late")
		}
	})
}

// TestFlapping: a path that is on and off for 5 s each is left after the first two returns, and nothing is lost while it
// is on.
func TestFlapping(t *testing.T) {
	network(t, func(t *testing.T, r *router) {
		a, b, g, w, c := triangle(t, r)
		for _, h := range []*host{a, b, g, w} {
			defer h.halt()
		}
		was := a.sw.Counters().Moved
		for range 10 {
			r.setCut(c, true, [2]*host{a, b})
			time.Sleep(5 * time.Second)
			r.setCut(c, false, [2]*host{a, b})
			time.Sleep(5 * time.Second)
			if got := reach(t, a, "c2/b"); got.State != fleet.ReachUp {
				t.Errorf("%+v", got)
			}
		}
		if n := a.sw.Counters().Moved - was; n > 5 {
			t.Errorf("%d moves", n)
		}
	})
}

// BenchmarkProbe is what an ask costs the one that answers: parse, MAC, answer, judge.
func BenchmarkProbe(b *testing.B) {
	sw := New(slog.New(slog.DiscardHandler), func(Handshake) {})
	sw.Configure(Config{Self: key(1), Cluster: "c1", Neighbors: []Neighbor{
		{Neighbor: plan.Neighbor{ID: "c2/b", Key: key(2), Peer: true, Endpoints: []netip.AddrPort{x1.addr}}, Secret: [32]byte{9}}}})
	nb := sw.byID[idOf(key(2))]
	k := newProbeKey([32]byte{9})
	b.ReportAllocs()
	for i := range b.N {
		b.StopTimer()
		p := probe{kind: kindAsk, flags: flagAlive, way: 1, from: nb.id, number: uint64(i + 1), echo: sw.nextNumber(), every: time.Second}.seal(k)
		nb.answers = bucket{}
		b.StartTimer()
		sw.probed(p, x1, sw.now(), nil)
	}
}
