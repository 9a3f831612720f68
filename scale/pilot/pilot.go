// Package pilot is the autoscaler's policy, assembled of its parts:
//
//	samples ─▶ capacity (what a pod carries)   ─┐
//	        ─▶ forecast (what load comes)       ├─▶ order ─▶ guard ─▶ replicas
//	starts  ─▶ delay    (how soon pods come)   ─┘               ▲
//	samples ─▶ hpa.Shadow (what HPA would do) ──────────────────┘
//
// Order is for the load when a pod ordered now, and when a node ordered now, can serve. With Options.Learner, learn takes
// its place.
//
// It is pure: no clock, no I/O, and given the same inputs it decides the same. All that it knows can be kept (Save)
// and read back (Restore).
package pilot

import (
	"math"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/capacity"
	"seaway.dev/seaway/scale/decide"
	"seaway.dev/seaway/scale/delay"
	"seaway.dev/seaway/scale/forecast"
	"seaway.dev/seaway/scale/guard"
	"seaway.dev/seaway/scale/hpa"
	"seaway.dev/seaway/scale/learn"
	"seaway.dev/seaway/scale/record"
)

// Options change how a pilot works; the zero value is the best that is known. The No… options take a part away, to see
// what it earns.
type Options struct {
	Name       string // in tables; "" is seaway
	Mode       guard.Mode
	Rules      guard.Rules
	Target     float64 // percent of the HPA that is the yardstick; 0: 70
	Knobs      Knobs
	NoForecast bool // the load stays as it is
	NoSeasons  bool // no periods
	NoDelays   bool // start delays stay what is believed of an unknown provider
	NoGuard    bool // bounds only
	// Learner puts the rule of scaling in charge whose outcomes in its twin were best (package learn), instead of one
	// for all. Not the default: decision 0019 says what it earns and what it lacks.
	Learner bool
	// Delays, when not nil, is believed instead of what is seen (another provider's, to see what learning earns).
	Delays *delay.Model
	// Foresee, when not nil, is believed instead of the forecast, and Law instead of what was learnt of pods: oracles, to
	// see what better ones could earn. Foresee fills the fan of the load between two times, Law is the share of requests
	// that goes bad when pods carry load cores.
	Foresee func(from, to time.Time, fan *forecast.Point)
	Law     func(load float64, pods int) float64
}

// Knobs are constants to experiment with.
type Knobs struct {
	Aim  float64 // share of the error budget that the load expected may use; 0: 1
	Lead float64 // on the learned start delays; 0: 1
	Hold float64 // on the time for which capacity is kept before it is given back; 0: 1
	Room float64 // on the load; 0: 1
}

func (k Knobs) defaults() Knobs {
	def := func(x *float64, v float64) {
		if *x == 0 {
			*x = v
		}
	}
	def(&k.Aim, 1)
	def(&k.Lead, 1)
	def(&k.Hold, 1)
	def(&k.Room, 1)
	return k
}

// Pilot is the policy for one service. Not safe for concurrent use.
type Pilot struct {
	terms  scale.Terms
	opts   Options
	state  State
	shadow *hpa.Shadow
	record record.Record
	known  known
}

// Demand is what the last decision was about, before anything was kept for later.
type Demand struct {
	Wants int     // pods that the policy and its guard want
	Needs int     // pods that the load of this moment needs
	Load  float64 // of this moment, in cores; 0: unknown
	// Soon is how long a pod takes for which there is room, Late with a new node: beyond the median, as planned with.
	// Starts is how many starts stand behind Soon.
	Soon, Late time.Duration
	Starts     float64
}

// known is what the delays say, until more is known of them.
type known struct {
	count     int
	key       delay.Key
	pod, node delay.Estimate
}

// State is all that a pilot knows.
type State struct {
	Capacity *capacity.Model
	Forecast *forecast.Model
	Delays   *delay.Model
	Guard    guard.State
	Keep     decide.Keep
	Learn    learn.Model
	Key      delay.Key
	Newest   scale.Sample
	Decided  time.Time
	Noted    time.Time
	Want     int
	Why      string
	HPA      int
	Demand   Demand
}

