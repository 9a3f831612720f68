package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// How many relays are kept warm for a pair of nodes: near ones are gateways of one of the two clusters, far ones those
// of a third, which help when the two clusters cannot reach each other at all, and are its witnesses.
const (
	nearRelays = 2
	farRelays  = 2
)

// neighbors lists the nodes to probe or to answer: those that share a slice, the gateways by which those may be
// reached, and, on a gateway, everybody, because anybody may come to be relayed for.
func (c *compiler) neighbors() []Neighbor {
	if len(c.in.Slices) == 0 && !c.self.Gateway {
		return nil
	}
	all := map[string]Neighbor{}
	var relays []string
	for _, cl := range c.in.Clusters {
		for _, n := range cl.Nodes {
			key, ok := n.Keys[fleet.ManagementSlice]
			if !ok || n.ID() == c.self.ID() {
				continue
			}
			nb := Neighbor{ID: n.ID(), Key: key, Peer: c.shares(n)}
			if cl.Name == c.in.Cluster || !cl.Private {
				nb.Endpoints = n.Endpoints()
			}
			if nb.Peer && cl.Name != c.in.Cluster {
				nb.Relays = c.relays(cl, n)
				relays = append(relays, nb.Relays...)
			}
			all[nb.ID] = nb
		}
	}
	var out []Neighbor
	for id, nb := range all {
		if nb.Peer || c.self.Gateway || slices.Contains(relays, id) {
			out = append(out, nb)
		}
	}
	slices.SortFunc(out, func(a, b Neighbor) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// shares tells whether a node is on a slice that this one hosts.
func (c *compiler) shares(n fleet.Node) bool {
	return slices.ContainsFunc(c.in.Slices, func(s fleet.Slice) bool { return n.On(s.Name) })
}

// relays picks the gateways that are kept warm for the pair of this node and another. The two ends pick the same ones,
// as far as they know the same gateways, and the pairs spread over all of them (rendezvous hashing).
func (c *compiler) relays(cl fleet.Cluster, n fleet.Node) []string {
	type candidate struct{ id, rank string }
	var near, far []candidate
	for _, g := range c.gateways() {
		if _, ok := g.Keys[fleet.ManagementSlice]; !ok || g.ID() == n.ID() || g.ID() == c.self.ID() || len(g.Addrs) == 0 {
			continue
		}
		a, b := min(c.self.ID(), n.ID()), max(c.self.ID(), n.ID())
		sum := sha256.Sum256([]byte(a + " " + b + " " + g.ID()))
		cand := candidate{g.ID(), hex.EncodeToString(sum[:8])}
		if g.Cluster == cl.Name || g.Cluster == c.in.Cluster {
			near = append(near, cand)
		} else {
			far = append(far, cand)
		}
	}
	var out []string
	for _, part := range []struct {
		list []candidate
		most int
	}{{near, nearRelays}, {far, farRelays}} {
		slices.SortFunc(part.list, func(a, b candidate) int { return strings.Compare(a.rank, b.rank) })
		for _, cand := range part.list[:min(len(part.list), part.most)] {
			out = append(out, cand.id)
		}
	}
	return out
}
