package controller

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"seaway.dev/seaway/controller/roster"
)

// moved is what of this cluster differs between two rosters, as far as service discovery depends on it. A pod that comes
// or goes is no reason to look at what other clusters export.
type moved struct {
	namespaces []string               // whose slice, or whose slice's families or networks, differ
	pods       []string               // namespaces whose pods' addresses or links differ
	services   []types.NamespacedName // whose addresses differ
}

func compareFootprints(a, b *roster.Roster) (m moved) {
	if b.SameHere(a) {
		return m
	}
	was, is := a.Footprint(), b.Footprint()
	all := maps.Clone(is)
	maps.Copy(all, was)
	for _, ns := range slices.Sorted(maps.Keys(all)) {
		if slices.Equal(was[ns], is[ns]) {
			continue
		}
		entries := differing(was[ns], is[ns])
		whole, pods := was[ns] == nil || is[ns] == nil || len(entries) == 0, false
		services := map[string]bool{}
		for _, entry := range entries {
			kind, rest, more := strings.Cut(entry, " ")
			switch {
			case more && kind == "service":
				name, _, _ := strings.Cut(rest, " ")
				services[name] = true
			case more && (kind == "pod" || kind == "expected"):
				pods = true
			default:
				whole = true
			}
		}
		if whole {
			m.namespaces = append(m.namespaces, ns)
			continue
		}
		if pods {
			m.pods = append(m.pods, ns)
		}
		for _, name := range slices.Sorted(maps.Keys(services)) {
			m.services = append(m.services, types.NamespacedName{Namespace: ns, Name: name})
		}
	}
	return m
}

// differing lists the entries that are in one of two lists alone.
func differing(a, b []string) (out []string) {
	count := make(map[string]int, len(a))
	for _, entry := range a {
		count[entry]++
	}
	for _, entry := range b {
		if count[entry]--; count[entry] < 0 {
			out = append(out, entry)
		}
	}
	for entry, n := range count {
		if n > 0 {
			out = append(out, entry)
		}
	}
	return out
}
