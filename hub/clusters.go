package hub

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/kube"
)

// clusters writes what is true of the members, and removes those that leave.
type clusters struct {
	client client.Client
	direct client.Reader // past the cache, for what is read once in a cluster's life
	heard  *hearing
	log    *slog.Logger
	events record.EventRecorder // may be nil
}

func (c *clusters) add(mgr ctrl.Manager) error {
	c.direct = mgr.GetAPIReader()
	owner := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		name := o.GetLabels()[place.LabelCluster]
		if name == "" || o.GetNamespace() != place.Mailbox(name) {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
	})
	return ctrl.NewControllerManagedBy(mgr).Named("clusters").For(&v1alpha1.Cluster{}).
		Watches(&corev1.ConfigMap{}, owner).Watches(&coordinationv1.Lease{}, owner).Complete(c)
}

// Reconcile implements reconcile.Reconciler for one Cluster.
func (c *clusters) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var cl v1alpha1.Cluster
	if err := c.client.Get(ctx, req.NamespacedName, &cl); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if cl.DeletionTimestamp != nil {
		return c.release(ctx, &cl)
	}
	m := member{cluster: &cl}
	if cl.Annotations[place.AnnotationUID] != "" {
		lease, err := c.hear(ctx, &m)
		if err != nil {
			return ctrl.Result{}, err
		}
		if lease != nil && lease.Annotations[place.AnnotationLeaving] != "" {
			c.log.Info("cluster leaves", "cluster", cl.Name)
			return ctrl.Result{}, client.IgnoreNotFound(c.client.Delete(ctx, &cl))
		}
	}
	now := c.heard.now()
	status := m.status(now)
	if !equality.Semantic.DeepEqual(status, cl.Status) {
		before := cl.DeepCopy()
		cl.Status = status
		if err := c.client.Status().Patch(ctx, &cl, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, fmt.Errorf("status of cluster %s: %w", cl.Name, err)
		}
		c.audit(before, &cl)
	}
	if m.renewed.IsZero() {
		return ctrl.Result{}, nil
	}
	// Look again when the silence would be too long.
	return ctrl.Result{RequeueAfter: max(m.renewed.Add(silence).Sub(now), 0) + time.Second}, nil
}

// hear reads the member's mailbox, and makes what is missing of it.
func (c *clusters) hear(ctx context.Context, m *member) (*coordinationv1.Lease, error) {
	name := m.cluster.Name
	var cm corev1.ConfigMap
	var lease coordinationv1.Lease
	err := c.client.Get(ctx, client.ObjectKey{Namespace: place.Mailbox(name), Name: place.Bulletin}, &cm)
	if err == nil {
		err = c.client.Get(ctx, client.ObjectKey{Namespace: place.Mailbox(name), Name: place.Alive}, &lease)
	}
	if apierrors.IsNotFound(err) {
		return nil, settle(ctx, c.client, name) // the watch calls again
	}
	if err != nil {
		return nil, err
	}
	m.bulletin, m.fault = c.heard.bulletin(name, &cm)
	m.renewed = c.heard.renewed(name, &lease)
	return &lease, nil
}

