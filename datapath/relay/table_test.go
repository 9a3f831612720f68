package relay

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

func key(b byte) fleet.Key { return fleet.Key(bytes.Repeat([]byte{b}, 32)) }

func at(s string) *Endpoint { return At(netip.MustParseAddrPort(s)) }

// forge makes a message that passes for WireGuard's to whoever has no private key.
func forge(kind byte, sender, receiver uint32, to fleet.Key) []byte {
	size := map[byte]int{typeInitiation: sizeInitiation, typeResponse: sizeResponse, typeCookie: sizeCookie, typeData: 96}[kind]
	p := make([]byte, size)
	_, _ = rand.Read(p)
	copy(p, []byte{kind, 0, 0, 0})
	le := binary.LittleEndian
	sign := func(off int) {
		m := newMac1(to)
		m.h.Reset()
		m.h.Write(p[:off])
		copy(p[off:], m.h.Sum(nil))
	}
	switch kind {
	case typeInitiation:
		le.PutUint32(p[4:], sender)
		sign(mac1Initiation)
	case typeResponse:
		le.PutUint32(p[4:], sender)
		le.PutUint32(p[8:], receiver)
		sign(mac1Response)
	default:
		le.PutUint32(p[4:], receiver)
	}
	return p
}

// world is a table with a device (key 1, peer 2) and a target (key 3).
type world struct {
	*testing.T
	*table
	dev *device
	now int64
}

var (
	x1, x2   = at("192.0.2.1:1000"), at("192.0.2.2:1000")
	nodeT    = at("10.0.0.3:51871")
	stranger = at("203.0.113.9:9")
)

func newWorld(t *testing.T) *world {
	w := &world{T: t, table: newTable(), now: second}
	w.dev = &device{slice: "pay", key: key(1), mac: newMac1(key(1)), peers: map[fleet.Key]*peer{}}
	p := &peer{dev: w.dev, mac: newMac1(key(2)), Peer: plan.Peer{ID: "c2/b", Key: key(2)}}
	p.paths.ways = []plan.Path{{Endpoint: x1.addr}}
	w.dev.peers[key(2)] = p
	w.devices["pay"] = w.dev
	w.targets[key(3)] = &target{Target: plan.Target{Key: key(3), Endpoints: []netip.AddrPort{nodeT.addr}}, mac: newMac1(key(3))}
	w.known[x1.addr.Addr()] = true
	return w
}

func (w *world) in(p []byte, from *Endpoint) verdict { return w.incoming(p, parse(p), from, w.now) }

func (w *world) forwards(p []byte, from, to *Endpoint) {
	w.Helper()
	v := w.in(p, from)
	if v.dev != nil || len(v.to) != 1 || v.to[0].addr != to.addr {
		w.Fatalf("type %d from %v: %s, want forwarded to %v", p[0], from.addr, v, to.addr)
	}
}

func (w *world) drops(p []byte, from *Endpoint, why reason) {
	w.Helper()
	was := w.table.drops[why].Load()
	if v := w.in(p, from); v.dev != nil || v.to != nil {
		w.Fatalf("type %d from %v: %s, want dropped: %s", p[0], from.addr, v, reasonNames[why])
	}
	if w.table.drops[why].Load() != was+1 {
		w.Fatalf("dropped for another reason than %s", reasonNames[why])
	}
}

func (v verdict) String() string {
	s := ""
	switch {
	case v.dev != nil:
		s = "for " + v.dev.slice
	case v.to == nil:
		s = "dropped"
	}
	for _, e := range v.to {
		s += " to " + e.addr.String()
	}
	return s
}

// session relays a handshake of x1 (index 10) with the target (index 30).
func (w *world) session() {
	w.Helper()
	w.forwards(forge(typeInitiation, 10, 0, key(3)), x1, nodeT)
	w.forwards(forge(typeResponse, 30, 10, key(9)), nodeT, x1)
}

