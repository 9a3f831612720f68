package roster

import (
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// scaling is what this cluster's autoscaler says of workloads in namespaces that are on a slice, sorted.
func (r *Roster) scaling() []fleet.Scaling {
	var out []fleet.Scaling
	for _, s := range r.f.Scaling {
		if on, ok := r.sliceOf[s.Namespace]; ok && len(out) < fleet.MaxScaling {
			s.Slice = on
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b fleet.Scaling) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}

// Scaling is what the other clusters' autoscalers say of the workloads that this one's speaks of, on the same slice, by
// cluster; nil if this cluster's says nothing.
func (r *Roster) Scaling() map[string][]fleet.Scaling {
	slice := map[string]string{}
	for _, s := range r.scaling() {
		slice[s.Key()] = s.Slice
	}
	if len(slice) == 0 {
		return nil
	}
	out := map[string][]fleet.Scaling{}
	for name, b := range r.others {
		for _, s := range b.Scaling {
			if slice[s.Key()] == s.Slice && s.Slice != "" {
				out[name] = append(out[name], s)
			}
		}
	}
	return out
}
