package bulletin

import (
	"time"

	"seaway.dev/seaway/fleet"
)

// Limits of what is said of a workload.
const (
	maxReplicas = 100000 // the Autoscaler kind's own
	maxStart    = 24 * time.Hour
	maxPrice    = 1e9
)

// scaling keeps what can be true of workloads on slices that the cluster is on.
func (c *checker) scaling(in []fleet.Scaling) []fleet.Scaling {
	if len(in) > fleet.MaxScaling {
		c.refused.add("scaling: of %d workloads, limit %d", len(in), fleet.MaxScaling)
		in = in[:fleet.MaxScaling]
	}
	var out []fleet.Scaling
	names := map[string]bool{}
	for _, s := range in {
		_, on := c.blocks[s.Slice]
		switch {
		case !isLabel(s.Namespace) || !isSubdomain(s.Name) || names[s.Key()]:
			c.refused.add("scaling of %.64q: not a workload's name, or named twice", s.Key())
			continue
		case !on:
			continue // as with pods
		case !sane(s):
			c.refused.add("scaling of %s: numbers that cannot be", s.Key())
			continue
		}
		names[s.Key()] = true
		out = append(out, s)
	}
	return out
}

func sane(s fleet.Scaling) bool {
	for _, n := range []int{s.Wants, s.Needs, s.Floor, s.Pods, s.Ready, s.Lost, s.Min, s.Max, s.Room} {
		if n < 0 || n > maxReplicas {
			return false
		}
	}
	return s.Kept >= 0 && s.Kept <= maxReplicas*fleet.MaxScaling && s.Min <= s.Max &&
		s.Soon >= 0 && s.Soon <= maxStart && s.Late >= 0 && s.Late <= maxStart &&
		s.Starts >= 0 && s.Starts <= maxPrice && s.Price >= 0 && s.Price <= maxPrice && s.Load >= 0 && s.Load <= maxPrice
}
