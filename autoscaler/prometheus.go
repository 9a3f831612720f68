package autoscaler

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"seaway.dev/seaway/api/v1alpha1"
)

// reading is what a source says at one time, per second where it counts requests; NaN is not known.
type reading struct{ rate, busy, bad, inFlight float64 }

// source reads from Prometheus servers by their HTTP API.
type source struct {
	url  string // for sources that name none
	mu   sync.Mutex
	apis map[string]promv1.API
}

func newSource(url string) *source {
	return &source{url: url, apis: map[string]promv1.API{}}
}

func (p *source) read(ctx context.Context, s v1alpha1.MetricSource) (reading, error) {
	url := s.Prometheus
	if url == "" {
		url = p.url
	}
	if url == "" {
		return reading{}, fmt.Errorf("no Prometheus is named: set spec.metrics.prometheus, or start the autoscaler with --prometheus URL")
	}
	a, err := p.api(url)
	if err != nil {
		return reading{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	nan := math.NaN()
	r := reading{nan, nan, nan, nan}
	for _, q := range []struct {
		name, query string
		to          *float64
	}{{"rate", s.Rate, &r.rate}, {"busy", s.Busy, &r.busy}, {"bad", s.Bad, &r.bad}, {"inFlight", s.InFlight, &r.inFlight}} {
		if q.query == "" {
			continue
		}
		v, _, err := a.Query(ctx, q.query, time.Time{})
		if err != nil {
			return r, fmt.Errorf("ask %s for metrics.%s: %w", url, q.name, err)
		}
		if *q.to, err = single(v); err != nil {
			return r, fmt.Errorf("metrics.%s: %w: wrap it in sum(…)", q.name, err)
		}
	}
	// No bad request yet means no series for them in most exporters: that is none, as long as the load is known.
	if s.Bad != "" && math.IsNaN(r.bad) && r.rate >= 0 {
		r.bad = 0
	}
	return r, nil
}

// single takes the one number out of an answer; an empty one is NaN.
func single(v model.Value) (float64, error) {
	switch v := v.(type) {
	case *model.Scalar:
		return float64(v.Value), nil
	case model.Vector:
		switch len(v) {
		case 0:
			return math.NaN(), nil
		case 1:
			return float64(v[0].Value), nil
		}
		return 0, fmt.Errorf("the query gives %d values, not one", len(v))
	}
	return 0, fmt.Errorf("the query gives a %s, not one value", v.Type())
}

func (p *source) api(url string) (promv1.API, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.apis[url]; a != nil {
		return a, nil
	}
	c, err := api.NewClient(api.Config{Address: url})
	if err != nil {
		return nil, fmt.Errorf("address of Prometheus %q: %w", url, err)
	}
	p.apis[url] = promv1.NewAPI(c)
	return p.apis[url], nil
}
