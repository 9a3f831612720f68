package roster

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/policy"
)

// Roster is who is on which slice. It never changes once made.
type Roster struct {
	f        *Facts
	before   *Roster // while it is made
	self     Member
	sliceOf  map[string]string          // namespace → slice
	slices   map[string]*fleet.Slice    // that this cluster is on, with its namespaces
	local    []fleet.Pod                // with addresses, sorted
	refused  map[string]string          // pod → why it is not on its slice: a reason
	keys     map[string]map[string]bool // slice → ledger keys of pods, those of StatefulSets before they are there
	expected map[string][]string        // "namespace/service" → names of its StatefulSets' pods, by set and ordinal
	hosts    map[string]map[string]bool // node of this cluster → slices whose pods it hosts
	gateways map[string]bool
	carriers map[string]bool
	own      fleet.Cluster                // with all nodes that reported
	others   map[string]*fleet.Bulletin   // checked
	lies     map[string]bulletin.Refusals // by cluster
	checked  map[string]*testimony        // what the other clusters say, each checked by itself
	parts    map[string]parts             // slice → pods by cluster as intents show them
	pods     map[string][]fleet.Pod       // the same in one list
	policies map[string][]fleet.Policy    // node → policies on its pods
	attached map[string]fleet.Attachment  // "node uid" → what the node reports
	problems []fleet.Problem
	sights   map[string][]fleet.Sight // node → what it hears of nodes that it does not measure
	atHome   []fleet.Problem          // those of them that come of this cluster's own facts
	ofGuards []fleet.Problem          // and of its policies
	foot     *footprint
	top      *topology
	samePods bool // the others' pods are those of the earlier roster; while it is made
}

// New makes the roster of one snapshot of facts.
func New(f *Facts) *Roster { return Next(f, nil) }

// Next makes the roster of one snapshot of facts, with the help of an earlier one: what depends on facts that are the
// very same as then is taken over. The answers are the same as without it.
func Next(f *Facts, before *Roster) *Roster {
	r := &Roster{f: f, before: before}
	if r.SameHere(before) {
		r.stay(before)
	} else {
		r.settle()
	}
	r.hear()
	r.mingle()
	r.survey()
	r.gather()
	r.guard()
	r.before = nil
	slices.SortFunc(r.problems, func(a, b fleet.Problem) int {
		return cmp.Or(strings.Compare(a.Reason, b.Reason), strings.Compare(a.Where, b.Where), strings.Compare(a.Message, b.Message))
	})
	return r
}

// SameHere tells whether everything is as it was for an earlier roster, but for what other clusters say and what service
// discovery makes of it.
func (r *Roster) SameHere(before *Roster) bool {
	return before != nil && r.f.Here != 0 && r.f.Here == before.f.Here
}

// With returns the roster with other results of service discovery.
func (r *Roster) With(exports []fleet.Export, services []fleet.Service, named bool) *Roster {
	f, out := *r.f, *r
	f.Exports, f.Services, f.Named = exports, services, named
	out.f = &f
	return &out
}

// stay takes over what comes of this cluster's own facts.
func (r *Roster) stay(o *Roster) {
	r.self, r.sliceOf, r.slices, r.local, r.refused, r.keys, r.expected = o.self, o.sliceOf, o.slices, o.local, o.refused, o.keys, o.expected
	r.hosts, r.gateways, r.carriers, r.own, r.attached, r.foot = o.hosts, o.gateways, o.carriers, o.own, o.attached, o.foot
	r.atHome, r.problems = o.atHome, slices.Clone(o.atHome)
}

// settle works out what comes of this cluster's own facts.
func (r *Roster) settle() {
	f := r.f
	r.self, r.refused, r.foot = Member{Name: f.Cluster}, map[string]string{}, new(footprint)
	r.keys, r.hosts, r.attached = map[string]map[string]bool{}, map[string]map[string]bool{}, map[string]fleet.Attachment{}
	for node, rep := range f.Reports {
		for _, a := range rep.Attachments {
			r.attached[node+" "+a.PodUID] = a
		}
	}
	for _, m := range f.Members {
		if m.Name == f.Cluster {
			r.self = m
		}
	}
	r.join()
	r.expect()
	r.enlist()
	r.gateways = r.chooseGateways()
	r.carriers = r.chooseCarriers()
	r.muster()
	r.expel()
	r.atHome = slices.Clone(r.problems)
}

