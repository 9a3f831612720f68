package pilot

import (
	"math"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/learn"
)

// twin lets the learner's twins live through a sample.
func (p *Pilot) twin(in scale.Input, m scale.Sample) {
	s := &p.state
	work := s.Capacity.Demand()
	if work <= 0 || math.IsNaN(m.Rate) || m.Ready <= 0 {
		return
	}
	pod, node := p.leads()
	dt := m.Interval
	late := max(0, in.Now.Sub(m.At))
	far := s.Forecast.At(in.Now.Add(node))
	table := s.Capacity.Table()
	law := func(load float64, pods int) float64 { return table.Row(max(pods, 1)).Bad(load) }
	if p.opts.Law != nil {
		law = p.opts.Law
	}
	w := learn.World{Now: in.Now.Unix(), Seconds: dt.Seconds(), Requests: m.Rate * dt.Seconds(), Bad: m.Bad - s.Capacity.Base*m.Done, Ready: m.Ready,
		Load: m.Rate * work, Expected: far.Mid * work, Likely: far.Fan[4] * work, Cores: p.terms.PodCores, PerNode: p.terms.PodsPerNode,
		PodHour: p.terms.PodHour, NodeHour: p.terms.NodeHour, PodLead: int64((pod + late + dt/2) / time.Second), NodeLead: int64((node + late) / time.Second),
		Law: law, Min: p.terms.Min, Max: p.terms.Max}
	if w.Cores <= 0 {
		w.Cores = 1
	}
	if p.opts.NoForecast {
		w.Expected, w.Likely = w.Load, w.Load
	}
	s.Learn.Step(w, max(in.Replicas, 1))
}

// choose asks the learner.
func (p *Pilot) choose(in scale.Input, pl *plan) {
	s := &p.state
	pl.at = s.Forecast.At(in.Now.Add(pl.podLead))
	pl.atLoad = pl.at.Mid * s.Capacity.Demand()
	pl.ahead = pl.need
	if len(s.Learn.Arms) == 0 {
		pl.want, pl.why = s.HPA, "nothing is known yet: as HPA does"
		return
	}
	sure := math.Min(1, 0.3+0.7*s.Learn.Seconds/(12*3600)) // outcomes of an hour say little of a budget
	c := s.Learn.Choose(in.Now.Unix(), p.aim()*sure)
	pl.want, pl.why = c.Pods, c.String()
}
