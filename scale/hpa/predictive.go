package hpa

import (
	"time"

	"seaway.dev/seaway/scale"
)

// HoltWintersConfig tunes the predictive HPA.
type HoltWintersConfig struct {
	Alpha, Beta, Gamma float64       // level, trend, season: .1, .1, .9 when all are 0
	Season             time.Duration // a day when 0
	Ahead              time.Duration // how far it looks: 2 min when 0
}

// Predictive is an HPA that remembers what it proposed and adds a Holt-Winters forecast of it, as
// jthomperoo/predictive-horizontal-pod-autoscaler does: the replicas are the larger of what the metric asks for now
// and of what the season says for a little later. Before it has seen a season it is a plain HPA.
type Predictive struct {
	hpa  *HPA
	conf HoltWintersConfig

	level, trend float64
	season       []float64 // additive, one a sync
	first        []float64 // the first season, as it was
	at           int
}

// NewPredictive makes one on top of the HPA that conf describes.
func NewPredictive(terms scale.Terms, conf Config, hw HoltWintersConfig) *Predictive {
	if hw.Alpha == 0 && hw.Beta == 0 && hw.Gamma == 0 {
		hw.Alpha, hw.Beta, hw.Gamma = 0.1, 0.1, 0.9
	}
	if hw.Season == 0 {
		hw.Season = 24 * time.Hour
	}
	if hw.Ahead == 0 {
		hw.Ahead = 2 * time.Minute
	}
	if conf.Name == "" {
		conf.Name = "holtwinters"
	}
	return &Predictive{hpa: New(terms, conf), conf: hw}
}

// Name implements scale.Policy.
func (p *Predictive) Name() string { return p.hpa.Name() }

// Decide implements scale.Policy.
func (p *Predictive) Decide(in scale.Input) scale.Decision {
	h := p.hpa
	h.learn(in)
	if ahead := h.state.Next.Sub(in.Now); !h.state.Next.IsZero() && ahead > 0 && ahead <= h.conf.Sync {
		return scale.Decision{Replicas: in.Replicas, Why: "between two syncs"}
	}
	h.state.Next = in.Now.Add(h.conf.Sync)
	want, why := h.propose(in)
	if want < 0 {
		return scale.Decision{Replicas: in.Replicas, Why: why}
	}
	want = max(h.conf.Min, min(want, h.conf.Max))
	if soon := ceil(p.update(float64(want)) - 0.5); soon > want {
		want, why = soon, "forecast of the replicas"
	}
	if in.Replicas < h.conf.Min {
		return scale.Decision{Replicas: h.conf.Min, Why: "less than minReplicas"}
	}
	return h.normalise(in.Now, in.Replicas, want, why)
}

// update learns a value and forecasts (additive Holt-Winters, the first season's mean and deviations to begin with).
func (p *Predictive) update(v float64) float64 {
	n := int(p.conf.Season / p.hpa.conf.Sync)
	if p.season == nil {
		if p.first = append(p.first, v); len(p.first) < n {
			return v
		}
		for _, x := range p.first {
			p.level += x / float64(n)
		}
		p.season = make([]float64, n)
		for i, x := range p.first {
			p.season[i] = x - p.level
		}
		p.first = nil
		return v
	}
	i := p.at % n
	before := p.level
	p.level = p.conf.Alpha*(v-p.season[i]) + (1-p.conf.Alpha)*(p.level+p.trend)
	p.trend = p.conf.Beta*(p.level-before) + (1-p.conf.Beta)*p.trend
	p.season[i] = p.conf.Gamma*(v-p.level) + (1-p.conf.Gamma)*p.season[i]
	p.at++
	k := int(p.conf.Ahead / p.hpa.conf.Sync)
	return p.level + float64(k)*p.trend + p.season[(i+k)%n]
}
