package wan

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/state"
)

const tableFile = "wan.json"

// Path is one direction between two clusters or machines.
type Path struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Cut loses everything, silently.
	Cut bool `json:"cut,omitempty"`
	Quality
	// Queue that holds this path's packets; none if the quality is perfect.
	Queue int `json:"queue,omitempty"`
}

// Table of every path on which something is set.
type Table struct {
	Paths []Path `json:"paths"`
}

// Load the table of a lab.
func Load(dir state.Dir) (Table, error) {
	var t Table
	err := dir.Read(tableFile, &t)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	return t, err
}

// Pair of names, in one direction.
type Pair struct{ From, To string }

// Pairs spells out a command's A and B: both directions unless one-way, and
// "all" as every other cluster.
func Pairs(l layout.Layout, a, b string, oneWay bool) ([]Pair, error) {
	as, bs := []string{a}, []string{b}
	if a == "all" {
		as = clusterNames(l)
	}
	if b == "all" {
		bs = clusterNames(l)
	}
	var ps []Pair
	for _, x := range as {
		for _, y := range bs {
			ex, err := resolve(l, x)
			if err != nil {
				return nil, err
			}
			ey, err := resolve(l, y)
			if err != nil {
				return nil, err
			}
			if ex.cluster.Name == ey.cluster.Name {
				if a == "all" || b == "all" {
					continue
				}
				return nil, fmt.Errorf("%s and %s are in the same cluster, and what they say to each other does not cross the WAN; "+
					"`seaway-lab machine cut` pulls one machine's cable", x, y)
			}
			ps = append(ps, Pair{x, y})
			if !oneWay {
				ps = append(ps, Pair{y, x})
			}
		}
	}
	slices.SortFunc(ps, func(p, q Pair) int { return cmp.Or(cmp.Compare(p.From, q.From), cmp.Compare(p.To, q.To)) })
	return slices.Compact(ps), nil
}

func clusterNames(l layout.Layout) []string {
	var names []string
	for _, c := range l.Clusters {
		names = append(names, c.Name)
	}
	return names
}

// end of a path: a cluster, or one machine of it.
type end struct {
	cluster layout.Cluster
	machine *layout.Machine
}

func resolve(l layout.Layout, name string) (end, error) {
	if c, err := l.Cluster(name); err == nil {
		return end{cluster: c}, nil
	}
	m, c, err := l.Machine(name)
	if err != nil {
		return end{}, fmt.Errorf("%q is neither a cluster (%s) nor a machine (%s) of this lab", name,
			strings.Join(clusterNames(l), ", "), strings.Join(machineNames(l), ", "))
	}
	if c.Private {
		return end{}, fmt.Errorf("%s is behind its cluster's NAT, so the WAN cannot tell it from its neighbours; name the cluster (%s), "+
			"or pull its cable with `seaway-lab machine cut %s`", name, c.Name, name)
	}
	return end{cluster: c, machine: &m}, nil
}

func machineNames(l layout.Layout) []string {
	var names []string
	for _, m := range l.Machines() {
		names = append(names, m.Name)
	}
	return names
}

// Update changes the paths of pairs.
func (t *Table) Update(pairs []Pair, change func(*Path)) error {
	for _, p := range pairs {
		i := slices.IndexFunc(t.Paths, func(x Path) bool { return x.From == p.From && x.To == p.To })
		if i < 0 {
			t.Paths = append(t.Paths, Path{From: p.From, To: p.To})
			i = len(t.Paths) - 1
		}
		change(&t.Paths[i])
		if err := t.Paths[i].Check(); err != nil {
			return fmt.Errorf("%s to %s: %w", p.From, p.To, err)
		}
	}
	t.tidy()
	return nil
}

// tidy drops paths on which nothing is set, numbers queues and sorts.
func (t *Table) tidy() {
	t.Paths = slices.DeleteFunc(t.Paths, func(p Path) bool { return !p.Cut && p.Perfect() })
	slices.SortFunc(t.Paths, func(p, q Path) int { return cmp.Or(cmp.Compare(p.From, q.From), cmp.Compare(p.To, q.To)) })
	used := map[int]bool{}
	for i := range t.Paths {
		if t.Paths[i].Perfect() {
			t.Paths[i].Queue = 0
		}
		used[t.Paths[i].Queue] = true
	}
	next := 1
	for i := range t.Paths {
		if t.Paths[i].Perfect() || t.Paths[i].Queue != 0 {
			continue
		}
		for used[next] {
			next++
		}
		t.Paths[i].Queue, used[next] = next, true
	}
}

// Queues are the qualities by queue number.
func (t Table) Queues() map[int]Quality {
	qs := map[int]Quality{}
	for _, p := range t.Paths {
		if p.Queue != 0 {
			qs[p.Queue] = p.Quality
		}
	}
	return qs
}
