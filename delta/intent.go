package delta

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"seaway.dev/seaway/fleet"
)

var services = list[fleet.Service]{
	order: func(a, b fleet.Service) int { return compareNames(a.Namespace, a.Name, b.Namespace, b.Name) },
	equal: func(a, b fleet.Service) bool {
		return (fleet.SameList(a.Endpoints, b.Endpoints) || slices.EqualFunc(a.Endpoints, b.Endpoints, equalEndpoints)) && equalServiceHeads(&a, &b)
	},
}

func equalServiceHeads(a, b *fleet.Service) bool {
	if a.SameHead(b) {
		return true
	}
	if a.Namespace != b.Namespace || a.Name != b.Name || a.Slice != b.Slice || !fleet.SameList(a.IPs, b.IPs) && !slices.Equal(a.IPs, b.IPs) ||
		!fleet.SameList(a.Ports, b.Ports) && !slices.Equal(a.Ports, b.Ports) || !fleet.SameList(a.Clusters, b.Clusters) && !slices.Equal(a.Clusters, b.Clusters) {
		return false
	}
	// The rest is compared whole, so that a field added later is not forgotten.
	x, y := *a, *b
	x.Endpoints, x.IPs, x.Ports, x.Clusters = nil, nil, nil, nil
	y.Endpoints, y.IPs, y.Ports, y.Clusters = nil, nil, nil, nil
	return reflect.DeepEqual(x, y)
}

// Intent returns what changed between two intents for one node of one epoch; nil if only the whole can be told.
// Versions are taken from the two. Changed is false if nothing did.
func Intent(old, now *fleet.Intent) (d *fleet.IntentDelta, changed bool) {
	return new(Memo).Intent(old, now)
}

// Memo compares intents and remembers, for the other nodes that are told the same lists, what their comparison gave. The
// zero Memo is ready, and it is safe for concurrent use.
type Memo struct {
	pods     memo[fleet.Pod, podDiff]
	services memo[fleet.Service, serviceDiff]
}

// memo remembers the last comparisons of two lists.
type memo[T, D any] struct {
	mu   sync.Mutex
	done []compared[T, D]
}

type compared[T, D any] struct {
	old, now []T
	diff     D
}

// memos is how many comparisons of a kind are remembered: nodes on several slices are told several lists.
const memos = 8

// diff is compare(old, now), done once for the same two lists. What it returns is shared.
func (m *memo[T, D]) diff(old, now []T, compare func(old, now []T) D) D {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.done {
		if fleet.SameList(c.old, old) && fleet.SameList(c.now, now) && len(old)+len(now) > 0 {
			return c.diff
		}
	}
	d := compare(old, now)
	m.done = append(m.done[max(0, len(m.done)+1-memos):], compared[T, D]{old, now, d})
	return d
}

type podDiff struct {
	put, gone []fleet.Pod
	ok        bool
}

type serviceDiff struct {
	put  []fleet.ServiceDelta
	gone []string
	ok   bool
}

func diffPods(old, now []fleet.Pod) (d podDiff) {
	d.put, d.gone, d.ok = pods.diff(old, now)
	for i, p := range d.gone {
		d.gone[i] = fleet.Pod{Cluster: p.Cluster, Namespace: p.Namespace, Name: p.Name}
	}
	return d
}

func diffServices(old, now []fleet.Service) serviceDiff {
	var d serviceDiff
	put, gone, ok := services.diff(old, now)
	if !ok {
		return d
	}
	for _, s := range gone {
		d.gone = append(d.gone, s.Key())
	}
	for _, s := range put {
		one := fleet.ServiceDelta{Service: s}
		var before []fleet.Endpoint
		if i, had := slices.BinarySearchFunc(old, s, services.order); had {
			before = old[i].Endpoints
		}
		changed, away, sorted := endpoints.diff(before, s.Endpoints)
		if !sorted {
			return d
		}
		one.Endpoints, one.Gone = changed, endpointIDs(away)
		d.put = append(d.put, one)
	}
	d.ok = true
	return d
}

