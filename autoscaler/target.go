package autoscaler

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/guard"
	"seaway.dev/seaway/scale/pilot"
)

const (
	sampleEvery = 5 * time.Second  // a sample's length, unless the load jumps
	keepEvery   = time.Minute      // how often what was learnt is written down
	jump        = 0.15             // a change of the rate that is a sample at once, if it is more than chance
	chance      = 3                // standard deviations of what arrives in a second at random
	weighs      = 15 * time.Second // a jump, as much as a sample that the forecast was tuned with
)

// target is one Autoscaler at work. Only one goroutine steps it at a time.
type target struct {
	loop *loop
	key  types.NamespacedName
	log  *slog.Logger

	pilot      *pilot.Pilot
	terms      scale.Terms
	generation int64
	spec       v1alpha1.AutoscalerSpec
	sampled    time.Time
	rate       float64
	kept       time.Time
	seen       map[types.UID]bool // pods whose start has been told
	told       outcome            // what the status says
	toldAt     time.Time
	records    []string
	owes       bool // an HPA, since this is no longer in charge
	charged    bool // with the replicas, by this process
	across     across
}

// outcome is what one step found, for the status.
type outcome struct {
	reason, message string // of Ready; reason "" is ready
	mode, modeWhy   string
	replicas        int
	wants, hpa      int
	why, place      string
}

// complaint is a reason with its text and its mend.
type complaint struct{ Reason, message string }

// Error implements error.
func (c *complaint) Error() string { return c.message }

func complain(reason, format string, args ...any) *complaint {
	return &complaint{Reason: reason, message: fmt.Sprintf(format, args...)}
}

// step looks, decides and acts once.
func (t *target) step(ctx context.Context, now time.Time, as *v1alpha1.Autoscaler) {
	o := outcome{mode: string(as.Spec.Mode)}
	if err := t.try(ctx, now, as, &o); err == nil {
		t.across.well = now
	} else {
		if now.Sub(t.across.well) >= patience {
			t.across.word = nil // who cannot do its share promises none
		}
		c, ok := err.(*complaint)
		if !ok {
			c = complain("ClusterUnreachable", "%v. Next: it is tried again every second", err)
		}
		o.reason, o.message = c.Reason, c.message
	}
	t.tell(ctx, now, as, o)
	if now.Sub(t.kept) >= keepEvery && t.pilot != nil {
		t.keep(ctx)
		t.kept = now
	}
}

func (t *target) try(ctx context.Context, now time.Time, as *v1alpha1.Autoscaler, o *outcome) error {
	if err := t.prepare(ctx, now, as); err != nil {
		return err
	}
	w, err := t.look(ctx, now)
	if err != nil {
		return err
	}
	o.replicas = w.replicas
	if as.Spec.Mode == v1alpha1.ModeOff {
		o.why, t.across = "switched off: the HPA is in charge", across{}
		return t.handBack(ctx)
	}
	in := scale.Input{Now: now, Starts: w.starts, Replicas: t.current(w), Ready: w.ready, Nodes: w.nodes, Rollout: w.rollout, Announced: events(as)}
	reading, trouble := t.loop.read(ctx, as.Spec.Metrics)
	if trouble == nil {
		if s, ok := t.sample(now, reading, w); ok {
			in.Samples = []scale.Sample{s}
		}
	}
	begun := time.Now()
	d := t.pilot.Decide(in)
	t.loop.meters.decided(t.key, time.Since(begun))
	mode, why := t.mode(now, as)
	t.divide(now, as, mode, w, trouble == nil && !math.IsNaN(reading.rate), &d)
	o.mode, o.modeWhy, o.wants, o.hpa, o.why, o.place = string(mode), why, d.Replicas, t.pilot.HPA(), d.Why, t.across.text
	t.loop.wishes.set(t.key, d.Replicas)
	if err := t.act(ctx, now, as, mode, w, d); err != nil {
		return err
	}
	o.replicas = t.told.replicas
	if mode != guard.Full {
		o.replicas = w.replicas
	}
	if trouble != nil {
		return complain("MetricsUnreachable", "%v. Nothing is scaled down meanwhile. Next: check spec.metrics and that Prometheus runs", trouble)
	}
	if math.IsNaN(reading.rate) {
		return complain("MetricsEmpty", "the query metrics.rate gives nothing. Nothing is scaled down meanwhile. Next: try it in Prometheus")
	}
	return nil
}

// prepare makes the pilot when the spec is new, and lets it know what was learnt before.
func (t *target) prepare(ctx context.Context, now time.Time, as *v1alpha1.Autoscaler) error {
	if t.pilot != nil && t.generation == as.Generation {
		return nil
	}
	terms, err := termsOf(as)
	if err != nil {
		return err
	}
	past, err := t.past(ctx)
	if err != nil {
		return err
	}
	if terms.PodCores, err = t.podCores(ctx, as); err != nil {
		return err
	}
	rules := guard.Rules{}
	if as.Spec.Pin != nil {
		rules.Pin = int(*as.Spec.Pin)
	}
	p := pilot.New(terms, pilot.Options{Mode: guard.Observe, Target: float64(as.Spec.HPATarget), Rules: rules})
	if len(past.state) > 0 {
		if err := p.Restore(past.state); err != nil {
			t.log.Warn("what was learnt cannot be read: learning begins anew", "err", err)
			past = memory{}
		}
	}
	// Trust is a word given once, with the spec: what it was taken back for since outlives a restart.
	fresh := past.spec == nil || past.spec.Mode != as.Spec.Mode || !past.spec.Trusted
	if as.Spec.Trusted && fresh && as.Spec.Mode != v1alpha1.ModeOff {
		p.SetMode(now, guard.Mode(as.Spec.Mode))
	}
	t.pilot, t.terms, t.generation, t.spec, t.kept = p, terms, as.Generation, *as.Spec.DeepCopy(), time.Time{}
	return nil
}