func (r *Roster) problem(reason, where, message, next string) {
	r.problems = append(r.problems, fleet.Problem{Reason: reason, Where: where, Message: message, Next: next})
}

// join decides which namespace is on which slice: the oldest slice that wants it.
func (r *Roster) join() {
	r.sliceOf, r.slices = map[string]string{}, map[string]*fleet.Slice{}
	wishes := slices.Clone(r.f.Slices)
	slices.SortFunc(wishes, func(a, b Wish) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	names := slices.Sorted(maps.Keys(r.f.Namespaces))
	for i := range wishes {
		w := &wishes[i]
		if r.f.Leaving || w.Name == fleet.ManagementSlice || !slices.Contains(w.Clusters, r.f.Cluster) {
			continue
		}
		s := w.Slice
		s.Namespaces = nil
		for _, ns := range names {
			if !w.selects(ns, r.f.Namespaces[ns]) {
				continue
			}
			if first, taken := r.sliceOf[ns]; taken {
				r.problem("NamespaceTaken", "namespace "+ns,
					fmt.Sprintf("slices %s and %s both want it; the older one, %s, has it", first, w.Name, first),
					fmt.Sprintf("take the namespace out of one of the two: `kubectl edit slice %s` on the hub", w.Name))
				continue
			}
			r.sliceOf[ns] = w.Name
			s.Namespaces = append(s.Namespaces, ns)
		}
		r.slices[w.Name] = &s
		r.keys[w.Name] = map[string]bool{}
	}
}

// expect has addresses leased for the pods of StatefulSets before they are there: their names are asked for while they
// start, and a name that is not known yet must not look like one that does not exist.
func (r *Roster) expect() {
	r.expected = map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(r.f.Sets)) {
		s := r.f.Sets[key]
		slice, ok := r.sliceOf[s.Namespace]
		if !ok || s.Excluded {
			continue
		}
		for _, pod := range s.Pods() {
			r.keys[slice][s.Namespace+"/"+pod] = true
			service := s.Namespace + "/" + s.Service
			r.expected[service] = append(r.expected[service], pod)
		}
	}
}

// enlist puts this cluster's pods on their slices, as far as they have addresses.
func (r *Roster) enlist() {
	for _, key := range slices.Sorted(maps.Keys(r.f.Pods)) {
		p := r.f.Pods[key]
		slice, ok := r.sliceOf[p.Namespace]
		if !ok || p.Node == "" || p.Finished || p.Labels[ExcludeLabel] == "true" {
			continue
		}
		if p.HostNetwork {
			r.refused[key] = ReasonHostNetwork
			continue
		}
		r.keys[slice][p.Key()] = true
		if r.self.revoked(p.Node) {
			r.refused[key] = ReasonNodeRevoked // it keeps its address
			continue
		}
		addrs := r.f.Leases[slice][p.Key()]
		if len(addrs) == 0 {
			r.refused[key] = ReasonAddressPending
			continue
		}
		r.local = append(r.local, fleet.Pod{
			UID: p.UID, Namespace: p.Namespace, Name: p.Name, Slice: slice, Cluster: r.f.Cluster, Node: p.Node,
			Addrs: addrs, PodIPs: p.PodIPs, Ready: p.Ready,
		})
		if r.hosts[p.Node] == nil {
			r.hosts[p.Node] = map[string]bool{}
		}
		r.hosts[p.Node][slice] = true
	}
}

// chooseGateways picks the nodes that relay for this cluster: those that people labelled, else the first ready ones.
// A node that has never reported cannot be reached, so it is none.
func (r *Roster) chooseGateways() map[string]bool {
	chosen := map[string]bool{}
	if r.self.Private || r.f.Leaving {
		return chosen
	}
	var named, able []string
	for _, name := range slices.Sorted(maps.Keys(r.f.Nodes)) {
		n := r.f.Nodes[name]
		if rep := r.f.Reports[name]; rep == nil || rep.Port == 0 || len(rep.Addrs) == 0 || r.self.revoked(name) {
			continue
		}
		if n.Labels[GatewayLabel] == "true" {
			named = append(named, name)
		}
		if n.Ready && n.Schedulable && contains(n.Labels, r.self.GatewayLabels) {
			able = append(able, name)
		}
	}
	count := cmp.Or(r.self.GatewayCount, DefaultGateways)
	if len(named) == 0 {
		named = able[:min(count, len(able))]
	}
	for _, name := range named {
		chosen[name] = true
	}
	return chosen
}

