package share

import (
	"cmp"
	"slices"

	"seaway.dev/seaway/fleet"
)

// Sights lists what of a view others can use who measure nothing themselves, sorted: nodes that are down, and how far
// the others are.
func (v View) Sights() []fleet.Sight {
	var out []fleet.Sight
	for id, s := range v.Nodes {
		if s.Down || s.Distance > 0 {
			out = append(out, fleet.Sight{Node: id, Down: s.Down, Gray: s.Gray, Distance: s.Distance})
		}
	}
	slices.SortFunc(out, func(a, b fleet.Sight) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// Gather makes of what the nodes of one cluster hold of others (by the ID of who holds it) what their cluster holds: down
// is what more than half of those hold who measure it, and a distance is the shortest. Nobody who is down himself in
// another's eyes is asked, for his word may be old; unless that leaves nobody.
func Gather(said map[string][]fleet.Sight) map[string]Sight {
	fallen := map[string]bool{}
	for who, sights := range said {
		for _, s := range sights {
			if _, one := said[s.Node]; one && s.Down && s.Node != who {
				fallen[s.Node] = true
			}
		}
	}
	if len(fallen) == len(said) {
		fallen = nil
	}
	type votes struct{ all, down, gray, distance int }
	by := map[string]*votes{}
	for who, sights := range said {
		if fallen[who] {
			continue
		}
		for _, s := range sights {
			v := by[s.Node]
			if v == nil {
				v = &votes{}
				by[s.Node] = v
			}
			v.all++
			if s.Down {
				v.down++
				continue
			}
			if s.Gray {
				v.gray++
			}
			if v.distance == 0 || s.Distance < v.distance {
				v.distance = s.Distance
			}
		}
	}
	out := make(map[string]Sight, len(by))
	for id, v := range by {
		s := Sight{Down: 2*v.down > v.all, Distance: v.distance, Gray: 2*v.gray > v.all-v.down}
		if s.Down {
			s.Gray, s.Why = false, "the nodes of this cluster that measure it do not reach it"
		}
		out[id] = s
	}
	return out
}

// With returns a view that also knows what others hold of nodes that this one does not measure.
func (v View) With(others []fleet.Sight) View {
	if len(others) == 0 {
		return v
	}
	nodes := make(map[string]Sight, len(v.Nodes)+len(others))
	for _, s := range others {
		nodes[s.Node] = Sight{Down: s.Down, Gray: s.Gray, Distance: s.Distance}
		if s.Down {
			nodes[s.Node] = Sight{Down: true, Distance: s.Distance, Why: "the nodes of this cluster that measure it do not reach it"}
		}
	}
	for id, s := range v.Nodes {
		nodes[id] = s
	}
	v.Nodes = nodes
	return v
}
