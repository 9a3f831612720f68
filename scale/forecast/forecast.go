// Package forecast says what load will come, and how sure that is. Several simple experts (the load stays; it goes on
// as it went; it does what it did a period ago) each give a value for each horizon; they are weighted by how well they
// did at that horizon lately, by the pinball loss. Around the mixture lies a fan made from the mixture's own errors at
// that horizon (conformal: no assumption on their shape), scaled by how restless the load is now and widened while too
// many outcomes fall outside. Periods are found by autocorrelation, not given. What was not measured is not learnt.
//
// Errors are counted in square roots of the rate: there the noise of independent arrivals is the same at any rate.
package forecast

import (
	"fmt"
	"math"
	"time"

	"seaway.dev/seaway/scale"
)

// Horizons are those at which experts are judged; between them everything is interpolated.
var Horizons = [...]time.Duration{15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute,
	8 * time.Minute, 15 * time.Minute, 30 * time.Minute, 60 * time.Minute}

// Experts, by name.
var Experts = [...]string{"last", "minutes", "slow", "trend", "long period", "long period, slow", "longer period",
	"longer period, slow", "short period", "linear", "surge"}

// Fan has the values that the load stays below with the shares Below; Weights are the shares of the cells whose medians
// they are, for integrating over the fan.
var (
	Below   = [...]float64{0.075, 0.275, 0.525, 0.74, 0.88, 0.9525, 0.9835, 0.996}
	Weights = [...]float64{0.15, 0.25, 0.25, 0.18, 0.10, 0.045, 0.017, 0.008}
)

const (
	nh, ne, nq = len(Horizons), len(Experts), len(Below)
	nbins      = 48
	nclass     = 6   // falling, calm, rising; each at low and at high load
	tau        = 0.9 // the share that the judged quantile should cover
)

// Point is the forecast of one time: the mixture's value and the fan.
type Point struct {
	Mid float64
	Fan [nq]float64
}

// Options switch parts off, to see what they earn.
type Options struct {
	NoSeasons bool // no periods
	NoTrend   bool
}

// Model forecasts one signal. It is plain data, so that it can be kept. The zero value is not usable: see New.
type Model struct {
	Options  Options
	Fine     Ring
	Coarse   Ring
	Level    [3]float64 // smoothed rates: half-lives of levels
	Holt     [2]float64 // level and slope per second
	Last     float64    // Unix time of the last sample
	Interval float64
	Seasons  [3]Season          // long, longer, short
	Loss     [3][nh][ne]float64 // falling, calm, rising
	Losses   [3][nh]float64     // how many were counted
	Surge    [2]float64         // level and slope per second, of the last half minute
	Offset   [nh][ne]float64
	Judged   [nh]float64
	Hist     [nclass][nh][nbins]float32 // errors, by class
	Usual    float64                    // square root of the load, its mean of late
	Wide     [nh]float64                // factor on the fan
	Inside   [nh]float64                // share of outcomes below the 0.95 quantile, lately
	Rest     float64                    // mean size of errors at a minute: the restlessness
	Pending  []pending
	Most     float64 // largest rate seen, halved in a week
	Zero     float64 // seconds for which a busy service was said to have no load at all
	Samples  float64
	Linear   Linear
	events   []scale.Announced
	cache    *mixture
}

type pending struct {
	Due   float64
	H     int
	Class int
	Exp   [ne]float32
	Mid   float32
	Rest  float32
	Upper float32
}

var levels = [3]float64{15, 90, 600} // seconds

// New starts a model that knows nothing.
func New(o Options) *Model {
	m := &Model{Options: o, Fine: Ring{Step: 15, Cap: 960}, Coarse: Ring{Step: 300, Cap: 4032}}
	for h := range m.Wide {
		m.Wide[h], m.Inside[h] = 1, 0.95
		spread := 1 + math.Sqrt(Horizons[h].Minutes()) // errors of a random walk grow so
		for b := range nbins {
			x := score(b) / spread
			for c := range m.Hist {
				m.Hist[c][h][b] = float32(12 * math.Exp(-math.Abs(x)) * (edge(b+1) - edge(b)) / (2 * spread))
			}
		}
	}
	return m
}

// Bins of scores are fine around 0 and coarse outside.
func edge(b int) float64  { return edges[b] }
func score(b int) float64 { return (edge(b) + edge(b+1)) / 2 }

var edges = func() (e [nbins + 1]float64) {
	for b := range e {
		e[b] = math.Sinh((float64(b)-nbins/2)/6) * 0.75
	}
	return e
}()

func bin(x float64) int {
	return max(0, min(nbins-1, int(math.Floor(math.Asinh(x/0.75)*6))+nbins/2))
}

