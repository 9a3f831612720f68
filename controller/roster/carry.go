package roster

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// privateCarriers is how many nodes of a private cluster carry bulletins: one can fail.
const privateCarriers = 2

// chooseCarriers picks the nodes that exchange bulletins with other clusters: the gateways or, where nobody can be
// dialled, the first ready nodes that reported.
func (r *Roster) chooseCarriers() map[string]bool {
	if !r.self.Private || r.f.Leaving {
		return r.gateways
	}
	chosen := map[string]bool{}
	for _, wantReady := range []bool{true, false} {
		for _, name := range sortedNodes(r.f) {
			rep := r.f.Reports[name]
			if len(chosen) < privateCarriers && rep != nil && rep.Port != 0 && !r.self.revoked(name) && (r.f.Nodes[name].Ready || !wantReady) {
				chosen[name] = true
			}
		}
	}
	return chosen
}

func sortedNodes(f *Facts) []string {
	out := make([]string, 0, len(f.Nodes))
	for name := range f.Nodes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// carry is what a node is told that carries bulletins; nil if it does not.
//
// Of two clusters one dials: the private one, else one by a hash of both names. Its first carrier dials the other's
// first, its second the other's second, so that there are as many sessions as there are carriers and losing one node
// does not stop the news; the others of that cluster are spare. Two private clusters hear of each other by a third.
func (r *Roster) carry(node string) *fleet.Carry {
	if !r.carriers[node] {
		return nil
	}
	c := &fleet.Carry{Signers: map[string]fleet.Key{}}
	for _, m := range r.f.Members {
		if !m.Signer.IsZero() {
			c.Signers[m.Name] = m.Signer
		}
	}
	index := 0
	for name := range r.carriers {
		if name < node {
			index++
		}
	}
	for _, b := range r.others {
		if b.Private && r.self.Private {
			continue
		}
		dial := r.self.Private || !b.Private && dials(r.f.Cluster, b.Cluster)
		var theirs []string
		for _, n := range b.Nodes {
			if n.Carrier {
				theirs = append(theirs, n.Name)
			}
		}
		slices.Sort(theirs)
		for i, name := range theirs {
			c.Peers = append(c.Peers, fleet.CarryPeer{
				Cluster: b.Cluster, Node: name, Dial: dial, Spare: (i - index%len(theirs) + len(theirs)) % len(theirs),
			})
		}
	}
	slices.SortFunc(c.Peers, func(a, b fleet.CarryPeer) int {
		return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Node, b.Node))
	})
	return c
}

// dials tells whether a dials b, and not b a. Each cluster dials about half of the others.
func dials(a, b string) bool {
	sum := sha256.Sum256([]byte(min(a, b) + " " + max(a, b)))
	return (a < b) == (sum[0]%2 == 0)
}
