package pilot

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/hpa"
)

// world is a service made of arithmetic: second by second, with a queue, pods that take their time and a law of queues
// that the pilot has to find out.
type world struct {
	terms     scale.Terms
	rate      func(second int) float64 // requests per second expected
	beta      float64                  // true law: bad = exp(-beta (1-u))
	work      float64                  // core-seconds a request
	pod, node float64                  // seconds
	gap       func(second int) bool    // no metrics
	seed      uint64
}

type outcome struct{ podHours, nodeHours, bad, done, actions float64 }

func (o outcome) share() float64 { return o.bad / o.done }

// run plays seconds of load against a policy that is asked every 15 s and sees samples 20 s late.
func (w world) run(t testing.TB, p scale.Policy, seconds int) outcome {
	t.Helper()
	r := rand.New(rand.NewPCG(w.seed, 7))
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	n := max(w.terms.Min, int(w.rate(0)*w.work/w.terms.PodCores/0.6)+1)
	var starting []int // second at which each is ready
	nodes, nodesAt := (n+w.terms.PodsPerNode-1)/w.terms.PodsPerNode, []int(nil)
	linger := 0
	var late []scale.Sample
	var starts []scale.Start
	var o outcome
	queue, acc := 0., scale.Sample{}
	for s := range seconds {
		now := start.Add(time.Duration(s) * time.Second)
		left := starting[:0]
		for _, at := range starting {
			if at > s {
				left = append(left, at)
			}
		}
		starting = left
		for len(nodesAt) > 0 && nodesAt[0] <= s {
			nodes, nodesAt = nodes+1, nodesAt[1:]
		}
		ready := n - len(starting)
		mean := w.rate(s)
		arrived := math.Max(0, mean+math.Sqrt(mean)*r.NormFloat64())
		room := float64(ready) * w.terms.PodCores
		load := arrived*w.work + queue
		served := math.Min(load, room)
		queue = math.Min(load-served, 30*room)
		bad := arrived * math.Exp(-w.beta*math.Max(0, 1-(load/math.Max(room, 1e-9))))
		if load > room {
			bad = arrived
		}
		o.bad, o.done = o.bad+bad, o.done+arrived
		o.podHours += float64(n) / 3600
		o.nodeHours += float64(nodes+len(nodesAt)) / 3600
		acc.Rate += arrived / 15
		acc.Busy += served / 15
		acc.Done += served / w.work
		acc.Bad += bad
		acc.InFlight += (served + queue) / w.work * 0.08 / 15
		if s%15 == 14 {
			acc.At, acc.Interval, acc.Ready, acc.Starting, acc.Nodes = now, 15*time.Second, ready, len(starting), nodes
			if w.gap == nil || !w.gap(s) {
				late = append(late, acc)
			}
			acc = scale.Sample{}
		}
		if s%15 != 5 || s < 60 {
			continue
		}
		in := scale.Input{Now: now, Replicas: n, Ready: ready, Nodes: nodes, Starts: starts}
		for len(late) > 0 && now.Sub(late[0].At) >= 20*time.Second {
			in.Samples, late = append(in.Samples, late[0]), late[1:]
		}
		starts = nil
		d := p.Decide(in)
		if d.Replicas != n {
			o.actions++
		}
		for ; n < d.Replicas; n++ {
			took := w.pod * math.Exp(0.3*r.NormFloat64())
			fresh := n >= (nodes+len(nodesAt))*w.terms.PodsPerNode
			if fresh {
				nodesAt = append(nodesAt, s+int(w.node))
			}
			if n >= nodes*w.terms.PodsPerNode {
				took += float64(nodesAt[len(nodesAt)-1] - s)
			}
			starting = append(starting, s+int(took))
			starts = append(starts, scale.Start{Provider: "p", Created: now, Ready: now.Add(time.Duration(took) * time.Second), NewNode: n >= nodes*w.terms.PodsPerNode})
		}
		for ; n > d.Replicas; n-- {
			if len(starting) > 0 {
				starting = starting[:len(starting)-1]
			}
		}
		if need := (n + w.terms.PodsPerNode - 1) / w.terms.PodsPerNode; need < nodes {
			if linger += 15; linger > 600 {
				nodes, linger = need, 0
			}
		} else {
			linger = 0
		}
	}
	return o
}