// Observe learns from what was measured: the rate in the interval that ended at a time. NaN is no measurement.
func (m *Model) Observe(at time.Time, interval time.Duration, rate float64) {
	t := float64(at.UnixMilli()) / 1000
	if m.Last != 0 && t <= m.Last {
		if m.Last-t < 60 {
			return // known already
		}
		m.Fine.rewind(t)
		m.Coarse.rewind(t)
		m.Last, m.Pending = t-interval.Seconds(), nil // the clock went back
	}
	dt := interval.Seconds()
	if m.Last != 0 {
		dt = math.Max(dt, math.Min(t-m.Last, 3600))
	}
	if rate == 0 && m.Level[1] > 2 && m.Zero < 600 {
		m.Zero += dt // a busy service that has no load at all is one that is not measured
		rate = math.NaN()
	} else if !math.IsNaN(rate) {
		m.Zero = 0
	}
	m.cache = nil
	m.judge(t, rate)
	m.Fine.add(t-1, rate)
	if m.Coarse.add(t-1, rate) {
		m.turn()
	}
	if math.IsNaN(rate) || rate < 0 {
		m.Last = t
		return
	}
	m.follow(t, dt, rate)
	m.Last, m.Interval = t, dt
	m.Samples++
	m.predict(t)
}

// follow moves the levels, the trend and the seasons' deviations.
func (m *Model) follow(t, dt, rate float64) {
	if m.Samples == 0 {
		m.Level, m.Holt, m.Surge = [3]float64{rate, rate, rate}, [2]float64{rate, 0}, [2]float64{rate, 0}
		m.Rest = math.Sqrt(1/math.Max(dt, 1)) + 0.02*math.Sqrt(rate)
	}
	if m.Usual == 0 {
		m.Usual = math.Sqrt(rate)
	}
	m.Usual += (1 - math.Exp2(-dt/math.Min(86400, 600+m.Samples*dt))) * (math.Sqrt(rate) - m.Usual)
	m.Most = math.Max(m.Most*math.Exp2(-dt/(7*86400)), rate)
	for i, half := range levels {
		m.Level[i] += (1 - math.Exp2(-dt/half)) * (rate - m.Level[i])
	}
	a, b := 1-math.Exp2(-dt/45), 1-math.Exp2(-dt/240)
	old := m.Holt[0]
	ahead := old + m.Holt[1]*dt
	m.Holt[0] = ahead + a*(rate-ahead)
	m.Holt[1] += b * ((m.Holt[0]-old)/dt - m.Holt[1])
	a, b = 1-math.Exp2(-dt/12), 1-math.Exp2(-dt/20)
	old = m.Surge[0]
	ahead = old + m.Surge[1]*dt
	m.Surge[0] = ahead + a*(rate-ahead)
	m.Surge[1] += b * ((m.Surge[0]-old)/dt - m.Surge[1])
	for i := range m.Seasons {
		m.Seasons[i].follow(m.ringOf(i), t, dt, rate)
	}
}

func (m *Model) ringOf(season int) *Ring {
	if season == 2 {
		return &m.Fine
	}
	return &m.Coarse
}

// turn does what is due when a coarse bin is complete: look for periods now and then, fit the linear expert.
func (m *Model) turn() {
	if m.Options.NoSeasons {
		return
	}
	if m.Coarse.Head%24 == 0 {
		m.Seasons[0].Period = m.found(&m.Coarse, m.Seasons[0], 12, 432, 3)
		m.Seasons[1].Period = m.found(&m.Coarse, m.Seasons[1], 432, 2200, 6)
	}
	if m.Coarse.Head%4 == 0 {
		m.Seasons[2].Period = m.found(&m.Fine, m.Seasons[2], 12, 400, 1)
	}
	m.Linear.learn(&m.Coarse, m.Seasons[0].Period)
}

// found is the period of a ring among from..to bins, in bins; a known one is kept while it is nearly as good.
func (m *Model) found(r *Ring, s Season, from, to, every int64) int64 {
	lag, _ := r.period(from, to, every)
	if d := lag - s.Period; s.Period != 0 && d >= -every && d <= every {
		return s.Period
	}
	return lag
}

// judge compares what was said about now with what came.
func (m *Model) judge(t, rate float64) {
	left := m.Pending[:0]
	for _, p := range m.Pending {
		if p.Due > t+m.Interval/2 {
			left = append(left, p)
		} else if !math.IsNaN(rate) && rate >= 0 && t-p.Due < math.Max(2*m.Interval, 30) {
			m.learn(p, math.Sqrt(rate))
		}
	}
	m.Pending = left
}

