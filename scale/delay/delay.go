// Package delay learns how long pods and nodes take to become ready, per cluster, provider, pool and image, from the
// timestamps of real starts. To find an image on the node, to pull it, and to wait for a new node are different things
// and are kept apart: mixing them makes a policy order more because it waited, and wait because it ordered more.
//
// Of each kind and key the newest starts are kept, weighted by age. The estimate is lognormal, drawn towards the
// parent key (image → pool → provider → cluster → everything) while there are few starts, and replaced by the weighted
// sample itself when there are many. A run of starts that are all slower or all faster than believed makes the old
// ones be forgotten at once (a two-sided CUSUM of the logarithms).
package delay

import (
	"math"
	"slices"
	"sort"
	"time"

	"seaway.dev/seaway/scale"
)

const (
	kept  = 40   // newest starts of a key
	fade  = 0.97 // weight of a start compared with the next one
	drift = 0.35 // CUSUM: what of each deviation, in standard deviations, is taken for noise
	alarm = 5.0  // CUSUM: the sum at which the past is forgotten
	most  = 40   // keys
)

// Kind is a part of a start.
type Kind int

const (
	Pod  Kind = iota // from a pod's scheduling to its readiness, the image being on the node
	Pull             // the same, the image being pulled
	Node             // from the request for a node until it is ready, as the node's own timestamps say
	Wait             // a pod's waiting for a new node, where nodes have no timestamps of their own
	kinds
)

// Key names what a delay depends on; empty fields speak of all.
type Key struct{ Cluster, Provider, Pool, Image string }

// Estimate is a delay: its median, its 95th percentile, the share of starts that fail, and how many starts (weighted)
// stand behind it.
type Estimate struct {
	P50, P95 time.Duration
	Failed   float64
	Starts   float64
}

// Series holds the starts of one key. Logs are logarithms of seconds, oldest first.
type Series struct {
	Key      Key
	Kind     Kind
	Logs     []float64
	Failed   float64 // weighted share
	Up, Down float64 // CUSUM
	Used     int     // sequence number of the last start, to evict by
}

// Model is what is known of starts; its zero value knows nothing and answers with the defaults. It is plain data.
type Model struct {
	Series []*Series
	Count  int
}

// What is believed of a start before any was seen, of an unknown provider.
var priors = [kinds]struct{ mu, sigma float64 }{{math.Log(10), 0.5}, {math.Log(25), 0.5}, {math.Log(120), 0.5}, {math.Log(120), 0.5}}

// Observe learns from a start. One that is not ready and has not failed says nothing yet.
func (m *Model) Observe(s scale.Start) {
	if s.Ready.IsZero() && !s.Failed || s.Created.IsZero() {
		return
	}
	m.Count++
	key := Key{s.Cluster, s.Provider, s.Pool, s.Image}
	if s.Image == "" && s.Scheduled.IsZero() { // a node
		m.note(Node, key, s.Ready.Sub(s.Created), s.Failed)
		return
	}
	from := s.Scheduled
	if from.IsZero() {
		from = s.Created
	}
	kind := Pod
	if s.NewNode || !s.Pulled.IsZero() && s.Pulled.Sub(from) > 1500*time.Millisecond {
		kind = Pull
	}
	m.note(kind, key, s.Ready.Sub(from), s.Failed)
	if s.NewNode && !s.Scheduled.IsZero() {
		m.note(Wait, key, s.Scheduled.Sub(s.Created), s.Failed)
	}
}

// note adds one duration to its key and the key's parents.
func (m *Model) note(kind Kind, key Key, took time.Duration, failed bool) {
	if !failed && (took < 0 || took > 2*time.Hour) {
		return
	}
	for _, k := range chain(key) {
		x := m.find(kind, k, true)
		x.Used = m.Count
		if failed {
			x.Failed += 0.05 * (1 - x.Failed)
			continue
		}
		x.Failed -= 0.05 * x.Failed
		m.add(x, math.Log(math.Max(took.Seconds(), 0.5)))
	}
}

// Pods is how long a pod takes for which there is room.
func (m *Model) Pods(k Key) Estimate { return m.Estimate(Pod, k) }

