package sim

import (
	"math"

	"seaway.dev/seaway/scale/trace"
)

// The clairvoyant bounds know the intensity of every second in advance. What they do not know is the shot noise, which
// nobody can.

// steady is the share of bad requests with n warm pods at an intensity that stays: the simulator's own queue, at rest.
type steady struct {
	conf   Config
	q      *fluid
	random []float64 // by load per pod, in 1/steps of what it can serve
}

const steps = 2000

// AtRest is the share of requests that are not good with so many warm pods at an intensity that stays: the simulator's
// own queue, for policies that are to know it.
func AtRest(conf Config) func(intensity float64, pods int) float64 { return newSteady(conf).bad }

func newSteady(conf Config) *steady {
	s := &steady{conf: conf, q: newFluid(conf, 0)}
	st := s.q.tables.get(conf.Service.Workers)
	s.random = make([]float64, steps)
	for i := range s.random {
		s.random[i] = s.at(st, float64(i)/steps)
	}
	return s
}

func (s *steady) at(st *station, rho float64) float64 {
	lo := 0
	for lo < points-2 && st.rho[lo+1] <= rho {
		lo++
	}
	f := (rho - st.rho[lo]) / (st.rho[lo+1] - st.rho[lo])
	x := st.mean[lo] + f*(st.mean[lo+1]-st.mean[lo])
	return st.late(state{x: x}, rho, 1, s.q.limit/s.conf.Service.Mean)
}

// bad is the share of requests that are not good.
func (s *steady) bad(intensity float64, pods int) float64 {
	if intensity <= 0 {
		return 0
	}
	if pods < 1 {
		return 1
	}
	rho := intensity / (float64(pods) * s.conf.Service.Rate())
	if rho >= 1 {
		return 1
	}
	if s.q.least {
		return s.at(s.q.tables.get(pods*s.conf.Service.Workers), rho)
	}
	pos := rho * steps
	i := min(int(pos), steps-2)
	return s.random[i] + (pos-float64(i))*(s.random[i+1]-s.random[i])
}

// need is the fewest pods with which no more than the share bad is not good.
func (s *steady) need(intensity, bad float64) int {
	lo, hi := 0, int(intensity/s.conf.Service.Rate()*4)+4
	for hi-lo > 1 {
		m := (lo + hi) / 2
		if s.bad(intensity, m) <= bad {
			hi = m
		} else {
			lo = m
		}
	}
	return hi
}

// Instant is the bound B0: at each second the fewest pods that keep the terms at that second's intensity, coming and
// going at once, on as few nodes as hold them. How good each second must be for all of them together to keep the terms
// is found by bisection on the simulator's queues.
func Instant(load *trace.Load, conf Config, seed uint64) (*Result, error) {
	if err := conf.check(load); err != nil {
		return nil, err
	}
	b := newBound(load, conf, seed)
	pods := make([]int, len(b.rate))
	fill := func(bad float64) {
		cache := map[int]int{}
		for s, v := range b.smooth {
			key := int(v * 4) // a quarter of a request a second does not matter
			n, ok := cache[key]
			if !ok {
				n = max(conf.Terms.Min, b.rest.need(float64(key+1)/4, bad))
				cache[key] = n
			}
			pods[s] = n
		}
	}
	lo, hi := math.Log(1e-7), math.Log(0.9)
	for range 12 {
		mid := (lo + hi) / 2
		if fill(math.Exp(mid)); b.bad(pods, nil) <= 1-conf.Terms.Good {
			lo = mid
		} else {
			hi = mid
		}
	}
	fill(math.Exp(lo))
	k := newScore(load, conf)
	b.bad(pods, func(s int, count, bad float64) {
		k.bound(s, float64(pods[s]), float64(nodesFor(pods[s], conf.Terms.PodsPerNode)), count, bad)
	})
	return k.result("b0", seed), nil
}

func nodesFor(pods, perNode int) int {
	if perNode <= 0 {
		return 0
	}
	return (pods + perNode - 1) / perNode
}

