package node

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
)

// TestKeysChange: two whole nodes are told of a newer generation of keys, one of them late. Their pods reach each other
// all the time, and in the end neither has its old key any more.
//
// A busy machine loses an echo now and then without any change of keys, so the probe is repeated; that no packet is lost
// is counted in package tunnel.
func TestKeysChange(t *testing.T) {
	netnstest.NeedRoot(t)
	duo := newDuo(t, "10.77.0.0/16")
	one, two := duo.one, duo.two
	duo.pod(t, one, "a", "10.77.0.1")
	b := duo.pod(t, two, "b", "10.77.16.1")
	tell := func(generations ...uint64) {
		t.Helper()
		duo.rev++
		for i, s := range []*site{one, two} {
			in := duo.intent(t, s, one, two)
			in.Slices[0].KeyGeneration = generations[i]
			s.controller.tell(t, in)
		}
	}
	held := func(want ...string) func(fleet.Report) bool {
		return func(r fleet.Report) bool {
			n := 0
			for name := range r.Keys {
				if s, _ := fleet.SplitKeyName(name); s == "pay" {
					n++
				}
			}
			return n == len(want) && !slices.ContainsFunc(want, func(w string) bool { return r.Keys[w].IsZero() })
		}
	}
	duo.begin(t)
	reach := func(what string, limit time.Duration) {
		t.Helper()
		silent, err := datapath.Probe(t.Context(), one.running["a"].NS, map[netip.Addr]time.Duration{b.Addrs[0]: limit})
		if err != nil || len(silent) > 0 {
			t.Fatalf("%s: no answer from %v, %v", what, silent, err)
		}
	}
	reach("at first", 10*time.Second)
	old := one.node(t).Keys["pay"]

	tell(1, 0) // the other is not told yet
	one.until(t, "a second key", held("pay", "pay@1"))
	tell(1, 0)
	reach("with one of two told", 10*time.Second)
	tell(1, 1)
	two.until(t, "a second key", held("pay", "pay@1"))
	tell(1, 1)
	reach("with both told", 10*time.Second)
	started := time.Now()
	for _, s := range []*site{one, two} {
		for n := 0; ; n++ {
			reach(fmt.Sprintf("while old keys rest, look %d", n), 10*time.Second)
			s.controller.mu.Lock()
			r := s.controller.reports[len(s.controller.reports)-1]
			s.controller.mu.Unlock()
			if held("pay@1")(r) {
				break
			}
			if time.Since(started) > time.Minute {
				t.Fatalf("%s still has the keys %v", s.name, r.Keys)
			}
		}
	}
	t.Logf("old keys gone after %v", time.Since(started))
	tell(1, 1)
	reach("with the new keys alone", 10*time.Second)
	if k := one.node(t).Keys["pay@1"]; k == old || k.IsZero() {
		t.Errorf("the key is %v, and was %v", k, old)
	}
}
