// Package capacity learns how many pods a load needs. There is no "target utilisation": the model is a weighted set of
// queue laws, each saying what share of requests goes bad when n pods carry a load, and the weights follow what was
// seen of this very service. Everything is in cores: the load is arrivals times the core-seconds that a request
// takes, which is learnt too and, unlike a utilisation, does not depend on how many pods there are.
//
// A law is
//
//	bad(u, n) = exp(-beta (1-u)^p n^gamma), and 1 for u >= 1; u = load / (n k cores)
//
// the tail of a queue with many servers: log P(wait > t) falls linearly with the idle share 1-u (M/M/c: beta = c mu t),
// so p is 1 where waiting is what makes requests late, and less where single slow requests do, too. gamma is the gain
// by pooling: 0 for a balancer that throws dice, towards 1 for one that knows the least busy pod. k is what a pod really
// does compared with what it requests; more than 1 is not believed before it was seen.
//
// Learning is by bins of u: what counts is the mean share of bad requests in a bin, over days, forgetting slowly.
// High loads are explored by nothing but the natural swing of the load: nobody is starved in order to learn.
package capacity

import (
	"math"

	"seaway.dev/seaway/scale"
)

const (
	bins     = 56 // of u, from 0 by width
	width    = 0.025
	halfLife = 4 * 24 * 3600. // seconds in which evidence loses half its weight
	classes  = 4              // of pod counts: 1-3, 4-15, 16-63, 64-
	apart    = 5              // laws less likely than the best by more than this, in natural logarithms, do not matter
)

var (
	betas  = [...]float64{4, 6.5, 9, 12, 16, 21, 28, 42, 68, 110, 180, 290}
	powers = [...]float64{0.5, 0.7, 1}
	gammas = [...]float64{0, 0.4, 0.8}
	ks     = [...]float64{0.45, 0.6, 0.75, 0.85, 0.93, 1, 1.08, 1.2, 1.4, 1.7, 2}
)

// Bin is what was seen at one load, weighted by age.
type Bin struct {
	Samples, Done, Bad float64
	Load, Pods         float64 // sums over samples, of load in cores per pod and of pods
}

// Model is what is known of one service. The zero value is not usable: see New. It is plain data, so that it can be
// kept; Refresh must be called after it was read back.
type Model struct {
	Cores     float64 // what a pod requests
	Work      float64 // core-seconds seen, weighted by age
	Served    float64 // requests seen
	Base      float64 // share of requests that goes bad however many pods there are
	BaseDone  float64
	Wait      float64 // mean seconds in the service at low load
	Bins      [classes][bins]Bin
	Top       float64 // most that a pod was seen to do, in what it requests
	Seen      float64 // samples seen, weighted by age
	lastReady int
	laws      []law // those that matter, refreshed now and then
	dirty     int
	table     *Table
}

type law struct {
	beta, p, gamma, k, w float64
	pool                 int // which of the gammas
}

// New starts a model for pods that request that many cores.
func New(cores float64) *Model {
	if cores <= 0 {
		cores = 1
	}
	m := &Model{Cores: cores}
	m.Refresh()
	return m
}

// Demand is how many core-seconds a request takes; 0 while unknown.
func (m *Model) Demand() float64 {
	if m.Served < 1 {
		return 0
	}
	return m.Work / m.Served
}

// Evidence is how many samples, weighted by age, stand behind the model.
func (m *Model) Evidence() float64 { return m.Seen }

