package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"seaway.dev/seaway/fleet"
)

// networks are the other clusters' pod networks that this node's pods route into a slice. Its own cluster's stay with
// the CNI.
func (c *compiler) networks(s fleet.Slice) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range s.Networks {
		if n.Cluster != c.in.Cluster {
			out = append(out, n.Prefix.Masked())
		}
	}
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out)
}

// aliases are the pod addresses that headless names of a slice answer with, of other clusters, and the slice addresses
// that they stand for. While a pod address passes from one pod to another, two may have it: who is ready has it.
func (c *compiler) aliases(s fleet.Slice) []Alias {
	if len(s.Networks) == 0 {
		return nil
	}
	type claim struct {
		Alias
		ready bool
	}
	var claims []claim
	for i := range c.in.Services {
		sv := &c.in.Services[i]
		if sv.Slice != s.Name {
			continue
		}
		for j := range sv.Endpoints {
			e := &sv.Endpoints[j]
			if e.Cluster == c.in.Cluster {
				continue
			}
			for _, own := range e.PodAddrs {
				if !own.IsValid() || own.Is4In6() {
					continue
				}
				for _, a := range e.Addrs {
					if a.Is4() == own.Is4() {
						claims = append(claims, claim{Alias{own, a}, e.Ready})
					}
				}
			}
		}
	}
	slices.SortFunc(claims, func(a, b claim) int {
		if a.ready != b.ready && a.Addr == b.Addr {
			if a.ready {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Addr.Compare(b.Addr), a.To.Compare(b.To))
	})
	var out []Alias
	for i, cl := range claims {
		if i == 0 || claims[i-1].Addr != cl.Addr {
			out = append(out, cl.Alias)
		}
	}
	return out
}
