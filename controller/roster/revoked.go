package roster

import (
	"fmt"
	"slices"

	"seaway.dev/seaway/fleet"
)

// Nodes can be revoked, by people, on the hub: see Member.Revoked. Such a node is left out of everything that others are
// told: its keys, of all slices and generations and the management slice's, whatever it made since; its pods; and
// its place as a gateway or carrier. It is told nothing itself. Both its own cluster and the others see to it, each from
// what the hub says: so it works while the node's cluster hears nothing, and where the others hear nothing but
// that cluster's bulletin.

// revoked tells whether a node of the cluster is.
func (m Member) revoked(node string) bool { return slices.Contains(m.Revoked, node) }

// withoutRevoked leaves out of a checked bulletin the pods and endpoints on revoked nodes; lists are copied if need be.
// Its nodes are left out before.
func withoutRevoked(b *fleet.Bulletin, m Member) {
	if len(m.Revoked) == 0 {
		return
	}
	pod := func(p fleet.Pod) bool { return m.revoked(p.Node) }
	if slices.ContainsFunc(b.Pods, pod) {
		b.Pods = slices.DeleteFunc(slices.Clone(b.Pods), pod)
	}
	endpoint := func(e fleet.Endpoint) bool { return m.revoked(e.Node) }
	copied := false
	for i := range b.Exports {
		if !slices.ContainsFunc(b.Exports[i].Endpoints, endpoint) {
			continue
		}
		if !copied {
			b.Exports, copied = slices.Clone(b.Exports), true
		}
		b.Exports[i].Endpoints = slices.DeleteFunc(slices.Clone(b.Exports[i].Endpoints), endpoint)
	}
}

// expel says which of this cluster's nodes are revoked, as long as they are there.
func (r *Roster) expel() {
	for _, name := range r.self.Revoked {
		if _, there := r.f.Nodes[name]; there {
			r.problem(ReasonNodeRevoked, "node "+name, "the node was revoked on the hub: no other node speaks with it, and its pods are on no slice",
				fmt.Sprintf("delete the node from the cluster; once it is made anew or found innocent, on the hub: seaway node readmit %s/%s", r.f.Cluster, name))
		}
	}
}
