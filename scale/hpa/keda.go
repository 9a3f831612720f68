package hpa

import (
	"math"
	"time"

	"seaway.dev/seaway/scale"
)

// KEDAConfig is a ScaledObject with one trigger on requests per second.
type KEDAConfig struct {
	Threshold float64 // requests per second and pod
	Min, Max  int     // minReplicaCount (0 possible) and maxReplicaCount (0: KEDA's 100)
	// Polling is how often KEDA asks for itself, to go from 0 to 1; the HPA that it makes asks every 15 s.
	Polling time.Duration
	// Cooldown is for how long nothing must have been asked before it goes from 1 to 0.
	Cooldown time.Duration
	// Window is that of the query's rate(): 1 min when 0.
	Window time.Duration
}

// KEDA scales on requests per second as KEDA 2 does: by an HPA of its own on an external metric with a target average
// value, and by itself between 0 and 1.
type KEDA struct {
	conf   KEDAConfig
	hpa    *HPA
	next   time.Time
	active time.Time // when requests were last seen
}

// NewKEDA makes one; what conf leaves 0 gets KEDA's defaults (polling 30 s, cooldown 300 s).
func NewKEDA(terms scale.Terms, conf KEDAConfig) *KEDA {
	if conf.Polling == 0 {
		conf.Polling = 30 * time.Second
	}
	if conf.Cooldown == 0 {
		conf.Cooldown = 5 * time.Minute
	}
	if conf.Window == 0 {
		conf.Window = time.Minute
	}
	if conf.Max == 0 {
		conf.Max = max(terms.Max, 100)
	}
	return &KEDA{conf: conf, hpa: New(terms, Config{
		Name: "keda", Metric: External, Target: conf.Threshold, Min: max(1, conf.Min), Max: conf.Max,
		Window: conf.Window, Behavior: nil,
	})}
}

// Name implements scale.Policy.
func (k *KEDA) Name() string { return "keda" }

// Decide implements scale.Policy.
func (k *KEDA) Decide(in scale.Input) scale.Decision {
	d := k.hpa.Decide(in)
	if k.conf.Min > 0 {
		return d
	}
	if !k.next.After(in.Now) || k.next.Sub(in.Now) > k.conf.Polling {
		k.next = in.Now.Add(k.conf.Polling)
		rate := k.hpa.rate(in.Now)
		if rate > 0 || k.active.IsZero() || math.IsNaN(rate) { // a failing query never deactivates
			k.active = in.Now
		}
		switch {
		case in.Replicas == 0 && rate > 0:
			return scale.Decision{Replicas: 1, Why: "activated"}
		case in.Replicas > 0 && in.Now.Sub(k.active) >= k.conf.Cooldown:
			return scale.Decision{Why: "cooled down"}
		}
	}
	if in.Replicas == 0 {
		return scale.Decision{Why: "not active"}
	}
	return d
}
