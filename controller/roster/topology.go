package roster

import (
	"sync"

	"seaway.dev/seaway/fleet"
)

// topology is what nodes are told of nodes. It changes seldom, and lasts from roster to roster until it does.
type topology struct {
	mu    sync.Mutex
	nodes map[string]surroundings
}

// surroundings are what one node is told of others. They are worked out when they are first asked for.
type surroundings struct {
	clusters []fleet.Cluster
	carry    *fleet.Carry
}

// survey takes over the topology of the earlier roster if nothing of it differs.
func (r *Roster) survey() {
	r.top = &topology{nodes: map[string]surroundings{}}
	if !r.SameHere(r.before) || len(r.others) != len(r.before.others) {
		return
	}
	for name, b := range r.others {
		old := r.earlier(name)
		if old == nil || old.Private != b.Private || old.Region != b.Region || old.Provider != b.Provider || !fleet.SameList(old.Nodes, b.Nodes) {
			return
		}
	}
	r.top = r.before.top
}

// surroundings returns what a node is told of others, as a carrier and besides.
func (r *Roster) surroundings(node string) ([]fleet.Cluster, *fleet.Carry) {
	r.top.mu.Lock()
	defer r.top.mu.Unlock()
	s, ok := r.top.nodes[node]
	if !ok {
		s = surroundings{r.clusters(node), r.carry(node)}
		r.top.nodes[node] = s
	}
	return s.clusters, s.carry
}