func TestRelayedSession(t *testing.T) {
	w := newWorld(t)
	w.session()
	w.forwards(forge(typeData, 0, 30, key(0)), x1, nodeT)
	w.forwards(forge(typeData, 0, 10, key(0)), nodeT, x1)
	w.forwards(forge(typeCookie, 0, 10, key(0)), nodeT, x1)
	w.now += lifetime
	w.drops(forge(typeData, 0, 30, key(0)), x1, dropIndex)
	w.sweep(w.now)
	if len(w.index) != 0 || w.flows != 0 {
		t.Errorf("after its life: %d indexes, %d flows", len(w.index), w.flows)
	}
}

func TestDropped(t *testing.T) {
	w := newWorld(t)
	w.session()
	good := forge(typeInitiation, 11, 0, key(3))
	for name, c := range map[string]struct {
		p    []byte
		from *Endpoint
		why  reason
	}{
		"empty":                         {nil, x1, dropGarbage},
		"short":                         {good[:31], x1, dropGarbage},
		"initiation too long":           {append(bytes.Clone(good), 0), x1, dropGarbage},
		"unknown type":                  {append([]byte{5}, good[1:]...), x1, dropGarbage},
		"reserved bytes":                {append([]byte{1, 1}, good[2:]...), x1, dropGarbage},
		"for nobody":                    {forge(typeInitiation, 11, 0, key(7)), x1, dropMac1},
		"mac1 of another message":       {append(forge(typeInitiation, 11, 0, key(3))[:12], good[12:]...), x1, dropMac1},
		"unknown index":                 {forge(typeData, 0, 77, key(0)), x1, dropIndex},
		"answer to nothing":             {forge(typeResponse, 31, 77, key(9)), nodeT, dropIndex},
		"second answer":                 {forge(typeResponse, 31, 10, key(9)), nodeT, dropSource},
		"second answer, stranger":       {forge(typeResponse, 31, 10, key(9)), stranger, dropSource},
		"cookie from a stranger":        {forge(typeCookie, 0, 10, key(0)), stranger, dropSource},
		"index of a session taken":      {forge(typeInitiation, 10, 0, key(3)), x2, dropCollision},
		"index of an answer taken":      {forge(typeInitiation, 30, 0, key(3)), x2, dropCollision},
		"from the target itself":        {forge(typeInitiation, 11, 0, key(3)), nodeT, dropLoop},
		"data back to where it is from": {forge(typeData, 0, 30, key(0)), nodeT, dropLoop},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			w.drops(c.p, c.from, c.why)
		})
	}
	w.T = t
	w.forwards(forge(typeData, 0, 30, key(0)), x1, nodeT)
	w.forwards(forge(typeData, 0, 10, key(0)), nodeT, x1)
}

func TestForgedAnswer(t *testing.T) {
	w := newWorld(t)
	w.forwards(forge(typeInitiation, 10, 0, key(3)), x1, nodeT)
	w.drops(forge(typeResponse, 66, 10, key(9)), stranger, dropSource)
	w.drops(forge(typeData, 0, 10, key(0)), nodeT, dropSource) // data before an answer
	w.forwards(forge(typeResponse, 30, 10, key(9)), nodeT, x1)
	w.drops(forge(typeData, 0, 66, key(0)), stranger, dropIndex)
}

// TestRoaming: a side whose NAT changed its address is also sent to there once it is silent where it was, and only at
// home again as soon as it speaks from home.
func TestRoaming(t *testing.T) {
	w := newWorld(t)
	w.session()
	w.forwards(forge(typeData, 0, 30, key(0)), x2, nodeT) // passed on: WireGuard knows whether it is genuine
	w.forwards(forge(typeData, 0, 10, key(0)), nodeT, x1) // but not followed: x1 was there just now
	w.now += roamAfter
	w.forwards(forge(typeData, 0, 30, key(0)), x2, nodeT)
	if v := w.in(forge(typeData, 0, 10, key(0)), nodeT); v.String() != " to 192.0.2.1:1000 to 192.0.2.2:1000" {
		t.Errorf("to a side that roamed: %s, want both places", v)
	}
	w.forwards(forge(typeData, 0, 30, key(0)), x1, nodeT)
	w.forwards(forge(typeData, 0, 10, key(0)), nodeT, x1)
}

