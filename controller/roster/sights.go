package roster

import (
	"maps"
	"slices"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

// gather notes what this cluster's nodes hold of others, for those that do not measure them. Only what a node has told
// this leader counts: what another leader was told may be long over.
func (r *Roster) gather() {
	said := map[string][]fleet.Sight{}
	for name, rep := range r.f.Reports {
		if r.f.Heard[name] && len(rep.Sights) > 0 {
			said[r.f.Cluster+"/"+name] = rep.Sights
		}
	}
	r.sights, r.sites = share.Gather(said), map[string]map[string]bool{}
	if len(r.sights) == 0 {
		return
	}
	for slice, pods := range r.pods {
		on := map[string]bool{}
		for _, p := range pods {
			if p.Node != "" {
				on[p.Cluster+"/"+p.Node] = true
			}
		}
		r.sites[slice] = on
	}
}

// sightsFor lists what a node is to know of nodes of slices that it does not host. What it measures itself it knows better.
func (r *Roster) sightsFor(node string) (out []fleet.Sight) {
	own := map[string]bool{r.f.Cluster + "/" + node: true}
	wanted := map[string]bool{}
	for slice, on := range r.sites {
		if r.hosts[node][slice] {
			maps.Copy(own, on)
		} else {
			maps.Copy(wanted, on)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if s, known := r.sights[id]; known && !own[id] {
			out = append(out, fleet.Sight{Node: id, Down: s.Down, Gray: s.Gray, Distance: s.Distance})
		}
	}
	return out
}
