package autoscale

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/e2e/stage"
)

// Second is what was so in one second of a leg.
type Second struct {
	At       float64 `json:"at"` // since the leg began
	Wished   float64 `json:"wished"`
	Metric   float64 `json:"metric"` // requests per second, as Prometheus has it
	Replicas int     `json:"replicas"`
	Ready    int     `json:"ready"`
	Nodes    int     `json:"nodes,omitempty"`
	Pods     []Pod   `json:"pods,omitempty"` // as the HPA's controller sees them
}

// Pod is what metrics-server and the API server say of a pod.
type Pod struct {
	Name     string    `json:"name"`
	Ready    bool      `json:"ready"`
	Since    time.Time `json:"since,omitzero"` // when its readiness changed last
	Started  time.Time `json:"started,omitzero"`
	Leaving  bool      `json:"leaving,omitempty"`
	Millis   int64     `json:"millis"` // millicores; -1: no metric
	Measured time.Time `json:"measured,omitzero"`
}

// Leg is one driver's turn.
type Leg struct {
	Driver    string   `json:"driver"`
	Seconds   []Second `json:"seconds"`
	Sent      int      `json:"sent"`
	Late      int      `json:"late"`
	Failed    int      `json:"failed"`
	P50       float64  `json:"p50Millis"` // of those answered
	P99       float64  `json:"p99Millis"`
	PodHours  float64  `json:"podHours"`
	NodeHours float64  `json:"nodeHours,omitempty"`
	Bought    int      `json:"nodesBought,omitempty"`
	Actions   int      `json:"actions"`
	Explained int      `json:"explained,omitempty"`
}

// Contest lets drivers scale the same Deployment under the same load, one after the other.
type Contest struct {
	Site  *Site
	Stage *stage.Stage
	Load  []float64 // requests per second, second by second
	Max   int32
	// Provider sells nodes; nil: there are as many as it takes.
	Provider *Provider
	Target   int32 // of the HPA, in percent
	Tell     func(string, ...any)
}

// Begin is how many pods a leg begins with: what the first second's load needs at the HPA's target.
func (c *Contest) begin() int32 {
	return max(2, int32(c.Load[0]/(PerPod*float64(c.Target)/100))+1)
}

// settles is how long a driver has the first second's load before it is judged.
const settles = 20 * time.Second

// Play plays one leg.
func (c *Contest) Play(ctx context.Context, driver string) (*Leg, error) {
	if err := c.reset(ctx); err != nil {
		return nil, err
	}
	var take func() error
	switch driver {
	case "hpa":
		take = func() error { return c.Site.Client.Create(ctx, c.hpa()) }
	case "seaway":
		take = func() error {
			return c.Site.Teach(ctx, c.autoscaler())
		}
	default:
		return nil, fmt.Errorf("%q: want hpa or seaway", driver)
	}
	if err := take(); err != nil {
		return nil, err
	}
	select { // what the change of drivers stirs up is nobody's
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(settles):
	}
	leg := &Leg{Driver: driver}
	before, err := c.Site.Tally(ctx)
	if err != nil {
		return nil, err
	}
	c.Tell("%s drives for %d s", driver, len(c.Load))
	if err := c.sold(ctx, leg, func(ctx context.Context) error { return c.drive(ctx, leg) }); err != nil {
		return nil, err
	}
	after, err := c.Site.Tally(ctx)
	if err != nil {
		return nil, err
	}
	leg.judge(before, after)
	return leg, c.retire(ctx, leg)
}

// sold lets the provider work meanwhile.
func (c *Contest) sold(ctx context.Context, leg *Leg, drive func(context.Context) error) error {
	if c.Provider == nil {
		return drive(ctx)
	}
	bought := c.Provider.Bought
	working, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Provider.Work(working) }()
	err := drive(ctx)
	stop()
	err = errors.Join(err, <-done)
	leg.Bought = c.Provider.Bought - bought
	return err
}

// reset waits until the service is as every leg finds it: its first pods, its first load, nobody driving.
func (c *Contest) reset(ctx context.Context) error {
	d := &appsv1.Deployment{}
	d.Namespace, d.Name = Namespace, Target
	patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, c.begin())
	if err := c.Site.Client.Patch(ctx, d, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return err
	}
	if err := c.Site.Rate(ctx, c.Load[0]); err != nil {
		return err
	}
	if c.Provider != nil {
		if up, _ := c.Provider.state(); up {
			if err := c.Provider.Begin(ctx, c.Site); err != nil {
				return err
			}
		}
		c.Provider.set(false, time.Time{}) // an order of the last leg's is void
	}
	err := stage.Await(ctx, 2*time.Minute, func() error {
		_, ready, err := c.Site.Replicas(ctx)
		if err == nil && ready != int(c.begin()) {
			err = fmt.Errorf("%d of %d pods are ready", ready, c.begin())
		}
		return err
	})
	if err != nil {
		return err
	}
	return stage.Await(ctx, 2*time.Minute, func() error { // the HPA must not begin blind
		pods, err := c.pods(ctx)
		n := 0
		for _, p := range pods {
			if p.Millis >= 0 && !p.Leaving {
				n++
			}
		}
		if err == nil && n != int(c.begin()) {
			err = fmt.Errorf("metrics-server knows %d of %d pods", n, c.begin())
		}
		return err
	})
}

