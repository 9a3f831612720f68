package roster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// maxNetworks is how many pod networks of a cluster the hub hears of; one with more must say them in its Cluster.
const maxNetworks = 256

// Networks lists this cluster's own pod networks if a slice's headless names answer with the pods' own addresses.
func (r *Roster) Networks(slice string) []netip.Prefix {
	s := r.slices[slice]
	if s == nil {
		return nil
	}
	var out []netip.Prefix
	for _, n := range s.Networks {
		if n.Cluster == r.f.Cluster {
			out = append(out, n.Prefix)
		}
	}
	return out
}

// ownNetworks joins what the nodes say of their pods' addresses; nothing if that is too much to tell.
func (r *Roster) ownNetworks() []netip.Prefix {
	var all []netip.Prefix
	for _, n := range r.f.Nodes {
		all = append(all, n.PodCIDRs...)
	}
	out := merge(all)
	if len(out) > maxNetworks {
		return nil
	}
	return out
}

// needed lists the service addresses that every pod of this cluster needs, sorted.
func (r *Roster) needed() []netip.Addr {
	var out []netip.Addr
	for _, addrs := range maps.All(r.f.Needed) {
		out = append(out, addrs...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// merge returns the fewest prefixes that hold the same addresses, sorted.
func merge(in []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range slices.SortedFunc(slices.Values(in), func(a, b netip.Prefix) int {
		return cmp.Or(a.Masked().Addr().Compare(b.Masked().Addr()), a.Bits()-b.Bits())
	}) {
		if !p.IsValid() {
			continue
		}
		p = p.Masked()
		if n := len(out); n > 0 && out[n-1].Contains(p.Addr()) {
			continue // sorted: what came before is as large or larger
		}
		for out = append(out, p); len(out) > 1; {
			a, b := out[len(out)-2], out[len(out)-1]
			up := netip.PrefixFrom(a.Addr(), a.Bits()-1)
			if a.Bits() != b.Bits() || a.Bits() == 0 || up != up.Masked() || !up.Contains(b.Addr()) {
				break
			}
			out = append(out[:len(out)-2], up)
		}
	}
	return out
}
