package hpa

import (
	"math"
	"time"

	"seaway.dev/seaway/scale"
)

// Shadow tells what an HPA would have done with the same load, had it been in charge: it lives in a world of its own,
// with its own replicas and its own use of CPU. What of the real world depends on the real replicas (utilisation,
// readiness) is derived anew from what does not: the rate, and what a request costs.
type Shadow struct {
	hpa  *HPA
	lead time.Duration

	replicas int
	starting []time.Time // when each of the shadow's starting pods will be ready
	cost     float64     // core-seconds a request takes, learned where the real service is not saturated
	podHours float64
	last     time.Time
}

// NewShadow starts a shadow with as many replicas as the real target has; lead is how long a pod takes to be ready.
func NewShadow(h *HPA, replicas int, lead time.Duration) *Shadow {
	return &Shadow{hpa: h, replicas: replicas, lead: lead}
}

// SetLead tells what is known now of how long a pod takes to be ready.
func (s *Shadow) SetLead(d time.Duration) { s.lead = d }

// Step feeds what the real policy sees and returns what the HPA decides in its own world.
func (s *Shadow) Step(in scale.Input) scale.Decision {
	if !s.last.IsZero() && in.Now.After(s.last) {
		s.podHours += float64(s.replicas) * in.Now.Sub(s.last).Hours()
	}
	s.last = in.Now
	left := s.starting[:0]
	for _, t := range s.starting {
		if t.After(in.Now) {
			left = append(left, t)
		}
	}
	s.starting = left
	ready := s.replicas - len(s.starting)
	own := in
	own.Replicas, own.Ready = s.replicas, ready
	own.Samples = make([]scale.Sample, len(in.Samples))
	for i, m := range in.Samples {
		s.learn(m)
		busy := m.Busy
		if s.cost > 0 && !math.IsNaN(m.Rate) {
			busy = m.Rate * s.cost
		}
		if !math.IsNaN(busy) {
			busy = min(busy, float64(ready)*s.hpa.cores)
		}
		m.Busy, m.Ready, m.Starting = busy, ready, len(s.starting)
		m.Steady, m.SteadyBusy = 0, 0 // these speak of the real pods
		own.Samples[i] = m
	}
	d := s.hpa.Decide(own)
	for n := s.replicas; n < d.Replicas; n++ {
		s.starting = append(s.starting, in.Now.Add(s.lead))
	}
	if gone := s.replicas - d.Replicas; gone > 0 { // pods that are not ready go first
		s.starting = s.starting[:max(0, len(s.starting)-gone)]
	}
	s.replicas = d.Replicas
	return d
}

// Replicas is how many replicas the shadow has; PodHours what it has used.
func (s *Shadow) Replicas() int { return s.replicas }

// PodHours is what the shadow's pods have used so far.
func (s *Shadow) PodHours() float64 { return s.podHours }

func (s *Shadow) learn(m scale.Sample) {
	room := float64(m.Ready) * s.hpa.cores
	if !(m.Busy > 0) || !(m.Done > 0) || m.Interval <= 0 || m.Busy > 0.95*room {
		return
	}
	c := m.Busy * m.Interval.Seconds() / m.Done
	if s.cost == 0 {
		s.cost = c
	}
	s.cost += 0.05 * (c - s.cost)
}
