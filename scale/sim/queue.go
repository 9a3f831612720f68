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

// step moves the mean number in the system on by dt, in units of the mean service time, at offered load a (in
// servers). The departures are those of the stationary queue that has as many in the system (the pointwise stationary
// fluid flow approximation of Wang, Tipper and Banerjee 1996), taken at the end of the step, so that it is stable for
// any dt. It returns the new mean and the utilisation there.
func (st *station) step(x, a, dt float64) (next, rho float64) {
	c := float64(st.servers)
	want := x + a*dt // = mean(rho) + dt·c·rho at the end
	lo, hi := 0, points-1
	top := st.mean[hi] + dt*c*st.rho[hi]
	if want >= top {
		return want - dt*c, 1
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
	return want - dt*c*rho, rho
}

// late is the share of requests that take longer than t, in units of the mean service time, when there are x in the
// system on average at utilisation rho. Waiting is exponential as in the stationary queue; a backlog so deep that it is
// no longer a matter of chance delays everyone alike.
func (st *station) late(x, rho, t float64) float64 {
	c := float64(st.servers)
	if rho >= 1 || x > deep*c+deepest {
		left := t - (x-c)/c // what remains for the service itself
		spread := math.Sqrt(max(x, 1)) / c
		return normalTail(left-1, math.Hypot(spread, 0.3))
	}
	pos := math.Cbrt(1 - rho)
	i := min(int((1-pos)*points), points-2)
	f := ((1 - pos) - float64(i)/points) * points
	wait := st.wait[i] + f*(st.wait[i+1]-st.wait[i])
	return sojourn(wait, c*(1-rho), t)
}

// Where the stationary form gives way to the fluid one.
const (
	deep    = 6.0
	deepest = 40.0
)

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

// normalTail is the share of a normal variable with the given mean and deviation below 0.
func normalTail(mean, sd float64) float64 { return 0.5 * math.Erfc(mean/sd/math.Sqrt2) }
