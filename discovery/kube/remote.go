package kube

import (
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"seaway.dev/seaway/fleet"
)

// What other clusters change reaches nodes at once; the objects that show it are written at this pace, so that a fleet
// in turmoil does not cost every cluster's API server a write a change. Until then they show what was.
const (
	writeEvery = 50 * time.Millisecond
	writeBurst = 200 // names written at once
)

// RemoteChanged is to be called when Remote returns something else: the names whose exports differ are merged anew and
// written. A cluster's list that is the very same as before is not looked at. Callers hold no lock that a function of
// Config needs.
func (r *Reconciler) RemoteChanged() {
	r.refresh.Lock()
	defer r.refresh.Unlock()
	exports, ok := r.cfg.Remote()
	if !ok {
		return
	}
	r.mu.Lock()
	first := !r.known
	r.known = true
	changed := map[types.NamespacedName]bool{}
	for cluster := range r.heard {
		if _, still := exports[cluster]; !still {
			r.replace(cluster, nil, changed)
		}
	}
	for cluster, now := range exports {
		// What somebody claims in this cluster's own name is left out.
		if old, had := r.heard[cluster]; cluster != r.cfg.Cluster && (!had || !fleet.SameList(old, now)) {
			r.replace(cluster, now, changed)
		}
	}
	r.heard = exports
	settled := r.settled
	r.mu.Unlock()
	if first {
		r.complete()
	}
	keys := make([]types.NamespacedName, 0, len(changed))
	news := false
	for key := range changed {
		keys = append(keys, key)
		if settled {
			_, differs := r.merge(key)
			news = news || differs
		}
	}
	if news {
		r.changed()
	}
	r.enqueueSoon(keys)
}

// replace puts a cluster's exports in place of what it exported before, and notes the names that differ. Callers hold
// mu.
func (r *Reconciler) replace(cluster string, now []fleet.Export, changed map[types.NamespacedName]bool) {
	gone := map[types.NamespacedName]bool{}
	for _, e := range r.heard[cluster] {
		gone[types.NamespacedName{Namespace: e.Namespace, Name: e.Name}] = true
	}
	for _, e := range now {
		key := types.NamespacedName{Namespace: e.Namespace, Name: e.Name}
		delete(gone, key)
		byCluster := r.remote[key]
		if old, had := byCluster[cluster]; had && reflect.DeepEqual(old, e) {
			continue
		}
		if byCluster == nil {
			byCluster = map[string]fleet.Export{}
			r.remote[key] = byCluster
		}
		byCluster[cluster] = e
		changed[key] = true
	}
	for key := range gone {
		delete(r.remote[key], cluster)
		if len(r.remote[key]) == 0 {
			delete(r.remote, key)
		}
		changed[key] = true
	}
}

// enqueueSoon has names written, each when there is room. A name that waits already is written with what it is then.
func (r *Reconciler) enqueueSoon(keys []types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queue == nil {
		return
	}
	now := time.Now()
	if earliest := now.Add(-writeBurst * writeEvery); r.next.Before(earliest) {
		r.next = earliest
	}
	for _, key := range keys {
		if r.due[key] {
			continue
		}
		r.due[key] = true
		r.queue.AddAfter(reconcile.Request{NamespacedName: key}, r.next.Sub(now)) // at once if that is past
		r.next = r.next.Add(writeEvery)
	}
}
