package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"seaway.dev/seaway/scale"
)

// meter turns what happens into samples, late and with holes.
type meter struct {
	conf  Metrics
	cores float64 // of a busy worker
	rand  *rand.Rand
	width int

	from               int // the interval's first second
	arrived, done, bad float64
	inFlight, busy     float64
	young              float64
	begin              int // pods ready at its beginning
	least              int // fewest pods ready in it
	ready, starting    int
	nodes              int

	waiting []waiting
	quiet   int // no samples come up to this second
}

type waiting struct {
	s  scale.Sample
	at float64 // when it is known
}

func newMeter(conf Metrics, cores float64, seed uint64) meter {
	return meter{conf: conf, cores: cores, rand: rand.New(rand.NewPCG(seed, 4)), width: int(conf.Interval / time.Second), quiet: -1}
}

func (m *meter) silent(s int) { m.quiet = s }

// add counts a second. Samples carry their time as seconds since the start until they are handed out.
func (m *meter) add(s int, c *cluster, count float64, f flow) {
	ready := c.readyPods()
	if s == m.from {
		m.begin, m.least = ready, ready
	}
	m.least = min(m.least, ready)
	m.arrived += count
	m.done += f.done
	m.bad += f.bad
	m.inFlight += f.inFlight
	m.busy += f.busy
	fresh := 0
	for _, p := range c.young {
		if p.ready > float64(m.from) {
			fresh++
		}
	}
	if fresh > 0 && len(c.young) > 0 {
		m.young += f.young * float64(fresh) / float64(len(c.young))
	}
	m.ready, m.starting, m.nodes = ready, c.replicas()-ready, len(c.nodes)
	if s-m.from+1 >= m.width {
		m.close(s, fresh)
	}
}

func (m *meter) close(s, fresh int) {
	n := float64(s - m.from + 1)
	v := scale.Sample{At: time.Unix(int64(s+1), 0), Interval: time.Duration(n) * time.Second,
		Rate: m.arrived / n, InFlight: m.inFlight / n, Busy: m.busy / n * m.cores, Done: m.done, Bad: m.bad,
		Ready: m.ready, Starting: m.starting, Nodes: m.nodes,
		Steady: max(0, min(m.least, m.ready-fresh)), SteadyBusy: (m.busy - m.young) / n * m.cores}
	if held := m.begin; v.Steady < held && v.Steady > 0 { // those removed in it are no longer asked
		v.SteadyBusy *= float64(v.Steady) / float64(held)
	}
	if m.rand.Float64() < m.conf.Lost {
		nan := math.NaN()
		v.Rate, v.InFlight, v.Busy, v.Done, v.Bad, v.Steady, v.SteadyBusy = nan, nan, nan, nan, nan, 0, nan
	}
	lag := m.conf.LagMin + time.Duration(m.rand.Float64()*float64(m.conf.LagMax-m.conf.LagMin))
	if m.quiet < s {
		m.waiting = append(m.waiting, waiting{v, float64(s+1) + lag.Seconds()})
	}
	m.from = s + 1
	m.arrived, m.done, m.bad, m.inFlight, m.busy, m.young = 0, 0, 0, 0, 0, 0
}

// known hands out the samples that are known by now.
func (m *meter) known(s int, into []scale.Sample) []scale.Sample {
	for len(m.waiting) > 0 && m.waiting[0].at <= float64(s) {
		into = append(into, m.waiting[0].s)
		m.waiting = m.waiting[1:]
	}
	return into
}
