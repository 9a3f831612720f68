package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
	"time"
)

// shape is a made-up load: the rate at a time, in days, around 1.
type shape func(day float64, r *rand.Rand) float64

// wave is an ordinary day: quiet at night, two humps.
func wave(day float64) float64 {
	x := 2 * math.Pi * day
	return 1 - 0.55*math.Cos(x) + 0.15*math.Sin(2*x+1)
}

// shapes are the loads that can be made, each with what it is to test.
func shapes() map[string]shape {
	return map[string]shape{
		// an ordinary service, with weekends
		"diurnal": func(d float64, _ *rand.Rand) float64 {
			v := wave(d)
			if math.Mod(d, 7) >= 5 {
				v *= 0.7
			}
			return v
		},
		// every half hour a batch of a few minutes
		"bursty": func(d float64, _ *rand.Rand) float64 {
			v := 0.6 + 0.4*wave(d)
			if math.Mod(d*48, 1) < 0.12 {
				v += 1.2
			}
			return v
		},
		// the level doubles and halves from one minute to the next, at odd times
		"regime": func(d float64, _ *rand.Rand) float64 {
			level := []float64{1, 2, 0.7, 1.6, 0.5, 1.2, 2.2, 0.9}
			return wave(d) * level[int(d*1.37)%len(level)]
		},
		// day becomes night: half way, the wave moves by twelve hours
		"flip": func(d float64, _ *rand.Rand) float64 {
			if d >= 4 {
				d += 0.5
			}
			return wave(d)
		},
		// nobody could have known: three times the load within two minutes, for an hour
		"crowd": func(d float64, _ *rand.Rand) float64 {
			v := 0.8 * wave(d)
			for _, at := range []float64{2.3, 5.55, 6.8} {
				if dt := (d - at) * 24; dt >= 0 && dt < 3 {
					v += 2.4 * math.Min(1, dt*30) * math.Exp(-dt)
				}
			}
			return v
		},
		// for four days there is a peak at noon that then never comes again, and one at midnight that was never there
		"poison": func(d float64, _ *rand.Rand) float64 {
			v := 0.7 + 0.1*wave(d)
			peak := 0.5
			if d >= 4 {
				peak = 0
			}
			if dt := math.Mod(d+1-peak, 1); dt < 0.04 {
				v += 2
			}
			return v
		},
		// grows by a fifth a day
		"growth": func(d float64, _ *rand.Rand) float64 { return 0.5 * math.Pow(1.2, d) * wave(d) },
		// a few requests, uneven
		"sparse": func(d float64, r *rand.Rand) float64 { return 0.02 * wave(d) * (0.5 + r.Float64()) },
	}
}

// Kinds are the names that Generate knows.
func Kinds() []string {
	var names []string
	for n := range shapes() {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Generate makes a trace of eight days in bins of a minute, with a mean around 2000 requests a second: a doubly
// stochastic process, whose intensity wanders by a few percent around its shape, and whose counts are Poisson.
func Generate(kind string, seed uint64) (*Trace, error) {
	f, ok := shapes()[kind]
	if !ok {
		return nil, fmt.Errorf("no made-up load %q: there are %s", kind, strings.Join(Kinds(), ", "))
	}
	const days, bin, mean = 8, 60, 2000
	r := rand.New(rand.NewPCG(seed, 7))
	t := &Trace{Name: kind, Bin: bin * time.Second, Rate: make([]float64, days*86400/bin)}
	drift := 0.0
	for i := range t.Rate {
		drift = 0.98*drift + 0.006*r.NormFloat64()
		v := mean * f(float64(i)*bin/86400, r) * math.Exp(drift)
		t.Rate[i] = max(0, v+math.Sqrt(v/bin)*r.NormFloat64())
	}
	return t, nil
}
