// Package hpa holds Kubernetes' HorizontalPodAutoscaler as a pure step machine over scale.Input, and what people build
// on it: KEDA on requests per second, and a Holt-Winters predictive HPA. They are the opponents that the simulator
// runs, and the shadow that the autoscaler's guard compares itself with.
//
// The rules are those of kube-controller-manager 1.34 (pkg/controller/podautoscaler): the replica calculator with its
// integer arithmetic, the tolerance, pods without metrics and pods not ready, stabilisation, behaviour policies.
//
//	HPA:  samples ─▶ tally ─▶ calculator ─▶ stabilise ─▶ rate limits ─▶ min, max
//
// What the controller sees pod by pod, scale.Input has in sums. The translation (see tallyOf) is exact as long as the
// pods of one service are alike and a metric's window is one sample.
package hpa

import (
	"fmt"
	"math"
	"time"

	"seaway.dev/seaway/scale"
)

// Metric is what an HPA looks at.
type Metric int

// The metrics an HPA can be given.
const (
	CPU      Metric = iota // resource metric: mean CPU utilisation of the pods, in percent of what they request
	PodRate                // pods metric: mean requests per second and pod (averageValue)
	External               // external metric: requests per second in total, divided by the pods (averageValue)
)

// Defaults of kube-controller-manager's flags.
const (
	DefaultSync      = 15 * time.Second
	DefaultTolerance = 0.1
	DefaultDownDelay = 5 * time.Minute
)

// Config is an HPA object and the controller's flags.
type Config struct {
	Name     string // of the policy, in tables
	Metric   Metric
	Target   float64 // CPU: percent; else requests per second and pod
	Min, Max int     // 0, 0: 1 and no limit
	// Behavior nil is an HPA without the field: the controller then limits a step up to max(2×, 4 pods) and holds a
	// step down for DownDelay.
	Behavior *Behavior
	// Sync is how often the controller looks; Phase shifts its first look.
	Sync, Phase time.Duration
	// ToleranceUp and ToleranceDown are 0.1 when left 0; negative is none at all.
	ToleranceUp, ToleranceDown float64
	DownDelay                  time.Duration
	// Window is over how long the metric is averaged: 0 takes the newest sample, as metrics-server does.
	Window time.Duration
	// MaxAge is how old the newest sample may be before the metrics API has nothing to say of the pods, as
	// metrics-server forgets what it could not scrape; 0 means 90 s.
	MaxAge time.Duration
}

// HPA is one HorizontalPodAutoscaler and its controller. Not safe for concurrent use.
type HPA struct {
	conf  Config
	cores float64
	state State
}

// State is all that the controller remembers; the real one loses it at a restart.
type State struct {
	Next            time.Time        `json:"next"` // the next sync
	Recommendations []recommendation `json:"recommendations,omitempty"`
	Ups, Downs      []change         `json:"-"`
	Samples         []scale.Sample   `json:"-"` // as far back as the window reaches, and one more
}

type recommendation struct {
	At time.Time `json:"at"`
	N  int       `json:"n"`
}

type change struct {
	at time.Time
	n  int
}

// New makes an HPA. Bounds that conf leaves out are taken from the terms.
func New(terms scale.Terms, conf Config) *HPA {
	if conf.Min == 0 {
		conf.Min = terms.Min
	}
	if conf.Max == 0 {
		conf.Max = terms.Max
	}
	if conf.Max == 0 {
		conf.Max = math.MaxInt32
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&conf.Sync, DefaultSync)
	def(&conf.DownDelay, DefaultDownDelay)
	def(&conf.MaxAge, 90*time.Second)
	for _, t := range []*float64{&conf.ToleranceUp, &conf.ToleranceDown} {
		if *t == 0 {
			*t = DefaultTolerance
		}
		*t = max(*t, 0)
	}
	if conf.Name == "" {
		conf.Name = fmt.Sprintf("hpa%g", conf.Target)
	}
	if conf.Behavior != nil {
		b := conf.Behavior.withDefaults(conf.DownDelay)
		conf.Behavior = &b
	}
	cores := terms.PodCores
	if cores <= 0 {
		cores = 1
	}
	return &HPA{conf: conf, cores: cores}
}

// Name implements scale.Policy.
func (h *HPA) Name() string { return h.conf.Name }

// State returns what the controller remembers.
func (h *HPA) State() State { return h.state }

// Restore sets what the controller remembers.
func (h *HPA) Restore(s State) { h.state = s }

// Decide implements scale.Policy. Between two syncs, and when there is nothing to go by, it leaves the replicas as
// they are.
func (h *HPA) Decide(in scale.Input) scale.Decision {
	h.learn(in)
	if h.state.Next.IsZero() {
		h.state.Next = in.Now.Add(h.conf.Phase)
	}
	if ahead := h.state.Next.Sub(in.Now); ahead > 0 && ahead <= h.conf.Sync+h.conf.Phase {
		return scale.Decision{Replicas: in.Replicas, Why: "between two syncs"}
	}
	h.state.Next = h.state.Next.Add(h.conf.Sync)
	if gap := h.state.Next.Sub(in.Now); gap <= 0 || gap > h.conf.Sync { // calls came late, or the clock jumped
		h.state.Next = in.Now.Add(h.conf.Sync)
	}
	d := h.sync(in)
	h.record(in.Now, in.Replicas, d.Replicas)
	return d
}