// bound counts a second of a bound, whose pods and nodes are numbers only.
func (k *score) bound(s int, pods, nodes, count, bad float64) {
	if !k.counts(s) {
		return
	}
	k.r.Seconds++
	k.r.Requests += count
	k.r.Bad += bad
	k.r.PodHours += pods / 3600
	k.r.NodeHours += nodes / 3600
	k.r.MostPods = max(k.r.MostPods, int(pods))
}

// bound is what both bounds know: the arrivals of a seed, second by second.
type bound struct {
	conf   Config
	load   *trace.Load
	rate   []float64 // intensity, wobble included
	smooth []float64 // mean over a few seconds, which is what a queue with half a second to spare feels
	count  []float64
	rest   *steady
}

// feels is the seconds over which a queue evens out the load.
const feels = 4

func newBound(load *trace.Load, conf Config, seed uint64) *bound {
	r := newRun(load, conf, Static{}, seed)
	n := len(load.Rate)
	b := &bound{conf: conf, load: load, rate: make([]float64, n), smooth: make([]float64, n), count: make([]float64, n), rest: newSteady(conf)}
	sum := 0.0
	for s := range n {
		b.rate[s] = r.intensity(s)
		b.count[s] = float64(poisson(r.draws, b.rate[s]))
	}
	for s := range n + feels/2 {
		if s < n {
			sum += b.rate[s]
		}
		if s >= feels {
			sum -= b.rate[s-feels]
		}
		if at := s - feels/2; at >= 0 {
			b.smooth[at] = max(0, sum) / float64(min(s+1, feels)-max(0, s+1-n))
		}
	}
	return b
}

// bad plays the queues with the given pods, all warm, and returns the share of requests that were not good where it
// counts; each, when not nil, hears of every second.
func (b *bound) bad(pods []int, each func(s int, count, bad float64)) float64 {
	q := newFluid(b.conf, 0)
	q.tables = b.rest.q.tables
	k := newScore(b.load, b.conf)
	all, sum, before := 0.0, 0.0, 0
	for s, v := range b.rate {
		if q.least || pods[s] <= before {
			before = pods[s]
		} else if before > 0 { // new pods come empty
			q.warm.x *= float64(before) / float64(pods[s])
			before = pods[s]
		} else {
			before = pods[s]
		}
		c := cluster{warm: pods[s], steady: make([]*pod, 0)}
		f := q.plain(&c, v, b.count[s])
		if each != nil {
			each(s, b.count[s], f)
		}
		if k.counts(s) {
			all, sum = all+b.count[s], sum+f
		}
	}
	if all == 0 {
		return 0
	}
	return sum / all
}

// plain plays a second with warm pods only.
func (q *fluid) plain(c *cluster, intensity, count float64) (bad float64) {
	if c.warm == 0 {
		q.warm = state{}
		return count
	}
	servers, rate := q.service.Workers, intensity/float64(c.warm)
	if q.least {
		servers, rate = servers*c.warm, intensity
	}
	_, late := q.pod(q.tables.get(servers), &q.warm, rate, 1)
	return count * late
}

// Clairvoyant is the bound B1: it knows the intensity in advance, and the mean time that a pod and a node take to come
// and to go, all of which it pays for. The replicas are those of the cheapest path over the whole load, found by exact
// dynamic programming in steps of 15 s or more on the queue at rest; the price of a bad request is bisected until the
// path, played in the simulator's queues, lets down no more than the share bad. It is a bound and no policy: starts
// take exactly their mean time, nothing fails, and pods are warm at once.
func Clairvoyant(load *trace.Load, conf Config, bad float64, seed uint64) (*Result, error) {
	if err := conf.check(load); err != nil {
		return nil, err
	}
	b := newBound(load, conf, seed)
	p := newPlan(b)
	lo, hi := math.Log(1e-3), math.Log(1e5) // log of the price of a bad request, in seconds of a pod
	pods := p.solve(1)
	for range 14 {
		mid := (lo + hi) / 2
		try := p.solve(math.Exp(mid))
		if b.bad(try, nil) <= bad {
			hi, pods = mid, try
		} else {
			lo = mid
		}
	}
	k := newScore(load, conf)
	before := pods[0]
	b.bad(pods, func(s int, count, bad float64) {
		n := pods[s]
		paid, nodes := float64(n), float64(nodesFor(n, conf.Terms.PodsPerNode))
		for i := before; i < n; i++ {
			paid += p.podStart(i)
			nodes += p.nodeStart(i)
		}
		before = n
		k.bound(s, paid, nodes, count, bad)
	})
	r := k.result("b1", seed)
	return r, nil
}