func (m *Model) learn(p pending, y float64) {
	h, rest := p.H, float64(p.Rest)
	m.Judged[h]++
	way := p.Class / 2
	m.Losses[way][h]++
	rate := math.Max(0.01, 1/(m.Losses[way][h]+3)) // the first ones do not yet count for much
	for e, z := range p.Exp {
		err := (y - float64(z)) / rest
		low := m.Offset[h][e]
		loss := err - low
		if loss < 0 {
			loss *= tau - 1
		} else {
			loss *= tau
		}
		loss += 0.5 * math.Abs(err)
		m.Loss[way][h][e] += rate * (math.Min(loss, 20) - m.Loss[way][h][e])
		step := 0.05 * math.Max(m.Loss[way][h][e], 0.1)
		if err > low {
			m.Offset[h][e] += step * tau
		} else {
			m.Offset[h][e] -= step * (1 - tau)
		}
	}
	err := y - float64(p.Mid)
	if h == 2 || m.Interval > 45 && h == nearest(m.Interval) {
		every := math.Max(m.Interval, Horizons[h].Seconds()/8)
		m.Rest += (1 - math.Exp2(-every/2400)) * (math.Min(math.Abs(err), 4*m.Rest) - m.Rest) // a jump is no restlessness
		m.Rest = math.Max(m.Rest, 0.02)
	}
	m.count(p.Class, h, bin(err/rest), 1)
	m.count(p.Class^1, h, bin(err/rest), 0.2) // the neighbour learns a little
	miss := 0.
	if y > float64(p.Upper) {
		miss = 1
	}
	m.Inside[h] += 0.01 * (1 - miss - m.Inside[h])
	m.Wide[h] = math.Max(0.8, math.Min(2.5, m.Wide[h]*math.Exp(0.02*(miss-0.05))))
}

func (m *Model) count(class, h, b int, weight float32) {
	hist := &m.Hist[class][h]
	sum := float32(0)
	for i := range hist {
		sum += hist[i]
	}
	if sum > 600 {
		for i := range hist {
			hist[i] *= 1 - 0.002*weight
		}
	}
	hist[b] += weight
}

// class is what the load does, and whether it is high: errors in a ramp are of another kind than in calm, and at high
// load of another kind than at low, from which it can jump but hardly fall.
func (m *Model) class() int {
	c := 2 * m.way()
	if math.Sqrt(m.Level[1]) > 1.1*m.Usual {
		c++
	}
	return c
}

// way is 0 while the load falls, 1 in calm, 2 while it rises, by what half a minute of the surge's slope would change.
func (m *Model) way() int {
	change := math.Sqrt(math.Max(0, m.Surge[0]+30*m.Surge[1])) - math.Sqrt(math.Max(0, m.Surge[0]))
	switch {
	case change > 1.5*m.Rest:
		return 2
	case change < -1.5*m.Rest:
		return 0
	}
	return 1
}

func nearest(seconds float64) int {
	best := 0
	for i, h := range Horizons {
		if math.Abs(h.Seconds()-seconds) < math.Abs(Horizons[best].Seconds()-seconds) {
			best = i
		}
	}
	return best
}

// predict notes what is said now about later, to be judged then.
func (m *Model) predict(t float64) {
	for h, d := range Horizons {
		s := d.Seconds()
		every := math.Max(m.Interval, s/8)
		if s < 0.6*m.Interval || math.Floor(t/every) == math.Floor((t-m.Interval)/every) {
			continue
		}
		var p pending
		p.Due, p.H, p.Class, p.Rest = t+s, h, m.class(), float32(m.Rest)
		x := m.mix()
		z := m.experts(t+s, s)
		mid := 0.
		for e := range z {
			mid += x.weight[h][e] * z[e]
			p.Exp[e] = float32(z[e])
		}
		p.Mid, p.Upper = float32(mid), float32(mid+x.upper[h]*m.Rest)
		m.Pending = append(m.Pending, p)
	}
}

// Check tells whether a model that was read back is whole.
func (m *Model) Check() error {
	for _, r := range []*Ring{&m.Fine, &m.Coarse} {
		if r.Step <= 0 || r.Cap <= 0 || r.Cap > 1<<14 || len(r.Vals) > r.Cap {
			return fmt.Errorf("a ring of %d bins of %d s, holding %d", r.Cap, r.Step, len(r.Vals))
		}
	}
	for i := range m.Seasons {
		if p := m.Seasons[i].Period; p < 0 || p > int64(m.ringOf(i).Cap) {
			return fmt.Errorf("a period of %d bins", p)
		}
	}
	for _, p := range m.Pending {
		if p.H < 0 || p.H >= nh || p.Class < 0 || p.Class >= nclass {
			return fmt.Errorf("an expectation for horizon %d", p.H)
		}
	}
	return nil
}
