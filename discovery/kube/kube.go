// Package kube is discovery's seam to Kubernetes on a member cluster. It reads ServiceExports, Services and
// EndpointSlices into fleet.Exports, merges them with the other clusters' (package discovery decides how) and writes
// what came out: ServiceImports, the standard's EndpointSlices for each source cluster, and conditions.
//
// One reconciliation is about one name (namespace and name), from all clusters: an unexport elsewhere, a pod's
// readiness here and a hand-edited import all lead to the same few comparisons. Nothing is remembered as done; each
// time the objects that are there are compared with those that should be.
//
// Held state comes first. Until the other clusters' exports are known (the hub may be away when the controller
// starts), nothing is written and nothing deleted; what stands, stands.
package kube

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
	"seaway.dev/seaway/fleet"
)

// ManagedBy is the value of the labels that mark what Seaway made.
const ManagedBy = "seaway"

// Config is what a Reconciler depends on besides the API server. All functions are called from several goroutines.
type Config struct {
	Cluster string // this cluster's name
	// SliceOf tells which slice a namespace is on; false if the namespace does not exist here or is on none.
	SliceOf func(namespace string) (slice string, ok bool)
	// Families returns a slice's address families (discovery.IPv4, discovery.IPv6), the preferred one first.
	Families func(slice string) []string
	// Pod returns a pod's slice addresses, and whether its link to the slice works: traffic is sent to nobody else.
	Pod func(namespace, name string) (addrs []netip.Addr, attached bool)
	// Networks returns this cluster's own pod networks if a slice's headless names answer with the pods' own addresses;
	// nil if with those on the slice.
	Networks func(slice string) []netip.Prefix
	// Expected returns the names of the pods that StatefulSets give to a service, whether they are there or not; nil for
	// none.
	Expected func(namespace, service string) []string
	// IPs returns the service addresses held here for an import, one per family of the slice, taking them if need be.
	IPs func(slice, namespace, name string) []netip.Addr
	// Remote returns what the other clusters export, by cluster; false while that is not known yet.
	Remote func() (map[string][]fleet.Export, bool)
	// Changed is called after Exports or Services changed. It must not block.
	Changed func()
	// Direct reads past the cache. Cleanup needs it: what was made a moment ago may not be in the cache yet. Without it
	// the client reads.
	Direct client.Reader
	Log    *slog.Logger
}

// Reconciler keeps the discovery objects of one cluster.
type Reconciler struct {
	client client.Client
	cfg    Config

	running sync.RWMutex // held for reading while a name is reconciled: Cleanup waits for them

	refresh sync.Mutex // one look at the others' exports at a time
	loading sync.Mutex // everything is read once, by one worker
	reading sync.Mutex // one name at a time: what was read earlier is never put over what was read later
	merging sync.Mutex // one merge at a time: a merge of older exports never overwrites a newer one

	mu       sync.Mutex
	queue    workqueue.TypedRateLimitingInterface[reconcile.Request] // of [Reconciler.Reconcile]; nil until started
	urgent   workqueue.TypedRateLimitingInterface[reconcile.Request] // of [Reconciler.Hear]; nil until started
	told     bool                                                    // the slices and pods here are known
	loaded   bool                                                    // every export here has been read once
	known    bool                                                    // the other clusters' exports are known
	settled  bool                                                    // all names were merged since both are so
	stopped  bool                                                    // Cleanup was called
	exports  map[types.NamespacedName]local                          // every ServiceExport here, valid or not
	remote   map[types.NamespacedName]map[string]fleet.Export        // by name, then cluster
	services map[types.NamespacedName]fleet.Service
	list     []fleet.Service               // services, sorted; never changed once shown
	stale    map[types.NamespacedName]bool // services that differ from list
	offered  []fleet.Export                // what is exported, sorted; never changed once shown
	moved    bool                          // exports differ from offered
	heard    map[string][]fleet.Export     // what remote was made of
	next     time.Time                     // when there is room for the next write of what others changed
	due      map[types.NamespacedName]bool // names that wait for such a write
}