func day(s int) float64 {
	return 1000 - 600*math.Cos(2*math.Pi*float64(s)/86400) + 150*math.Sin(2*math.Pi*float64(s)/7200)
}

func usual() world {
	return world{
		terms: scale.Terms{Min: 2, Max: 400, Good: 0.999, Latency: 250 * time.Millisecond, PodHour: 1, NodeHour: 8, PodsPerNode: 8, PodCores: 2},
		rate:  day, beta: 40, work: 0.08, pod: 20, node: 150, seed: 1,
	}
}

// TestBeatsHPA is the promise in small: two days, the beginning with nothing known included.
func TestBeatsHPA(t *testing.T) {
	if testing.Short() {
		t.Skip("days of simulated seconds")
	}
	w := usual()
	days := 2
	ours := w.run(t, New(w.terms, Options{}), days*86400)
	theirs := w.run(t, hpa.New(w.terms, hpa.Config{Target: 70}), days*86400)
	t.Logf("ours %.1f pod-h, %.1f node-h, %.4f %% bad, %.0f actions; hpa70 %.1f pod-h, %.1f node-h, %.4f %% bad, %.0f actions", ours.podHours, ours.nodeHours, 100*ours.share(), ours.actions,
		theirs.podHours, theirs.nodeHours, 100*theirs.share(), theirs.actions)
	if ours.nodeHours > 0.95*theirs.nodeHours {
		t.Errorf("node-hours %.1f, HPA %.1f: want a twentieth less", ours.nodeHours, theirs.nodeHours)
	}
	if ours.share() > 1e-4 && ours.share() > theirs.share() {
		t.Errorf("bad %.5f %%, HPA %.5f %%", 100*ours.share(), 100*theirs.share())
	}
}

// TestLearnerKeepsTheTerms: the learner uses the error budget and stays within it, for less than HPA's cost.
func TestLearnerKeepsTheTerms(t *testing.T) {
	if testing.Short() {
		t.Skip("a day of simulated seconds")
	}
	w := usual()
	p := New(w.terms, Options{Learner: true})
	ours, theirs := w.run(t, p, 86400), w.run(t, hpa.New(w.terms, hpa.Config{Target: 70}), 86400)
	t.Logf("ours %.1f node-h, %.4f %% bad; hpa70 %.1f node-h, %.4f %% bad", ours.nodeHours, 100*ours.share(), theirs.nodeHours, 100*theirs.share())
	if ours.share() > 1-w.terms.Good || ours.nodeHours > theirs.nodeHours {
		t.Errorf("want at most %.3f %% bad and no more nodes than HPA", 100*(1-w.terms.Good))
	}
	b, err := p.Save()
	if err != nil || len(b) > 50<<10 {
		t.Errorf("%d bytes, %v: want at most 50 KiB", len(b), err)
	}
	q := New(w.terms, Options{Learner: true})
	if err := q.Restore(b); err != nil || q.state.Learn.Chosen != p.state.Learn.Chosen || len(q.state.Learn.Arms) != len(p.state.Learn.Arms) {
		t.Errorf("what was learnt is lost by a restart: %v", err)
	}
}

func BenchmarkDecide(b *testing.B) {
	w := usual()
	p := New(w.terms, Options{})
	n := 0
	b.ResetTimer()
	for n < b.N {
		w.run(b, p, 86400)
		n += 86400 / 15
	}
}

// TestNodesAreFilled: a node is paid as a whole, so its room is used, but for the bounds.
func TestNodesAreFilled(t *testing.T) {
	p := New(scale.Terms{Min: 2, Max: 10, PodsPerNode: 4, PodCores: 1}, Options{})
	for n, want := range map[int]int{0: 2, 1: 4, 4: 4, 5: 8, 9: 10} {
		if got := p.whole(n); got != want {
			t.Errorf("%d pods become %d, not %d", n, got, want)
		}
	}
}