func (c *Contest) hpa() *autoscalingv2.HorizontalPodAutoscaler {
	floor, target := int32(2), c.Target
	return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "rival"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: Target}, MinReplicas: &floor, MaxReplicas: c.Max,
		Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &target}}}}}}
}

func (c *Contest) autoscaler() *v1alpha1.Autoscaler {
	as := Autoscaler(v1alpha1.ModeFull, c.Max)
	if c.Provider != nil {
		one := resource.MustParse("1")
		as.Spec.Price = v1alpha1.Price{NodeHour: &one, PodsPerNode: int32(c.Provider.Room)}
	}
	return as
}

// retire takes the driver away.
func (c *Contest) retire(ctx context.Context, leg *Leg) error {
	if leg.Driver == "hpa" {
		return c.Site.Client.Delete(ctx, c.hpa())
	}
	as := c.autoscaler()
	if err := c.Site.Client.Get(ctx, client.ObjectKeyFromObject(as), as); err != nil {
		return err
	}
	leg.Explained = len(as.Status.Records)
	if err := c.Site.Client.Delete(ctx, as); err != nil {
		return err
	}
	return stage.Await(ctx, 20*time.Second, func() error { // and the HPA that it leaves
		h := &autoscalingv2.HorizontalPodAutoscaler{}
		h.Namespace, h.Name = Namespace, Target
		return client.IgnoreNotFound(c.Site.Client.Delete(ctx, h))
	})
}

func (c *Contest) drive(ctx context.Context, leg *Leg) error {
	begun := time.Now()
	last := -1
	for i, rate := range c.Load {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(begun.Add(time.Duration(i) * time.Second))):
		}
		if err := c.Site.Rate(ctx, rate); err != nil {
			return err
		}
		s := Second{At: time.Since(begun).Seconds(), Wished: rate}
		var err error
		if s.Replicas, s.Ready, err = c.Site.Replicas(ctx); err != nil {
			return err
		}
		if s.Metric, err = c.Site.Metric(ctx, queries.rate); err != nil || s.Metric != s.Metric {
			s.Metric = -1
		}
		if s.Pods, err = c.pods(ctx); err != nil {
			return err
		}
		if last >= 0 && s.Replicas != last {
			leg.Actions++
		}
		last = s.Replicas
		leg.PodHours += float64(s.Replicas) / 3600
		if c.Provider != nil {
			s.Nodes = c.Provider.Nodes()
			leg.NodeHours += float64(s.Nodes) / 3600
		}
		leg.Seconds = append(leg.Seconds, s)
	}
	return nil
}

// pods asks the API server and metrics-server.
func (c *Contest) pods(ctx context.Context) ([]Pod, error) {
	var list corev1.PodList
	if err := c.Site.Client.List(ctx, &list, client.InNamespace(Namespace), client.MatchingLabels{"app": "web"}); err != nil {
		return nil, err
	}
	use, err := c.Site.usage(ctx)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsServiceUnavailable(err) {
		return nil, err
	}
	var out []Pod
	for _, p := range list.Items {
		x := Pod{Name: p.Name, Leaving: p.DeletionTimestamp != nil, Millis: -1}
		if p.Status.StartTime != nil {
			x.Started = p.Status.StartTime.Time
		}
		for _, cond := range p.Status.Conditions {
			if cond.Type == corev1.PodReady {
				x.Ready, x.Since = cond.Status == corev1.ConditionTrue, cond.LastTransitionTime.Time
			}
		}
		if u, ok := use[p.Name]; ok {
			x.Millis, x.Measured = u.millis, u.at
		}
		out = append(out, x)
	}
	return out, nil
}

// judge sums up what came of the load between two tallies.
func (l *Leg) judge(before, after Tally) {
	l.Sent, l.Late, l.Failed = after.Sent-before.Sent, after.Late-before.Late, after.Failed+after.Skipped-before.Failed-before.Skipped
	var times []int
	n, total := map[int]int{}, 0
	for k, v := range after.Millis {
		ms, err := strconv.Atoi(k)
		if err != nil || v == before.Millis[k] {
			continue
		}
		n[ms] = v - before.Millis[k]
		total += n[ms]
	}
	times = slices.Sorted(maps.Keys(n))
	sum := 0
	for _, ms := range times {
		sum += n[ms]
		if l.P50 == 0 && 2*sum >= total {
			l.P50 = float64(ms + 5)
		}
		if l.P99 == 0 && float64(sum) >= 0.99*float64(total) {
			l.P99 = float64(ms + 5)
		}
	}
}

// Table is what the legs came to, side by side.
func Table(legs []*Leg) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %9s %8s %8s %8s %9s %8s %8s %10s %8s %10s\n", "driver", "requests", "late", "failed", "bad %", "p50 ms", "p99 ms", "actions", "pod-hours", "of first", "node-hours")
	for _, l := range legs {
		fmt.Fprintf(&b, "%-8s %9d %8d %8d %8.3f %9.0f %8.0f %8d %10.3f %8.2f %10.3f\n", l.Driver, l.Sent, l.Late, l.Failed,
			100*float64(l.Late+l.Failed)/max(float64(l.Sent), 1), l.P50, l.P99, l.Actions, l.PodHours, l.PodHours/legs[0].PodHours, l.NodeHours)
	}
	return b.String()
}
