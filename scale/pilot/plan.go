package pilot

import (
	"fmt"
	"math"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/capacity"
	"seaway.dev/seaway/scale/decide"
	"seaway.dev/seaway/scale/forecast"
	"seaway.dev/seaway/scale/record"

	"seaway.dev/seaway/scale/guard"
)

const steps = 20

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
	const most = 100000
	pl.need = s.Capacity.Need(pl.load, p.aim()*3, most)
	if p.opts.Learner {
		p.choose(in, &pl)
		return pl
	}
	times := p.times(pl)
	fans := make([]forecast.Point, steps)
	for i, d := range times {
		if p.opts.NoForecast {
			d = min(d, 15*time.Second)
		}
		fans[i] = s.Forecast.At(in.Now.Add(d))
	}
	p.foresee(in.Now, times, fans)
	backlog := p.backlog()
	for i, d := range times {
		if d <= time.Minute {
			for q := range fans[i].Fan {
				fans[i].Fan[q] += backlog
			}
		}
	}
	path, first := p.solve(in, pl, times, fans, work)
	pl.at = s.Forecast.At(in.Now.Add(pl.podLead))
	pl.atLoad = pl.at.Mid * work
	pl.ahead = max(pl.need, s.Capacity.Need(pl.at.Fan[4]*work, p.aim()*3, most))
	p.order(in, &pl, path, times, first)
	return pl
}

// times are the steps' ends: fine at first, reaching half as far again as a node takes, and 10 minutes at least.
func (p *Pilot) times(pl plan) [steps]time.Duration {
	reach := max(10*time.Minute, pl.nodeLead*3/2).Seconds()
	var out [steps]time.Duration
	grow := math.Log(reach/15) / (steps - 1)
	for i := range out {
		out[i] = time.Duration(max(15*math.Exp(grow*float64(i)), 15*float64(min(i+1, 4)))) * time.Second
	}
	return out
}