// Nodes is how long a pod takes for which a node must be made, with an image to pull.
func (m *Model) Nodes(k Key) Estimate {
	n, p := m.Estimate(Node, k), m.Estimate(Pull, k)
	if w := m.Estimate(Wait, k); n.Starts == 0 && w.Starts > 0 {
		n = w
	}
	// The tails of two independent parts do not come together: add the spreads by squares.
	tail := math.Hypot((n.P95 - n.P50).Seconds(), (p.P95 - p.P50).Seconds())
	n.P50 += p.P50
	n.P95 = n.P50 + seconds(tail)
	return n
}

func (m *Model) add(x *Series, log float64) {
	if len(x.Logs) >= 5 {
		mu, sigma, _ := moments(x.Logs)
		z := (log - mu) / math.Max(sigma, 0.15)
		z = math.Max(-4, math.Min(4, z))
		x.Up, x.Down = math.Max(0, x.Up+z-drift), math.Max(0, x.Down-z-drift)
		if x.Up > alarm || x.Down > alarm {
			x.Logs = x.Logs[max(0, len(x.Logs)-2):] // the last ones raised the alarm: they are the new world
			x.Up, x.Down = 0, 0
		}
	}
	x.Logs = append(x.Logs, log)
	if len(x.Logs) > kept {
		x.Logs = append([]float64(nil), x.Logs[len(x.Logs)-kept:]...)
	}
}

// Estimate answers for a key, as well as it can.
func (m *Model) Estimate(kind Kind, k Key) Estimate {
	keys := chain(k)
	mu, sigma := priors[kind].mu, priors[kind].sigma
	var e Estimate
	var logs []float64
	for i := len(keys) - 1; i >= 0; i-- { // from everything down to the image
		x := m.find(kind, keys[i], false)
		if x == nil || len(x.Logs) == 0 {
			continue
		}
		own, sd, w := moments(x.Logs)
		const weight = 2 // starts that the parent's belief is worth
		mean := (w*own + weight*mu) / (w + weight)
		between := w * weight / (w + weight) * (own - mu) * (own - mu) / (w + weight)
		if w > 8 {
			between = 0 // enough starts of its own: the parent's other mean is no spread of ours
		}
		sigma = math.Sqrt((w*sd*sd+weight*sigma*sigma)/(w+weight) + between)
		mu = mean
		e.Starts, e.Failed, logs = w, x.Failed, x.Logs
	}
	e.P50, e.P95 = seconds(math.Exp(mu)), seconds(math.Exp(mu+1.645*sigma))
	if len(logs) >= 30 {
		e.P50, e.P95 = seconds(math.Exp(quantile(logs, 0.5))), seconds(math.Exp(quantile(logs, 0.95)))
	}
	return e
}

// chain is the key and its parents, nearest first.
func chain(k Key) []Key {
	all := []Key{k, {Cluster: k.Cluster, Provider: k.Provider, Pool: k.Pool}, {Cluster: k.Cluster, Provider: k.Provider}, {Provider: k.Provider}, {}}
	return slices.Compact(all)
}

func (m *Model) find(kind Kind, k Key, make bool) *Series {
	for _, x := range m.Series {
		if x.Kind == kind && x.Key == k {
			return x
		}
	}
	if !make {
		return nil
	}
	if len(m.Series) >= most {
		old := 0
		for i, x := range m.Series {
			if x.Used < m.Series[old].Used {
				old = i
			}
		}
		m.Series = append(m.Series[:old], m.Series[old+1:]...)
	}
	x := &Series{Key: k, Kind: kind}
	m.Series = append(m.Series, x)
	return x
}

func moments(logs []float64) (mu, sigma, weight float64) {
	w := 1.
	var s, ss float64
	for i := len(logs) - 1; i >= 0; i-- {
		s, ss, weight, w = s+w*logs[i], ss+w*logs[i]*logs[i], weight+w, w*fade
	}
	mu = s / weight
	n := float64(len(logs))
	v := math.Max(0, ss/weight-mu*mu)
	if n > 1 {
		v *= n / (n - 1)
	}
	return mu, math.Sqrt(v), weight
}

func quantile(logs []float64, q float64) float64 {
	type point struct{ x, w float64 }
	points := make([]point, len(logs))
	w, sum := 1., 0.
	for i := len(logs) - 1; i >= 0; i-- {
		points[i] = point{logs[i], w}
		sum, w = sum+w, w*fade
	}
	sort.Slice(points, func(i, j int) bool { return points[i].x < points[j].x })
	at := 0.
	for i, p := range points {
		if at += p.w; at >= q*sum || i == len(points)-1 {
			return p.x
		}
	}
	return 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
