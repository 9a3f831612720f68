package autoscaler

import (
	"context"
	"encoding/json"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/kube"
	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/pilot"
)

const (
	tellEvery = 15 * time.Second // of numbers; what people must know is told at once
	records   = 10
)

// recordAction explains an action: event, metric, record.
func (t *target) recordAction(as *v1alpha1.Autoscaler, from int, d scale.Decision) {
	r := t.pilot.Record()
	if r.From, r.To = from, d.Replicas; t.across.plan != nil {
		if s, ok := t.across.plan.Of(t.loop.heard.Cluster); ok {
			r.Place, r.Why, r.Rail = t.across.plan, s.Why, ""
		}
	}
	reason := "ScaledUp"
	if r.To < r.From {
		reason = "ScaledDown"
	}
	t.loop.events.Event(as, corev1.EventTypeNormal, reason, r.String())
	t.loop.meters.acted(t.key, r.To > r.From)
	if b, err := json.Marshal(r); err == nil {
		t.records = append([]string{string(b)}, t.records...)
		t.records = t.records[:min(len(t.records), records)]
	}
	t.log.Info("scaled", "from", r.From, "to", r.To, "hpa", r.HPA, "why", r.Why, "rail", r.Rail, "rate", r.Rate, "expect", r.High)
	t.toldAt = time.Time{}
}

// tell writes the status when it says something new.
func (t *target) tell(ctx context.Context, now time.Time, as *v1alpha1.Autoscaler, o outcome) {
	t.loop.meters.state(t.key, o, t.pilot)
	// What is wanted is told at once: the replica that does not lead answers KEDA by it.
	urgent := o.reason != t.told.reason || o.mode != t.told.mode || o.wants != t.told.wants || t.toldAt.IsZero()
	if !urgent && (o == t.told || now.Sub(t.toldAt) < tellEvery) {
		return
	}
	if t.records == nil {
		t.records = as.Status.Records
	}
	before := as.DeepCopy()
	s := &as.Status
	s.ObservedGeneration, s.Mode, s.ModeWhy = as.Generation, v1alpha1.AutoscalerMode(o.mode), o.modeWhy
	s.Replicas, s.Wants, s.HPA, s.Why, s.Place, s.Records = int32(o.replicas), int32(o.wants), int32(o.hpa), o.why, o.place, t.records
	c := metav1.Condition{Type: v1alpha1.AutoscalerReady, Status: metav1.ConditionTrue, Reason: "Scaling", Message: "target and metrics are seen", ObservedGeneration: as.Generation}
	if o.reason != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, o.reason, o.message
	}
	kube.Set(&s.Conditions, c)
	if err := t.loop.client.Status().Patch(ctx, as, client.MergeFrom(before)); err != nil {
		if !apierrors.IsNotFound(err) {
			t.log.Warn("cannot write the status", "err", err)
		}
		return
	}
	if o.reason != "" && o.reason != t.told.reason {
		t.loop.events.Event(as, corev1.EventTypeWarning, o.reason, o.message)
	}
	t.told, t.toldAt = o, now
}

// meters are the role's own metrics.
type meters struct {
	replicas, wants, hpa, expected, lead *prometheus.GaugeVec
	actions                              *prometheus.CounterVec
	decision                             prometheus.Histogram
	problem                              *prometheus.GaugeVec
}

func newMeters() *meters {
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "seaway_autoscaler_" + name, Help: help}, append([]string{"namespace", "name"}, more...))
	}
	return &meters{
		replicas: gauge("replicas", "Replicas that the target has been told to have."),
		wants:    gauge("wanted_replicas", "Replicas that the target should have."),
		hpa:      gauge("hpa_replicas", "Replicas that the HPA which is the yardstick would have."),
		expected: gauge("expected_requests_per_second", "Load that is expected when a pod ordered now is ready (0.95 quantile)."),
		lead:     gauge("pod_lead_seconds", "How long a pod takes to be ready, as planned with."),
		problem:  gauge("problem", "1 while the Autoscaler is not Ready, by reason.", "reason"),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seaway_autoscaler_actions_total", Help: "Changes of replicas."},
			[]string{"namespace", "name", "direction"}),
		decision: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seaway_autoscaler_decision_seconds", Help: "Time a decision took.",
			Buckets: []float64{0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1}}),
	}
}

func (m *meters) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.replicas, m.wants, m.hpa, m.expected, m.lead, m.problem, m.actions, m.decision} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *meters) decided(_ types.NamespacedName, took time.Duration) {
	m.decision.Observe(took.Seconds())
}

func (m *meters) acted(key types.NamespacedName, up bool) {
	direction := "down"
	if up {
		direction = "up"
	}
	m.actions.WithLabelValues(key.Namespace, key.Name, direction).Inc()
}

func (m *meters) forget(key types.NamespacedName) {
	l := prometheus.Labels{"namespace": key.Namespace, "name": key.Name}
	for _, g := range []*prometheus.GaugeVec{m.replicas, m.wants, m.hpa, m.expected, m.lead, m.problem} {
		g.DeletePartialMatch(l)
	}
	m.actions.DeletePartialMatch(l)
}

func (m *meters) state(key types.NamespacedName, o outcome, p *pilot.Pilot) {
	set := func(g *prometheus.GaugeVec, v float64) { g.WithLabelValues(key.Namespace, key.Name).Set(v) }
	set(m.replicas, float64(o.replicas))
	set(m.wants, float64(o.wants))
	set(m.hpa, float64(o.hpa))
	m.problem.DeletePartialMatch(prometheus.Labels{"namespace": key.Namespace, "name": key.Name})
	if o.reason != "" {
		m.problem.WithLabelValues(key.Namespace, key.Name, o.reason).Set(1)
	}
	if p != nil {
		r := p.Record()
		set(m.expected, r.High)
		set(m.lead, r.PodLead)
	}
}
