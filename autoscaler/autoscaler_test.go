package autoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"seaway.dev/seaway/api/v1alpha1"
	record1 "seaway.dev/seaway/scale/record"
)

// cluster is an API server that behaves, with a web service on it whose pods are ready at once.
type cluster struct {
	t      *testing.T
	client client.Client
	events *record.FakeRecorder
	say    func() (reading, error)
	loop   *loop
}

var webKey = types.NamespacedName{Namespace: "shop", Name: "web"}

func newCluster(t *testing.T, spec func(*v1alpha1.AutoscalerSpec)) *cluster {
	t.Helper()
	one := int32(4)
	web := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}}}}}
	as := &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 1}, Spec: v1alpha1.AutoscalerSpec{
		Target: v1alpha1.ScaleTarget{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, Min: 2, Max: 50, Mode: v1alpha1.ModeFull, Trusted: true,
		Metrics: v1alpha1.MetricSource{Rate: "r", Busy: "b", Bad: "x"}}}
	if spec != nil {
		spec(&as.Spec)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	c := &cluster{t: t, events: record.NewFakeRecorder(1000)}
	c.client = fake.NewClientBuilder().WithScheme(few(t)).WithObjects(web, as, node).WithStatusSubresource(&v1alpha1.Autoscaler{}, &corev1.Pod{}).Build()
	c.steady(100)
	c.restart()
	return c
}

// few is a scheme with the kinds that the role meets: the fake walks through all kinds at each write.
func few(t *testing.T) *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Pod{}, &corev1.PodList{}, &corev1.Node{}, &corev1.NodeList{}, &corev1.ConfigMap{}, &corev1.ConfigMapList{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, autoscalingv1.AddToScheme, autoscalingv2.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// restart is a new process.
func (c *cluster) restart() {
	c.loop = newLoop(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, c.client, c.events, func(context.Context, v1alpha1.MetricSource) (reading, error) { return c.say() })
}

// steady sets the load, in requests per second; one takes 20 core-ms.
func (c *cluster) steady(rate float64) {
	c.say = func() (reading, error) {
		busy := math.Min(rate*0.02, float64(c.replicas()))
		return reading{rate: rate, busy: busy, bad: math.Max(0, rate-busy/0.02), inFlight: math.NaN()}, nil
	}
}

func (c *cluster) replicas() int {
	d := &appsv1.Deployment{}
	if err := c.client.Get(context.Background(), webKey, d); err != nil {
		c.t.Fatal(err)
	}
	return int(*d.Spec.Replicas)
}

// settle makes pods for the replicas, ready now.
func (c *cluster) settle() {
	ctx := context.Background()
	var pods corev1.PodList
	if err := c.client.List(ctx, &pods, client.InNamespace("shop")); err != nil {
		c.t.Fatal(err)
	}
	for n := len(pods.Items); n < c.replicas(); n++ {
		now := metav1.Now()
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-" + string(rune('a'+n)), UID: types.UID(rune('a' + n)), Labels: map[string]string{"app": "web"}, CreationTimestamp: now},
			Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "web", Image: "web:1"}}}}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
		if err := c.client.Create(ctx, p); err != nil {
			c.t.Fatal(err)
		}
	}
	for n := c.replicas(); n < len(pods.Items); n++ {
		if err := c.client.Delete(ctx, &pods.Items[n]); err != nil {
			c.t.Fatal(err)
		}
	}
}

// pass lets d go by, a round each second; when it is long, one every fifteen.
func (c *cluster) pass(d time.Duration) {
	each := time.Second
	if d > time.Minute {
		each = 15 * time.Second
	}
	for range int(d / each) {
		c.settle()
		c.loop.round(context.Background(), time.Now())
		time.Sleep(each)
	}
}

func (c *cluster) get() *v1alpha1.Autoscaler {
	as := &v1alpha1.Autoscaler{}
	if err := c.client.Get(context.Background(), webKey, as); err != nil {
		c.t.Fatal(err)
	}
	return as
}

func (c *cluster) set(change func(*v1alpha1.Autoscaler)) {
	as := c.get()
	change(as)
	as.Generation++
	if err := c.client.Update(context.Background(), as); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) hpa() *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	if err := c.client.Get(context.Background(), webKey, h); apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		c.t.Fatal(err)
	}
	return h
}

func (c *cluster) ready() *metav1.Condition {
	r := meta.FindStatusCondition(c.get().Status.Conditions, v1alpha1.AutoscalerReady)
	if r == nil {
		c.t.Fatal("no condition Ready")
	}
	return r
}