// local is a ServiceExport of this cluster.
type local struct {
	export fleet.Export
	reason string // why it exports nothing; "" if it does
}

// AddToScheme registers the kinds that the Reconciler's client must know.
func AddToScheme(s *runtime.Scheme) error {
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, mcs.Install} {
		if err := add(s); err != nil {
			return err
		}
	}
	return nil
}

// New returns a Reconciler. c reads from a cache that watches ServiceExports, ServiceImports, Services and
// EndpointSlices.
func New(c client.Client, cfg Config) *Reconciler {
	if cfg.Direct == nil {
		cfg.Direct = c
	}
	if cfg.Expected == nil {
		cfg.Expected = func(string, string) []string { return nil }
	}
	if cfg.Networks == nil {
		cfg.Networks = func(string) []netip.Prefix { return nil }
	}
	return &Reconciler{client: c, cfg: cfg,
		exports:  map[types.NamespacedName]local{},
		remote:   map[types.NamespacedName]map[string]fleet.Export{},
		services: map[types.NamespacedName]fleet.Service{},
		stale:    map[types.NamespacedName]bool{},
		due:      map[types.NamespacedName]bool{},
		moved:    true,
	}
}

// Exports returns what this cluster exports, sorted; false until everything here has been read once. Telling others
// less than everything would take endpoints away from them that are there. The list is the same one until something
// changes; it is not to be changed.
func (r *Reconciler) Exports() ([]fleet.Export, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		return nil, false
	}
	if !r.moved {
		return r.offered, true
	}
	var out []fleet.Export
	for _, l := range r.exports {
		if l.reason == "" {
			out = append(out, l.export)
		}
	}
	slices.SortFunc(out, func(a, b fleet.Export) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	r.offered, r.moved = out, false
	return out, true
}

// Services returns the imports of this cluster, sorted; false until everything here and elsewhere is known once. The
// list is the same one until something changes; it is not to be changed.
func (r *Reconciler) Services() ([]fleet.Service, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.settled {
		return nil, false
	}
	r.refreshList()
	return r.list, true
}

// refreshList brings the list up to date with what changed. Callers hold mu.
func (r *Reconciler) refreshList() {
	if len(r.stale) == 0 {
		return
	}
	order := func(a, b fleet.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}
	const few = 32 // one by one
	if len(r.stale) > few {
		r.list = slices.SortedFunc(maps.Values(r.services), order)
	} else {
		r.list = slices.Clone(r.list)
		for key := range r.stale {
			now, is := r.services[key]
			at, was := slices.BinarySearchFunc(r.list, fleet.Service{Namespace: key.Namespace, Name: key.Name}, order)
			switch {
			case is && was:
				r.list[at] = now
			case is:
				r.list = slices.Insert(r.list, at, now)
			case was:
				r.list = slices.Delete(r.list, at, at+1)
			}
		}
	}
	clear(r.stale)
}

// complete merges all names once everything is known here and elsewhere: from then on Services tells the whole truth,
// and what stands in the cluster is compared with it.
func (r *Reconciler) complete() {
	r.mu.Lock()
	if !r.loaded || !r.known || r.settled {
		r.mu.Unlock()
		return
	}
	keys := slices.Collect(maps.Keys(r.exports))
	keys = slices.AppendSeq(keys, maps.Keys(r.remote))
	r.mu.Unlock()
	for _, key := range keys {
		r.merge(key)
	}
	r.mu.Lock()
	r.settled = true
	r.mu.Unlock()
	r.changed()
	r.enqueue(append(keys, types.NamespacedName{}))
}

func (r *Reconciler) changed() {
	if r.cfg.Changed != nil {
		r.cfg.Changed()
	}
}

// enqueue has names reconciled soon. Before the start it does nothing: the start reads everything.
func (r *Reconciler) enqueue(keys []types.NamespacedName) {
	r.mu.Lock()
	queue := r.queue
	r.mu.Unlock()
	add(queue, keys)
}

