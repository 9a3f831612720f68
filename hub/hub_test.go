package hub

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/kube"
)

// rig is a hub on a fake API server, with a clock that the test turns.
type rig struct {
	t *testing.T
	client.Client
	joins    *joins
	clusters *clusters
	slices   *sliceLoop

	mute bool // members cannot say that they have the answer

	mu  sync.Mutex
	now time.Time
}

func newRig(t *testing.T, objs ...client.Object) *rig {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objs...).
		WithStatusSubresource(&v1alpha1.Cluster{}, &v1alpha1.Slice{}).Build()
	r := &rig{t: t, Client: c, now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	heard := newHearing(r.clock)
	log := slog.New(slog.DiscardHandler)
	r.joins = &joins{client: c, tokens: minting(), log: log}
	r.clusters = &clusters{client: c, direct: c, heard: heard, log: log}
	r.slices = &sliceLoop{client: c, heard: heard, log: log}
	return r
}

// minting is an API server that answers every TokenRequest.
func minting() kubernetes.Interface {
	k := kubefake.NewClientset()
	k.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "token" {
			return false, nil, nil
		}
		tr := a.(clienttesting.CreateActionImpl).Object.(*authenticationv1.TokenRequest).DeepCopy()
		tr.Status.Token = "token-of-" + a.GetNamespace() + "/" + a.(clienttesting.CreateActionImpl).Name
		return true, tr, nil
	})
	return k
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) turn(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// look runs the loops of clusters and slices for everything there is, until nothing changes.
func (r *rig) look() {
	r.t.Helper()
	for range 3 {
		var cl v1alpha1.ClusterList
		var sl v1alpha1.SliceList
		r.must(r.List(r.t.Context(), &cl))
		for _, c := range cl.Items {
			_, err := r.clusters.Reconcile(r.t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&c)})
			r.must(err)
		}
		r.must(r.List(r.t.Context(), &sl))
		for _, s := range sl.Items {
			_, err := r.slices.Reconcile(r.t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&s)})
			r.must(err)
		}
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) cluster(name string) *v1alpha1.Cluster {
	r.t.Helper()
	var c v1alpha1.Cluster
	r.must(r.Get(r.t.Context(), client.ObjectKey{Name: name}, &c))
	return &c
}

func (r *rig) slice(name string) *v1alpha1.Slice {
	r.t.Helper()
	var s v1alpha1.Slice
	r.must(r.Get(r.t.Context(), client.ObjectKey{Name: name}, &s))
	return &s
}

// join makes a member as the joins loop would, without the ceremony.
func (r *rig) join(name string) {
	r.t.Helper()
	r.must(r.Create(r.t.Context(), &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{place.Finalizer},
		Annotations: map[string]string{place.AnnotationUID: "uid-of-" + name}}}))
	r.must(settle(r.t.Context(), r.Client, name))
}

// beat renews a member's lease.
func (r *rig) beat(name string) {
	r.t.Helper()
	l := leaseOf(r.t.Context(), r.t, r.Client, name)
	now := metav1.NewMicroTime(r.clock())
	l.Spec.RenewTime = &now
	r.must(r.Update(r.t.Context(), l))
}

// say publishes a member's bulletin.
func (r *rig) say(name string, b fleet.Bulletin) {
	r.t.Helper()
	b.Version, b.Cluster = fleet.WireVersion, name
	packed, err := bulletin.Encode(&b)
	r.must(err)
	var cm corev1.ConfigMap
	r.must(r.Get(r.t.Context(), client.ObjectKey{Namespace: place.Mailbox(name), Name: place.Bulletin}, &cm))
	cm.BinaryData = map[string][]byte{place.BulletinKey: packed}
	r.must(r.Update(r.t.Context(), &cm))
}

func (r *rig) expect(list []metav1.Condition, typ string, status metav1.ConditionStatus, reason, says string) {
	r.t.Helper()
	for _, c := range list {
		if c.Type == typ {
			if c.Status != status || c.Reason != reason || !strings.Contains(c.Message, says) {
				r.t.Errorf("%s is %s %s %q, want %s %s with %q", typ, c.Status, c.Reason, c.Message, status, reason, says)
			}
			return
		}
	}
	r.t.Errorf("no condition %s in %v", typ, list)
}

func (r *rig) absent(ctx context.Context, o client.Object) {
	r.t.Helper()
	if err := r.Get(ctx, client.ObjectKeyFromObject(o), o); client.IgnoreNotFound(err) != nil || err == nil {
		r.t.Errorf("%T %s/%s is still there (%v)", o, o.GetNamespace(), o.GetName(), err)
	}
}