// Observe learns from a sample; it does nothing with one that lacks what it needs.
func (m *Model) Observe(s scale.Sample) {
	dt := s.Interval.Seconds()
	if dt <= 0 || s.Ready <= 0 || bad(s.Busy) || bad(s.Done) || s.Done < 1 {
		return
	}
	// What a request costs is forgotten faster than how queues behave: releases change it.
	// While many go bad the quotient speaks of something else: of requests that were refused, or of a backlog.
	if m.Served < 1 || !(s.Bad > 0.05*s.Done) {
		f := math.Exp2(-dt / 1800)
		m.Work, m.Served = m.Work*f+s.Busy*dt, m.Served*f+s.Done
	}
	changed := m.lastReady != 0 && m.lastReady != s.Ready
	m.lastReady = s.Ready
	if bad(s.Bad) || changed { // with pods coming or going the sample speaks of two loads
		return
	}
	load := s.Busy
	if !bad(s.Rate) {
		load = math.Max(load, s.Rate*m.Demand())
	}
	per := load / float64(s.Ready)
	if s.Steady > 0 && !bad(s.SteadyBusy) { // without those that came or went
		per = math.Max(s.SteadyBusy/float64(s.Steady), 0.8*per)
	}
	m.Top = math.Max(m.Top*math.Exp2(-dt/halfLife), s.Busy/float64(s.Ready)/m.Cores)
	if i := int(per / m.Cores / width); i >= 0 {
		b := &m.Bins[class(s.Ready)][min(i, bins-1)]
		b.Samples, b.Done, b.Bad = b.Samples+1, b.Done+s.Done, b.Bad+math.Min(s.Bad, s.Done)
		b.Load, b.Pods = b.Load+per, b.Pods+float64(s.Ready)
	}
	m.Seen++
	if !bad(s.InFlight) && !bad(s.Rate) && s.Rate > 0 && per < 0.6*m.Cores {
		w := s.InFlight / s.Rate
		if m.Wait == 0 {
			m.Wait = w
		}
		m.Wait += 0.02 * (w - m.Wait)
	}
	if m.dirty++; m.dirty >= 40 || m.Seen < 40 && m.dirty >= 10 {
		m.forget(float64(m.dirty) * dt)
		m.Refresh()
	}
}

// Forget makes the model unsure again, keeping the share keep of the evidence: the image or the configuration changed.
func (m *Model) Forget(keep float64) {
	m.scale(keep)
	m.Work, m.Served = m.Work*keep, m.Served*keep
	m.Refresh()
}

func (m *Model) forget(seconds float64) { m.scale(math.Exp2(-seconds / halfLife)) }

func (m *Model) scale(f float64) {
	m.Seen *= f
	for c := range m.Bins {
		for i := range m.Bins[c] {
			b := &m.Bins[c][i]
			b.Samples, b.Done, b.Bad, b.Load, b.Pods = b.Samples*f, b.Done*f, b.Bad*f, b.Load*f, b.Pods*f
		}
	}
}

// Refresh weighs the laws anew by the evidence, and keeps those that matter.
func (m *Model) Refresh() {
	m.dirty, m.table = 0, nil
	m.base()
	all := make([]law, 0, len(betas)*len(powers)*len(gammas)*len(ks))
	best := math.Inf(-1)
	seen := m.seen()
	for _, k := range ks {
		for pool, g := range gammas {
			for _, p := range powers {
				for _, b := range betas {
					l := law{beta: b, p: p, gamma: g, k: k, pool: pool}
					least := best - apart
					if l.w = prior(l, m.Top); l.w > least {
						l.w += likelihood(l, seen, least-l.w)
					}
					if l.w > least {
						best = math.Max(best, l.w)
						all = append(all, l)
					}
				}
			}
		}
	}
	kept, sum := all[:0], 0.
	for _, l := range all {
		if l.w > best-apart {
			l.w = math.Exp(l.w - best)
			sum += l.w
			kept = append(kept, l)
		}
	}
	for i := range kept {
		kept[i].w /= sum
	}
	m.laws = append([]law(nil), kept...)
}

// base is the share that goes bad at whatever load: the least share among the well-filled bins below half load.
func (m *Model) base() {
	m.Base = 0
	least, found := 1., false
	for c := range m.Bins {
		for i := range m.Bins[c] {
			b := &m.Bins[c][i]
			if b.Done > 5000 && b.Samples > 20 {
				least, found = math.Min(least, b.Bad/b.Done), true
			}
		}
	}
	if found {
		m.Base = least
	}
}

// prior: pods do what they request, no more than was seen of them; queues are neither good nor terrible.
func prior(l law, top float64) float64 {
	a, b := math.Log(l.k)/0.25, (math.Log(l.beta)-math.Log(14))/0.8
	w := -(a*a + b*b) / 2
	if l.k > 1.02*math.Max(top, 1) {
		w -= 12
	}
	return w
}

// point is what a bin says: at that load in cores per request of a pod and that many pods, that share went bad. Variance
// is how sure that is of a law that says less, good of one that says more.
type point struct{ load, root, share, floor, variance, good float64 }

