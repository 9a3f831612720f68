package pilot

import (
	"fmt"
	"math"
	"sort"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/forecast"
	"seaway.dev/seaway/scale/record"

	"seaway.dev/seaway/scale/guard"
)

// plan is what the policy wants, and what led there.
type plan struct {
	want, need, spare int
	ahead             int // pods that the load needs by which one ordered now is ready
	why               string
	podLead, nodeLead time.Duration
	load              float64 // cores, now
	at                forecast.Point
	atLoad            float64
}

// plan looks ahead and decides.
func (p *Pilot) plan(in scale.Input) plan {
	s := &p.state
	pl := plan{want: in.Replicas, need: 1}
	pl.podLead, pl.nodeLead = p.leads()
	work := s.Capacity.Demand() * p.opts.Knobs.Room
	if work <= 0 || s.Forecast.Samples == 0 {
		pl.want, pl.why = s.HPA, "nothing is known yet: as HPA does"
		pl.need = s.HPA
		return pl
	}
	rate := math.Max(s.Newest.Rate, s.Forecast.Level[0])
	pl.load = rate * work
	pl.need = p.enough(pl.load, p.aim()*3)
	if p.opts.Learner {
		p.choose(in, &pl)
		return pl
	}
	p.order(in, &pl, work)
	return pl
}

// order is how many pods should be there. Two things have a lead, and each is ordered for the load when it is there:
// pods that find room, and nodes. A node is paid as a whole, and for long after it is empty: so it is filled.
//
// There is no plan beyond that: the load can be looked at again, and what is ordered too early is paid for sure. Exact
// dynamic programming over an hour's fan was here, and was beaten by this (decision 0019).
func (p *Pilot) order(in scale.Input, pl *plan, work float64) {
	s := &p.state
	f := s.Forecast
	age := math.Max(0, in.Now.Sub(s.Newest.At).Seconds()) + s.Newest.Interval.Seconds()/2
	soon := f.Soon(age+pl.podLead.Seconds()+15) + p.backlog()
	far := 0.
	_, judged := f.Coverage(pl.nodeLead)
	trust := math.Min(1, judged/trusted)
	for _, d := range []time.Duration{time.Minute, pl.nodeLead / 2, pl.nodeLead} {
		at := f.At(in.Now.Add(d))
		far = math.Max(far, at.Mid+trust*(at.Fan[likely]-at.Mid))
	}
	if p.opts.NoForecast {
		soon, far = f.Level[0]+p.backlog(), 0
	}
	if p.opts.Foresee != nil {
		var x forecast.Point
		p.opts.Foresee(in.Now, in.Now.Add(pl.podLead+30*time.Second), &x)
		soon = x.Fan[len(x.Fan)-1]
		p.opts.Foresee(in.Now, in.Now.Add(pl.nodeLead+30*time.Second), &x)
		far = x.Fan[len(x.Fan)-1]
	}
	pl.at = f.At(in.Now.Add(pl.podLead))
	pl.atLoad = pl.at.Mid * work
	pods, nodes := p.enough(soon*work, p.aim()), 0
	if p.terms.PodsPerNode > 0 {
		nodes = p.enough(far*work, 3*p.aim())
	}
	pl.ahead = pods
	pl.want, pl.why = p.whole(max(pods, nodes)), "enough for what is expected"
	switch {
	case pl.want < in.Replicas:
		pl.why = "giving back what is not needed"
	case pl.want > in.Replicas && nodes > pods:
		pl.why = fmt.Sprintf("a new node takes %s: for the load expected then", pl.nodeLead.Round(time.Second))
	case pl.want > in.Replicas:
		pl.why = fmt.Sprintf("pods take %s: for the load expected then", pl.podLead.Round(time.Second))
	}
}

const (
	// likely is the quantile of the fan that nodes are ordered for: 0.88.
	likely = 4
	// trusted is after how many judged forecasts nodes are ordered for the fan and not for its middle: some hours. Before,
	// the fan is what was believed of loads in general, and buys nodes for jumps that this load may never make.
	trusted = 1000
)

// whole rounds a count up to full nodes: the room is paid for.
func (p *Pilot) whole(n int) int {
	if k := p.terms.PodsPerNode; k > 0 {
		n = (n + k - 1) / k * k
	}
	if p.terms.Max > 0 {
		n = min(n, p.terms.Max)
	}
	return max(n, p.terms.Min)
}

// enough is the least count with which no more than share of the requests goes bad.
func (p *Pilot) enough(load, share float64) int {
	most := 4 + int(4*load/p.state.Capacity.Pod())
	if p.opts.Law == nil {
		return p.state.Capacity.Need(load, share, most)
	}
	return 1 + sort.Search(most, func(i int) bool { return p.opts.Law(load, i+1) <= share })
}

// backlog is how many requests a second must be served on top, for what has piled up to be gone in half a minute.
func (p *Pilot) backlog() float64 {
	m, w := p.state.Newest, p.state.Capacity.Wait
	if math.IsNaN(m.InFlight) || w <= 0 {
		return 0
	}
	usual := 2*m.Rate*w + 10
	return math.Max(0, m.InFlight-usual) / 30
}

func (p *Pilot) aim() float64 { return p.opts.Knobs.Aim * (1 - p.terms.Good) }

// hold is for how long capacity is kept that is not wanted any more, in seconds: until keeping it has cost as much as
// giving it back, waiting until it is gone, and waiting for it anew would.
func (p *Pilot) hold(pl *plan) int64 {
	w := (pl.podLead + 30*time.Second).Seconds() * 6
	if p.terms.PodsPerNode > 0 {
		w = math.Max(w, 2*pl.nodeLead.Seconds())
	}
	return int64(math.Max(60, math.Min(w*p.opts.Knobs.Hold, longest)))
}

// longest is for how long capacity is kept at most, in seconds.
const longest = 600

// explain makes the record.
func (p *Pilot) explain(in scale.Input, pl plan, v guard.Verdict) {
	s := &p.state
	share := func(n int) float64 { return s.Capacity.Base + s.Capacity.Table().Row(max(n, 1)).Bad(pl.atLoad) }
	p.record = record.Record{
		At: in.Now, From: in.Replicas, To: v.Pods, Wanted: pl.want, HPA: s.HPA, Why: pl.why, Rail: v.Rail, Mode: string(s.Guard.Mode),
		Rate: s.Newest.Rate, WorkMillis: 1000 * s.Capacity.Demand(), Ready: in.Ready, Nodes: in.Nodes,
		Horizon: pl.podLead.Seconds(), Expect: pl.at.Mid, Low: pl.at.Fan[0], High: pl.at.Fan[5],
		PodLead: pl.podLead.Seconds(), NodeLead: pl.nodeLead.Seconds(), Starts: p.delays().pod.Starts,
		CostWith: p.price(v.Pods), CostHPA: p.price(s.HPA),
	}
	if !s.Newest.At.IsZero() {
		p.record.SampleAge = in.Now.Sub(s.Newest.At).Seconds()
	}
	if v.Pods != in.Replicas { // only actions are told at length
		p.record.Experts = s.Forecast.Says(pl.podLead)
		p.record.BadWith, p.record.BadWithout, p.record.BadHPA = share(v.Pods), share(in.Replicas), share(s.HPA)
	}
}
