package hub

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	coordinationv1 "k8s.io/api/coordination/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/place"
)

// sliceLoop hands out the slices' address blocks and writes what is true of the slices.
type sliceLoop struct {
	client client.Client
	heard  *hearing
	log    *slog.Logger
	events record.EventRecorder // may be nil
}

func (s *sliceLoop) add(mgr ctrl.Manager) error {
	every := handler.EnqueueRequestsFromMapFunc(s.all)
	return ctrl.NewControllerManagedBy(mgr).Named("slices").For(&v1alpha1.Slice{}).
		Watches(&v1alpha1.Slice{}, every). // two slices may want the same namespace
		Watches(&v1alpha1.Cluster{}, every).
		Watches(&corev1.ConfigMap{}, every).Complete(s)
}

// all asks for a look at every slice: what is looked at is small and in memory, and a burst is one look.
func (s *sliceLoop) all(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetNamespace() == place.Joins {
		return nil
	}
	var list v1alpha1.SliceList
	if err := s.client.List(ctx, &list); err != nil {
		s.log.Warn("list slices", "err", err)
		return nil
	}
	var out []reconcile.Request
	for _, sl := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: sl.Name}})
	}
	return out
}

// Reconcile implements reconcile.Reconciler for one Slice.
func (s *sliceLoop) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var sl v1alpha1.Slice
	if err := s.client.Get(ctx, req.NamespacedName, &sl); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if sl.DeletionTimestamp != nil {
		return ctrl.Result{}, nil
	}
	var others v1alpha1.SliceList
	if err := s.client.List(ctx, &others); err != nil {
		return ctrl.Result{}, err
	}
	members, err := s.members(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	status, err := judge(&sl, others.Items, members, s.heard.now())
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("slice %s: %w", sl.Name, err)
	}
	next := ctrl.Result{RequeueAfter: again(&sl, status.Keys, s.heard.now())}
	if equality.Semantic.DeepEqual(status, sl.Status) {
		return next, nil
	}
	// The resource version goes along: blocks carved from an old view of the slice are not written.
	before := sl.DeepCopy()
	sl.Status = status
	if err := s.client.Status().Patch(ctx, &sl, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return ctrl.Result{}, fmt.Errorf("status of slice %s: %w", sl.Name, err)
	}
	sl.Status = status // as written, whatever the answer was
	s.audit(before, &sl)
	s.log.Debug("slice status written", "slice", sl.Name, "clusters", len(status.Clusters))
	return next, nil
}

// members is what the hub knows of every Cluster.
func (s *sliceLoop) members(ctx context.Context) ([]member, error) {
	var list v1alpha1.ClusterList
	if err := s.client.List(ctx, &list); err != nil {
		return nil, err
	}
	out := make([]member, 0, len(list.Items))
	for i := range list.Items {
		m := member{cluster: &list.Items[i]}
		var cm corev1.ConfigMap
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: place.Mailbox(m.cluster.Name), Name: place.Bulletin}, &cm); err == nil {
			m.bulletin, m.fault = s.heard.bulletin(m.cluster.Name, &cm)
		}
		var lease coordinationv1.Lease
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: place.Mailbox(m.cluster.Name), Name: place.Alive}, &lease); err == nil {
			m.renewed = s.heard.renewed(m.cluster.Name, &lease)
		}
		out = append(out, m)
	}
	return out, nil
}
