package kube

import (
	"cmp"
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
)

// What this cluster says of a name has a queue of its own, and a worker who writes nothing:
//
//	API server ─┬ Services, EndpointSlices, ServiceExports ─▶ Hear ── Changed ─▶ other clusters, nodes
//	leader ─────┘                                               └─▶ Reconcile ─▶ objects, as the API server takes them
//	other clusters' exports ─▶ RemoteChanged ── Changed ─▶ nodes
//	                                 └── at a pace ──────▶ Reconcile

// LocalChanged is to be called when SliceOf, Families, Pod or IPs return something else for the given namespaces; for
// all if none is given. The first call for all says that they know what they say: before it nothing is read or
// written, because a namespace that is on a slice would be taken for one that is on none.
func (r *Reconciler) LocalChanged(namespaces ...string) {
	r.mu.Lock()
	if len(namespaces) == 0 && !r.told {
		r.told = true
		r.mu.Unlock()
		r.enqueue([]types.NamespacedName{{}})
		return
	}
	var keys []types.NamespacedName
	add := func(key types.NamespacedName) {
		if len(namespaces) == 0 || slices.Contains(namespaces, key.Namespace) {
			keys = append(keys, key)
		}
	}
	for key := range r.exports {
		add(key)
	}
	for key := range r.remote {
		add(key)
	}
	for key := range r.services {
		add(key)
	}
	r.mu.Unlock()
	r.hurry(keys)
}

// PodsChanged is to be called when Pod or Expected return something else for the given namespaces. What other clusters
// export does not depend on it.
func (r *Reconciler) PodsChanged(namespaces ...string) {
	r.mu.Lock()
	var keys []types.NamespacedName
	for key := range r.exports {
		if slices.Contains(namespaces, key.Namespace) {
			keys = append(keys, key)
		}
	}
	r.mu.Unlock()
	r.hurry(keys)
}

// NamesChanged is to be called when IPs returns something else for the given names.
func (r *Reconciler) NamesChanged(names ...types.NamespacedName) { r.hurry(names) }

// hurry has names heard at once. Before the start it does nothing: the start reads everything.
func (r *Reconciler) hurry(keys []types.NamespacedName) {
	r.mu.Lock()
	queue := cmp.Or(r.urgent, r.queue)
	r.mu.Unlock()
	add(queue, keys)
}

// Hear takes in what this cluster says of one name, and has it written afterwards. It has a queue of its own: nobody who
// is to hear that an endpoint is ready waits until the API server has taken what came before.
func (r *Reconciler) Hear(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	h, err := r.hear(ctx, req.NamespacedName)
	if err == nil && h.loaded {
		r.enqueue([]types.NamespacedName{req.NamespacedName})
	}
	return reconcile.Result{}, err
}

// heard is what is to be written of one name.
type heard struct {
	loaded  bool // false: not everything was read yet, and nothing is to be written
	settled bool // imports can be written, too
	object  *mcs.ServiceExport
	local   local
	im      *discovery.Import
}

// hear reads what this cluster says of one name, merges it with what others say, and tells if something differs. Nothing
// in it waits for the API server but what is read for the first time.
func (r *Reconciler) hear(ctx context.Context, key types.NamespacedName) (h heard, err error) {
	if err := r.load(ctx); err != nil {
		return h, err
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	r.mu.Lock()
	h.loaded, h.settled = r.loaded && !r.stopped, r.settled
	r.mu.Unlock()
	if !h.loaded || key.Name == "" {
		return h, nil
	}
	if h.object, h.local, err = r.read(ctx, key); err != nil {
		return heard{}, err
	}
	r.mu.Lock()
	changed := r.set(key, h.object != nil, h.local)
	r.mu.Unlock()
	if h.settled {
		var differs bool
		h.im, differs = r.merge(key)
		changed = changed || differs
	}
	if changed {
		r.changed()
	}
	return h, nil
}