// release removes a member's mailbox and accounts, and then lets the Cluster go.
func (c *clusters) release(ctx context.Context, cl *v1alpha1.Cluster) (ctrl.Result, error) {
	if !slices.Contains(cl.Finalizers, place.Finalizer) {
		return ctrl.Result{}, nil
	}
	objects := place.ForMember(cl.Name)
	slices.Reverse(objects) // rights and accounts first, the namespace last
	for _, o := range objects {
		if o.GetName() == place.Bulletin || o.GetName() == place.Alive {
			continue // they go with the namespace
		}
		if err := c.client.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, fmt.Errorf("remove %T %s/%s of cluster %s: %w", o, o.GetNamespace(), o.GetName(), cl.Name, err)
		}
	}
	var ns corev1.Namespace
	err := c.direct.Get(ctx, client.ObjectKey{Name: place.Mailbox(cl.Name)}, &ns)
	if err == nil {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if !apierrors.IsNotFound(err) {
		return ctrl.Result{}, err
	}
	before := cl.DeepCopy()
	cl.Finalizers = slices.DeleteFunc(cl.Finalizers, func(f string) bool { return f == place.Finalizer })
	if err := c.client.Patch(ctx, cl, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	c.heard.forget(cl.Name)
	c.log.Info("cluster removed", "cluster", cl.Name)
	return ctrl.Result{}, nil
}

// member is what the hub knows of a cluster when it looks.
type member struct {
	cluster  *v1alpha1.Cluster
	bulletin *fleet.Bulletin // nil: it has said nothing yet
	fault    error           // what it says cannot be read
	renewed  time.Time       // when it was last heard from, zero if never
}

// joined tells whether the cluster holds a credential.
func (m member) joined() bool { return m.cluster.Annotations[place.AnnotationUID] != "" }

// alive tells whether the cluster is heard from.
func (m member) alive(now time.Time) bool { return !m.renewed.IsZero() && now.Sub(m.renewed) < silence }

// status is the Cluster's status as it should be.
func (m member) status(now time.Time) v1alpha1.ClusterStatus {
	s := *m.cluster.Status.DeepCopy()
	joined, ready := m.conditions(now)
	conditions := append([]metav1.Condition{joined, ready}, m.revoked()...)
	for i := range conditions {
		conditions[i].ObservedGeneration = m.cluster.Generation
		conditions[i].LastTransitionTime = metav1.NewTime(now)
	}
	kube.Want(&s.Conditions, []string{v1alpha1.ClusterJoined, v1alpha1.ClusterReady, v1alpha1.ClusterNodesRevoked}, conditions...)
	s.Nodes, s.Gateways = 0, 0
	if b := m.bulletin; b != nil {
		s.Nodes, s.Version = int32(len(b.Nodes)), b.Software
		if !b.Signer.IsZero() {
			s.Signer = b.Signer.String()
		}
		for _, n := range b.Nodes {
			if n.Gateway {
				s.Gateways++
			}
		}
	}
	// To the minute, because everyone watches this object.
	if !m.renewed.IsZero() && (s.LastSeen == nil || m.renewed.Sub(s.LastSeen.Time) >= time.Minute) {
		t := metav1.NewTime(m.renewed.Truncate(time.Second))
		s.LastSeen = &t
	}
	return s
}

func (m member) conditions(now time.Time) (joined, ready metav1.Condition) {
	name := m.cluster.Name
	yes := func(typ, reason, message string) metav1.Condition {
		return metav1.Condition{Type: typ, Status: metav1.ConditionTrue, Reason: reason, Message: message}
	}
	no := func(typ, reason, message, next string) metav1.Condition {
		return metav1.Condition{Type: typ, Status: metav1.ConditionFalse, Reason: reason,
			Message: kube.Message(fleet.Problem{Message: message, Next: next})}
	}
	if !m.joined() {
		next := fmt.Sprintf("`seaway token create %s` here, then `seaway join --token …` on that cluster", name)
		return no(v1alpha1.ClusterJoined, "NotJoined", "no cluster has joined under this name", next),
			no(v1alpha1.ClusterReady, "NotJoined", "no cluster has joined under this name", next)
	}
	joined = yes(v1alpha1.ClusterJoined, "Joined", "the cluster has its credential")
	look := "look on that cluster: kubectl -n seaway-system get pods, and the log of deploy/seaway-controller"
	switch {
	case m.renewed.IsZero():
		ready = no(v1alpha1.ClusterReady, "Joining", "the cluster has joined and has not been heard from yet", "wait a minute; then "+look)
	case !m.alive(now):
		ready = no(v1alpha1.ClusterReady, "NotHeardFrom",
			fmt.Sprintf("the cluster has not been heard from for more than %s; its traffic is not affected by that", silence),
			"check that it can reach this API server; "+look)
	case m.fault != nil:
		ready = no(v1alpha1.ClusterReady, "BulletinInvalid", m.fault.Error(), "run the same version of seaway on the hub and on that cluster")
	case m.bulletin == nil:
		ready = no(v1alpha1.ClusterReady, "Joining", "the cluster is alive and has not told its nodes yet", "wait a minute; then "+look)
	default:
		ready = yes(v1alpha1.ClusterReady, "Ready", "the cluster is heard from")
	}
	return joined, ready
}
