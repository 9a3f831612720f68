package roster

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"seaway.dev/seaway/fleet"
)

// Bulletin is what this cluster says to the others. Epoch, Rev and Demand are left to whoever sends it.
func (r *Roster) Bulletin() *fleet.Bulletin {
	b := &fleet.Bulletin{
		Version: fleet.WireVersion, Cluster: r.f.Cluster, Software: r.f.Software,
		Private: r.own.Private, Region: r.own.Region, Provider: r.own.Provider,
	}
	for _, n := range r.own.Nodes {
		if !n.Gateway && !n.Carrier && len(r.hosts[n.Name]) == 0 {
			continue
		}
		// A node may still have the key of a slice that it has just left: the others need not know it.
		keys := map[string]fleet.Key{}
		for name, k := range n.Keys {
			if s, _ := fleet.SplitKeyName(name); s == fleet.ManagementSlice || r.hosts[n.Name][s] {
				keys[name] = k
			}
		}
		n.Keys = keys
		b.Nodes = append(b.Nodes, n)
	}
	for _, p := range r.local {
		p.Labels = compact(r.f.Pods[p.Key()].Labels)
		p.UID, p.PodIPs = "", nil
		b.Pods = append(b.Pods, p)
	}
	b.Networks, b.Needed = r.ownNetworks(), r.needed()
	if !r.f.Leaving {
		b.Exports, b.Scaling = r.f.Exports, r.scaling()
	}
	return b
}

// Labels that no policy of another cluster can sensibly select by: they name one revision or one pod.
var noise = []string{
	"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
	"apps.kubernetes.io/pod-index", "controller-uid", "batch.kubernetes.io/controller-uid",
}

// maxLabels is how many labels of a pod the other clusters hear of, in the order of their names.
const maxLabels = 16

func compact(set map[string]string) map[string]string {
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if len(out) < maxLabels && !slices.Contains(noise, k) {
			out[k] = set[k]
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Intent is what a node is told: all that it needs to compile what it should be, and no more. Epoch and Rev are left
// to whoever sends it.
func (r *Roster) Intent(node string) *fleet.Intent {
	in := &fleet.Intent{
		Version: fleet.WireVersion, Cluster: r.f.Cluster, Node: node, Purge: r.f.Leaving,
	}
	if r.f.Leaving {
		return in
	}
	hosts := r.Hosts(node)
	for _, name := range hosts {
		in.Slices = append(in.Slices, *r.slices[name])
	}
	switch len(hosts) {
	case 0:
	case 1:
		in.Pods = r.pods[hosts[0]] // shared, see Share
	default:
		for _, name := range hosts {
			in.Pods = append(in.Pods, r.pods[name]...)
		}
		slices.SortStableFunc(in.Pods, comparePods)
	}
	in.Clusters, in.Carry = r.surroundings(node)
	in.Services, in.Unsure = r.f.Services, !r.f.Named
	in.Prefixes, in.Sights = r.prefixes(), r.sights[node]
	in.Policies = r.policies[node]
	return in
}

// prefixes lists those of all slices that this cluster is on.
func (r *Roster) prefixes() (out []netip.Prefix) {
	for _, s := range r.slices {
		out = append(out, s.Prefixes...)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// Share takes over from an earlier roster the lists that are equal, so that comparing the two's intents costs little:
// with a hundred nodes, each list is compared once and not a hundred times.
func (r *Roster) Share(before *Roster) {
	if before == nil {
		return
	}
	for node, policies := range r.policies {
		if fleet.SameList(before.policies[node], policies) {
			continue
		}
		if old := before.policies[node]; reflect.DeepEqual(old, policies) {
			r.policies[node] = old
		}
	}
}

// clusters lists the clusters and nodes that a node must know, with the keys that it must know and no others.
func (r *Roster) clusters(node string) []fleet.Cluster {
	own := r.own
	own.Nodes = nil
	known := false
	for _, n := range r.own.Nodes {
		self := n.Name == node
		known = known || self
		keys := r.keysFor(node, own, n)
		if self {
			keys = n.Keys
		}
		if self || len(keys) > 0 {
			n.Keys = keys
			own.Nodes = append(own.Nodes, n)
		}
	}
	if !known {
		own.Nodes = append(own.Nodes, fleet.Node{Name: node, Cluster: r.f.Cluster})
	}
	out := []fleet.Cluster{own}
	for _, b := range r.others {
		c := fleet.Cluster{Name: b.Cluster, Private: b.Private, Region: b.Region, Provider: b.Provider}
		for _, n := range b.Nodes {
			if keys := r.keysFor(node, c, n); len(keys) > 0 {
				n.Keys = keys
				c.Nodes = append(c.Nodes, n)
			}
		}
		if len(c.Nodes) > 0 {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b fleet.Cluster) int { return compareNames(a.Name, b.Name) })
	return out
}

func compareNames(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// keysFor lists the keys of another node that a node must know:
//
//	of slices that both host        to be its peer
//	management, of public gateways  to be relayed by them; only if it hosts a slice, is a gateway or a carrier,
//	                                since the gateways hear of no other node and would not answer it
//	management, of those peers      to probe them and be probed by them
//	management, on a gateway        of everybody: anybody may come to be relayed for
//	management, of carriers         on a carrier, to exchange bulletins with them
//	all, on a gateway               to relay for its own cluster's nodes and for those that nobody can dial
func (r *Roster) keysFor(node string, c fleet.Cluster, n fleet.Node) map[string]fleet.Key {
	if r.gateways[node] && (c.Name == r.f.Cluster || c.Private) {
		return n.Keys
	}
	takesPart := r.gateways[node] || r.carriers[node] || len(r.hosts[node]) > 0
	swap := r.carriers[node] && n.Carrier && c.Name != r.f.Cluster
	keys := map[string]fleet.Key{}
	for name, k := range n.Keys {
		if s, _ := fleet.SplitKeyName(name); r.hosts[node][s] {
			keys[name] = k
		}
	}
	peer := len(keys) > 0
	if k, ok := n.Keys[fleet.ManagementSlice]; ok && (peer || swap || r.gateways[node] || n.Gateway && !c.Private && takesPart) {
		keys[fleet.ManagementSlice] = k
	}
	return keys
}
