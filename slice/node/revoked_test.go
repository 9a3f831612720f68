package node

import (
	"net/netip"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
)

// TestRevokedNode: a node that goes on as if nothing had happened, with all its keys and peers, is refused by another
// within seconds of that one being told of the fleet without it: on their slice, with sessions that stood, and by its
// key on the management slice, by which probes are answered. It stays so when the other's tunnel is restarted, and ends
// when the other is told of it again.
func TestRevokedNode(t *testing.T) {
	netnstest.NeedRoot(t)
	duo := newDuo(t, "10.77.0.0/16")
	one, two := duo.one, duo.two
	a := duo.pod(t, one, "a", "10.77.0.1")
	duo.pod(t, two, "b", "10.77.16.1")
	duo.begin(t)
	// answers tells whether one's pod answers the other's within a time.
	answers := func(limit time.Duration) bool {
		t.Helper()
		silent, err := datapath.Probe(t.Context(), two.running["b"].NS, map[netip.Addr]time.Duration{a.Addrs[0]: limit})
		if err != nil {
			t.Fatal(err)
		}
		return len(silent) == 0
	}
	sees := func(state fleet.ReachState) func(fleet.Report) bool {
		return func(r fleet.Report) bool {
			for _, p := range r.Peers {
				if p.Peer == "c1/n1" {
					return p.State == state
				}
			}
			return false
		}
	}
	if !answers(20 * time.Second) {
		t.Fatal("no answer before anybody is revoked")
	}
	two.until(t, "probes answered", sees(fleet.ReachUp))

	refused := func(what string) {
		t.Helper()
		started := time.Now()
		for answers(500 * time.Millisecond) {
			if time.Since(started) > 10*time.Second {
				t.Fatalf("%s: still answered after %v", what, time.Since(started))
			}
		}
		t.Logf("%s: refused after %v", what, time.Since(started))
	}
	duo.rev++
	without := duo.intent(t, one, one)
	without.Pods = []fleet.Pod{a}
	one.controller.tell(t, without)
	refused("revoked")
	two.until(t, "probes refused", sees(fleet.ReachDown))
	one.stopTunnel()
	one.startTunnel()
	one.until(t, "the tunnel is back", func(r fleet.Report) bool { return r.IntentRev == duo.rev && len(r.Problems) == 0 && allAttached(1)(r) })
	refused("after a restart of the tunnel")

	duo.tell(t)
	if !answers(20 * time.Second) {
		t.Error("no answer after it was admitted again")
	}
}
