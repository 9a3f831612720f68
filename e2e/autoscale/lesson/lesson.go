// Package lesson gives an autoscaler hours of a service that exists in arithmetic only, so that a story of a minute meets
// one that has learnt. What is learnt is what the role itself keeps (scale/pilot's state); nothing of it is written by hand.
package lesson

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/guard"
	"seaway.dev/seaway/scale/pilot"
)

// Service is what e2e/autoscale/web is made to be.
type Service struct {
	Cores   float64       // that a pod requests; all of it is used when all its workers are busy
	Cost    time.Duration // of processor time a request takes
	Start   time.Duration // until a pod is ready
	Image   string        // what the pods' first container runs, by which delays are remembered
	Terms   scale.Terms   // of the Autoscaler that will use what is learnt; PodCores is set from Cores
	Rate    float64       // mean requests per second; it swings by half of that within 20 minutes
	Seed    uint64
	Mode    guard.Mode // "": Full
	Percent float64    // target of the HPA that is the yardstick; 0: 70
}

const step = 5 * time.Second // a sample's length, as the role takes them

// Learn lets a pilot drive the service for that long, until now, and returns what it knows then.
func Learn(s Service, now time.Time, span time.Duration) ([]byte, error) {
	if s.Mode == "" {
		s.Mode = guard.Full
	}
	t := s.Terms
	t.PodCores = s.Cores
	p := pilot.New(t, pilot.Options{Mode: s.Mode, Target: s.Percent})
	r := rand.New(rand.NewPCG(s.Seed, 11))
	n := max(t.Min, int(s.Rate*s.Cost.Seconds()/s.Cores/0.6)+1)
	var starting []time.Time
	var starts []scale.Start
	for at := now.Add(-span); at.Before(now); at = at.Add(step) {
		for len(starting) > 0 && !starting[0].After(at) {
			starts = append(starts, scale.Start{Image: s.Image, Created: starting[0].Add(-s.Start), Scheduled: starting[0].Add(-s.Start), Ready: starting[0]})
			starting = starting[1:]
		}
		ready := max(n-len(starting), 1)
		rate := s.Rate * (1 + 0.5*math.Sin(2*math.Pi*now.Sub(at).Minutes()/20))
		done := math.Max(0, rate*step.Seconds()+math.Sqrt(rate*step.Seconds())*r.NormFloat64()) / step.Seconds()
		use := done * s.Cost.Seconds() / (float64(ready) * s.Cores)
		bad := done * math.Exp(-12*math.Max(0, 1-use)*math.Sqrt(float64(ready)))
		m := scale.Sample{At: at, Interval: step, Rate: done, InFlight: math.NaN(), Busy: math.Min(use, 1) * float64(ready) * s.Cores,
			Done: done * step.Seconds(), Bad: bad * step.Seconds(), Ready: ready, Starting: len(starting), Nodes: 2}
		d := p.Decide(scale.Input{Now: at, Samples: []scale.Sample{m}, Starts: starts, Replicas: n, Ready: ready, Nodes: 2})
		for starts = nil; n < d.Replicas; n++ {
			starting = append(starting, at.Add(s.Start))
		}
		for ; n > d.Replicas; n-- {
			starting = starting[:max(0, len(starting)-1)]
		}
	}
	b, err := p.Save()
	if err != nil {
		return nil, fmt.Errorf("what the lesson taught: %w", err)
	}
	return b, nil
}
