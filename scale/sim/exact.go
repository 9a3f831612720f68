package sim

import "math/rand/v2"

// exact is the queues request by request: every arrival finds a pod by the balancer's rule, waits for one of its
// workers, is served, or is given up by its client.
type exact struct {
	conf  Config
	rand  *rand.Rand
	limit float64
	pods  map[*pod]*desk
	list  []*desk // those that get requests now
	gaps  []float64
}

// desk is one pod's queue. When each worker is free again says all about it, since service is in the order of arrival.
type desk struct {
	free  []float64
	ends  []float64 // when the requests in the pod leave it, in no order; old ones are dropped when looked at
	speed float64
	young bool
}

func newExact(conf Config, seed uint64) *exact {
	return &exact{conf: conf, rand: rand.New(rand.NewPCG(seed, 5)), limit: newFluid(conf, seed).limit, pods: map[*pod]*desk{}}
}

// second plays a second's arrivals, whose times are uniform in it given their count.
func (q *exact) second(c *cluster, _ float64, count float64) flow {
	q.desks(c)
	if len(q.list) == 0 {
		return flow{bad: count}
	}
	f := flow{done: count}
	n := int(count)
	q.gaps = q.gaps[:0]
	sum := 0.0
	for range n + 1 {
		sum += q.rand.ExpFloat64()
		q.gaps = append(q.gaps, sum)
	}
	for _, g := range q.gaps[:n] {
		if q.arrive(c.now + g/sum) {
			f.bad++
		}
	}
	for _, d := range q.list {
		in := d.inside(c.now + 1)
		busy := float64(min(in, q.conf.Service.Workers))
		f.inFlight += float64(in)
		f.busy += busy
		if d.young {
			f.young += busy
		}
	}
	return f
}

// desks takes over the pods that are ready now; those that are not any more finish what they have, unseen.
func (q *exact) desks(c *cluster) {
	q.list = q.list[:0]
	for i, list := range [][]*pod{c.steady, c.young} {
		for _, p := range list {
			d := q.pods[p]
			if d == nil {
				d = &desk{free: make([]float64, q.conf.Service.Workers)}
				q.pods[p] = d
			}
			d.speed, d.young = q.conf.Service.speed(c.age(p)), i == 1
			q.list = append(q.list, d)
		}
	}
	if len(q.pods) > 2*len(q.list)+16 {
		keep := map[*pod]*desk{}
		for _, list := range [][]*pod{c.steady, c.young} {
			for _, p := range list {
				keep[p] = q.pods[p]
			}
		}
		q.pods = keep
	}
}

// arrive plays one request and tells whether it was bad.
func (q *exact) arrive(at float64) bool {
	d := q.list[q.rand.IntN(len(q.list))]
	if q.conf.Balancer == LeastRequest {
		d = q.idlest(at)
	}
	w := 0
	for i, t := range d.free {
		if t < d.free[w] {
			w = i
		}
	}
	begin := max(at, d.free[w])
	if begin-at > q.conf.Service.Timeout { // the client is gone by then, and leaves the queue when it goes
		d.ends = append(d.ends, at+q.conf.Service.Timeout)
		return true
	}
	if begin > at && d.inside(at) >= q.conf.Service.Workers+q.conf.Service.Backlog {
		return true
	}
	done := begin + q.rand.ExpFloat64()*q.conf.Service.Mean/d.speed
	d.free[w] = done
	d.ends = append(d.ends, done)
	return done-at > q.limit
}

// idlest is the pod with the fewest requests; ties go to chance.
func (q *exact) idlest(at float64) *desk {
	from, n := q.rand.IntN(len(q.list)), len(q.list)
	best, fewest := q.list[from], 1<<30
	for i := range n {
		d := q.list[(from+i)%n]
		if in := d.inside(at); in < fewest {
			best, fewest = d, in
		}
		if fewest == 0 {
			break
		}
	}
	return best
}

// inside is how many requests a pod has.
func (d *desk) inside(now float64) int {
	keep := d.ends[:0]
	for _, t := range d.ends {
		if t > now {
			keep = append(keep, t)
		}
	}
	d.ends = keep
	return len(keep)
}

func (q *exact) warmed(*pod) {}

func (q *exact) gone(pods []*pod) (lost float64) {
	for _, p := range pods {
		if d := q.pods[p]; d != nil {
			lost += float64(len(d.ends))
		}
	}
	return lost
}
