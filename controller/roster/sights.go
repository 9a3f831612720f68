package roster

import (
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

// gather notes what this cluster's nodes hold of others, for those that do not measure them: nodes of slices that they do
// not host. Only what a node has told this leader counts: what another leader was told may be long over. Nodes that host
// the same slices hear the same.
func (r *Roster) gather() {
	if r.before != nil && r.top == r.before.top {
		r.sights = r.before.sights // the same reports, and the same nodes elsewhere
		return
	}
	said := map[string][]fleet.Sight{}
	for name, rep := range r.f.Reports {
		if r.f.Heard[name] && len(rep.Sights) > 0 && !r.self.revoked(name) {
			said[r.f.Cluster+"/"+name] = rep.Sights
		}
	}
	if len(said) == 0 {
		return
	}
	sights, sites := share.Gather(said), r.sites()
	alike := map[string][]fleet.Sight{}
	r.sights = make(map[string][]fleet.Sight, len(r.f.Nodes))
	for name := range r.f.Nodes {
		hosted := strings.Join(r.Hosts(name), " ")
		list, made := alike[hosted]
		if !made {
			list = choose(sights, sites, r.hosts[name])
			alike[hosted] = list
		}
		r.sights[name] = list
	}
}

// sites lists by slice the nodes, by ID, that have pods on it: others' show the slice's key.
func (r *Roster) sites() map[string][]string {
	out := map[string][]string{}
	for name, hosted := range r.hosts {
		for slice := range hosted {
			out[slice] = append(out[slice], r.f.Cluster+"/"+name)
		}
	}
	for _, b := range r.others {
		for _, n := range b.Nodes {
			for slice := range r.slices {
				if n.On(slice) {
					out[slice] = append(out[slice], b.Cluster+"/"+n.Name)
				}
			}
		}
	}
	return out
}

// choose lists the sights of nodes that are on a slice that is not hosted, and on none that is.
func choose(sights map[string]share.Sight, sites map[string][]string, hosted map[string]bool) (out []fleet.Sight) {
	measured := map[string]bool{}
	for slice := range hosted {
		for _, id := range sites[slice] {
			measured[id] = true
		}
	}
	for slice, ids := range sites {
		if hosted[slice] {
			continue
		}
		for _, id := range ids {
			if s, known := sights[id]; known && !measured[id] {
				measured[id] = true // once
				out = append(out, fleet.Sight{Node: id, Down: s.Down, Gray: s.Gray, Distance: s.Distance})
			}
		}
	}
	slices.SortFunc(out, func(a, b fleet.Sight) int { return strings.Compare(a.Node, b.Node) })
	return out
}
