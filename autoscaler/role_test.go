package autoscaler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/e2e/autoscale/lesson"
	"seaway.dev/seaway/install"
	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/record"
)

// service is a web service made of numbers: its pods request a tenth of a core, a request takes a thousandth of a second
// of it, so a pod serves a hundred a second at most. It is also the Prometheus that tells of itself.
type service struct {
	mu   sync.Mutex
	rate float64
	deaf bool
	live *live
	url  string
}

const (
	podCores = 0.1
	costs    = time.Millisecond
)

func newService(l *live) *service {
	s := &service{live: l}
	srv := httptest.NewServer(http.HandlerFunc(s.answer))
	l.t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *service) set(rate float64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate = rate
	return time.Now()
}

func (s *service) silence(deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = deaf
}

func (s *service) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	rate, deaf := s.rate, s.deaf
	s.mu.Unlock()
	if deaf || r.ParseForm() != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	use := rate * costs.Seconds() / (podCores * math.Max(1, float64(s.live.ready())))
	v := map[string]float64{"rate": rate, "busy": math.Min(use, 1) * podCores * float64(s.live.ready()), "bad": rate * math.Max(0, 1-1/math.Max(use, 1))}[r.Form.Get("query")]
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":"scalar","result":[%d,"%g"]}}`, time.Now().Unix(), v)
}

// ready counts the pods that serve.
func (l *live) ready() (n int) {
	var pods corev1.PodList
	if err := l.client.List(context.Background(), &pods, client.InNamespace("shop")); err != nil {
		return 0
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				n++
			}
		}
	}
	return n
}

func shop() []client.Object {
	n := int32(3)
	return []client.Object{
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:1",
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}}}}}}},
	}
}

func autoscalerOf(mode v1alpha1.AutoscalerMode) *v1alpha1.Autoscaler {
	return &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: v1alpha1.AutoscalerSpec{
		Target: v1alpha1.ScaleTarget{Name: "web"}, Min: 2, Max: 20, Mode: mode, Trusted: true, Metrics: v1alpha1.MetricSource{Rate: "rate", Busy: "busy", Bad: "bad"}}}
}

// memory is what a role that watched the service for two hours would have left.
func memoryOf(t *testing.T, as *v1alpha1.Autoscaler) *corev1.ConfigMap {
	state, err := lesson.Learn(lesson.Service{Cores: podCores, Cost: costs, Start: time.Second, Image: "web:1", Rate: 200, Seed: 1,
		Terms: scale.Terms{Min: int(as.Spec.Min), Max: int(as.Spec.Max), Good: 0.999}}, time.Now(), 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	spec, _ := json.Marshal(as.Spec)
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-system", Name: "autoscaler-shop.web", Labels: map[string]string{"seaway.dev/autoscaler-memory": "true"}},
		BinaryData: map[string][]byte{"state": state}, Data: map[string]string{"spec": string(spec), "owner": "shop/web"}}
}

func (l *live) replicas() int {
	d := &appsv1.Deployment{}
	if err := l.client.Get(context.Background(), client.ObjectKey{Namespace: "shop", Name: "web"}, d); err != nil {
		l.t.Fatal(err)
	}
	return int(*d.Spec.Replicas)
}

func (l *live) get() *v1alpha1.Autoscaler {
	as := &v1alpha1.Autoscaler{}
	if err := l.client.Get(context.Background(), client.ObjectKey{Namespace: "shop", Name: "web"}, as); err != nil {
		l.t.Fatal(err)
	}
	return as
}

// change changes the Autoscaler, and waits until the role has seen that.
func (l *live) change(what string, f func(*v1alpha1.AutoscalerSpec)) {
	l.t.Helper()
	as := l.get()
	before := as.DeepCopy()
	f(&as.Spec)
	if err := l.client.Patch(context.Background(), as, client.MergeFrom(before)); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
	l.eventually(20*time.Second, what+" is seen", func(context.Context) error {
		got := l.get()
		return fault(got.Status.ObservedGeneration != got.Generation, "generation %d, seen %d", got.Generation, got.Status.ObservedGeneration)
	})
}

// becomes waits for replicas.
func (l *live) becomes(limit time.Duration, what string, ok func(n int) bool) {
	l.t.Helper()
	l.eventually(limit, what, func(context.Context) error {
		n := l.replicas()
		return fault(!ok(n), "%d replicas; the role says %+v", n, l.get().Status)
	})
}

