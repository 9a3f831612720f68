package nft

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

var update = flag.Bool("update", false, "rewrite the goldens from what Compile says now")

func backends(spec ...any) (out []plan.Backend) {
	for i := 0; i < len(spec); i += 2 {
		out = append(out, plan.Backend{Addr: netip.MustParseAddrPort(spec[i].(string)), Weight: spec[i+1].(int)})
	}
	return out
}

func example() plan.Slice {
	four, six := netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")
	return plan.Slice{
		Name: "pay", MTU: 1420, Prefixes: []netip.Prefix{four, six},
		Attachments: []plan.Attachment{{
			PodUID: "a", Link: "p111111111111", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.5"), netip.MustParseAddr("fd77::5")},
		}},
		Services: []plan.Balance{
			{Service: "shop/web", IP: netip.MustParseAddr("10.77.1.1"), Protocol: fleet.TCP, Port: 80, Backends: backends("10.77.0.5:8080", 1, "10.77.9.9:8080", 2)},
			{Service: "shop/dns", IP: netip.MustParseAddr("fd77::1:1"), Protocol: fleet.UDP, Port: 53, Backends: backends("[fd77::5]:53", 1), Affinity: 600},
			{Service: "shop/none", IP: netip.MustParseAddr("10.77.1.2"), Protocol: fleet.SCTP, Port: 80},
		},
		Policies: []fleet.Policy{{
			Name: "front", Slice: "pay", Pods: []netip.Addr{netip.MustParseAddr("10.77.0.5")}, Ingress: true, Egress: true,
			AllowIn:  []fleet.PolicyRule{{Peers: []netip.Prefix{four}, Ports: []fleet.PolicyPort{{Protocol: fleet.TCP, First: 80, Last: 90}}}},
			AllowOut: []fleet.PolicyRule{{}},
		}},
	}
}

func TestCompile(t *testing.T) {
	got := Compile(example()).String()
	const golden = "testdata/example.want"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the table differs from %s (go test ./datapath/nft -update rewrites it)\n got:\n%s", golden, got)
	}
}

// TestMarks: rules that differ in anything are told apart, and equal ones are not.
func TestMarks(t *testing.T) {
	a, b := Compile(example()).state(), Compile(example()).state()
	if !reflect.DeepEqual(a, b) {
		t.Error("equal plans give different tables")
	}
	other := example()
	other.MTU--
	c := Compile(other).state()
	if reflect.DeepEqual(a.chains["clamp"], c.chains["clamp"]) {
		t.Error("another MTU gives the same rules")
	}
	delete(a.chains, "clamp")
	delete(c.chains, "clamp")
	if !reflect.DeepEqual(a, c) {
		t.Error("another MTU changes more than one chain")
	}
}

func TestSlots(t *testing.T) {
	for _, c := range []struct {
		in   []plan.Backend
		want map[string]int
	}{
		{nil, nil},
		{backends("10.0.0.1:1", 7), map[string]int{"10.0.0.1:1": 1}},
		{backends("10.0.0.1:1", 5, "10.0.0.2:1", 5), map[string]int{"10.0.0.1:1": 1, "10.0.0.2:1": 1}},
		{backends("10.0.0.1:1", 10, "10.0.0.2:1", 30), map[string]int{"10.0.0.1:1": 1, "10.0.0.2:1": 3}},
		{backends("10.0.0.1:1", 0, "10.0.0.2:1", -4), map[string]int{"10.0.0.1:1": 1, "10.0.0.2:1": 1}},
		{backends("10.0.0.1:1", 1, "[::1]:1", 9), map[string]int{"10.0.0.1:1": 1}},
		{backends("10.0.0.1:1", 1, "10.0.0.2:1", 99999), map[string]int{"10.0.0.1:1": 1, "10.0.0.2:1": 1023}},
	} {
		got := map[string]int{}
		for _, a := range Slots(c.in, true, nil) {
			got[a.String()]++
		}
		if len(got) != len(c.want) || len(got) > 0 && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}

// TestSlotsAreFair: whatever the weights, everybody has a slot and nobody is more than two slots off its share.
func TestSlotsAreFair(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		var bs []plan.Backend
		sum := 0
		for i := range 1 + r.IntN(60) {
			b := plan.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1), Weight: 1 + r.IntN(5000)}
			sum += b.Weight
			bs = append(bs, b)
		}
		slots := Slots(bs, true, nil)
		if len(slots) > maxSlots {
			t.Fatalf("seed %d: %d slots", seed, len(slots))
		}
		got := map[netip.AddrPort]int{}
		for _, a := range slots {
			got[a]++
		}
		for _, b := range bs {
			share := float64(b.Weight) * float64(len(slots)) / float64(sum)
			if n := got[b.Addr]; n < 1 || float64(n) > share+2 || float64(n) < share-share*float64(len(bs))/maxSlots-2 {
				t.Errorf("seed %d: weight %d of %d has %d of %d slots, its share is %.1f", seed, b.Weight, sum, n, len(slots), share)
			}
		}
	}
}

