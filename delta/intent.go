package delta

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

var services = list[fleet.Service]{
	order: func(a, b fleet.Service) int { return compareNames(a.Namespace, a.Name, b.Namespace, b.Name) },
	equal: func(a, b fleet.Service) bool {
		return (same(a.Endpoints, b.Endpoints) || slices.EqualFunc(a.Endpoints, b.Endpoints, equalEndpoints)) && equalServiceHeads(&a, &b)
	},
}

func equalServiceHeads(a, b *fleet.Service) bool {
	if a.Namespace != b.Namespace || a.Name != b.Name || a.Slice != b.Slice || !same(a.IPs, b.IPs) && !slices.Equal(a.IPs, b.IPs) ||
		!same(a.Ports, b.Ports) && !slices.Equal(a.Ports, b.Ports) || !same(a.Clusters, b.Clusters) && !slices.Equal(a.Clusters, b.Clusters) {
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
	if old == nil || old.Node != now.Node || old.Epoch != now.Epoch || old.Rev == 0 || old.Purge != now.Purge {
		return nil, true
	}
	d = &fleet.IntentDelta{Version: now.Version, Epoch: now.Epoch, Rev: now.Rev, Base: old.Rev, Node: now.Node}
	if !equalIntentHeads(old, now) {
		d.Head = intentHead(now)
	}
	var ok bool
	var gonePods []fleet.Pod
	if d.Pods, gonePods, ok = pods.diff(old.Pods, now.Pods); !ok {
		return nil, !equalLists(old, now)
	}
	for _, p := range gonePods {
		d.PodsGone = append(d.PodsGone, fleet.Pod{Cluster: p.Cluster, Namespace: p.Namespace, Name: p.Name})
	}
	put, gone, ok := services.diff(old.Services, now.Services)
	if !ok {
		return nil, !equalLists(old, now)
	}
	for _, s := range gone {
		d.ServicesGone = append(d.ServicesGone, s.Key())
	}
	for _, s := range put {
		one := fleet.ServiceDelta{Service: s}
		var before []fleet.Endpoint
		if i, had := slices.BinarySearchFunc(old.Services, s, services.order); had {
			before = old.Services[i].Endpoints
		}
		changed, away, sorted := endpoints.diff(before, s.Endpoints)
		if !sorted {
			return nil, true
		}
		one.Endpoints, one.Gone = changed, endpointIDs(away)
		d.Services = append(d.Services, one)
	}
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
	if !slices.EqualFunc(x.Clusters, y.Clusters, equalClusters) {
		return false
	}
	x.Clusters, y.Clusters = nil, nil
	return reflect.DeepEqual(x, y)
}

func equalClusters(a, b fleet.Cluster) bool {
	if !same(a.Nodes, b.Nodes) && !slices.EqualFunc(a.Nodes, b.Nodes, equalNodes) {
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