// foresee puts an oracle's knowledge in place of the forecast, where there is one.
func (p *Pilot) foresee(now time.Time, times [steps]time.Duration, fans []forecast.Point) {
	if p.opts.Foresee == nil {
		return
	}
	before := time.Duration(0)
	for i, d := range times {
		p.opts.Foresee(now.Add(before), now.Add(d), &fans[i])
		before = d
	}
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

// bounds are the counts worth looking at, and the unit in which they are looked at.
func (p *Pilot) bounds(in scale.Input, fans []forecast.Point, work float64) (low, n, unit int) {
	least, most := math.Inf(1), 0.
	for _, f := range fans {
		least, most = math.Min(least, f.Fan[0]), math.Max(most, f.Fan[len(f.Fan)-1])
	}
	cores := p.state.Capacity.Pod()
	lo := int(0.9 * least * work / cores)
	hi := int(1.8*most*work/cores) + 4
	if p.terms.PodsPerNode > 0 {
		hi += p.terms.PodsPerNode
	}
	lo, hi = max(min(lo, in.Replicas), p.terms.Min), max(hi, in.Replicas+1)
	if p.terms.Max > 0 {
		hi = min(hi, p.terms.Max)
	}
	hi = max(hi, lo)
	unit = (hi-lo)/200 + 1
	if in.Replicas >= lo {
		lo = in.Replicas - (in.Replicas-lo)/unit*unit // what there is must be among the counts
	}
	return lo, (hi-lo)/unit + 1, unit
}

// solve asks for the cheapest path.
func (p *Pilot) solve(in scale.Input, pl plan, times [steps]time.Duration, fans []forecast.Point, work float64) ([]int, [2]int) {
	low, n, unit := p.bounds(in, fans, work)
	price := p.terms.PodHour
	if p.terms.PodsPerNode > 0 {
		price += p.terms.NodeHour / float64(p.terms.PodsPerNode)
	}
	cores := p.state.Capacity.Pod()
	// The price of a bad request is set so that a service at rest, in whose law of queues beta n^gamma u is about 20,
	// comes out at its aim: price of a pod = price of bad × rate × slope of bad.
	perBad := price / (cores / work) / (20 * p.aim()) * math.Exp(p.state.Tilt) // per hour and request per second
	table := p.state.Capacity.Table()
	if cap(p.row) < n {
		p.row = append(p.row[:cap(p.row)], make([]capacity.Row, n-cap(p.row))...)
	}
	rows := p.row[:n]
	for i := range rows {
		rows[i] = table.Row(low + i*unit)
	}
	bad := func(i int, load float64) float64 { return rows[i].Bad(load) }
	if p.opts.Law != nil {
		bad = func(i int, load float64) float64 { return p.opts.Law(load, low+i*unit) }
	}
	prob := decide.Problem{Low: 0, Now: (in.Replicas - low) / unit}
	room := max(in.Nodes*p.terms.PodsPerNode, in.Replicas)
	first := [2]int{steps - 1, steps - 1} // the first steps by which a pod, and a node, could be there
	before := time.Duration(0)
	for s, d := range times {
		dt := (d - before).Hours()
		before = d
		row := p.rowOf(s, n)
		for i := range row {
			row[i] = dt * p.price(low+i*unit)
		}
		for q, rate := range fans[s].Fan {
			w, load := forecast.Weights[q]*rate*perBad*dt, rate*work
			for i := range row {
				row[i] += w * bad(i, load)
			}
		}
		prob.Stage = append(prob.Stage, row)
		limit := n
		switch {
		case d < pl.podLead:
			limit = prob.Now
		case p.terms.PodsPerNode > 0 && d < pl.nodeLead:
			limit = max(prob.Now, (room-low)/unit)
		}
		if d >= pl.podLead {
			first[0] = min(first[0], s)
		}
		if d >= pl.nodeLead {
			first[1] = min(first[1], s)
		}
		prob.Limit = append(prob.Limit, limit)
	}
	prob.Up = float64(unit) * price * (pl.podLead + 30*time.Second).Hours()
	prob.Once = price * 30 * time.Second.Hours()
	path := decide.Solve(prob).Pods
	for i := range path {
		path[i] = low + path[i]*unit
	}
	return path, first
}

func (p *Pilot) rowOf(s, n int) []float64 {
	for len(p.stage) <= s {
		p.stage = append(p.stage, nil)
	}
	if cap(p.stage[s]) < n {
		p.stage[s] = make([]float64, n+n/4)
	}
	return p.stage[s][:n]
}

// order takes from the path what must be done now.
func (p *Pilot) order(in scale.Input, pl *plan, path []int, times [steps]time.Duration, first [2]int) {
	room := max(in.Nodes*p.terms.PodsPerNode, in.Replicas)
	want, why := path[0], "giving back what is not needed"
	for s := 0; s <= first[0]; s++ {
		if path[s] >= want {
			want = path[s]
		}
	}
	if want > in.Replicas {
		why = fmt.Sprintf("pods take %s: for the load expected then", pl.podLead.Round(time.Second))
	}
	if n := path[first[1]]; p.terms.PodsPerNode > 0 && n > room && n > want {
		want, why = n, fmt.Sprintf("a new node takes %s: for the load expected then", pl.nodeLead.Round(time.Second))
	}
	if want == in.Replicas && why == "giving back what is not needed" {
		why = "enough for what is expected"
	}
	pl.want, pl.why = want, why
}

// hold is for how long capacity is kept that is not wanted any more, in seconds: until keeping it has cost as much as
// ending it, starting it again and waiting for it would.
func (p *Pilot) hold(pl *plan) int64 {
	w := (2*pl.podLead + 30*time.Second).Seconds() * p.opts.Knobs.Hold
	return int64(math.Max(60, math.Min(w, 600)))
}

// explain makes the record.
func (p *Pilot) explain(in scale.Input, pl plan, v guard.Verdict) {
	s := &p.state
	share := func(n int) float64 { return s.Capacity.Base + s.Capacity.Table().Row(max(n, 1)).Bad(pl.atLoad) }
	p.record = record.Record{
		At: in.Now, From: in.Replicas, To: v.Pods, Wanted: pl.want, HPA: s.HPA, Why: pl.why, Rail: v.Rail, Mode: string(s.Guard.Mode),
		Rate: s.Newest.Rate, WorkMillis: 1000 * s.Capacity.Demand(), Ready: in.Ready, Nodes: in.Nodes,
		Horizon: pl.podLead.Seconds(), Expect: pl.at.Mid, Low: pl.at.Fan[0], High: pl.at.Fan[5],
		PodLead: pl.podLead.Seconds(), NodeLead: pl.nodeLead.Seconds(), Starts: s.Delays.Pods(s.Key).Starts,
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