// TestBoxes: boxes never overlap, and a packet is in one exactly if a rule allows it.
func TestBoxes(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		rules := randomRules(r)
		bs := boxes(rules, true)
		for i, a := range bs {
			for _, b := range bs[i+1:] {
				if overlap(a, b) {
					t.Fatalf("seed %d: %v and %v overlap, from %+v", seed, a, b, rules)
				}
			}
		}
		for range 300 {
			peer := netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(256))})
			proto := []fleet.Protocol{fleet.TCP, fleet.UDP, fleet.SCTP, "ICMP"}[r.IntN(4)]
			port := uint16(r.IntN(40))
			got := false
			number, _ := protocol(proto)
			for _, b := range bs {
				got = got || !peer.Less(b.from) && !b.to.Less(peer) && b.proto[0] <= number && number <= b.proto[1] && b.port[0] <= port && port <= b.port[1]
			}
			if want := allows(rules, peer, proto, port); got != want {
				t.Fatalf("seed %d: %s %s %d: %v, want %v by %+v\nboxes %v", seed, peer, proto, port, got, want, rules, bs)
			}
		}
	}
}

func randomRules(r *rand.Rand) (rules []fleet.PolicyRule) {
	for range r.IntN(5) {
		var rule fleet.PolicyRule
		for range r.IntN(4) {
			a := netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(256))})
			p, _ := a.Prefix(8 + r.IntN(25))
			rule.Peers = append(rule.Peers, p)
		}
		for range r.IntN(3) {
			p := fleet.PolicyPort{Protocol: []fleet.Protocol{fleet.TCP, fleet.UDP, fleet.SCTP}[r.IntN(3)], First: uint16(r.IntN(30))}
			if r.IntN(2) == 0 {
				p.Last = p.First + uint16(r.IntN(10))
			}
			rule.Ports = append(rule.Ports, p)
		}
		rules = append(rules, rule)
	}
	return rules
}

// allows is the rule of fleet.PolicyRule, word by word.
func allows(rules []fleet.PolicyRule, peer netip.Addr, proto fleet.Protocol, port uint16) bool {
	for _, r := range rules {
		from := len(r.Peers) == 0
		for _, p := range r.Peers {
			from = from || p.Contains(peer)
		}
		to := len(r.Ports) == 0
		for _, p := range r.Ports {
			to = to || p.Protocol == proto && (p.First == 0 || port == p.First || p.First <= port && port <= p.Last)
		}
		if from && to {
			return true
		}
	}
	return false
}

func overlap(a, b box) bool {
	return !a.to.Less(b.from) && !b.to.Less(a.from) && a.proto[0] <= b.proto[1] && b.proto[0] <= a.proto[1] &&
		a.port[0] <= b.port[1] && b.port[0] <= a.port[1]
}

// TestEveryElementFits: no key or value has another length than its set.
func TestEveryElementFits(t *testing.T) {
	tab := Compile(example())
	for name, s := range tab.Sets {
		for k, v := range s.Elements {
			if len(k) != int(s.Key.Bytes) {
				t.Errorf("%s: key of %d bytes, want %d", name, len(k), s.Key.Bytes)
			}
			if s.Map && !s.verdicts() && len(v) != int(s.Value.Bytes) {
				t.Errorf("%s: value of %d bytes, want %d", name, len(v), s.Value.Bytes)
			}
		}
	}
}
