// Package sim plays a load against a service whose replicas a policy decides, and counts what it cost and how many
// requests were not good. It is what policies are compared in, what the autoscaler's learner trains in, and whose
// model the clairvoyant bounds are computed on.
//
//	load ─▶ balancer ─▶ pods (queue, workers, warm-up, drain) ─▶ good or bad
//	            ▲                 │
//	            │                 └─▶ metrics (window, lag, gaps) ─▶ policy ─▶ replicas ─▶ pods, nodes, provider
//	            └──────────────────────────────────────────────────────────────────────────────┘
//
// There are two forms of the queues. The fast one goes second by second: each second's requests are one number, and
// the share of them that are late comes from the queue's own formulas (see station), so that a fortnight of thousands
// of requests a second takes seconds. The exact one (Exact) plays every request. Tests hold the one to the other.
//
// Approximations, all the same for every policy: services are exponential; a client that gives up leaves the queue; a
// pod that is told to stop finishes what it has; requests in a pod of a failing node are bad.
package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/trace"
)

// Config is a world to run policies in.
type Config struct {
	Terms    scale.Terms
	Service  Service
	Balancer Balancer
	Profile  Profile
	Metrics  Metrics
	Faults   []Fault
	Every    time.Duration // between two decisions
	// From and To are the part of the load that counts, as shares of its length; all of it is played.
	From, To float64
	// Series asks for the figures minute by minute.
	Series bool
	// Exact plays every request instead of each second's requests as one number.
	Exact bool
	// Announced is what the policy is told of in advance, by time since the start.
	Announced []Announcement
	// Start is the number of replicas at the beginning; 0 means enough for the first load at 70 %.
	Start int
}

// Announcement is a load that people expect, in seconds since the start.
type Announcement struct{ From, To, Factor float64 }

// Metrics is how the policy learns of the service.
type Metrics struct {
	Interval time.Duration // of a sample
	LagMin   time.Duration // from a sample's end until it is known: uniform between the two
	LagMax   time.Duration
	Lost     float64 // share of samples that are lost (their values NaN)
}

// FaultKind says what goes wrong.
type FaultKind string

// The faults that can be told to happen.
const (
	NoMetrics  FaultKind = "metrics" // no samples for a while
	NodesFail  FaultKind = "nodes"   // Count nodes die at once
	NodesStuck FaultKind = "stuck"   // no node becomes ready for a while
	ClockJumps FaultKind = "clock"   // the policy's clock jumps by For, and stays so
)

// Fault is something that goes wrong at a time.
type Fault struct {
	Kind  FaultKind
	At    time.Duration // since the start
	For   time.Duration
	Count int
}

// Default is the world of the published figures: pods with 5 workers and 50 ms a request (100 requests/s), four to a
// node, good within 500 ms, 99.9 % of them; metrics 15 s wide and 5 to 20 s late.
func Default(p Profile) Config {
	return Config{
		Terms: scale.Terms{Min: 1, Max: 400, Latency: 500 * time.Millisecond, Good: 0.999, PodHour: 1, NodeHour: 4,
			PodsPerNode: 4, PodCores: 1},
		Service:  Service{Workers: 5, Mean: 0.050, Timeout: 2, Backlog: 1000, Warm: 30, Cold: 0.7},
		Balancer: Random, Profile: p,
		Metrics: Metrics{Interval: 15 * time.Second, LagMin: 5 * time.Second, LagMax: 20 * time.Second, Lost: 0.002},
		Every:   5 * time.Second, To: 1,
	}
}

// Run plays the load under the policy. Given the same arguments it does the same; two policies with the same seed meet
// the same arrivals.
func Run(load *trace.Load, conf Config, p scale.Policy, seed uint64) (*Result, error) {
	if err := conf.check(load); err != nil {
		return nil, err
	}
	r := newRun(load, conf, p, seed)
	for s := range load.Rate {
		r.second(s)
	}
	return r.score.result(p.Name(), seed), nil
}

func (c *Config) check(load *trace.Load) error {
	switch {
	case len(load.Rate) == 0:
		return errors.New("the load is shorter than a second")
	case c.Service.Workers < 1 || !(c.Service.Mean > 0) || !(c.Service.Timeout > 0):
		return fmt.Errorf("a pod serves with at least one worker in more than no time, and clients wait a while: %+v", c.Service)
	case c.Every < time.Second || c.Metrics.Interval < time.Second:
		return errors.New("decisions and samples are a second apart at least")
	case c.Balancer != Random && c.Balancer != LeastRequest:
		return fmt.Errorf("no balancer %q: there are %q and %q", c.Balancer, Random, LeastRequest)
	case !(c.From < c.To):
		return fmt.Errorf("nothing counts between %g and %g of the load", c.From, c.To)
	}
	return nil
}

// run is one policy in one world.
type run struct {
	conf    Config
	load    *trace.Load
	policy  scale.Policy
	cluster *cluster
	queue   queue
	meter   meter
	score   score
	wobble  *rand.Rand
	draws   *rand.Rand
	factor  float64 // the intensity's wobble now
	epoch   time.Time
	skew    time.Duration
	known   []scale.Sample
}