// New makes a pilot that knows nothing yet.
func New(t scale.Terms, o Options) *Pilot {
	if o.Name == "" {
		o.Name = "seaway"
	}
	if o.Target == 0 {
		o.Target = 70
	}
	if o.Mode == "" {
		o.Mode = guard.Full
	}
	o.Knobs = o.Knobs.defaults()
	t.Min = max(t.Min, 1)
	if t.PodHour <= 0 && t.NodeHour <= 0 {
		t.PodHour = 1
	}
	if t.Good <= 0 || t.Good >= 1 {
		t.Good = 0.999
	}
	p := &Pilot{terms: t, opts: o, state: State{
		Capacity: capacity.New(t.PodCores), Delays: &delay.Model{}, Guard: guard.New(),
		Forecast: forecast.New(forecast.Options{NoSeasons: o.NoSeasons || o.NoForecast, NoTrend: o.NoForecast}),
	}}
	p.state.Guard.Mode = o.Mode
	if o.Delays != nil {
		p.state.Delays = o.Delays
	}
	return p
}

// Demand is what the last decision was about; its zero value before the first.
func (p *Pilot) Demand() Demand { return p.state.Demand }

// Name implements scale.Policy.
func (p *Pilot) Name() string { return p.opts.Name }

// Record explains the last decision.
func (p *Pilot) Record() record.Record { return p.record }

// Decide implements scale.Policy.
func (p *Pilot) Decide(in scale.Input) scale.Decision {
	s := &p.state
	news := p.learn(in)
	p.follow(in)
	if !news && s.Want > 0 && in.Now.Sub(s.Decided) < 10*time.Second && !in.Now.Before(s.Decided) && in.Replicas == s.Want {
		return scale.Decision{Replicas: s.Want, Why: s.Why}
	}
	pl := p.plan(in)
	w := guard.Wish{Now: in.Now, Want: pl.want, HPA: s.HPA, Current: in.Replicas, Need: max(pl.need, pl.ahead), Rollout: in.Rollout, Price: p.price}
	w.Coverage = math.NaN()
	if share, judged := s.Forecast.Coverage(pl.podLead); judged > 60 {
		w.Coverage = share
	}
	var v guard.Verdict
	if p.opts.NoGuard {
		v.Pods = pl.want
		v.Pods = max(v.Pods, p.terms.Min)
		if p.terms.Max > 0 {
			v.Pods = min(v.Pods, p.terms.Max)
		}
	} else {
		rules := p.opts.Rules
		if rules.Cost == 0 {
			rules.Cost = 1.2
		}
		v = s.Guard.Judge(w, p.terms, rules)
		if rules.Pin == 0 && s.Guard.Samples >= guard.FirstSamples && !p.opts.Learner {
			v.Pods = p.whole(v.Pods)
		}
	}
	s.Demand = Demand{Wants: v.Pods, Needs: pl.need, Load: pl.load, Soon: pl.podLead, Late: pl.nodeLead, Starts: p.delays().pod.Starts}
	if p.opts.Learner {
		if held := min(s.Keep.Hold(in.Now.Unix(), v.Pods, 300), in.Replicas); held > v.Pods && v.Rail != "" && p.opts.Rules.Pin == 0 {
			v.Pods = held // a rail must not make the count flutter
		}
	} else if v.Pods < in.Replicas && p.opts.Rules.Pin == 0 {
		if held := min(s.Keep.Hold(in.Now.Unix(), v.Pods, p.hold(&pl)), in.Replicas); held > v.Pods {
			v = guard.Verdict{Pods: held}
			pl.why = "kept: starting anew would cost as much as keeping"
		}
	} else {
		s.Keep.Hold(in.Now.Unix(), v.Pods, p.hold(&pl))
	}
	if p.terms.Max > 0 && v.Pods > p.terms.Max { // what is kept was allowed once: the bounds may have changed since
		v = guard.Verdict{Pods: p.terms.Max, Rail: "the Autoscaler's bounds"}
	}
	s.Want, s.Decided, s.Why = v.Pods, in.Now, pl.why
	if v.Rail != "" {
		s.Why = v.Rail
	}
	p.evidence(in, pl, v.Pods)
	p.explain(in, pl, v)
	return scale.Decision{Replicas: v.Pods, Spare: pl.spare, Why: s.Why}
}

