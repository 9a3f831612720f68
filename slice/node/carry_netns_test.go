package node

import (
	"slices"
	"testing"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
)

// TestTwoCarriers: two nodes of two clusters that carry bulletins find each other over the management slice: tunnel,
// kernel and TCP are real.
func TestTwoCarriers(t *testing.T) {
	netnstest.NeedRoot(t)
	one, two := newSite(t, "c1", "n1"), newSite(t, "c2", "n2")
	for _, s := range []*site{one, two} {
		s.until(t, "a stream", func(fleet.Report) bool { return s.controller.heard() })
	}
	var clusters []fleet.Cluster
	for _, s := range []*site{one, two} {
		s.until(t, "the management key", func(r fleet.Report) bool { return !r.Keys[fleet.ManagementSlice].IsZero() })
		n := s.node(t)
		n.Gateway, n.Carrier = true, true
		clusters = append(clusters, fleet.Cluster{Name: s.cluster, Nodes: []fleet.Node{n}})
	}
	for i, s := range []*site{one, two} {
		other := []*site{two, one}[i]
		s.controller.tell(t, fleet.Intent{
			Version: fleet.WireVersion, Epoch: 1, Rev: 1, Cluster: s.cluster, Node: s.name, Clusters: clusters,
			Carry: &fleet.Carry{Peers: []fleet.CarryPeer{{Cluster: other.cluster, Node: other.name, Dial: i == 0}}},
		})
	}
	for i, s := range []*site{one, two} {
		other := []*site{two, one}[i]
		s.until(t, "a session with "+other.name, func(r fleet.Report) bool {
			return slices.ContainsFunc(r.Carrying, func(c fleet.CarryState) bool { return c.Up && c.Peer == other.cluster+"/"+other.name })
		})
	}
}