// queue is the requests in the pods: fast or exact.
type queue interface {
	// second plays the arrivals of a second with the given intensity; count is how many that were.
	second(c *cluster, intensity float64, count float64) flow
	// warmed tells that a pod has warmed up, gone that ready pods were lost with what they had.
	warmed(p *pod)
	gone(pods []*pod) (lost float64)
}

// flow is what a second did.
type flow struct {
	bad, done float64
	inFlight  float64
	busy      float64 // workers busy
	young     float64 // of those, in pods that are still warming up
}

// Epoch is the simulated clock's beginning: a Monday without a meaning.
var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func newRun(load *trace.Load, conf Config, p scale.Policy, seed uint64) *run {
	r := &run{conf: conf, load: load, policy: p, epoch: epoch,
		wobble: rand.New(rand.NewPCG(seed, 0)), draws: rand.New(rand.NewPCG(seed, 1)), factor: 1}
	r.cluster = newCluster(conf.Profile, conf.Terms.PodsPerNode, conf.Service.Warm, r.epoch, seed)
	start := conf.Start
	if start == 0 {
		start = int(math.Ceil(load.Rate[0] / (0.7 * conf.Service.Rate())))
	}
	start = max(start, conf.Terms.Min, 1)
	if conf.Terms.Max > 0 {
		start = min(start, conf.Terms.Max)
	}
	r.cluster.begin(start)
	if conf.Exact {
		r.queue = newExact(conf, seed)
	} else {
		r.queue = newFluid(conf, seed)
	}
	r.meter = newMeter(conf.Metrics, conf.Terms.PodCores/float64(conf.Service.Workers), seed)
	r.score = newScore(load, conf)
	return r
}

// second plays one second.
func (r *run) second(s int) {
	now := float64(s)
	c := r.cluster
	r.faults(s)
	c.step(now, r.queue.warmed)
	intensity := r.intensity(s)
	count := float64(poisson(r.draws, intensity))
	f := r.queue.second(c, intensity, count)
	r.meter.add(s, c, count, f)
	r.score.add(s, c, count, f)
	if (s+1)%int(r.conf.Every/time.Second) == 0 {
		r.decide(s + 1)
	}
}

// intensity is the second's expected arrivals, wobble included.
func (r *run) intensity(s int) float64 {
	v := r.load.Rate[s]
	if r.load.Wobble == nil || v == 0 {
		return v
	}
	if hold := max(1, r.load.Hold); s%hold == 0 {
		r.factor = 1
		if w := r.load.Wobble[s]; w > 0 {
			r.factor = gamma(r.wobble, 1/w) * w
		}
	}
	return v * r.factor
}

func (r *run) faults(s int) {
	for _, f := range r.conf.Faults {
		at := int(f.At / time.Second)
		during := s >= at && s < at+int(f.For/time.Second)
		switch {
		case f.Kind == NoMetrics && during:
			r.meter.silent(s)
		case f.Kind == NodesStuck && during:
			for _, n := range r.cluster.ordered {
				n.ready++
			}
		case f.Kind == NodesFail && s == at:
			r.score.lost(s, r.queue.gone(r.cluster.kill(f.Count, float64(s))))
		case f.Kind == ClockJumps && s == at:
			r.skew += f.For
		}
	}
}

// decide lets the policy look, and does what it says.
func (r *run) decide(s int) {
	c := r.cluster
	r.known = r.meter.known(s, r.known[:0])
	for i := range r.known {
		r.known[i].At = r.epoch.Add(time.Duration(r.known[i].At.Unix())*time.Second + r.skew)
	}
	in := scale.Input{Now: r.epoch.Add(time.Duration(s)*time.Second + r.skew), Samples: r.known, Starts: c.starts,
		Replicas: c.replicas(), Ready: c.readyPods(), Nodes: len(c.nodes)}
	if r.skew != 0 {
		for i := range in.Starts {
			shift(&in.Starts[i], r.skew)
		}
	}
	for _, a := range r.conf.Announced {
		in.Announced = append(in.Announced, scale.Announced{From: r.cluster.at(a.From).Add(r.skew), To: r.cluster.at(a.To).Add(r.skew), Factor: a.Factor})
	}
	began := time.Now()
	d := r.policy.Decide(in)
	r.score.decided(s, in.Replicas, time.Since(began))
	c.starts = nil
	n := max(d.Replicas, r.conf.Terms.Min)
	if r.conf.Terms.Max > 0 {
		n = min(n, r.conf.Terms.Max)
	}
	c.spare = max(0, d.Spare)
	if n != in.Replicas {
		r.score.acted(s, in.Replicas, n)
		c.scaleTo(n, float64(s))
	}
}

func shift(s *scale.Start, by time.Duration) {
	for _, t := range []*time.Time{&s.Created, &s.Scheduled, &s.Pulled, &s.Ready} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
}
