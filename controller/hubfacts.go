package controller

import (
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

func memberFacts(clusters []v1alpha1.Cluster) []roster.Member {
	out := make([]roster.Member, 0, len(clusters))
	for i := range clusters {
		c := &clusters[i]
		if !c.DeletionTimestamp.IsZero() {
			continue
		}
		signer, _ := fleet.ParseKey(c.Status.Signer) // none yet: nothing that it has signed can be believed
		out = append(out, roster.Member{
			Name: c.Name, Private: c.Spec.Private, Region: c.Spec.Region, Provider: c.Spec.Provider, Signer: signer,
			GatewayCount: int(c.Spec.Gateways.Count), GatewayLabels: c.Spec.Gateways.Selector,
			Revoked: slices.Sorted(slices.Values(c.Spec.RevokedNodes)),
		})
	}
	slices.SortFunc(out, func(a, b roster.Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// wishFacts translates slices. What the hub's rules should have refused is left out here.
func wishFacts(list []v1alpha1.Slice, members []roster.Member) []roster.Wish {
	out := make([]roster.Wish, 0, len(list))
	for i := range list {
		s := &list[i]
		if !s.DeletionTimestamp.IsZero() {
			continue
		}
		w := roster.Wish{Created: s.CreationTimestamp.UTC(), Names: s.Spec.Namespaces.Names}
		w.Name = s.Name
		if s.Status.Keys != nil {
			w.KeyGeneration = uint64(max(s.Status.Keys.Generation, 0))
		}
		for _, text := range s.Spec.Prefixes {
			if p, err := netip.ParsePrefix(string(text)); err == nil {
				w.Prefixes = append(w.Prefixes, p.Masked())
			}
		}
		for _, m := range members {
			if len(s.Spec.Clusters) == 0 || slices.Contains(s.Spec.Clusters, m.Name) {
				w.Clusters = append(w.Clusters, m.Name)
			}
		}
		for _, row := range s.Status.Clusters {
			for _, text := range row.Blocks {
				if p, err := netip.ParsePrefix(text); err == nil {
					w.Blocks = append(w.Blocks, fleet.Block{Cluster: row.Name, Prefix: p.Masked()})
				}
			}
		}
		for _, row := range s.Status.Clusters {
			for _, text := range row.Networks {
				if p, err := netip.ParsePrefix(text); err == nil && s.Spec.Addresses == v1alpha1.AddressesPod {
					w.Networks = append(w.Networks, fleet.Block{Cluster: row.Name, Prefix: p.Masked()})
				}
			}
		}
		if sel := s.Spec.Namespaces.Selector; sel != nil {
			parsed, err := metav1.LabelSelectorAsSelector(sel)
			switch {
			case err != nil: // the API server refuses such; it chooses nothing
			case parsed.Empty():
				w.All = true
			default:
				w.Selector = parsed.String()
			}
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b roster.Wish) int { return strings.Compare(a.Name, b.Name) })
	return out
}