func (m *Model) seen() []point {
	var out []point
	for c := range m.Bins {
		for i := range m.Bins[c] {
			b := &m.Bins[c][i]
			if b.Samples < 3 || b.Done < 50 {
				continue
			}
			floor := 0.7 / b.Done
			out = append(out, point{b.Load / b.Samples / m.Cores, math.Log(b.Pods / b.Samples), math.Log(math.Max(b.Bad/b.Done-m.Base, 0) + floor), floor, 0.35 + 12/b.Samples, 0.35 + 3/b.Samples})
		}
	}
	return out
}

// likelihood compares logarithms of shares, each bin as one observation: orders of magnitude matter, and thousands of
// requests of the same minute are not thousands of witnesses. To have said too little weighs more than too much where
// the bin has long been seen; but no accident makes requests good, as many make them bad: a few minutes of a load that was
// carried without harm speak against a law that forbids it, and are not taken for an outlier. It stops, below least, once
// that cannot be reached any more.
func likelihood(l law, seen []point, least float64) float64 {
	sum := 0.
	for _, p := range seen {
		if sum < least {
			break
		}
		err := p.share - math.Log(l.bad(p.load/l.k, math.Exp(l.gamma*p.root))+p.floor)
		if err > 0 {
			sum -= math.Min(1.7*err*err, 16) / (2 * p.variance)
		} else {
			sum -= math.Min(err*err, 60) / (2 * p.good)
		}
	}
	return sum
}

// bad is the law; gain is n to the power of gamma.
func (l law) bad(u, gain float64) float64 {
	if u >= 1 {
		return 1
	}
	idle := 1 - u
	switch l.p {
	case 0.5:
		idle = math.Sqrt(idle)
	case 1:
	default:
		idle = math.Pow(idle, l.p)
	}
	return math.Exp(-l.beta * idle * gain)
}

// Bad is the share of requests expected to go bad, beyond what always does, when n pods carry load cores.
func (m *Model) Bad(load float64, n int) float64 {
	if n <= 0 {
		return 1
	}
	u := load / (float64(n) * m.Cores)
	if u <= 0 {
		return 0
	}
	sum := 0.
	var gain [len(gammas)]float64
	for i, g := range gammas {
		gain[i] = math.Pow(float64(n), g)
	}
	for _, l := range m.laws {
		sum += l.w * l.bad(u/l.k, gain[l.pool])
	}
	return sum
}

// Need is the least number of pods, from 1 to most, at which no more than share of the requests is expected to go bad.
func (m *Model) Need(load, share float64, most int) int {
	lo, hi := 1, max(most, 1)
	for lo < hi {
		if mid := (lo + hi) / 2; m.Bad(load, mid) <= share {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// Pod is how many cores a pod is believed to do.
func (m *Model) Pod() (cores float64) {
	for _, l := range m.laws {
		cores += l.w * l.k * m.Cores
	}
	return cores
}

func class(n int) int {
	switch {
	case n < 4:
		return 0
	case n < 16:
		return 1
	case n < 64:
		return 2
	}
	return 3
}

func bad(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) || x < 0 }

// Table answers Bad fast: by interpolation, row by row as needed. Take a new one after the model has learned.
type Table struct {
	m    *Model
	rows map[int]*[tableSize + 2]float32
}

const (
	tableSize = 512
	perUnit   = 320 // entries for u = 1
)

// Table returns the model's table, which is good until the next Refresh.
func (m *Model) Table() *Table {
	if m.table == nil {
		m.table = &Table{m: m, rows: map[int]*[tableSize + 2]float32{}}
	}
	return m.table
}

// Row is the table for about n pods.
type Row struct {
	vals *[tableSize + 2]float32
	per  float64
}

// Row finds the row for n pods. The gain by pooling changes slowly with n: a row serves counts that differ by a tenth.
func (t *Table) Row(n int) Row {
	key := n
	if n > 10 {
		key = 10 + int(math.Log(float64(n)/10)/0.1)
	}
	r := t.rows[key]
	if r == nil {
		r = new([tableSize + 2]float32)
		for i := range r {
			r[i] = float32(t.m.Bad(float64(i)/perUnit*t.m.Cores*float64(n), n))
		}
		t.rows[key] = r
	}
	return Row{vals: r, per: perUnit / (t.m.Cores * float64(n))}
}

// Bad is Model.Bad for the row's number of pods.
func (r Row) Bad(load float64) float64 {
	x := load * r.per
	if x >= tableSize {
		return float64(r.vals[tableSize])
	}
	i := int(x)
	f := float32(x - float64(i))
	return float64(r.vals[i] + f*(r.vals[i+1]-r.vals[i]))
}