// TestGatewaysDoNotRelayInACircle: each of two gateways once heard the target through the other, and holds that for a place
// where the target is. While the target is silent, what is for it goes to both, and comes back from neither.
func TestGatewaysDoNotRelayInACircle(t *testing.T) {
	w := newWorld(t)
	w.session()
	other := x2
	w.now += roamAfter
	w.forwards(forge(typeData, 0, 10, key(0)), other, x1)
	if v := w.in(forge(typeData, 0, 30, key(0)), x1); v.String() != " to 10.0.0.3:51871 to 192.0.2.2:1000" {
		t.Errorf("from where the handshake came: %s, want both places", v)
	}
	for _, from := range []*Endpoint{stranger, at("192.0.2.3:1000")} {
		w.now += roamAfter // it seems to have moved, too
		w.forwards(forge(typeData, 0, 30, key(0)), from, nodeT)
		w.forwards(forge(typeData, 0, 30, key(0)), from, nodeT)
	}
}

func TestTableIsBounded(t *testing.T) {
	w := newWorld(t)
	for i := range uint32(maxIndexes / 2) {
		w.now += second / 1000 // within the limit of a known source
		w.in(forge(typeInitiation, 1000+i, 0, key(3)), x1)
		w.in(forge(typeResponse, 1e6+i, 1000+i, key(9)), nodeT)
	}
	full := w.flows
	for i := range uint32(1000) {
		w.in(forge(typeInitiation, 2e6+i, 0, key(3)), x1)
	}
	if w.flows*2 > maxIndexes || len(w.index) > maxIndexes {
		t.Errorf("%d flows, %d indexes: more than %d", w.flows, len(w.index), maxIndexes)
	}
	if w.table.drops[dropFull].Load() == 0 {
		t.Error("the table never was full")
	}
	w.now += lifetime
	w.sweep(w.now)
	if w.flows != 0 || len(w.index) != 0 {
		t.Errorf("%d of %d flows, %d indexes left after their lives", w.flows, full, len(w.index))
	}
}

func TestLimits(t *testing.T) {
	count := func(src func(i int) *Endpoint, n int) (passed int) {
		w := newWorld(t)
		for i := range n {
			if w.in(forge(typeInitiation, uint32(1000+i), 0, key(3)), src(i)).to != nil {
				passed++
			}
		}
		return passed
	}
	one := func(int) *Endpoint { return stranger }
	many := func(i int) *Endpoint { return at(fmt.Sprintf("198.51.%d.%d:9", i/256, i%256)) }
	sameSubnet := func(i int) *Endpoint { return at(fmt.Sprintf("[2001:db8::%x]:9", i+1)) }
	for name, c := range map[string]struct{ got, most int }{
		"one stranger":      {count(one, 5000), strangerCap},
		"many strangers":    {count(many, 20000), totalBurst},
		"one IPv6 network":  {count(sameSubnet, 5000), strangerCap},
		"a configured node": {count(func(int) *Endpoint { return x1 }, 5000), knownBurst},
	} {
		if c.got > c.most || c.got == 0 {
			t.Errorf("%s: %d initiations passed at once, want at most %d and some", name, c.got, c.most)
		}
	}
}