// stays looks for that long.
func (l *live) stays(d time.Duration, what string, ok func(n int) bool) {
	l.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if n := l.replicas(); !ok(n) {
			l.t.Fatalf("%s: %d replicas; the role says %+v", what, n, l.get().Status)
		}
		<-time.After(100 * time.Millisecond)
	}
}

func (l *live) hpa(name string) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	return h, l.client.Get(context.Background(), client.ObjectKey{Namespace: "shop", Name: name}, h)
}

// TestRole plays the role's life on a real API server, with the real HPA controller: what it may do by its rights, how
// soon it writes, that one of two writes, what it remembers, and what it leaves behind.
func TestRole(t *testing.T) {
	if !*liveTests {
		t.Skip("starts an API server, for a minute: -args -live plays it")
	}
	l := newLive(t)
	if _, err := install.Apply(t.Context(), l.client, install.Autoscaler(install.AutoscalerOptions{Image: "seaway:1"}), nil); err != nil {
		t.Fatal(err)
	}
	l.create(shop()...)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	if err := l.client.Status().Patch(t.Context(), node, client.Merge); err != nil {
		t.Fatal(err)
	}
	s := newService(l)
	s.set(200)
	kedas := []string{freePort(t), freePort(t)}
	one := l.role("one", s.url, kedas[0])
	l.eventually(time.Minute, "one leads", func(ctx context.Context) error { return l.led(ctx) })
	two := l.role("two", s.url, kedas[1])
	as := autoscalerOf(v1alpha1.ModeObserve)
	l.create(memoryOf(t, as))
	l.eventually(30*time.Second, "Autoscalers are served", func(ctx context.Context) error { return l.client.Create(ctx, as.DeepCopy()) })
	l.eventually(30*time.Second, "the Autoscaler is Ready", func(context.Context) error {
		c := meta.FindStatusCondition(l.get().Status.Conditions, v1alpha1.AutoscalerReady)
		return fault(c == nil || c.Status != metav1.ConditionTrue, "%+v", c)
	})
	l.becomes(20*time.Second, "three pods serve", func(n int) bool { return n == 3 && l.ready() == 3 })

	// The control: it watches, sees the load jump, and touches nothing.
	s.set(600)
	l.eventually(20*time.Second, "it would scale", func(context.Context) error { st := l.get().Status; return fault(st.Wants <= 4, "%+v", st) })
	l.stays(3*time.Second, "in Observe nothing is written", func(n int) bool { return n == 3 })
	l.either(kedas)
	s.set(200)

	l.change("mode Full", func(s *v1alpha1.AutoscalerSpec) { s.Mode = v1alpha1.ModeFull })
	l.becomes(20*time.Second, "as many as the load needs", func(n int) bool { return n >= 3 && l.get().Status.Mode == v1alpha1.ModeFull && l.ready() == n })
	l.jump(s)
	l.pinned()
	l.unseen(s)
	l.handedOver(t, s)
	l.succeeded(s, one)
	l.paused(s, two)
}

func (l *live) led(ctx context.Context) error {
	lease, err := l.typed.CoordinationV1().Leases("seaway-system").Get(ctx, "seaway-autoscaler", metav1.GetOptions{})
	if err != nil {
		return err
	}
	return fault(lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "", "nobody leads")
}

// jump: the metric changes, the scale is written, and that is explained.
func (l *live) jump(s *service) {
	before := l.replicas()
	at := s.set(700)
	l.becomes(10*time.Second, "more after a jump", func(n int) bool { return n > before })
	// The bar is 2 s; what a busy machine makes of it is told, not judged.
	l.t.Logf("the metric changed, the scale was written %s later: %d → %d", time.Since(at).Round(time.Millisecond), before, l.replicas())
	l.eventually(10*time.Second, "the action is recorded", func(context.Context) error {
		as := l.get()
		if len(as.Status.Records) == 0 {
			return errors.New("no record")
		}
		var r record.Record
		if err := json.Unmarshal([]byte(as.Status.Records[0]), &r); err != nil {
			return err
		}
		if r.To <= r.From || r.HPA == 0 || len(r.Experts) == 0 || r.PodLead == 0 || r.WorkMillis < 0.9 || r.WorkMillis > 1.1 {
			return fmt.Errorf("record %+v", r)
		}
		var events corev1.EventList
		if err := l.client.List(context.Background(), &events, client.InNamespace("shop")); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Reason == "ScaledUp" && e.InvolvedObject.Kind == "Autoscaler" {
				return nil
			}
		}
		return errors.New("no event ScaledUp on the Autoscaler")
	})
	l.becomes(30*time.Second, "enough for 700 a second", func(n int) bool { return n >= 8 && l.ready() == n })
}

