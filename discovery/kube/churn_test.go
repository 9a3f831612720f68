package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"seaway.dev/seaway/fleet"
)

// TestChurnElsewhereDelaysNobody: while others change 200 endpoints a second and the API server takes a tenth of a second
// for a write, what changes here is told at once. Told from the queue that writes, as the control, it takes the longer the more is to be written.
func TestChurnElsewhereDelaysNobody(t *testing.T) {
	apart, together := hearingInChurn(t, true), hearingInChurn(t, false)
	t.Logf("told after at most %v; from the writers' queue %v", apart, together)
	if apart > 20*time.Millisecond {
		t.Errorf("what changed here was told after %v", apart)
	}
	if together < 300*time.Millisecond {
		t.Errorf("control: from the writers' queue it was told after %v already: this test shows nothing", together)
	}
}

// hearingInChurn returns how long it takes at most until a change here is told. The time is the bubble's.
func hearingInChurn(t *testing.T, apart bool) (worst time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "c1")
		s.web(0)
		o := newOthers(50)
		s.r.cfg.Remote, s.r.cfg.Changed = o.exports, func() {}
		settle(s)
		for _, e := range o.said {
			if _, err := s.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: e.Namespace, Name: e.Name}}); err != nil {
				t.Fatal(err)
			}
		}
		s.r.client = slowWriter(s.client.(client.WithWatch), 100*time.Millisecond)
		var workers sync.WaitGroup
		start := func(n int, do reconcile.Func) workqueue.TypedRateLimitingInterface[reconcile.Request] {
			q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
			for range n {
				workers.Go(func() {
					for req, shut := q.Get(); !shut; req, shut = q.Get() {
						if _, err := do(t.Context(), req); err != nil {
							t.Error(err)
						}
						q.Done(req)
					}
				})
			}
			return q
		}
		writes, hears := start(4, s.r.Reconcile), start(1, s.r.Hear)
		s.r.queue = writes
		if apart {
			s.r.urgent = hears
		}
		ctx, stop := context.WithCancel(t.Context())
		workers.Go(func() {
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					o.flip(2)
					s.r.RemoteChanged()
				}
			}
		})
		time.Sleep(300 * time.Millisecond)
		for i := range 2 {
			worst = max(worst, s.flipAndSee(i%2 == 1))
		}
		stop()
		writes.ShutDown()
		hears.ShutDown()
		workers.Wait()
	})
	return worst
}

// flipAndSee changes whether the pod of shop/web is ready and returns after how long others are told.
func (s *site) flipAndSee(ready bool) time.Duration {
	es := new(discoveryv1.EndpointSlice)
	if err := s.client.Get(s.t.Context(), types.NamespacedName{Namespace: "shop", Name: "web-abcde"}, es); err != nil {
		s.t.Fatal(err)
	}
	es.Endpoints[0].Conditions.Ready = &ready
	if err := s.client.Update(s.t.Context(), es); err != nil {
		s.t.Fatal(err)
	}
	began := time.Now()
	s.r.hurry([]types.NamespacedName{web})
	for {
		if told, _ := s.r.Exports(); told[0].Endpoints[0].Ready == ready {
			return time.Since(began)
		}
		if time.Since(began) > time.Minute {
			s.t.Fatal("it was never told")
		}
		time.Sleep(time.Millisecond)
	}
}

// slowWriter writes one thing after the other, each after a while.
func slowWriter(c client.WithWatch, takes time.Duration) client.Client {
	var one sync.Mutex
	slowly := func(do func() error) error {
		time.Sleep(takes)
		one.Lock()
		defer one.Unlock()
		return do()
	}
	return interceptor.NewClient(c, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return slowly(func() error { return c.Update(ctx, o, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return slowly(func() error { return c.SubResource(sub).Update(ctx, o, opts...) })
		},
	})
}

// others is one other cluster with services of ten endpoints.
type others struct {
	mu   sync.Mutex
	said []fleet.Export
	n    int
}

func newOthers(services int) *others {
	o := &others{}
	for i := range services {
		e := fleet.Export{Namespace: "shop", Name: fmt.Sprintf("s%03d", i), Slice: "pay", Created: time.Unix(1e9, 0).UTC(),
			Families: []string{"IPv4"}, Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}}
		for p := range 10 {
			e.Endpoints = append(e.Endpoints, fleet.Endpoint{Cluster: "c9", Node: "n1", Pod: fmt.Sprintf("p%d", p), Ready: true,
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, byte(i), byte(p)})}, Ports: map[string]uint16{"http": 8080}})
		}
		o.said = append(o.said, e)
	}
	return o
}

func (o *others) exports() (map[string][]fleet.Export, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return map[string][]fleet.Export{"c9": o.said}, true
}

// flip changes so many endpoints.
func (o *others) flip(times int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said = slices.Clone(o.said)
	for range times {
		e := &o.said[o.n%len(o.said)]
		e.Endpoints = slices.Clone(e.Endpoints)
		p := &e.Endpoints[o.n/len(o.said)%len(e.Endpoints)]
		p.Ready = !p.Ready
		o.n++
	}
}
