package hub

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// networks are the pod networks of a slice's clusters, if its headless names are to answer with pods' own addresses:
// what a Cluster's spec says, else what its nodes say. If any of them cannot be told from what others need, there are
// none, and the slice answers with its own addresses everywhere: names that mean one thing here and another there help
// nobody.
func networks(sl *v1alpha1.Slice, on []member) (map[string][]netip.Prefix, []fleet.Problem) {
	if sl.Spec.Addresses != v1alpha1.AddressesPod {
		return nil, nil
	}
	out := map[string][]netip.Prefix{}
	var unknown []string
	for _, m := range on {
		ps := podNetworks(sl, m)
		if len(ps) == 0 && m.bulletin != nil {
			unknown = append(unknown, m.cluster.Name)
		}
		out[m.cluster.Name] = ps
	}
	if clashes := clashes(sl, on, out); len(clashes) > 0 {
		if len(clashes) > 5 {
			clashes = append(clashes[:5], "…")
		}
		return nil, []fleet.Problem{{Reason: v1alpha1.SlicePodNetworks,
			Message: "pods cannot be reached at their own addresses: " + strings.Join(clashes, "; ") + "; names answer with the slice's addresses",
			Next:    fmt.Sprintf("leave spec.addresses out, or take clusters off with kubectl edit slice %s until the rest do not overlap", sl.Name)}}
	}
	if unknown != nil {
		return out, []fleet.Problem{{Reason: v1alpha1.SlicePodNetworkUnknown,
			Message: "the nodes of " + strings.Join(unknown, ", ") + " do not say from which private network their pods have addresses; names answer with the slice's addresses for these",
			Next:    fmt.Sprintf("write it in spec.podNetworks: kubectl edit clusters.seaway.dev %s", unknown[0])}}
	}
	return out, nil
}

// podNetworks are one cluster's. What was known stays while the cluster is not heard of.
func podNetworks(sl *v1alpha1.Slice, m member) []netip.Prefix {
	var texts []string
	for _, c := range m.cluster.Spec.PodNetworks {
		texts = append(texts, string(c))
	}
	switch {
	case texts != nil:
	case m.bulletin != nil:
		return believed(m.bulletin.Networks)
	default:
		for _, row := range sl.Status.Clusters {
			if row.Name == m.cluster.Name {
				texts = row.Networks
			}
		}
	}
	var out []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// believed is what may be taken from a cluster itself: private networks, and not too many. A cluster that called half of
// the internet its own would take it from the pods of all the others; such a network is for the fleet's people to write.
func believed(in []netip.Prefix) []netip.Prefix {
	const most = 256 // that a row of the status holds
	private := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), // RFC 1918
		netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598
		netip.MustParsePrefix("fc00::/7"),      // RFC 4193
	}
	for _, p := range in {
		within := func(o netip.Prefix) bool { return p.IsValid() && o.Bits() <= p.Bits() && o.Contains(p.Addr()) }
		if len(in) > most || !slices.ContainsFunc(private, within) {
			return nil
		}
	}
	return in
}

// clashes says which networks cannot be told apart from what.
func clashes(sl *v1alpha1.Slice, on []member, networks map[string][]netip.Prefix) []string {
	var out []string
	for i, m := range on {
		for _, p := range networks[m.cluster.Name] {
			whose := fmt.Sprintf("%s's pod network %s", m.cluster.Name, p)
			for _, text := range sl.Spec.Prefixes {
				if own, err := netip.ParsePrefix(string(text)); err == nil && own.Overlaps(p) {
					out = append(out, fmt.Sprintf("%s overlaps the slice's prefix %s", whose, own))
				}
			}
			for j, o := range on {
				if i == j {
					continue
				}
				for _, q := range networks[o.cluster.Name] {
					if i < j && p.Overlaps(q) {
						out = append(out, fmt.Sprintf("%s overlaps %s's %s", whose, o.cluster.Name, q))
					}
				}
				if a, what := needs(o.bulletin, p); what != "" {
					out = append(out, fmt.Sprintf("%s holds %s, %s of %s", whose, a, what, o.cluster.Name))
				}
			}
		}
	}
	return out
}

// needs finds an address of a prefix that a cluster's pods need for something else.
func needs(b *fleet.Bulletin, p netip.Prefix) (netip.Addr, string) {
	if b == nil {
		return netip.Addr{}, ""
	}
	if i := slices.IndexFunc(b.Needed, p.Contains); i >= 0 {
		return b.Needed[i], "a service address that every pod needs"
	}
	for _, n := range b.Nodes {
		if i := slices.IndexFunc(n.Addrs, p.Contains); i >= 0 {
			return n.Addrs[i], "node " + n.Name
		}
	}
	return netip.Addr{}, ""
}
