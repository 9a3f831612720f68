package relay

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

func TestProbeForm(t *testing.T) {
	k, other := newProbeKey([32]byte{1}), newProbeKey([32]byte{2})
	m := probe{kind: kindAsk, flags: flagAlive | flagUse, way: 7, from: idOf(key(1)), number: 1 << 60, echo: 3,
		rtt: 20 * time.Millisecond, every: 100 * time.Millisecond, loss: 0.2}
	p := m.seal(k)
	got, ok := parseProbe(p)
	if !ok || got != m || !genuine(k, p) {
		t.Errorf("%+v comes back as %+v, %v, genuine %v", m, got, ok, genuine(k, p))
	}
	if genuine(other, p) {
		t.Error("another pair's key opens it")
	}
	for i := range p {
		q := bytes.Clone(p)
		q[i] ^= 1
		if _, ok := parseProbe(q); ok && genuine(k, q) {
			t.Errorf("byte %d may be changed", i)
		}
	}
	answer := probe{kind: kindAnswer, from: m.from}.seal(k)
	if len(answer) > len(p) {
		t.Error("an answer is larger than its ask")
	}
}

// listening is a switch with one neighbor, which shares the secret {9} and may be relayed to.
func listening(t testing.TB) (*Switch, *neighbor) {
	sw := New(slog.New(slog.DiscardHandler), func(Handshake) {})
	sw.start = time.Now().Add(-time.Hour)
	sw.Configure(Config{Self: key(1), Cluster: "c1", Relay: true, Neighbors: []Neighbor{
		{Neighbor: plan.Neighbor{ID: "c2/b", Key: key(2), Peer: true}, Secret: [32]byte{9}},
		{Neighbor: plan.Neighbor{ID: "c3/c", Key: key(3)}, Secret: [32]byte{8}}}})
	return sw, sw.byID[idOf(key(2))]
}

// TestReplays: an ask that does not echo what it was told lately, and one that came before, are no sign of life; they
// teach no address, and are answered seldom.
func TestReplays(t *testing.T) {
	sw, nb := listening(t)
	k := newProbeKey([32]byte{9})
	n := uint64(100)
	ask := func(number, echo uint64, from *Endpoint) (answer probe, ok bool) {
		p := probe{kind: kindAsk, flags: flagAlive, way: 1, from: nb.id, number: number, echo: echo, every: time.Second}.seal(k)
		out := sw.probed(p, from, sw.now(), nil)
		for _, o := range out {
			if m, is := parseProbe(o.pkt); is && m.kind == kindAnswer && o.to == from {
				return m, true
			}
		}
		return probe{}, false
	}
	first, ok := ask(n, 0, x1)
	if !ok || nb.heard != nil {
		t.Fatalf("the first ask: answered %v, heard at %v", ok, nb.heard)
	}
	if _, ok := ask(n+1, first.number, x1); !ok || nb.heard == nil || nb.heard.addr != x1.addr {
		t.Fatalf("a fresh ask: answered %v, heard at %v", ok, nb.heard)
	}
	ask(n+1, first.number, x2) // a copy, from elsewhere
	if nb.heard.addr != x1.addr {
		t.Error("a copied ask moved the node")
	}
	if old := first.number - uint64(2*freshFor); sw.fresh(old) || sw.fresh(first.number+uint64(time.Hour)) {
		t.Error("an old number, or one that was never given out, is fresh")
	}
	ask(n+2, first.number-uint64(2*freshFor), x2)
	if nb.heard.addr != x1.addr {
		t.Error("a stale ask moved the node")
	}
	answers := 0
	for i := range uint64(1000) {
		if _, ok := ask(n+3+i, 0, x2); ok {
			answers++
		}
	}
	if answers > staleRate+1 {
		t.Errorf("%d answers to 1000 stale asks at once", answers)
	}
	if _, ok := ask(n+2000, first.number, x1); !ok {
		t.Error("stale asks used up the answers of the node itself")
	}
	if _, ok := ask(5, sw.nextNumber(), x2); !ok || nb.heard.addr != x2.addr {
		t.Error("a node that was restarted with its clock back is not heard again")
	}
	forged := probe{kind: kindAsk, from: nb.id, number: 1}.seal(newProbeKey([32]byte{7}))
	if out := sw.probed(forged, x1, sw.now(), nil); len(out) != 0 || sw.t.drops[dropForged].Load() != 1 {
		t.Error("a forged ask was answered")
	}
	stranger := probe{kind: kindAsk, from: idOf(key(77))}.seal(k)
	if out := sw.probed(stranger, x1, sw.now(), nil); len(out) != 0 {
		t.Error("a stranger's ask was answered")
	}
}

