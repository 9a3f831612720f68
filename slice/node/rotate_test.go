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
	one, two := newSite(t, "c1", "n1"), newSite(t, "c2", "n2")
	slice := fleet.Slice{Name: "pay", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}, Blocks: []fleet.Block{
		{Cluster: "c1", Prefix: netip.MustParsePrefix("10.77.0.0/20")}, {Cluster: "c2", Prefix: netip.MustParsePrefix("10.77.16.0/20")},
	}}
	a, b := one.pod(t, "a", "10.77.0.1"), two.pod(t, "b", "10.77.16.1")
	rev := uint64(0)
	tell := func(generations ...uint64) {
		rev++
		clusters := []fleet.Cluster{{Name: "c1", Nodes: []fleet.Node{one.node(t)}}, {Name: "c2", Nodes: []fleet.Node{two.node(t)}}}
		for i, s := range []*site{one, two} {
			slice := slice
			slice.KeyGeneration = generations[i]
			s.controller.tell(t, fleet.Intent{
				Version: fleet.WireVersion, Epoch: 1, Rev: rev, Cluster: s.cluster, Node: s.name, Clusters: clusters,
				Slices: []fleet.Slice{slice}, Pods: []fleet.Pod{a, b},
			})
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
	for _, s := range []*site{one, two} {
		s.until(t, "a stream", func(fleet.Report) bool { return s.controller.heard() })
	}
	tell(0, 0)
	for _, s := range []*site{one, two} {
		s.until(t, "the slice's key", held("pay"))
	}
	tell(0, 0)
	one.until(t, "a attached", func(r fleet.Report) bool { return r.IntentRev == rev && allAttached(1)(r) })
	two.until(t, "b attached", func(r fleet.Report) bool { return r.IntentRev == rev && allAttached(1)(r) })
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
