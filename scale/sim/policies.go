package sim

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/hpa"
	"seaway.dev/seaway/scale/trace"
)

// Maker makes a fresh policy for one run.
type Maker func(conf Config, load *trace.Load, seed uint64) scale.Policy

// Known are the names that Named understands, for help texts.
const Known = "hpaN (CPU, N percent), hpaN-rps (requests per pod, N percent of what a pod can), keda, holtwinters, static, static-N"

// Named finds an opponent by its name; see Known.
func Named(name string) (Maker, error) {
	switch {
	case name == "keda":
		return func(c Config, _ *trace.Load, _ uint64) scale.Policy {
			return hpa.NewKEDA(c.Terms, hpa.KEDAConfig{Threshold: 0.7 * c.Service.Rate(), Min: max(1, c.Terms.Min), Max: c.Terms.Max})
		}, nil
	case name == "holtwinters":
		return func(c Config, _ *trace.Load, seed uint64) scale.Policy {
			return hpa.NewPredictive(c.Terms, hpa.Config{Name: name, Target: 70, Phase: phase(seed)}, hpa.HoltWintersConfig{})
		}, nil
	case name == "static":
		return func(c Config, l *trace.Load, _ uint64) scale.Policy { return Static{name, staticFor(c, l)} }, nil
	case strings.HasPrefix(name, "static-"):
		n, err := strconv.Atoi(name[len("static-"):])
		if err != nil || n < 1 {
			return nil, fmt.Errorf("policy %q: static-N has a number of pods, such as static-40", name)
		}
		return func(Config, *trace.Load, uint64) scale.Policy { return Static{name, n} }, nil
	case strings.HasPrefix(name, "hpa"):
		digits, rps := strings.CutSuffix(name[len("hpa"):], "-rps")
		v, err := strconv.ParseFloat(digits, 64)
		if err != nil || v < 1 || v > 100 {
			break
		}
		return func(c Config, _ *trace.Load, seed uint64) scale.Policy {
			conf := hpa.Config{Name: name, Target: v, Phase: phase(seed)}
			if rps {
				conf.Metric, conf.Target = hpa.PodRate, v/100*c.Service.Rate()
			}
			return hpa.New(c.Terms, conf)
		}, nil
	}
	return nil, fmt.Errorf("no policy %q: there are seaway, %s, hpa-best, b0, b1", name, Known)
}

// phase is where in its 15 s a controller's syncs fall: chance, but the same for a seed.
func phase(seed uint64) time.Duration {
	return time.Duration(seed*0x9e3779b97f4a7c15>>40%15) * time.Second
}

// Static is a fixed number of pods.
type Static struct {
	Label string
	Pods  int
}

// Name implements scale.Policy.
func (s Static) Name() string { return s.Label }

// Decide implements scale.Policy.
func (s Static) Decide(scale.Input) scale.Decision {
	return scale.Decision{Replicas: s.Pods, Why: "fixed"}
}

// staticFor is what somebody would set who knew the load: enough for 99.9 % of its seconds at 80 %.
func staticFor(c Config, l *trace.Load) int {
	t := trace.Trace{Rate: l.Rate}
	return max(1, int(math.Ceil(t.Quantile(0.999)/(0.8*c.Service.Rate()))))
}