// TestOnlyKnownPlacesAreRelayedFor: a relay forwards for nodes that it knows and to nodes that it knows, and only if it
// is one.
func TestOnlyKnownPlacesAreRelayedFor(t *testing.T) {
	sw, nb := listening(t)
	msg := append(headFor(idOf(key(3)))[:], forge(typeData, 0, 5, fleet.Key{})...)
	send := func() *Endpoint { _, _, to := sw.carried(bytes.Clone(msg), x1, sw.now()); return to }
	if send() != nil {
		t.Error("a stranger was relayed for")
	}
	sw.byAddr[x1.addr] = nb
	if send() != nil {
		t.Error("relayed to a node whose whereabouts are unknown")
	}
	c := sw.byID[idOf(key(3))]
	c.heard, c.heardAt = x2, sw.now()
	if to := send(); to == nil || to.addr != x2.addr {
		t.Errorf("relayed to %v", to)
	}
	sw.relaying = false
	if send() != nil {
		t.Error("relayed by a node that is no gateway")
	}
}

// FuzzOwnMessages: whatever comes in, the switch neither panics nor sends more than it got; what it takes for a probe
// of a node has that node's MAC.
func FuzzOwnMessages(f *testing.F) {
	k := newProbeKey([32]byte{9})
	f.Add(probe{kind: kindAsk, from: idOf(key(2)), way: 1, number: 5}.seal(k))
	f.Add(probe{kind: kindAnswer, from: idOf(key(2)), echo: 5}.seal(k))
	f.Add(append(headFor(idOf(key(2)))[:], forge(typeData, 0, 5, fleet.Key{})...))
	f.Add(append(headFor(idOf(key(3)))[:], probe{from: idOf(key(2))}.seal(k)...))
	f.Add(append(headFor(idOf(key(3)))[:], headFor(idOf(key(2)))[:]...))
	sw, nb := listening(f)
	sw.byAddr[x1.addr] = nb
	c := sw.byID[idOf(key(3))]
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == 0 {
			return
		}
		sw.mu.Lock()
		defer sw.mu.Unlock()
		c.heard, c.heardAt = x2, sw.now()
		inner, at, to := sw.carried(bytes.Clone(p), x1, sw.now())
		if to != nil && (p[0] != typeRelayed || p[1] != 0 || to.addr == x1.addr) {
			t.Fatalf("forwards % x to %v", p, to)
		}
		if inner != nil && (p[1] != 1 || at.head == nil || inner[0] == typeRelayed) {
			t.Fatalf("takes % x for % x", p, inner)
		}
		was := nb.heardAt
		sent := 0
		for _, o := range sw.probed(p, x1, sw.now(), nil) {
			if m, _ := parseProbe(o.pkt); m.kind == kindAnswer {
				sent += len(o.pkt)
			}
		}
		if sent > len(p) {
			t.Fatalf("%d bytes are answered by %d", len(p), sent)
		}
		if nb.heardAt != was && !genuine(k, p) {
			t.Fatalf("forged % x is heard", p)
		}
	})
}

// TestMayHedge: what goes by a second way is bounded, whatever is in doubt and for how long.
func TestMayHedge(t *testing.T) {
	nb, sent := &neighbor{}, 0
	for now := int64(1); now < 60*second; now += second / 1000 {
		if nb.mayHedge(2, now) {
			sent += 2
		}
	}
	if want := int(hedgeBurst + 60*hedgeRate); sent < want*9/10 || sent > want {
		t.Errorf("%d packets in a minute, want %d", sent, want)
	}
}