// TestScalesWithinTwoSeconds: the load jumps; the scale is written within two seconds, and explained.
func TestScalesWithinTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		c.pass(20 * time.Minute)
		before := c.replicas()
		c.steady(300)
		jumped := time.Now()
		for c.replicas() == before {
			if time.Since(jumped) > 2*time.Second {
				t.Fatalf("still %d replicas after %s: %+v", before, time.Since(jumped), c.get().Status)
			}
			c.pass(time.Second)
		}
		t.Logf("%d → %d replicas within %s", before, c.replicas(), time.Since(jumped))
		c.pass(5 * time.Minute)
		if n := c.replicas(); n < 7 || n > 20 {
			t.Errorf("%d replicas for 6 cores of load", n)
		}
		as := c.get()
		if r := c.ready(); r.Status != metav1.ConditionTrue {
			t.Errorf("not ready: %+v", r)
		}
		var r record1.Record
		if len(as.Status.Records) == 0 {
			t.Fatal("no record of the action")
		}
		if err := json.Unmarshal([]byte(as.Status.Records[0]), &r); err != nil || r.Why == "" || r.To == r.From || r.HPA == 0 {
			t.Errorf("record %s: %v", as.Status.Records[0], err)
		}
		if !slices.ContainsFunc(drain(c.events), func(e string) bool { return strings.Contains(e, "ScaledUp") }) {
			t.Error("no event ScaledUp")
		}
	})
}

func drain(r *record.FakeRecorder) (out []string) {
	for {
		select {
		case e := <-r.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

// TestWithoutMetricsNothingIsScaledDown: a Prometheus that is gone is told, and the replicas stay.
func TestWithoutMetricsNothingIsScaledDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		c.steady(300)
		c.pass(20 * time.Minute)
		before := c.replicas()
		c.say = func() (reading, error) { return reading{}, errors.New("connection refused") }
		c.pass(10 * time.Minute)
		if n := c.replicas(); n < before {
			t.Errorf("%d replicas, %d before", n, before)
		}
		if r := c.ready(); r.Reason != "MetricsUnreachable" {
			t.Errorf("condition %+v", r)
		}
		c.steady(30)
		c.pass(20 * time.Minute)
		if n := c.replicas(); n >= before {
			t.Errorf("%d replicas with a tenth of the load and metrics again; %d before", n, before)
		}
		if r := c.ready(); r.Status != metav1.ConditionTrue {
			t.Errorf("condition %+v", r)
		}
	})
}

// TestModes: shadow touches nothing, floor moves the HPA's floor, off and deletion leave an HPA behind, full takes it
// away again; somebody else's HPA is left alone and told of.
func TestModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, func(s *v1alpha1.AutoscalerSpec) { s.Mode = v1alpha1.ModeShadow })
		c.steady(400)
		c.pass(20 * time.Minute)
		if n, h := c.replicas(), c.hpa(); n != 4 || h != nil {
			t.Fatalf("in Shadow: %d replicas, HPA %v", n, h)
		}
		if s := c.get().Status; s.Mode != v1alpha1.ModeShadow || s.Wants <= 4 {
			t.Errorf("in Shadow: %+v", s)
		}
		c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Mode = v1alpha1.ModeFloor })
		c.pass(30 * time.Second)
		if h := c.hpa(); h == nil || *h.Spec.MinReplicas <= 4 {
			t.Fatalf("in Floor: HPA %+v", h)
		}
		c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Mode = v1alpha1.ModeFull })
		c.pass(30 * time.Second)
		if h := c.hpa(); h != nil || c.replicas() <= 4 {
			t.Fatalf("in Full: HPA %v, %d replicas", h, c.replicas())
		}
		c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Mode = v1alpha1.ModeOff })
		c.pass(2 * time.Second)
		if h := c.hpa(); h == nil || *h.Spec.MinReplicas != 2 || h.Spec.MaxReplicas != 50 {
			t.Fatalf("switched off: HPA %+v %+v", h, c.get().Status)
		}
		c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Mode = v1alpha1.ModeFull })
		c.pass(5 * time.Second)
		if h := c.hpa(); h != nil {
			t.Fatal("in Full again: the HPA is there")
		}
		c.restartAfterDeletion()
		if h := c.hpa(); h == nil {
			t.Fatal("deleted while nobody looked: no HPA was left behind")
		}
	})
}

func (c *cluster) restartAfterDeletion() {
	ctx := context.Background()
	c.loop.keepAll()
	if err := c.client.Delete(ctx, c.get()); err != nil {
		c.t.Fatal(err)
	}
	c.restart()
	c.loop.adopt(ctx)
	c.loop.round(ctx, time.Now())
}

func TestForeignHPA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		two := int32(2)
		if err := c.client.Create(context.Background(), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "theirs"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MinReplicas: &two, MaxReplicas: 9}}); err != nil {
			t.Fatal(err)
		}
		c.steady(400)
		c.pass(10 * time.Minute)
		if n := c.replicas(); n != 4 {
			t.Errorf("%d replicas: two controllers write one number", n)
		}
		if r := c.ready(); r.Reason != "HPAInTheWay" {
			t.Errorf("condition %+v", r)
		}
	})
}