// plan is the clairvoyant's problem in steps of some seconds.
type plan struct {
	b     *bound
	width int         // seconds of a step
	most  int         // pods
	bad   [][]float32 // requests that are bad in each step, by the number of pods
}

// longest is how many steps a plan has at most.
const longest = 40_000

func newPlan(b *bound) *plan {
	p := &plan{b: b}
	p.width = max(15, (len(b.rate)+longest-1)/longest)
	top := 0.0
	for _, v := range b.smooth {
		top = max(top, v)
	}
	p.most = b.rest.need(top, 1e-5)
	if m := b.conf.Terms.Max; m > 0 {
		p.most = min(p.most, m)
	}
	for from := 0; from < len(b.rate); from += p.width {
		to := min(from+p.width, len(b.rate))
		row := make([]float32, p.most+1)
		for n := range row {
			sum := 0.0
			for s := from; s < to; s += 3 { // every third second: they are means over four
				sum += b.smooth[s] * b.rest.bad(b.smooth[s], n)
			}
			row[n] = float32(3 * sum)
			if sum < 1e-9 { // no better with more
				break
			}
		}
		p.bad = append(p.bad, row)
	}
	return p
}

// podStart is what going from n to n+1 pods costs beyond the pod's service, in pod-seconds.
func (p *plan) podStart(n int) float64 {
	c := p.b.conf
	v := 1 + c.Profile.Cached.mean() + c.Profile.Grace.Seconds()
	if c.Terms.PodsPerNode > 0 && n%c.Terms.PodsPerNode == 0 {
		v += c.Profile.Node.mean() + c.Profile.Pulled.mean() - c.Profile.Cached.mean()
	}
	return v
}

// nodeStart is the same for nodes.
func (p *plan) nodeStart(n int) float64 {
	c := p.b.conf
	if c.Terms.PodsPerNode == 0 || n%c.Terms.PodsPerNode != 0 {
		return 0
	}
	return c.Profile.Node.mean() + c.Profile.Linger.Seconds()
}

// solve finds the cheapest path for a price of a bad request, and returns its pods second by second. Since what a
// change costs adds up step by step, the best predecessor of each count is found in two passes.
func (p *plan) solve(price float64) []int {
	t := p.b.conf.Terms
	unit := t.PodHour
	if unit <= 0 {
		unit = 1
	}
	node := t.NodeHour / unit
	value, up := make([]float64, p.most+1), make([]float64, p.most+1)
	for n := range up {
		up[n] = p.podStart(n) + node*p.nodeStart(n)
	}
	from := make([]int16, len(p.bad)*(p.most+1))
	for step, row := range p.bad {
		back := from[step*(p.most+1) : (step+1)*(p.most+1)]
		if step > 0 {
			for n := p.most; n >= 0; n-- {
				back[n] = int16(n)
				if n < p.most && value[n+1] < value[n] {
					value[n], back[n] = value[n+1], back[n+1]
				}
			}
			for n := 1; n <= p.most; n++ {
				if v := value[n-1] + up[n-1]; v < value[n] {
					value[n], back[n] = v, back[n-1]
				}
			}
		}
		for n := range value {
			value[n] += float64(p.width)*(float64(n)+node*float64(nodesFor(n, t.PodsPerNode))) + price*float64(row[n])
			if n < t.Min {
				value[n] = math.Inf(1)
			}
		}
	}
	best := 0
	for n, v := range value {
		if v < value[best] {
			best = n
		}
	}
	pods := make([]int, len(p.b.rate))
	for step := len(p.bad) - 1; step >= 0; step-- {
		for s := step * p.width; s < min((step+1)*p.width, len(pods)); s++ {
			pods[s] = best
		}
		best = int(from[step*(p.most+1)+best])
	}
	return pods
}