// TestLocalIndexes: what local devices choose leads packets to them; a relayed session cannot take such an index, and
// a device that draws one which is taken must try again.
func TestLocalIndexes(t *testing.T) {
	w := newWorld(t)
	init := forge(typeInitiation, 50, 0, key(2))
	out, _ := w.outgoing(w.dev, init, parse(init), &Endpoint{}, w.now)
	if len(out) != 1 || out[0].to[0] != x1.addr {
		t.Fatalf("initiation goes to %v, want the peer's path", out)
	}
	if v := w.in(forge(typeResponse, 60, 50, key(1)), x1); v.dev != w.dev {
		t.Fatalf("the answer is %s", v)
	}
	if _, _, p, _ := w.dev.route(60, x1); p == nil || p.ID != "c2/b" {
		t.Errorf("the peer's index is unknown")
	}
	if e, _, _, _ := w.dev.route(60, x2); e.addr != x1.addr {
		t.Errorf("data of a session go to %v, where it was never heard", e.addr)
	}
	w.in(forge(typeData, 0, 50, key(0)), x2)
	if e, _, _, _ := w.dev.route(60, x2); e.addr != x2.addr {
		t.Errorf("data of a session that was heard from elsewhere go to %v", e.addr)
	}
	w.drops(forge(typeInitiation, 50, 0, key(3)), x2, dropCollision)
	other := &device{slice: "other", key: key(5), mac: newMac1(key(5))}
	for name, p := range map[string][]byte{"initiation": forge(typeInitiation, 50, 0, key(2)), "response": forge(typeResponse, 50, 3, key(2))} {
		if out, to := w.outgoing(other, p, parse(p), x1, w.now); out != nil || to != nil {
			t.Errorf("another device's %s with the same index left", name)
		}
	}
	if v := w.in(forge(typeData, 0, 50, key(0)), x1); v.dev != w.dev {
		t.Errorf("data for the first device: %s", v)
	}
	called := forge(typeInitiation, 99, 0, key(1))
	if v := w.in(called, stranger); v.dev != w.dev {
		t.Errorf("an initiation that names the device: %s", v)
	}
	w.drops(called, x2, dropDuplicate) // its copy by another path
	answer := forge(typeResponse, 51, 99, key(2))
	if _, to := w.outgoing(w.dev, answer, parse(answer), x2, w.now); to.addr != stranger.addr {
		t.Errorf("the answer to it goes to %v, want to where it came from", to.addr)
	}
}

// FuzzSwitch: whatever arrives, in whatever order, the table keeps its bounds, sends nothing back to where it came
// from, forwards only to those whom the configuration or a handshake names, and changes no packet.
func FuzzSwitch(f *testing.F) {
	f.Add(append([]byte{0, 148}, forge(typeInitiation, 10, 0, key(3))...))
	f.Add(append([]byte{1, 92}, forge(typeResponse, 30, 10, key(9))...))
	f.Add(append(append([]byte{0, 148}, forge(typeInitiation, 10, 0, key(3))...), append([]byte{2, 92}, forge(typeResponse, 30, 10, key(9))...)...))
	f.Add(append([]byte{0, 96}, forge(typeData, 0, 30, key(0))...))
	sources := []*Endpoint{x1, x2, nodeT, stranger}
	f.Fuzz(func(t *testing.T, script []byte) {
		w := newWorld(t)
		w.session()
		for len(script) >= 2 {
			from := sources[int(script[0])%len(sources)]
			w.now += int64(script[0]>>4) * second
			n := min(int(script[1]), len(script)-2)
			p := script[2 : 2+n]
			script = script[2+n:]
			if len(p) == sizeInitiation && script0(p) { // let the fuzzer through the door that BLAKE2s closes
				m := newMac1(key(3))
				m.h.Reset()
				m.h.Write(p[:mac1Initiation])
				p = append(bytes.Clone(p[:mac1Initiation]), append(m.h.Sum(nil), p[mac1Initiation+mac1Size:]...)...)
			}
			was := bytes.Clone(p)
			v := w.in(p, from)
			if !bytes.Equal(p, was) {
				t.Fatal("the packet was changed")
			}
			if v.dev != nil && v.to != nil {
				t.Fatal("both here and forwarded")
			}
			for _, e := range v.to {
				if e.addr == from.addr {
					t.Fatalf("sent back to %v", e.addr)
				}
			}
			if w.flows*2 > maxIndexes || len(w.index) > 2*w.flows {
				t.Fatalf("%d flows, %d indexes", w.flows, len(w.index))
			}
		}
		w.now += lifetime
		w.sweep(w.now)
		if w.flows != 0 || len(w.index) != 0 {
			t.Fatalf("%d flows and %d indexes outlive their time", w.flows, len(w.index))
		}
	})
}

func script0(p []byte) bool { return p[mac1Initiation] == 0 }
