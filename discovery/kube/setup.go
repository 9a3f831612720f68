package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
)

// retryAfter is when a lost race is run again; the event of the winner usually comes first. An error is tried again
// after 5 ms, then twice as long each time up to slowest, so that a bad minute of the API server does not become five.
const (
	retryAfter = 100 * time.Millisecond
	slowest    = 5 * time.Second
)

// SetupWithManager has the manager run the reconciler, on the leader: what this cluster says is heard in one queue, and
// what follows is written in another.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).
		Named("discovery-hears").
		WithOptions(controller.Options{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, slowest),
		}).
		For(&mcs.ServiceExport{}).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.ofService)).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(r.ofPods)).
		WatchesRawSource(source.Func(r.startHearing)).
		Complete(reconcile.Func(r.Hear))
	if err != nil {
		return fmt.Errorf("set up discovery: %w", err)
	}
	err = ctrl.NewControllerManagedBy(mgr).
		Named("discovery").
		WithOptions(controller.Options{
			MaxConcurrentReconciles: 4,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, slowest),
		}).
		For(&mcs.ServiceExport{}).
		Watches(&mcs.ServiceImport{}, &handler.EnqueueRequestForObject{}).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(r.ofImported)).
		WatchesRawSource(source.Func(r.start)).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up discovery: %w", err)
	}
	return nil
}

// start keeps the queue for what comes from elsewhere than the API server, and has everything read once.
func (r *Reconciler) start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.mu.Lock()
	r.queue = queue
	r.mu.Unlock()
	r.enqueue([]types.NamespacedName{{}})
	return nil
}

// startHearing keeps the queue for what the leader learns of this cluster.
func (r *Reconciler) startHearing(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.urgent = queue
	return nil
}

// ofService maps a Service to its export, if there is one: most Services are not exported.
func (r *Reconciler) ofService(_ context.Context, o client.Object) []reconcile.Request {
	return r.ofExport(types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()})
}

// ofPods maps an EndpointSlice of Kubernetes to the export of its Service.
func (r *Reconciler) ofPods(_ context.Context, o client.Object) []reconcile.Request {
	labels := o.GetLabels()
	if labels[discoveryv1.LabelManagedBy] == ManagedBy {
		return nil
	}
	return r.ofExport(types.NamespacedName{Namespace: o.GetNamespace(), Name: labels[discoveryv1.LabelServiceName]})
}

// ofImported maps an EndpointSlice of ours to its import.
func (r *Reconciler) ofImported(_ context.Context, o client.Object) []reconcile.Request {
	labels := o.GetLabels()
	key := types.NamespacedName{Namespace: o.GetNamespace(), Name: labels[mcs.LabelServiceName]}
	if labels[discoveryv1.LabelManagedBy] != ManagedBy || key.Name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

func (r *Reconciler) ofExport(key types.NamespacedName) []reconcile.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.exports[key]; !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// enqueueLeftovers has every import and EndpointSlice of ours looked at, so that those go which nobody exports.
func (r *Reconciler) enqueueLeftovers(ctx context.Context) error {
	imports, left, err := ours(ctx, r.client)
	if err != nil {
		return err
	}
	var keys []types.NamespacedName
	for i := range imports {
		keys = append(keys, client.ObjectKeyFromObject(&imports[i]))
	}
	for i := range left {
		keys = append(keys, types.NamespacedName{Namespace: left[i].Namespace, Name: left[i].Labels[mcs.LabelServiceName]})
	}
	r.enqueue(slices.DeleteFunc(keys, func(k types.NamespacedName) bool { return k.Name == "" }))
	return nil
}

// ours lists what Seaway made in this cluster.
func ours(ctx context.Context, c client.Reader) ([]mcs.ServiceImport, []discoveryv1.EndpointSlice, error) {
	var imports mcs.ServiceImportList
	if err := c.List(ctx, &imports, client.MatchingLabels{managedByLabel: ManagedBy}); err != nil {
		return nil, nil, fmt.Errorf("list ServiceImports: %w", err)
	}
	var es discoveryv1.EndpointSliceList
	if err := c.List(ctx, &es, client.MatchingLabels{discoveryv1.LabelManagedBy: ManagedBy}); err != nil {
		return nil, nil, fmt.Errorf("list EndpointSlices: %w", err)
	}
	return imports.Items, es.Items, nil
}

// Cleanup takes everything out of the cluster that Seaway's discovery put there: imports, EndpointSlices and
// conditions. From then on nothing is written any more. It may be called again after an error.
func (r *Reconciler) Cleanup(ctx context.Context) error {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.running.Lock() // whoever began before that is through then
	defer r.running.Unlock()
	imports, endpointSlices, err := ours(ctx, r.cfg.Direct)
	if err != nil {
		return err
	}
	var errs []error
	for i := range endpointSlices {
		if err := r.client.Delete(ctx, &endpointSlices[i]); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("delete EndpointSlice %s/%s: %w", endpointSlices[i].Namespace, endpointSlices[i].Name, err))
		}
	}
	for i := range imports {
		if err := r.client.Delete(ctx, &imports[i]); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("delete ServiceImport %s/%s: %w", imports[i].Namespace, imports[i].Name, err))
		}
	}
	var exports mcs.ServiceExportList
	if err := r.cfg.Direct.List(ctx, &exports); err != nil {
		return errors.Join(append(errs, fmt.Errorf("list ServiceExports: %w", err))...)
	}
	for i := range exports.Items {
		object := exports.Items[i].DeepCopy()
		removed := false
		for _, t := range []string{discovery.CondValid, discovery.CondReady, discovery.CondConflict} {
			removed = meta.RemoveStatusCondition(&object.Status.Conditions, t) || removed
		}
		if !removed {
			continue
		}
		if err := r.client.Status().Update(ctx, object); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("take the conditions off ServiceExport %s/%s: %w", object.Namespace, object.Name, err))
		}
	}
	return errors.Join(errs...)
}
