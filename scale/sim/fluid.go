package sim

// fluid is the queues second by second.
type fluid struct {
	service Service
	least   bool
	limit   float64 // seconds within which a request is good
	tables  *stations
	warm    float64 // requests in each warm pod (random), or in all pods together (least request)
}

func newFluid(conf Config) *fluid {
	limit := conf.Terms.Latency.Seconds()
	if limit == 0 || limit > conf.Service.Timeout {
		limit = conf.Service.Timeout
	}
	return &fluid{service: conf.Service, least: conf.Balancer == LeastRequest, limit: limit, tables: &stations{}}
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
		q.warm = 0
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
		x, rho, late := q.pod(st, q.warm, each, 1)
		q.warm = x
		f = flow{bad: n * share * late, inFlight: n * x, busy: n * rho * float64(st.servers)}
	}
	for _, p := range c.young {
		x, rho, late := q.pod(st, p.x, each, q.service.speed(c.age(p)))
		p.x = x
		f.bad += share * late
		f.inFlight += x
		f.busy += rho * float64(st.servers)
		f.young += rho * float64(st.servers)
	}
	f.done = count
	return f
}

// pod steps one queue by a second: requests per second offered to it, and its speed.
func (q *fluid) pod(st *station, x, rate, speed float64) (next, rho, late float64) {
	unit := q.service.Mean / speed // seconds of one mean service
	next, rho = st.step(x, rate*unit, 1/unit)
	most := min(float64(st.servers+q.service.Backlog), float64(st.servers)*q.service.Timeout/unit)
	late = st.late((x+next)/2, rho, q.limit/unit)
	return min(next, most), rho, late
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
	x, rho, late := q.pod(st, q.warm, intensity, 1)
	q.warm = x
	busy := rho * float64(servers)
	return flow{bad: count * late, done: count, inFlight: x, busy: busy, young: busy * young / speed}
}

func (q *fluid) warmed(p *pod) {}

func (q *fluid) gone(pods []*pod) (lost float64) {
	for _, p := range pods {
		if p.x == 0 && !q.least {
			lost += q.warm
		}
		lost += p.x
	}
	return lost
}