func add(queue workqueue.TypedRateLimitingInterface[reconcile.Request], keys []types.NamespacedName) {
	if queue == nil {
		return
	}
	for _, key := range keys {
		queue.Add(reconcile.Request{NamespacedName: key})
	}
}

// Reconcile makes everything right about one name. The empty name stands for what was left by an earlier life: imports
// that nobody exports any more.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	r.running.RLock()
	defer r.running.RUnlock()
	key := req.NamespacedName
	r.mu.Lock()
	delete(r.due, key)
	r.mu.Unlock()
	h, err := r.hear(ctx, key)
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case !h.loaded:
		return reconcile.Result{}, nil
	case key.Name == "":
		return again(r.enqueueLeftovers(ctx))
	}
	return again(r.write(ctx, key, h))
}

// write brings the objects of one name in line. Without settled nothing is said about imports.
func (r *Reconciler) write(ctx context.Context, key types.NamespacedName, h heard) error {
	object, l, im := h.object, h.local, h.im
	var conditions []discovery.Condition
	switch {
	case l.reason != "":
		conditions = discovery.Invalid(l.reason, key.Namespace, key.Name)
	case im != nil:
		conditions = discovery.Exported(*im)
	}
	if h.settled {
		foreign, err := r.writeImport(ctx, key, im)
		if err != nil {
			return err
		}
		if foreign && im != nil {
			conditions = foreignImport(conditions, key)
		}
	}
	if object == nil || len(conditions) == 0 {
		return nil
	}
	return r.writeConditions(ctx, object, conditions)
}

// set remembers an export and tells whether what the others see of it changed. Callers hold mu.
func (r *Reconciler) set(key types.NamespacedName, exists bool, l local) bool {
	old, had := r.exports[key]
	if exists {
		r.exports[key] = l
	} else {
		delete(r.exports, key)
	}
	was, is := had && old.reason == "", exists && l.reason == ""
	changed := was != is || is && !reflect.DeepEqual(old.export, l.export)
	r.moved = r.moved || changed
	return changed
}

// merge makes the import of one name from all clusters' exports, remembers its service and tells whether that changed.
func (r *Reconciler) merge(key types.NamespacedName) (*discovery.Import, bool) {
	r.merging.Lock()
	defer r.merging.Unlock()
	r.mu.Lock()
	exports := map[string][]fleet.Export{}
	for cluster, e := range r.remote[key] {
		exports[cluster] = []fleet.Export{e}
	}
	if l, ok := r.exports[key]; ok && l.reason == "" {
		exports[r.cfg.Cluster] = []fleet.Export{l.export}
	}
	r.mu.Unlock()

	ims := discovery.Merge(discovery.Input{Exports: exports, Local: r.cfg.SliceOf, IPs: r.cfg.IPs, Families: r.cfg.Families})

	r.mu.Lock()
	defer r.mu.Unlock()
	old, had := r.services[key]
	if len(ims) == 0 {
		delete(r.services, key)
		if had {
			r.stale[key] = true
		}
		return nil, had
	}
	differs := !had || !reflect.DeepEqual(old, ims[0].Service)
	if differs {
		r.services[key], r.stale[key] = ims[0].Service, true
	}
	return &ims[0], differs
}

// load reads every export here once, so that nobody is ever told a part of the truth.
func (r *Reconciler) load(ctx context.Context) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	r.mu.Lock()
	told, done, known := r.told, r.loaded, r.known
	r.mu.Unlock()
	if !told {
		return nil
	}
	if !known {
		r.RemoteChanged()
	}
	if done {
		return nil
	}
	var list mcs.ServiceExportList
	if err := r.client.List(ctx, &list); err != nil {
		return fmt.Errorf("list ServiceExports: %w", err)
	}
	for i := range list.Items {
		key := client.ObjectKeyFromObject(&list.Items[i])
		object, l, err := r.read(ctx, key)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.set(key, object != nil, l)
		r.mu.Unlock()
	}
	r.mu.Lock()
	r.loaded = true
	keys := slices.Collect(maps.Keys(r.exports))
	r.mu.Unlock()
	r.complete()
	r.changed()
	r.enqueue(keys)
	return nil
}
