package delta

import (
	"reflect"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

var nodes = list[fleet.Node]{
	order: func(a, b fleet.Node) int { return strings.Compare(a.Name, b.Name) },
	equal: func(a, b fleet.Node) bool { return reflect.DeepEqual(a, b) },
}

var exports = list[fleet.Export]{
	order: func(a, b fleet.Export) int { return compareNames(a.Namespace, a.Name, b.Namespace, b.Name) },
	equal: func(a, b fleet.Export) bool {
		return equalExportHeads(a, b) && (fleet.SameList(a.Endpoints, b.Endpoints) || slices.EqualFunc(a.Endpoints, b.Endpoints, equalEndpoints))
	},
}

func equalExportHeads(a, b fleet.Export) bool {
	if !a.Created.Equal(b.Created) {
		return false
	}
	a.Endpoints, b.Endpoints, a.Created, b.Created = nil, nil, fleet.Export{}.Created, fleet.Export{}.Created
	return reflect.DeepEqual(a, b)
}

// Bulletin returns what changed between two bulletins of one cluster and epoch; nil if only the whole can be told.
// Versions are taken from the two.
func Bulletin(old, now *fleet.Bulletin) *fleet.BulletinDelta {
	if old.Cluster != now.Cluster || old.Epoch != now.Epoch || old.Rev == 0 || old.Rev >= now.Rev {
		return nil
	}
	d := &fleet.BulletinDelta{Version: now.Version, Cluster: now.Cluster, Epoch: now.Epoch, Rev: now.Rev, Base: old.Rev}
	if a, b := bulletinHead(old), bulletinHead(now); !reflect.DeepEqual(a, b) {
		d.Head = b
	}
	var ok [3]bool
	var goneNodes []fleet.Node
	var gonePods []fleet.Pod
	var put, gone []fleet.Export
	d.Nodes, goneNodes, ok[0] = nodes.diff(old.Nodes, now.Nodes)
	d.Pods, gonePods, ok[1] = pods.diff(old.Pods, now.Pods)
	put, gone, ok[2] = exports.diff(old.Exports, now.Exports)
	if !ok[0] || !ok[1] || !ok[2] {
		return nil
	}
	for _, n := range goneNodes {
		d.NodesGone = append(d.NodesGone, n.Name)
	}
	for _, p := range gonePods {
		d.PodsGone = append(d.PodsGone, p.Key())
	}
	for _, e := range gone {
		d.ExportsGone = append(d.ExportsGone, e.Key())
	}
	for _, e := range put {
		one := fleet.ExportDelta{Export: e}
		var before []fleet.Endpoint
		if i, had := slices.BinarySearchFunc(old.Exports, e, exports.order); had {
			before = old.Exports[i].Endpoints
		}
		changed, away, sorted := endpoints.diff(before, e.Endpoints)
		if !sorted {
			return nil
		}
		one.Endpoints, one.Gone = changed, endpointIDs(away)
		d.Exports = append(d.Exports, one)
	}
	return d
}

// bulletinHead is a bulletin without its lists and version numbers.
func bulletinHead(b *fleet.Bulletin) *fleet.Bulletin {
	h := *b
	h.Epoch, h.Rev, h.Nodes, h.Pods, h.Exports = 0, 0, nil, nil, nil
	return &h
}

// ApplyBulletin returns the bulletin that old becomes by a delta; [ErrBase] if the delta builds on another.
func ApplyBulletin(old *fleet.Bulletin, d *fleet.BulletinDelta) (*fleet.Bulletin, error) {
	if old == nil || old.Cluster != d.Cluster || old.Epoch != d.Epoch || old.Rev != d.Base {
		return nil, ErrBase
	}
	now := *old
	if d.Head != nil {
		now = *d.Head
		now.Cluster, now.Nodes, now.Pods, now.Exports = old.Cluster, old.Nodes, old.Pods, old.Exports
	}
	now.Version, now.Epoch, now.Rev = d.Version, d.Epoch, d.Rev

	goneNodes := make([]fleet.Node, 0, len(d.NodesGone))
	for _, name := range d.NodesGone {
		goneNodes = append(goneNodes, fleet.Node{Name: name})
	}
	now.Nodes = nodes.apply(old.Nodes, nodes.sorted(d.Nodes), nodes.sorted(goneNodes))

	gonePods := make([]fleet.Pod, 0, len(d.PodsGone))
	for _, key := range d.PodsGone {
		ns, name, _ := strings.Cut(key, "/")
		gonePods = append(gonePods, fleet.Pod{Cluster: d.Cluster, Namespace: ns, Name: name})
	}
	now.Pods = pods.apply(old.Pods, pods.sorted(d.Pods), pods.sorted(gonePods))

	gone := make([]fleet.Export, 0, len(d.ExportsGone))
	for _, key := range d.ExportsGone {
		ns, name, _ := strings.Cut(key, "/")
		gone = append(gone, fleet.Export{Namespace: ns, Name: name})
	}
	put := make([]fleet.Export, 0, len(d.Exports))
	for _, one := range d.Exports {
		e := one.Export
		var before []fleet.Endpoint
		if i, had := slices.BinarySearchFunc(old.Exports, e, exports.order); had {
			before = old.Exports[i].Endpoints
		}
		e.Endpoints = endpoints.apply(before, endpoints.sorted(one.Endpoints), endpointsGone(one.Gone))
		put = append(put, e)
	}
	now.Exports = exports.apply(old.Exports, exports.sorted(put), exports.sorted(gone))
	return &now, nil
}
