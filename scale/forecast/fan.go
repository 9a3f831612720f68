package forecast

import (
	"math"
	"time"

	"seaway.dev/seaway/scale"
)

// mixture is what follows from the losses and errors so far: weights and quantiles of scores for each horizon.
type mixture struct {
	weight [nh][ne]float64
	fan    [nh][nq]float64
	upper  [nh]float64 // the 0.95 quantile
}

// Announce tells what people expect; it takes the place of what was told before.
func (m *Model) Announce(events []scale.Announced) { m.events = events }

func (m *Model) mix() *mixture {
	if m.cache != nil {
		return m.cache
	}
	x := &mixture{}
	way := m.way()
	for h := range x.weight {
		loss := &m.Loss[way][h]
		if m.Losses[way][h] < 20 {
			loss = &m.Loss[1][h]
		}
		least, sum := math.Inf(1), 0.
		for e := range Experts {
			least = math.Min(least, loss[e])
		}
		for e := range Experts {
			// An expert that errs twice as much as the best has 1/400 of its weight.
			w := math.Exp(-6 * (loss[e] - least) / math.Max(least, 0.05))
			if !m.speaks(e) {
				w = 0
			}
			x.weight[h][e], sum = w, sum+w
		}
		for e := range Experts {
			x.weight[h][e] /= sum
		}
		for q, p := range Below {
			x.fan[h][q] = m.quantile(h, p)
		}
		x.upper[h] = m.quantile(h, 0.95)
	}
	m.cache = x
	return x
}

// speaks tells whether an expert has anything to say that the level does not.
func (m *Model) speaks(e int) bool {
	switch e {
	case 3, 10:
		return !m.Options.NoTrend
	case 4, 5:
		return m.Seasons[0].ready()
	case 6, 7:
		return m.Seasons[1].ready()
	case 8:
		return m.Seasons[2].ready()
	case 9:
		return m.Linear.ready()
	}
	return true
}

// quantile of the errors at a horizon, in units of restlessness.
func (m *Model) quantile(h int, p float64) float64 {
	hist := &m.Hist[m.class()][h]
	sum := 0.
	for _, n := range hist {
		sum += float64(n)
	}
	at := 0.
	for b, n := range hist {
		if f := float64(n); at+f >= p*sum {
			x := edge(b) + (edge(b+1)-edge(b))*(p*sum-at)/math.Max(f, 1e-9)
			if x > 0 {
				x *= m.Wide[h]
			}
			return x
		}
		at += float64(n)
	}
	return edge(nbins)
}

// experts gives every expert's value, as a square root, for the Unix time t which is s seconds after the last sample.
func (m *Model) experts(t, s float64) [ne]float64 {
	var z [ne]float64
	const damp = 900. // seconds in which a trend fades
	trend := m.Holt[0] + m.Holt[1]*damp*(1-math.Exp(-s/damp))
	vals := [ne]float64{m.Level[0], m.Level[1], m.Level[2], math.Max(trend, 0.2*m.Holt[0])}
	for i := range m.Seasons {
		ratio, quick, slow, ok := m.Seasons[i].ahead(m.ringOf(i), t)
		if !ok {
			ratio, quick, slow = m.Level[1], 1, 1
		}
		if i < 2 {
			vals[4+2*i], vals[5+2*i] = ratio*quick, ratio*slow
		} else {
			vals[8] = ratio * quick
		}
	}
	const fade = 240.
	vals[10] = math.Max(m.Surge[0]+m.Surge[1]*fade*(1-math.Exp(-s/fade)), 0.3*m.Surge[0])
	vals[9] = m.Linear.say(s, m.Level[1])
	for e, v := range vals {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			v = m.Level[1]
		}
		z[e] = math.Sqrt(math.Max(0, math.Min(v, 20*m.Level[1]+20)))
	}
	return z
}

// At forecasts the rate at a time, which should be after the last sample.
func (m *Model) At(at time.Time) Point {
	t := float64(at.UnixMilli()) / 1000
	s := math.Max(t-m.Last, 1)
	x := m.mix()
	h, f := place(s)
	z := m.experts(t, s)
	mid := 0.
	for e := range z {
		mid += z[e] * ((1-f)*x.weight[h][e] + f*x.weight[h+1][e])
	}
	factor := 1.
	for _, e := range m.events {
		if !at.Before(e.From) && at.Before(e.To) && e.Factor > 0 {
			factor *= e.Factor
		}
		if last := time.Unix(int64(m.Last), 0); !last.Before(e.From) && last.Before(e.To) && e.Factor > 0 {
			factor /= e.Factor // it is in today's level already
		}
	}
	p := Point{Mid: mid * mid}
	for q := range Below {
		v := math.Max(0, mid+((1-f)*x.fan[h][q]+f*x.fan[h+1][q])*m.Rest)
		p.Fan[q] = math.Min(v*v, math.Max(1.2*m.Most, 1.5*p.Mid)) * factor
	}
	p.Mid *= factor
	return p
}

// Soon is the rate that the load hardly exceeds in the next s seconds: its level, with what the surge of the last half
// minute adds until then, and half its restlessness. Unlike the fan it knows no past surges: those that are worth waiting
// for come too seldom to have a distribution.
func (m *Model) Soon(s float64) float64 {
	const fade = 240.
	v := m.Surge[0] + math.Max(0, m.Surge[1])*fade*(1-math.Exp(-s/fade))
	z := math.Sqrt(math.Max(0, math.Max(v, m.Surge[0]))) + 0.5*m.Rest
	return z * z
}

// Says are the experts' shares in the forecast for a horizon, by name; those below a hundredth are left out.
func (m *Model) Says(d time.Duration) map[string]float64 {
	h, f := place(d.Seconds())
	x := m.mix()
	out := map[string]float64{}
	for e, name := range Experts {
		if w := (1-f)*x.weight[h][e] + f*x.weight[h+1][e]; w >= 0.01 {
			out[name] = w
		}
	}
	return out
}

// Coverage is the share of outcomes that lately stayed below the 0.95 quantile of the horizon nearest to d, and how
// many were judged.
func (m *Model) Coverage(d time.Duration) (share, judged float64) {
	h := nearest(d.Seconds())
	return m.Inside[h], m.Judged[h]
}

// place finds the horizon at or below s seconds, and how far s is on the way to the next.
func place(s float64) (int, float64) {
	for h := 0; h < nh-1; h++ {
		a, b := Horizons[h].Seconds(), Horizons[h+1].Seconds()
		if s < b || h == nh-2 {
			return h, math.Max(0, math.Min(1, (s-a)/(b-a)))
		}
	}
	return nh - 2, 1
}