// Intent is [Intent].
func (m *Memo) Intent(old, now *fleet.Intent) (d *fleet.IntentDelta, changed bool) {
	if old == nil || old.Node != now.Node || old.Epoch != now.Epoch || old.Rev == 0 || old.Purge != now.Purge {
		return nil, true
	}
	d = &fleet.IntentDelta{Version: now.Version, Epoch: now.Epoch, Rev: now.Rev, Base: old.Rev, Node: now.Node}
	if !equalIntentHeads(old, now) {
		d.Head = intentHead(now)
	}
	people := m.pods.diff(old.Pods, now.Pods, diffPods)
	work := m.services.diff(old.Services, now.Services, diffServices)
	if !people.ok || !work.ok {
		return nil, !equalLists(old, now)
	}
	d.Pods, d.PodsGone, d.Services, d.ServicesGone = people.put, people.gone, work.put, work.gone
	return d, d.Head != nil || len(d.Pods)+len(d.PodsGone)+len(d.Services)+len(d.ServicesGone) > 0
}

// equalLists compares two intents whose lists cannot be told by change.
func equalLists(a, b *fleet.Intent) bool {
	return equalIntentHeads(a, b) && slices.EqualFunc(a.Pods, b.Pods, equalPods) && slices.EqualFunc(a.Services, b.Services, services.equal)
}

// intentHead is an intent without its pods, services and version numbers.
func intentHead(in *fleet.Intent) *fleet.Intent {
	h := *in
	h.Epoch, h.Rev, h.Pods, h.Services = 0, 0, nil, nil
	return &h
}

func equalIntentHeads(a, b *fleet.Intent) bool {
	x, y := intentHead(a), intentHead(b)
	if !fleet.SameList(x.Clusters, y.Clusters) && !slices.EqualFunc(x.Clusters, y.Clusters, equalClusters) {
		return false
	}
	x.Clusters, y.Clusters = nil, nil
	return reflect.DeepEqual(x, y)
}

func equalClusters(a, b fleet.Cluster) bool {
	if !fleet.SameList(a.Nodes, b.Nodes) && !slices.EqualFunc(a.Nodes, b.Nodes, equalNodes) {
		return false
	}
	a.Nodes, b.Nodes = nil, nil
	return reflect.DeepEqual(a, b)
}

func equalNodes(a, b fleet.Node) bool {
	if !equalAddrs(a.Addrs, b.Addrs) || !maps.Equal(a.Keys, b.Keys) {
		return false
	}
	a.Addrs, a.Keys, b.Addrs, b.Keys = nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}

// ApplyIntent returns the intent that old becomes by a delta; [ErrBase] if the delta builds on another.
func ApplyIntent(old *fleet.Intent, d *fleet.IntentDelta) (*fleet.Intent, error) {
	if old == nil || old.Node != d.Node || old.Epoch != d.Epoch || old.Rev != d.Base {
		return nil, ErrBase
	}
	now := *old
	if d.Head != nil {
		now = *d.Head
		now.Node, now.Pods, now.Services = old.Node, old.Pods, old.Services
	}
	now.Version, now.Epoch, now.Rev = d.Version, d.Epoch, d.Rev
	now.Pods = pods.apply(old.Pods, pods.sorted(d.Pods), pods.sorted(d.PodsGone))

	gone := make([]fleet.Service, 0, len(d.ServicesGone))
	for _, key := range d.ServicesGone {
		ns, name, _ := strings.Cut(key, "/")
		gone = append(gone, fleet.Service{Namespace: ns, Name: name})
	}
	put := make([]fleet.Service, 0, len(d.Services))
	for _, one := range d.Services {
		s := one.Service
		var before []fleet.Endpoint
		if i, had := slices.BinarySearchFunc(old.Services, s, services.order); had {
			before = old.Services[i].Endpoints
		}
		s.Endpoints = endpoints.apply(before, endpoints.sorted(one.Endpoints), endpointsGone(one.Gone))
		put = append(put, s)
	}
	now.Services = services.apply(old.Services, services.sorted(put), services.sorted(gone))
	return &now, nil
}
