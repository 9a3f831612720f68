// Package delay learns how long pods and nodes take to become ready, per cluster, provider, pool and image, from the
// timestamps of real starts. A pod that finds room on a node and one that waits for a new node are different things
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

// Kind says what a pod had to wait for.
type Kind int

const (
	Pod  Kind = iota // found room
	Node             // waited for a node
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

// What is believed of a start before any was seen: a pod with an image to pull, and a node of an unknown provider.
var priors = [2]struct{ mu, sigma float64 }{{math.Log(20), 0.5}, {math.Log(120), 0.5}}

// Observe learns from a start. One that is not ready and has not failed says nothing yet.
func (m *Model) Observe(s scale.Start) {
	kind := Pod
	if s.NewNode {
		kind = Node
	}
	took := s.Ready.Sub(s.Created).Seconds()
	ready := !s.Ready.IsZero() && !s.Created.IsZero() && took >= 0 && took < 7200
	if !ready && !s.Failed {
		return
	}
	m.Count++
	for _, k := range chain(Key{s.Cluster, s.Provider, s.Pool, s.Image}) {
		x := m.find(kind, k, true)
		x.Used = m.Count
		if s.Failed {
			x.Failed += 0.05 * (1 - x.Failed)
			continue
		}
		x.Failed -= 0.05 * x.Failed
		m.add(x, math.Log(math.Max(took, 0.5)))
	}
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
