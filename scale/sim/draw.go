package sim

import (
	"math"
	"math/rand/v2"
)

// poisson draws a count with the given mean: by inversion for small means, else as a rounded normal with the skew put
// right (Cornish-Fisher), whose error is far below what a second's count can show.
func poisson(r *rand.Rand, mean float64) int {
	if !(mean > 0) {
		return 0
	}
	if mean < 30 {
		p := math.Exp(-mean)
		u, k := r.Float64(), 0
		for c := p; u > c && k < 1000; c += p {
			k++
			p *= mean / float64(k)
		}
		return k
	}
	z := r.NormFloat64()
	v := mean + math.Sqrt(mean)*z + (z*z-1)/6
	return max(0, int(v+0.5))
}

// gamma draws from a gamma distribution with the given shape and scale 1 (Marsaglia and Tsang 2000).
func gamma(r *rand.Rand, shape float64) float64 {
	if shape < 1 {
		u := r.Float64()
		return gamma(r, shape+1) * math.Pow(u, 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v *= v * v
		if u := r.Float64(); u < 1-0.0331*x*x*x*x || math.Log(u) < 0.5*x*x+d*(1-v+math.Log(v)) {
			return d * v
		}
	}
}