// past is what was known until now: by the pilot at work, or by the one before the restart.
func (t *target) past(ctx context.Context) (memory, error) {
	if t.pilot == nil {
		return t.remembered(ctx)
	}
	state, err := t.pilot.Save()
	return memory{state, t.spec.DeepCopy()}, err
}

// mode is what may be done now.
func (t *target) mode(now time.Time, as *v1alpha1.Autoscaler) (guard.Mode, string) {
	before := t.told.mode
	mode, why := t.pilot.Mode(now, guard.Mode(as.Spec.Mode), t.loop.conf.Days)
	if before != "" && before != string(mode) {
		t.loop.events.Eventf(as, corev1.EventTypeNormal, "ModeChanged", "from %s to %s: %s", before, mode, why)
	}
	return mode, why
}

// sample makes a sample of a reading when it is time for one, or when the load jumps.
func (t *target) sample(now time.Time, r reading, w *world) (scale.Sample, bool) {
	since := now.Sub(t.sampled)
	moved := math.Abs(r.rate - t.rate)
	jumped := !math.IsNaN(r.rate) && moved > jump*math.Max(t.rate, 1) && moved > chance*math.Sqrt(math.Max(t.rate, 1))
	if since < sampleEvery && !jumped {
		return scale.Sample{}, false
	}
	if t.sampled.IsZero() || since > time.Minute {
		since = sampleEvery
	}
	first := t.sampled.IsZero()
	t.sampled = now
	if !math.IsNaN(r.rate) {
		t.rate = r.rate
	}
	s := scale.Sample{At: now, Interval: since, Rate: r.rate, InFlight: r.inFlight, Busy: r.busy, Done: r.rate * since.Seconds(),
		Bad: r.bad * since.Seconds(), Ready: w.ready, Starting: max(0, w.replicas-w.ready), Nodes: w.nodes}
	// A jump is believed: it weighs as much as the samples that the forecast was tuned with. What a second of it says of
	// pods and of the error budget is left to the samples that follow.
	if jumped && !first {
		s.Interval, s.Done, s.Bad = weighs, math.NaN(), math.NaN()
	}
	return s, true
}

// act does what the mode allows.
func (t *target) act(ctx context.Context, now time.Time, as *v1alpha1.Autoscaler, mode guard.Mode, w *world, d scale.Decision) error {
	t.told.replicas = w.replicas
	took := !t.charged
	t.charged = false
	switch mode {
	case guard.Floor:
		return t.ensureHPA(ctx, int32(min(d.Replicas, t.terms.Max)))
	case guard.Full:
		if err := t.parkHPA(ctx); err != nil {
			return err
		}
	default: // who was in charge does not just let go
		if m := as.Status.Mode; m == v1alpha1.ModeFloor || m == v1alpha1.ModeFull {
			t.owes = true
		}
		if !t.owes {
			return nil
		}
		if err := t.handBack(ctx); err != nil {
			return err
		}
		t.owes = false
		return nil
	}
	t.charged = true
	// Who takes charge has not seen what those who ordered the pods had seen: they are not given back at first sight.
	if took && d.Replicas < w.replicas {
		if t.across.plan == nil { // else the total is kept
			t.pilot.Adopt(now, w.replicas)
		}
		return nil
	}
	if d.Replicas == w.replicas {
		return nil
	}
	sub := &autoscalingv1.Scale{}
	sub.Namespace, sub.Name, sub.ResourceVersion = as.Namespace, as.Spec.Target.Name, w.version
	sub.Spec.Replicas = int32(d.Replicas)
	if err := t.writeScale(ctx, w.object, sub); apierrors.IsConflict(err) {
		return nil // somebody wrote at the same time: the next look sees it
	} else if err != nil {
		return fmt.Errorf("scale %s: %w", as.Spec.Target.Name, err)
	}
	t.told.replicas = d.Replicas
	t.recordAction(as, w.replicas, d)
	return nil
}

// termsOf translates a spec.
func termsOf(as *v1alpha1.Autoscaler) (scale.Terms, error) {
	s := as.Spec
	t := scale.Terms{Min: int(max(s.Min, 1)), Max: int(s.Max), Good: 0.999, PodsPerNode: int(s.Price.PodsPerNode)}
	if s.Objective.Good != "" {
		p, err := strconv.ParseFloat(s.Objective.Good, 64)
		if err != nil || p < 50 || p >= 100 {
			return t, complain("ObjectiveInvalid", "objective.good is %q. Next: write a share in percent of at least 50 and below 100, such as 99.9", s.Objective.Good)
		}
		t.Good = p / 100
	}
	if s.Objective.Latency != nil {
		t.Latency = s.Objective.Latency.Duration
	}
	if s.Price.PodHour != nil {
		t.PodHour = s.Price.PodHour.AsApproximateFloat64()
	}
	if s.Price.NodeHour != nil {
		t.NodeHour = s.Price.NodeHour.AsApproximateFloat64()
	}
	return t, nil
}

func events(as *v1alpha1.Autoscaler) []scale.Announced {
	var out []scale.Announced
	for _, e := range as.Spec.Events {
		out = append(out, scale.Announced{From: e.From.Time, To: e.To.Time, Factor: float64(e.Percent) / 100})
	}
	return out
}