// learn takes in what became known, and tells whether that was anything.
func (p *Pilot) learn(in scale.Input) bool {
	s := &p.state
	if p.opts.Delays == nil && !p.opts.NoDelays {
		for _, st := range in.Starts {
			s.Delays.Observe(st)
		}
	}
	if n := len(in.Starts); n > 0 && in.Starts[n-1].Image != "" {
		l := in.Starts[n-1]
		s.Key = delay.Key{Cluster: l.Cluster, Provider: l.Provider, Pool: l.Pool, Image: l.Image}
	}
	s.Forecast.Announce(in.Announced)
	for _, m := range in.Samples {
		s.Capacity.Observe(m)
		s.Forecast.Observe(m.At, m.Interval, m.Rate)
		s.Guard.Base = s.Capacity.Base
		s.Guard.Observe(m)
		if p.opts.Learner {
			p.twin(in, m)
		}
		if !math.IsNaN(m.Rate) {
			s.Newest = m
		}
	}
	return len(in.Samples) > 0
}

// follow lets the shadow HPA see what there is to see.
func (p *Pilot) follow(in scale.Input) {
	s := &p.state
	if p.shadow == nil {
		t := p.terms
		p.shadow = hpa.NewShadow(hpa.New(t, hpa.Config{Target: p.opts.Target}), max(in.Replicas, t.Min), p.podMedian())
	}
	if len(in.Starts) > 0 {
		p.shadow.SetLead(p.podMedian())
	}
	s.HPA = p.shadow.Step(in).Replicas
}

func (p *Pilot) podMedian() time.Duration { return p.delays().pod.P50 }

func (p *Pilot) delays() known {
	if d := p.state.Delays; p.known.pod.P50 == 0 || p.known.count != d.Count || p.known.key != p.state.Key {
		p.known = known{d.Count, p.state.Key, d.Pods(p.state.Key), d.Nodes(p.state.Key)}
	}
	return p.known
}

// leads are the delays to plan with, of pods for which there is room and of those that need a node. They are beyond
// the median, since being late costs more than being early, and bounded: a horizon that grew with the delays which it
// causes would run away.
func (p *Pilot) leads() (pod, node time.Duration) {
	late := func(e delay.Estimate) time.Duration {
		return time.Duration(float64(e.P50+(e.P95-e.P50)*6/10) * p.opts.Knobs.Lead)
	}
	pod = min(late(p.delays().pod), 10*time.Minute)
	node = min(late(p.delays().node), 15*time.Minute)
	return pod, max(pod, node)
}

// price is what pods cost an hour, with the nodes they fill.
func (p *Pilot) price(pods int) float64 {
	c := float64(pods) * p.terms.PodHour
	if p.terms.PodsPerNode > 0 {
		c += float64((pods+p.terms.PodsPerNode-1)/p.terms.PodsPerNode) * p.terms.NodeHour
	}
	return c
}

// evidence notes what the policy's count and HPA's would cost and let go bad at the load of this moment.
func (p *Pilot) evidence(in scale.Input, pl plan, ours int) {
	g := &p.state.Guard
	dt := in.Now.Sub(p.state.Noted).Seconds()
	p.state.Noted = in.Now
	if dt <= 0 || dt > 300 || pl.load <= 0 {
		return
	}
	bad := func(n int) float64 { return p.state.Newest.Rate * p.state.Capacity.Table().Row(max(n, 1)).Bad(pl.load) }
	g.Contemplated.Note(in.Now, dt, p.price(ours), p.price(p.state.HPA), bad(ours), bad(p.state.HPA), p.state.Newest.Rate)
}

// Mode is what the pilot may do now: at most what is asked for, and as much as the evidence of days allows. It moves
// by itself; why says what keeps it from more, or what moved it.
func (p *Pilot) Mode(now time.Time, most guard.Mode, days int) (mode guard.Mode, why string) {
	g := &p.state.Guard
	lead, _ := p.leads()
	share, _ := p.state.Forecast.Coverage(lead)
	mode, why = g.Promotion(now, most, p.terms.Good, share, days)
	g.Promote(now, mode)
	return mode, why
}

// SetMode begins a mode, whatever the evidence says.
func (p *Pilot) SetMode(now time.Time, m guard.Mode) { p.state.Guard.Promote(now, m) }

// Adopt takes note that somebody else has decided for pods until now. They are kept as if the pilot had wanted them: as an
// HPA does, which takes the count that it finds for its first recommendation.
func (p *Pilot) Adopt(now time.Time, pods int) { p.state.Keep.Hold(now.Unix(), pods, longest) }

// SetRules changes the guard's limits.
func (p *Pilot) SetRules(r guard.Rules) { p.opts.Rules = r }

// HPA is how many replicas the HPA that the pilot is compared with has.
func (p *Pilot) HPA() int { return p.state.HPA }
