package kube

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

func testQueue(t *testing.T) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	t.Cleanup(q.ShutDown)
	return q
}

// TestHearingWaitsForNobody: while the API server takes its time over what is written of a name, others hear what is new
// of it, and the write is made up for afterwards.
func TestHearingWaitsForNobody(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	settle(c1, c2)
	writing, release := make(chan struct{}, 9), make(chan struct{})
	c1.r.client = interceptor.NewClient(c1.client.(client.WithWatch), interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			writing <- struct{}{}
			<-release
			return c.Update(ctx, o, opts...)
		},
	})
	queue := testQueue(t)
	c1.r.queue = queue
	flip := func(ready bool) {
		es := new(discoveryv1.EndpointSlice)
		if err := c1.client.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web-abcde"}, es); err != nil {
			t.Fatal(err)
		}
		es.Endpoints[0].Conditions.Ready = &ready
		c1.update(es)
	}
	reconciled := func() chan error {
		done := make(chan error, 1)
		go func() {
			_, err := c1.r.Reconcile(context.Background(), reconcile.Request{NamespacedName: web})
			done <- err
		}()
		return done
	}
	flip(false)
	done := reconciled()
	<-writing
	flip(true)
	told := c1.changes
	if _, err := c1.r.Hear(t.Context(), reconcile.Request{NamespacedName: web}); err != nil {
		t.Fatal(err)
	}
	if es, _ := c1.r.Exports(); len(es) != 1 || !es[0].Endpoints[0].Ready || c1.changes == told {
		t.Errorf("while a write lasts, others hear %+v", es)
	}
	if queue.Len() != 1 {
		t.Errorf("%d names wait to be written, want the one that was heard", queue.Len())
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := <-reconciled(); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "EndpointSlices", c1.endpointSlices(), "shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true]")
}

// TestStormsDoNotPileUp: names that others change again and again wait for one write each, however often they change, so
// that the objects of a fleet that calmed down are soon what they should be.
func TestStormsDoNotPileUp(t *testing.T) {
	s := newSite(t, "c1")
	s.r.queue = testQueue(t)
	var names []types.NamespacedName
	for i := range 300 {
		names = append(names, types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("s", i)})
	}
	for range 50 {
		s.r.enqueueSoon(names)
	}
	if wait := time.Until(s.r.next); wait > 100*writeEvery {
		t.Errorf("after a storm over 300 names the next one waits %v", wait)
	}
	if n := s.r.queue.Len(); n != writeBurst+1 && n != writeBurst {
		t.Errorf("%d names are to be written at once, want about %d", n, writeBurst)
	}
}

// TestPodsAreNoMatterOfOthersExports: a pod that comes or goes has this cluster's exports looked at and no others.
func TestPodsAreNoMatterOfOthersExports(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	c2.web(1)
	for i := range 5 {
		name := fmt.Sprint("other", i)
		e := c2.export()
		e.ObjectMeta.Name, e.ObjectMeta.ResourceVersion, e.ObjectMeta.UID = name, "", ""
		c2.create(e)
		service := newService(name)
		c2.create(service)
	}
	settle(c1, c2)
	if services, _ := c1.r.Services(); len(services) != 6 {
		t.Fatalf("%d services", len(services))
	}
	c1.r.urgent = testQueue(t)
	c1.r.PodsChanged("shop")
	if n := c1.r.urgent.Len(); n != 1 {
		t.Errorf("%d names are looked at for a pod, want 1", n)
	}
	c1.r.NamesChanged(types.NamespacedName{Namespace: "shop", Name: "other1"})
	if n := c1.r.urgent.Len(); n != 2 {
		t.Errorf("%d names are looked at, want 2", n)
	}
	c1.r.LocalChanged("shop")
	if n := c1.r.urgent.Len(); n != 6 {
		t.Errorf("%d names are looked at for a namespace, want 6", n)
	}
}

func newService(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.8", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
}