// TestRestartRemembers: a new process knows what the old one learnt.
func TestRestartRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		c.pass(time.Hour)
		if c.loop.targets[webKey].pilot == nil {
			t.Fatalf("no pilot: %+v", c.get().Status)
		}
		before := c.loop.targets[webKey].pilot.Record()
		c.loop.keepAll()
		c.restart()
		c.pass(30 * time.Second)
		after := c.loop.targets[webKey].pilot.Record()
		if after.WorkMillis < 0.9*before.WorkMillis || after.Starts < before.Starts || after.Why == "nothing is known yet: as HPA does" {
			t.Errorf("before %+v\nafter %+v", before, after)
		}
	})
}

func TestPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		c.pass(time.Minute)
		c.set(func(as *v1alpha1.Autoscaler) { nine := int32(9); as.Spec.Pin = &nine })
		c.pass(10 * time.Second)
		if n := c.replicas(); n != 9 {
			t.Errorf("%d replicas, pinned to 9", n)
		}
	})
}

// TestMaxIsLowered: what is kept for a while is not kept above the bounds.
func TestMaxIsLowered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		c.pass(10 * time.Minute)
		c.set(func(as *v1alpha1.Autoscaler) { pin := int32(15); as.Spec.Pin = &pin })
		c.pass(10 * time.Second)
		if n := c.replicas(); n != 15 {
			t.Fatalf("%d replicas, pinned to 15", n)
		}
		c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Pin, as.Spec.Max = nil, 12 })
		c.pass(10 * time.Second)
		if n := c.replicas(); n > 12 {
			t.Errorf("%d replicas, 12 at most", n)
		}
	})
}

// TestTakesOverWhatIsThere: while the role was away somebody scaled; the metric lags. What is there is kept at first.
func TestTakesOverWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		c.pass(20 * time.Minute)
		time.Sleep(10 * time.Minute)
		d := &appsv1.Deployment{}
		if err := c.client.Get(t.Context(), webKey, d); err != nil {
			t.Fatal(err)
		}
		twelve := int32(12)
		d.Spec.Replicas = &twelve
		if err := c.client.Update(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		c.restart()
		for range 20 {
			c.pass(time.Second)
			if n := c.replicas(); n < 12 {
				t.Fatalf("%d replicas of 12 as soon as it is back: %+v", n, c.get().Status)
			}
		}
		c.pass(20 * time.Minute)
		if n := c.replicas(); n > 6 {
			t.Errorf("still %d replicas for 2 cores of load after 20 minutes", n)
		}
	})
}

// TestTrustIsGivenOnce: what an Autoscaler was demoted from, a restart does not give back; a new word does.
func TestTrustIsGivenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		c.pass(10 * time.Second)
		mode := func(want v1alpha1.AutoscalerMode) {
			t.Helper()
			c.pass(10 * time.Second)
			if got := c.get().Status.Mode; got != want {
				t.Fatalf("mode %s, want %s", got, want)
			}
		}
		mode(v1alpha1.ModeFull)
		c.loop.targets[webKey].pilot.SetMode(time.Now(), "Shadow")
		mode(v1alpha1.ModeShadow)
		if h := c.hpa(); h == nil {
			t.Error("no longer in charge, and nobody else is: no HPA was left")
		}
		c.loop.keepAll()
		c.restart()
		mode(v1alpha1.ModeShadow)
		c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Trusted = false })
		mode(v1alpha1.ModeShadow)
		c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Trusted = true })
		mode(v1alpha1.ModeFull)
	})
}

func TestComplaints(t *testing.T) {
	for want, break_ := range map[string]func(*cluster){
		"TargetMissing":    func(c *cluster) { c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Target.Name = "wob" }) },
		"MetricsEmpty":     func(c *cluster) { c.say = func() (reading, error) { n := math.NaN(); return reading{n, n, n, n}, nil } },
		"ObjectiveInvalid": func(c *cluster) { c.set(func(as *v1alpha1.Autoscaler) { as.Spec.Objective.Good = "100" }) },
		"NoRequests": func(c *cluster) {
			d := &appsv1.Deployment{}
			if err := c.client.Get(context.Background(), webKey, d); err != nil {
				c.t.Fatal(err)
			}
			d.Spec.Template.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
			if err := c.client.Update(context.Background(), d); err != nil {
				c.t.Fatal(err)
			}
		},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, nil)
				break_(c)
				c.pass(3 * time.Second)
				if r := c.ready(); r.Reason != want || !strings.Contains(r.Message, "Next: ") {
					t.Errorf("condition %+v", r)
				}
			})
		})
	}
}
