package sim

import (
	"math"
	"math/rand/v2"
)

// fluid is the queues second by second.
type fluid struct {
	service Service
	least   bool
	limit   float64 // seconds within which a request is good
	tables  *stations
	noise   *rand.Rand
	warm    state // requests in each warm pod (random), or in all pods together (least request)
}

func newFluid(conf Config, seed uint64) *fluid {
	limit := conf.Terms.Latency.Seconds()
	if limit == 0 || limit > conf.Service.Timeout {
		limit = conf.Service.Timeout
	}
	return &fluid{service: conf.Service, least: conf.Balancer == LeastRequest, limit: limit, tables: &stations{},
		noise: rand.New(rand.NewPCG(seed, 5))}
}

// speed of a pod that has been ready for a while.
func (s Service) speed(age float64) float64 {
	if age >= s.Warm {
		return 1
	}
	return s.Cold + (1-s.Cold)*age/s.Warm
}

func (q *fluid) second(c *cluster, intensity, count float64) flow {
	ready := c.readyPods()
	if ready == 0 {
		q.warm = state{}
		return flow{bad: count}
	}
	if q.least {
		return q.pooled(c, intensity, count)
	}
	st := q.tables.get(q.service.Workers)
	each := intensity / float64(ready)
	share := count / float64(ready)
	var f flow
	if c.warm > 0 {
		n := float64(c.warm)
		rho, late := q.pod(st, &q.warm, each, 1)
		f = flow{bad: n * share * late, inFlight: n * q.warm.x, busy: n * rho * float64(st.servers)}
	}
	for _, p := range c.young {
		rho, late := q.pod(st, &p.queue, each, q.service.speed(c.age(p)))
		f.bad += share * late
		f.inFlight += p.queue.x
		f.busy += rho * float64(st.servers)
		f.young += rho * float64(st.servers)
	}
	f.done = count
	q.measured(&f, ready, intensity, count)
	return f
}

// measured makes the busy workers what would be measured: those of the requests that really came, with services that
// are longer or shorter by chance. Without it an HPA would see a load without noise, and never leave its tolerance.
func (q *fluid) measured(f *flow, pods int, intensity, count float64) {
	if count < 1 || intensity <= 0 {
		return
	}
	v := max(0, count/intensity*(1+q.noise.NormFloat64()/math.Sqrt(count)))
	v = min(v, float64(pods*q.service.Workers)/max(f.busy, 1e-9))
	f.busy *= v
	f.young *= v
}

// pod steps one queue by a second: requests per second offered to it, and its speed.
func (q *fluid) pod(st *station, at *state, rate, speed float64) (rho, late float64) {
	unit := q.service.Mean / speed // seconds of one mean service
	before := *at
	rho, spread := st.step(at, rate*unit, 1/unit)
	mid := state{(before.x + at.x) / 2, (before.v + at.v) / 2}
	late = st.late(mid, rho, spread, q.limit/unit)
	if most := min(float64(st.servers+q.service.Backlog), float64(st.servers)*q.service.Timeout/unit); at.x > most {
		*at = state{most, most} // the rest has been counted as late, and left
	}
	return rho, late
}

// pooled is the least-request balancer: nearly one queue before all workers.
func (q *fluid) pooled(c *cluster, intensity, count float64) flow {
	speed := float64(c.warm)
	young := 0.0
	for _, p := range c.young {
		young += q.service.speed(c.age(p))
	}
	speed += young
	servers := max(1, int(speed*float64(q.service.Workers)+0.5))
	st := q.tables.get(servers)
	rho, late := q.pod(st, &q.warm, intensity, 1)
	busy := rho * float64(servers)
	f := flow{bad: count * late, done: count, inFlight: q.warm.x, busy: busy, young: busy * young / speed}
	q.measured(&f, c.readyPods(), intensity, count)
	return f
}

func (q *fluid) warmed(p *pod) { p.queue = state{} }

func (q *fluid) gone(pods []*pod) (lost float64) {
	for _, p := range pods {
		switch {
		case q.least:
		case p.queue.x > 0:
			lost += p.queue.x
		default:
			lost += q.warm.x
		}
	}
	return lost
}