func (h *HPA) learn(in scale.Input) {
	h.state.Samples = append(h.state.Samples, in.Samples...)
	keep := 2
	for s := h.state.Samples; len(s) > keep && in.Now.Sub(s[len(s)-keep].At) < h.conf.Window; {
		keep++
	}
	if n := len(h.state.Samples); n > keep {
		h.state.Samples = append(h.state.Samples[:0], h.state.Samples[n-keep:]...)
	}
}

// sync is one pass of the controller.
func (h *HPA) sync(in scale.Input) scale.Decision {
	switch {
	case in.Replicas == 0 && h.conf.Min != 0:
		return scale.Decision{Why: "scaling is disabled: the target has no replicas"}
	case in.Replicas > h.conf.Max:
		return scale.Decision{Replicas: h.conf.Max, Why: "more than maxReplicas"}
	case in.Replicas < h.conf.Min:
		return scale.Decision{Replicas: h.conf.Min, Why: "less than minReplicas"}
	}
	want, why := h.propose(in)
	if want < 0 {
		return scale.Decision{Replicas: in.Replicas, Why: why}
	}
	return h.normalise(in.Now, in.Replicas, want, why)
}

// propose is what the metric alone asks for; -1 with a reason when there is no metric.
func (h *HPA) propose(in scale.Input) (want int, why string) {
	t, ok := h.tallyOf(in)
	if !ok {
		return -1, "no metrics"
	}
	switch h.conf.Metric {
	case CPU:
		want = t.utilisation(in.Replicas, int64(h.conf.Target), h.tolerances())
	case PodRate:
		want = t.average(in.Replicas, milli(h.conf.Target), h.tolerances())
	default:
		want = external(in.Replicas, t.usage, milli(h.conf.Target), h.tolerances())
	}
	switch {
	case want > in.Replicas:
		why = "metric above target"
	case want < in.Replicas:
		why = "metric below target"
	default:
		why = "metric within tolerance"
	}
	return want, why
}

func (h *HPA) tolerances() tolerances { return tolerances{h.conf.ToleranceUp, h.conf.ToleranceDown} }

// tallyOf sorts the pods as the controller does. Pods that were ready for a whole window have a usable metric; pods
// that became ready after it have none yet ("missing"); pods that became ready within it have one that predates their
// readiness by less than a window, and with those still starting they are set aside ("unready").
func (h *HPA) tallyOf(in scale.Input) (tally, bool) {
	n := len(h.state.Samples)
	if n == 0 {
		return tally{}, false
	}
	s := h.state.Samples[n-1]
	value := s.Busy
	if h.conf.Metric != CPU {
		value = h.rate(in.Now)
	}
	if math.IsNaN(value) || in.Now.Sub(s.At) > h.conf.MaxAge || (s.Ready == 0 && h.conf.Metric != External) {
		return tally{}, false
	}
	if h.conf.Metric == External {
		return tally{usage: milli(value)}, true
	}
	whole, share := h.steady(s)
	if whole = min(whole, max(in.Ready, 1)); whole == 0 {
		return tally{}, false
	}
	t := tally{measured: whole, usage: milli(share * float64(whole)), request: milli(h.cores)}
	if h.conf.Metric != CPU {
		t.usage = milli(value / float64(s.Ready) * float64(whole))
	}
	t.missing = max(0, min(in.Ready, in.Replicas)-max(s.Ready, whole))
	t.unready = max(0, in.Replicas-whole-t.missing)
	if h.conf.Metric == PodRate { // only pods that are pending are set aside
		t.ready = max(0, t.unready-max(0, in.Replicas-in.Ready))
		t.unready -= t.ready
	}
	t.ready += whole
	return t, true
}

// steady is how many pods have a metric over a whole window, and the cores that each of them uses. Where the sample
// does not say, pods are taken to have become ready in the middle of it.
func (h *HPA) steady(s scale.Sample) (pods int, share float64) {
	if s.Steady > 0 {
		return s.Steady, s.SteadyBusy / float64(s.Steady)
	}
	before := s.Ready
	if n := len(h.state.Samples); n > 1 {
		before = h.state.Samples[n-2].Ready
	}
	if before+s.Ready == 0 {
		return 0, 0
	}
	return min(before, s.Ready), s.Busy * 2 / float64(before+s.Ready)
}

// rate is the mean of the requests per second over the window.
func (h *HPA) rate(now time.Time) float64 {
	sum, length := 0.0, 0.0
	for i := len(h.state.Samples) - 1; i >= 0; i-- {
		s := h.state.Samples[i]
		if i < len(h.state.Samples)-1 && now.Sub(s.At) >= h.conf.Window {
			break
		}
		if !math.IsNaN(s.Rate) {
			sum += s.Rate * s.Interval.Seconds()
			length += s.Interval.Seconds()
		}
	}
	if length == 0 {
		return math.NaN()
	}
	return sum / length
}