func contains(set, want map[string]string) bool {
	for k, v := range want {
		if have, ok := set[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// muster lists this cluster's nodes with what they reported.
func (r *Roster) muster() {
	r.own = fleet.Cluster{Name: r.f.Cluster, Private: r.self.Private, Region: r.self.Region, Provider: r.self.Provider}
	for _, name := range slices.Sorted(maps.Keys(r.f.Nodes)) {
		rep := r.f.Reports[name]
		if rep == nil || rep.Port == 0 || r.self.revoked(name) {
			continue
		}
		r.own.Nodes = append(r.own.Nodes, fleet.Node{
			Name: name, Cluster: r.f.Cluster, Addrs: rep.Addrs, Port: rep.Port, Gateway: r.gateways[name],
			MTU: rep.MTU, Keys: rep.Keys, Carrier: r.carriers[name],
		})
	}
}

// guard translates the NetworkPolicies that select this cluster's slice pods.
func (r *Roster) guard() {
	if r.SameHere(r.before) && r.samePods {
		r.policies, r.ofGuards = r.before.policies, r.before.ofGuards
		r.problems = append(r.problems, r.ofGuards...)
		return
	}
	r.policies = map[string][]fleet.Policy{}
	if len(r.f.Policies) == 0 {
		return
	}
	bySlice := map[string][]policy.Pod{}
	for _, p := range r.local {
		k := r.f.Pods[p.Key()]
		bySlice[p.Slice] = append(bySlice[p.Slice], policy.Pod{
			Namespace: p.Namespace, Labels: k.Labels, Addrs: p.Addrs, Node: p.Node, Ports: k.Ports,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(r.others)) {
		for _, p := range r.others[name].Pods {
			bySlice[p.Slice] = append(bySlice[p.Slice], policy.Pod{
				Namespace: p.Namespace, Labels: p.Labels, Addrs: p.Addrs, Remote: true,
			})
		}
	}
	for _, slice := range slices.Sorted(maps.Keys(r.slices)) {
		byNode, problems := policy.Compile(policy.Input{
			Slice: slice, Policies: r.f.Policies, Pods: bySlice[slice], Namespaces: r.f.Namespaces,
		})
		r.ofGuards = append(r.ofGuards, problems...)
		for node, ps := range byNode {
			r.policies[node] = append(r.policies[node], ps...)
		}
	}
	r.problems = append(r.problems, r.ofGuards...)
}

// SliceOf tells which slice a namespace of this cluster is on.
func (r *Roster) SliceOf(namespace string) (string, bool) {
	s, ok := r.sliceOf[namespace]
	return s, ok
}

// Slices lists the slices that this cluster is on, sorted by name, with the namespaces that are on them here.
func (r *Roster) Slices() []fleet.Slice {
	out := make([]fleet.Slice, 0, len(r.slices))
	for _, name := range slices.Sorted(maps.Keys(r.slices)) {
		out = append(out, *r.slices[name])
	}
	return out
}

// Keys lists whose addresses are to be leased on a slice now, sorted. Services are not among them.
func (r *Roster) Keys(slice string) []string { return slices.Sorted(maps.Keys(r.keys[slice])) }

// Wants tells whether a key's addresses are to be leased on a slice now.
func (r *Roster) Wants(slice, key string) bool { return r.keys[slice][key] }

// Keeps tells whether a key's addresses are to be kept on a slice although no pod has it now: a StatefulSet's pod
// comes back under its name, so its addresses stay as long as its namespace is on the slice.
func (r *Roster) Keeps(slice, key string) bool {
	if r.keys[slice][key] {
		return true
	}
	ns, _, sticky := strings.Cut(key, "/")
	return sticky && strings.Count(key, "/") == 1 && r.sliceOf[ns] == slice
}

// Blocks lists this cluster's blocks of a slice.
func (r *Roster) Blocks(slice string) []netip.Prefix {
	s := r.slices[slice]
	if s == nil {
		return nil
	}
	var out []netip.Prefix
	for _, b := range s.Blocks {
		if b.Cluster == r.f.Cluster {
			out = append(out, b.Prefix)
		}
	}
	return out
}

// InUse lists the addresses inside a slice's prefixes that this cluster uses itself: its nodes', their ranges for pods,
// and its pods'. A pod of the slice should get none of them.
func (r *Roster) InUse(slice string) (ranges []netip.Prefix, addrs map[netip.Addr]bool) {
	s := r.slices[slice]
	if s == nil {
		return nil, nil
	}
	inside := func(a netip.Addr) bool {
		return slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	addrs = map[netip.Addr]bool{}
	for _, n := range r.f.Nodes {
		for _, p := range n.PodCIDRs {
			if slices.ContainsFunc(s.Prefixes, p.Overlaps) {
				ranges = append(ranges, p)
			}
		}
		for _, a := range n.Addrs {
			if inside(a) {
				addrs[a] = true
			}
		}
	}
	for _, p := range r.f.Pods {
		for _, a := range p.PodIPs {
			if inside(a) && !p.Finished {
				addrs[a] = true
			}
		}
	}
	return ranges, addrs
}

// PodAddrs returns the slice addresses of a pod of this cluster, those of a StatefulSet's also before it is there; none
// if it is on no slice.
func (r *Roster) PodAddrs(namespace, name string) []netip.Addr {
	key := namespace + "/" + name
	slice, ok := r.sliceOf[namespace]
	if p := r.f.Pods[key]; p != nil {
		key = p.Key()
	}
	if !ok || !r.keys[slice][key] {
		return nil
	}
	return r.f.Leases[slice][key]
}

// Expected lists the pods that StatefulSets give to a service of this cluster, whether they are there or not.
func (r *Roster) Expected(namespace, service string) []string {
	return r.expected[namespace+"/"+service]
}

// Others returns the believed bulletins of the other clusters, by name, and what was refused of them.
func (r *Roster) Others() (map[string]*fleet.Bulletin, map[string]bulletin.Refusals) {
	return r.others, r.lies
}

// Problems lists what a person must act on, sorted.
func (r *Roster) Problems() []fleet.Problem { return r.problems }

// Gateways lists the nodes of this cluster that relay, sorted.
func (r *Roster) Gateways() []string { return slices.Sorted(maps.Keys(r.gateways)) }

// Local lists this cluster's pods on slices, sorted by namespace and name.
func (r *Roster) Local() []fleet.Pod { return r.local }

// Hosts lists the slices whose pods a node hosts, sorted.
func (r *Roster) Hosts(node string) []string { return slices.Sorted(maps.Keys(r.hosts[node])) }

// Families lists a slice's address families as Kubernetes writes them, IPv4 first.
func (r *Roster) Families(slice string) []string {
	s := r.slices[slice]
	if s == nil {
		return nil
	}
	var out []string
	for _, p := range slices.SortedFunc(slices.Values(s.Prefixes), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
		if p.Addr().Is4() {
			out = append(out, "IPv4")
		} else {
			out = append(out, "IPv6")
		}
	}
	return out
}

// footprint is worked out when it is first asked for.
type footprint struct {
	once sync.Once
	of   map[string][]string
}

// Footprint says, for each namespace that is on a slice, everything about it that service discovery depends on: two
// equal footprints give equal exports. It is not to be changed.
func (r *Roster) Footprint() map[string][]string {
	r.foot.once.Do(func() { r.foot.of = r.print() })
	return r.foot.of
}

func (r *Roster) print() map[string][]string {
	out := map[string][]string{}
	for ns, slice := range r.sliceOf {
		out[ns] = append([]string{slice}, r.Families(slice)...)
		for _, p := range r.Networks(slice) {
			out[ns] = append(out[ns], "network "+p.String())
		}
	}
	for slice, leases := range r.f.Leases {
		for _, key := range slices.Sorted(maps.Keys(leases)) {
			rest, service := strings.CutPrefix(key, "svc/")
			ns, name, pair := strings.Cut(rest, "/")
			if service && pair && r.sliceOf[ns] == slice {
				out[ns] = append(out[ns], "service "+name+" "+join(leases[key]))
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.expected)) {
		ns, service, _ := strings.Cut(key, "/")
		for _, pod := range r.expected[key] {
			out[ns] = append(out[ns], "expected "+service+" "+pod+" "+join(r.PodAddrs(ns, pod)))
		}
	}
	for _, p := range r.local {
		out[p.Namespace] = append(out[p.Namespace], fmt.Sprintf("pod %s %s %s %v", p.Name, p.UID, join(p.Addrs), r.Attached(p.Namespace, p.Name)))
	}
	return out
}
