package sim

import (
	"math"
	"sync"
)

// Service is how one pod serves.
type Service struct {
	Workers int     // requests served at a time
	Mean    float64 // seconds a request takes when it does not wait; exponential
	Timeout float64 // seconds after which the client gives up: the request counts as bad
	Backlog int     // requests that may wait in a pod; more are refused
	// Warm is for how many seconds a pod that has become ready is slower, and Cold how much of its speed it has at
	// first; it rises in a straight line.
	Warm, Cold float64
}

// Rate is the requests per second that a warm pod can serve.
func (s Service) Rate() float64 { return float64(s.Workers) / s.Mean }

// Balancer says how requests find a pod.
type Balancer string

// The two ends of what load balancers do.
const (
	Random       Balancer = "random" // and round robin over many connections: pods do not help each other
	LeastRequest Balancer = "least"  // to the pod with the fewest requests: nearly one queue
)

// station is a queue M/M/c in tables, in units of one server's rate: what is needed to step it through time and to
// know the waits in it. The tables are by utilisation.
type station struct {
	servers int
	rho     []float64 // grid, denser towards 1
	wait    []float64 // Erlang's C: the share of arrivals that wait
	mean    []float64 // mean number in the system
}

const points = 256

var grid = func() []float64 {
	g := make([]float64, points)
	for i := range g {
		x := 1 - float64(i)/points
		g[i] = 1 - x*x*x // 0 … 1 − 6e-8
	}
	return g
}()

// stations holds the tables by the number of servers: they are pure functions of it, made once.
type stations struct {
	mu sync.Mutex
	of map[int]*station
}

func (s *stations) get(servers int) *station {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.of[servers]; st != nil {
		return st
	}
	st := newStation(servers)
	if s.of == nil {
		s.of = map[int]*station{}
	}
	s.of[servers] = st
	return st
}

func newStation(servers int) *station {
	st := &station{servers: servers, rho: grid, wait: make([]float64, points), mean: make([]float64, points)}
	c := float64(servers)
	for i, rho := range grid {
		st.wait[i] = erlangC(servers, rho)
		st.mean[i] = c*rho + st.wait[i]*rho/(1-rho)
	}
	return st
}

// erlangC is the share of arrivals that must wait in M/M/c at utilisation rho, by the stable recursion of Erlang's B.
func erlangC(servers int, rho float64) float64 {
	if rho <= 0 {
		return 0
	}
	a := rho * float64(servers)
	b := 1.0
	for k := 1; k <= servers; k++ {
		b = a * b / (float64(k) + a*b)
	}
	return b / (1 - rho*(1-b))
}

// state of a queue: the mean number in the system and its variance.
type state struct{ x, v float64 }

// step moves a queue on by dt, in units of the mean service time, at offered load a (in servers). The departures are
// those of the stationary queue that has as many in the system (the pointwise stationary fluid flow approximation of
// Wang, Tipper and Banerjee 1996), taken at the end of the step, so that it is stable for any dt. The variance grows
// with arrivals and departures and is pulled back as departures answer to the number; at rest that gives the
// stationary variance (for one server exactly). It returns the utilisation, and how much of the variance that a queue
// at rest with that mean has is there: below 1 while a load that has just come has had no time to spread.
func (st *station) step(q *state, a, dt float64) (rho, spread float64) {
	c := float64(st.servers)
	want := q.x + a*dt // = mean(rho) + dt·c·rho at the end
	lo, hi := 0, points-1
	top := st.mean[hi] + dt*c*st.rho[hi]
	if want >= top {
		q.x = want - dt*c
		q.v += dt * (a + c)
		return 1, 0
	}
	for hi-lo > 1 {
		m := (lo + hi) / 2
		if st.mean[m]+dt*c*st.rho[m] <= want {
			lo = m
		} else {
			hi = m
		}
	}
	f0, f1 := st.mean[lo]+dt*c*st.rho[lo], st.mean[hi]+dt*c*st.rho[hi]
	f := (want - f0) / (f1 - f0)
	rho = st.rho[lo] + f*(st.rho[hi]-st.rho[lo])
	pull := c * (st.rho[hi] - st.rho[lo]) / (st.mean[hi] - st.mean[lo])
	q.x = want - dt*c*rho
	q.v = (q.v + dt*(a+c*rho)) / (1 + 2*pull*dt)
	if spread = min(1, q.v*pull/max(c*rho, 1e-9)); spread < 0.99 && q.x > c/2 {
		// a queue that has not spread keeps more of its servers busy than one at rest with the same mean
		if more := meanBelow(q.x, math.Sqrt(q.v), c) - c*rho; more > 0 {
			q.x -= (1 - spread) * more * dt
		}
	}
	return rho, spread
}

// meanBelow is the mean of min(N, c) for a normal N.
func meanBelow(mean, sd, c float64) float64 {
	if sd < 1e-9 {
		return min(mean, c)
	}
	d := (mean - c) / sd
	over := (mean-c)*0.5*math.Erfc(-d/math.Sqrt2) + sd*math.Exp(-d*d/2)/math.Sqrt(2*math.Pi)
	return mean - over
}

// late is the share of requests that take longer than t, in units of the mean service time, at utilisation rho, with
// queue q and its spread. At rest waiting is exponential, as in the stationary queue; where a backlog has just come, all
// wait about alike.
func (st *station) late(q state, rho, spread, t float64) float64 {
	c := float64(st.servers)
	rest := 1.0
	if rho < 1 {
		pos := math.Cbrt(1 - rho)
		i := min(int((1-pos)*points), points-2)
		f := ((1 - pos) - float64(i)/points) * points
		wait := st.wait[i] + f*(st.wait[i+1]-st.wait[i])
		if rest = sojourn(wait, c*(1-rho), t); spread > 0.99 {
			return rest
		}
	} else {
		spread = 0
	}
	alike := exgaussTail(t-max(0, q.x-c)/c, math.Sqrt(max(q.v, 1e-6))/c)
	return spread*rest + (1-spread)*alike
}

// exgaussTail is P(normal + exponential > t), the normal with mean 0 and the given deviation, the exponential with
// mean 1.
func exgaussTail(t, sd float64) float64 {
	tail := 0.5 * math.Erfc(t/sd/math.Sqrt2)
	return min(1, tail+math.Exp(min(sd*sd/2-t, 0))*0.5*math.Erfc((sd-t/sd)/math.Sqrt2))
}

// sojourn is P(wait + service > t) in M/M/c: service exponential with mean 1, waiting with probability wait, then
// exponential with the given rate.
func sojourn(wait, rate, t float64) float64 {
	if math.Abs(rate-1) < 1e-6 {
		return math.Exp(-t) * (1 + wait*t)
	}
	// 1−wait go at once; the rest wait Exp(rate) and are served Exp(1)
	both := (rate*math.Exp(-t) - math.Exp(-rate*t)) / (rate - 1)
	return min(1, (1-wait)*math.Exp(-t)+wait*max(0, both))
}