func (l *live) pinned() {
	nine := int32(15)
	l.change("a pin", func(s *v1alpha1.AutoscalerSpec) { s.Pin = &nine })
	l.becomes(10*time.Second, "pinned", func(n int) bool { return n == 15 })
	l.change("no pin, a low max", func(s *v1alpha1.AutoscalerSpec) { s.Pin, s.Max = nil, 12 })
	l.becomes(10*time.Second, "at most max", func(n int) bool { return n <= 12 })
	l.change("a high max", func(s *v1alpha1.AutoscalerSpec) { s.Max = 20 })
}

// unseen: without metrics nothing shrinks, and it is told what to do.
func (l *live) unseen(s *service) {
	before := l.replicas()
	s.silence(true)
	s.set(20)
	l.eventually(20*time.Second, "it is told", func(context.Context) error {
		c := meta.FindStatusCondition(l.get().Status.Conditions, v1alpha1.AutoscalerReady)
		return fault(c.Reason != "MetricsUnreachable" || !strings.Contains(c.Message, "Next: "), "%+v", c)
	})
	l.stays(3*time.Second, "without metrics nothing shrinks", func(n int) bool { return n >= before })
	s.set(700)
	s.silence(false)
}

// handedOver: each way to end leaves an HPA that the real controller takes up.
func (l *live) handedOver(t *testing.T, s *service) {
	at := time.Now()
	l.change("mode Off", func(s *v1alpha1.AutoscalerSpec) { s.Mode, s.Min = v1alpha1.ModeOff, 14 })
	l.eventually(10*time.Second, "an HPA is left behind", func(context.Context) error { _, err := l.hpa("web"); return err })
	t.Logf("switched off: an HPA %s later", time.Since(at).Round(time.Millisecond))
	l.becomes(20*time.Second, "the HPA's controller keeps its floor", func(n int) bool { return n == 14 })
	l.change("mode Full again", func(s *v1alpha1.AutoscalerSpec) { s.Mode, s.Min = v1alpha1.ModeFull, 2 })
	l.eventually(10*time.Second, "the HPA is gone", func(context.Context) error {
		_, err := l.hpa("web")
		return fault(!apierrors.IsNotFound(err), "still there (%v)", err)
	})
	l.change("mode Floor", func(s *v1alpha1.AutoscalerSpec) { s.Mode = v1alpha1.ModeFloor })
	l.eventually(10*time.Second, "its floor is moved", func(context.Context) error {
		h, err := l.hpa("web")
		return cmpErr(err, fault(err == nil && *h.Spec.MinReplicas != l.get().Status.Wants, "minReplicas %d, wants %d", *h.Spec.MinReplicas, l.get().Status.Wants))
	})
	l.theirs()
}

func cmpErr(errs ...error) error { return errors.Join(errs...) }

// theirs: somebody else's HPA gets its own floor back.
func (l *live) theirs() {
	own, err := l.hpa("web")
	if err != nil {
		l.t.Fatal(err)
	}
	three := int32(3)
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "theirs"}, Spec: *own.Spec.DeepCopy()}
	h.Spec.MinReplicas = &three
	l.change("mode Observe", func(s *v1alpha1.AutoscalerSpec) { s.Mode = v1alpha1.ModeObserve })
	if err := l.client.Delete(context.Background(), own); err != nil {
		l.t.Fatal(err)
	}
	l.create(h)
	floor := func(what string, ok func(n int32) bool) {
		l.t.Helper()
		l.eventually(15*time.Second, what, func(context.Context) error {
			h, err := l.hpa("theirs")
			return cmpErr(err, fault(err == nil && !ok(*h.Spec.MinReplicas), "minReplicas %d, status %+v", *h.Spec.MinReplicas, l.get().Status))
		})
	}
	l.change("mode Floor with theirs", func(s *v1alpha1.AutoscalerSpec) { s.Mode = v1alpha1.ModeFloor })
	floor("their floor is moved", func(n int32) bool { return n > 3 })
	l.change("mode Full with theirs", func(s *v1alpha1.AutoscalerSpec) { s.Mode = v1alpha1.ModeFull })
	floor("their floor is back", func(n int32) bool { return n == 3 })
	l.eventually(10*time.Second, "it is told", func(context.Context) error {
		c := meta.FindStatusCondition(l.get().Status.Conditions, v1alpha1.AutoscalerReady)
		return fault(c.Reason != "HPAInTheWay", "%+v", c)
	})
	if err := l.client.Delete(context.Background(), h); err != nil {
		l.t.Fatal(err)
	}
}
