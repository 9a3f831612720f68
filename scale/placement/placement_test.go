package placement_test

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/scale/placement"
)

// word is of a cluster with n pods, all ready, that wants n, needs n and is calm; pods take 8 s where there is room for
// ten more, and two minutes else.
func word(cluster string, n int, change func(*placement.Word)) placement.Word {
	w := placement.Word{Cluster: cluster, Scaling: fleet.Scaling{Namespace: "shop", Name: "web", Wants: n, Needs: n, Floor: n, Pods: n, Ready: n, Min: 1, Max: 40,
		Room: 10, Soon: 8 * time.Second, Late: 2 * time.Minute, Price: 1, Calm: true}}
	if change != nil {
		change(&w)
	}
	return w
}

func TestDivide(t *testing.T) {
	jump := func(w *placement.Word) { w.Wants, w.Needs, w.Floor, w.Calm = 12, 12, 12, false }
	full := func(w *placement.Word) { jump(w); w.Room = 0 }
	idle := func(w *placement.Word) { w.Needs, w.Floor = 2, 2 }
	for name, tc := range map[string]struct {
		words []placement.Word
		want  string
	}{
		"nobody speaks":       {nil, ""},
		"alone":               {[]placement.Word{word("a", 4, nil)}, "a 4 kept"},
		"all is well":         {[]placement.Word{word("a", 4, nil), word("b", 4, nil)}, "a 4 kept; b 4 kept"},
		"room at home":        {[]placement.Word{word("a", 4, jump), word("b", 4, nil)}, "a 12 soonest; b 4 kept"},
		"room elsewhere only": {[]placement.Word{word("a", 4, full), word("b", 4, nil)}, "a 4 kept; b 12 soonest"},
		"a little sooner elsewhere": {[]placement.Word{word("a", 4, jump), word("b", 4, func(w *placement.Word) { w.Soon = 4 * time.Second })},
			"a 12 soonest; b 4 kept"},
		"room elsewhere for some": {[]placement.Word{word("a", 4, full), word("b", 4, func(w *placement.Word) { w.Room = 3 })}, "a 9 soonest; b 7 soonest"},
		"elsewhere is at its max": {[]placement.Word{word("a", 4, full), word("b", 4, func(w *placement.Word) { w.Max = 5 })}, "a 11 only room; b 5 soonest"},
		"nobody may":              {[]placement.Word{word("a", 4, func(w *placement.Word) { jump(w); w.Max = 4 }), word("b", 4, func(w *placement.Word) { w.Max = 4 })}, "a 4 kept; b 4 kept"},
		"elsewhere pods are stuck": {[]placement.Word{word("a", 4, full), word("b", 4, func(w *placement.Word) { w.Pods, w.Stuck = 12, true })},
			"a 12 only room; b 12 kept"},
		"pods elsewhere are lost": {[]placement.Word{word("a", 4, full), word("b", 12, func(w *placement.Word) { w.Wants, w.Needs, w.Ready, w.Lost, w.Room = 4, 4, 0, 12, 0 })},
			"a 12 soonest; b 12 kept"},
		"pods are lost of those that have no others' load": {[]placement.Word{word("a", 4, nil), word("b", 4, func(w *placement.Word) { w.Ready, w.Lost = 1, 3 })}, "a 4 kept; b 4 kept"},
		"no hurry, cheaper elsewhere":                      {[]placement.Word{word("a", 4, func(w *placement.Word) { w.Wants, w.Price = 6, 2 }), word("b", 4, nil)}, "a 4 kept; b 6 cheapest"},
		"hurry, cheaper elsewhere":                         {[]placement.Word{word("a", 4, func(w *placement.Word) { jump(w); w.Price = 2 }), word("b", 4, nil)}, "a 12 soonest; b 4 kept"},
		"no hurry, cheaper elsewhere but later": {[]placement.Word{word("a", 4, func(w *placement.Word) { w.Wants, w.Price = 6, 2 }), word("b", 4, func(w *placement.Word) { w.Room = 0 })},
			"a 6 soonest; b 4 kept"},
		"calm: a substitute first": {[]placement.Word{word("a", 8, func(w *placement.Word) { idle(w); w.Price = 2 }), word("b", 4, nil)}, "a 8 kept; b 5 moved"},
		"… it is not ready": {[]placement.Word{word("a", 8, func(w *placement.Word) { idle(w); w.Price = 2; w.Kept = 12 }), word("b", 4, func(w *placement.Word) { w.Pods = 5 })},
			"a 8 kept; b 5 kept"},
		"… it is": {[]placement.Word{word("a", 8, func(w *placement.Word) { idle(w); w.Price = 2; w.Kept = 12 }), word("b", 4, func(w *placement.Word) { w.Pods, w.Ready = 5, 5 })},
			"a 7 given back; b 5 kept"},
		"… it is, and the load has not followed": {[]placement.Word{word("a", 8, func(w *placement.Word) { w.Price, w.Moving = 2, true }), word("b", 4, func(w *placement.Word) { w.Wants, w.Needs, w.Floor, w.Pods, w.Ready = 4, 4, 4, 5, 5 })},
			"a 8 kept; b 5 kept"},
		"… for long": {[]placement.Word{word("a", 8, func(w *placement.Word) { w.Price = 2 }), word("b", 4, func(w *placement.Word) { w.Pods, w.Ready = 5, 5 })},
			"a 8 kept; b 4 given back"},
		"not calm":               {[]placement.Word{word("a", 8, func(w *placement.Word) { idle(w); w.Price, w.Calm = 2, false }), word("b", 4, nil)}, "a 8 kept; b 4 kept"},
		"the load does not move": {[]placement.Word{word("a", 8, func(w *placement.Word) { w.Price = 2 }), word("b", 4, nil)}, "a 8 kept; b 4 kept"},
		"its pods have no more load than others'": {[]placement.Word{word("a", 8, func(w *placement.Word) { w.Price, w.Load = 2, 4 }), word("b", 4, func(w *placement.Word) { w.Load = 2 })},
			"a 8 kept; b 5 moved"},
		"its pods have more load than others'": {[]placement.Word{word("a", 8, func(w *placement.Word) { w.Price, w.Load = 2, 5 }), word("b", 4, func(w *placement.Word) { w.Load = 2 })},
			"a 8 kept; b 4 kept"},
		"a price is unknown": {[]placement.Word{word("a", 8, func(w *placement.Word) { idle(w); w.Price = 2 }), word("b", 4, func(w *placement.Word) { w.Price = 0 })}, "a 8 kept; b 4 kept"},
		"less is wanted":     {[]placement.Word{word("a", 8, func(w *placement.Word) { idle(w); w.Wants = 3 }), word("b", 4, nil)}, "a 3 given back; b 4 kept"},
		"… but was lately":   {[]placement.Word{word("a", 8, func(w *placement.Word) { idle(w); w.Wants = 3 }), word("b", 4, func(w *placement.Word) { w.Kept = 12 })}, "a 8 kept; b 4 kept"},
		"b is silent": {[]placement.Word{word("a", 4, full), word("b", 9, func(w *placement.Word) { w.Age = 31 * time.Second; w.Wants = 4 })},
			"a 12 soonest; b 4 counted out: it is silent"},
		"b has missed a beat": {[]placement.Word{word("a", 4, full), word("b", 4, func(w *placement.Word) { w.Age = 16 * time.Second })},
			"a 12 only room; b 4 kept"},
		"b does nothing": {[]placement.Word{word("a", 4, full), word("b", 4, func(w *placement.Word) { w.Deaf = true }), word("c", 4, nil)},
			"a 4 kept; b 4 counted out: it was asked for pods and orders none; c 12 soonest"},
		"a's load stays": {[]placement.Word{word("a", 4, func(w *placement.Word) { full(w); w.Alone = true }), word("b", 4, nil)},
			"a 12 counted out: its load does not go to others' pods; b 4 kept"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := said(placement.Divide(tc.words)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func said(p placement.Plan) string {
	var out []string
	for _, s := range p.Shares {
		out = append(out, s.Cluster+" "+strconv.Itoa(s.Pods)+" "+s.Why)
	}
	return strings.Join(out, "; ")
}

// random words of two to five clusters.
func random(r *rand.Rand) []placement.Word {
	var out []placement.Word
	for i := range 2 + r.IntN(4) {
		w := placement.Word{Cluster: string(rune('a' + i))}
		w.Min = 1 + r.IntN(4)
		w.Max = w.Min + r.IntN(30)
		w.Pods = w.Min + r.IntN(w.Max-w.Min+1)
		w.Ready = r.IntN(w.Pods + 1)
		w.Lost = []int{0, 0, w.Pods - w.Ready}[r.IntN(3)]
		w.Wants = r.IntN(40)
		w.Needs = r.IntN(w.Wants + 1)
		w.Floor = w.Needs + r.IntN(3)
		w.Kept = []int{0, r.IntN(60)}[r.IntN(2)]
		w.Room = []int{0, r.IntN(20)}[r.IntN(2)]
		w.Soon = time.Duration(1+r.IntN(20)) * time.Second
		w.Load = []float64{0, 1 + r.Float64()}[r.IntN(2)] * float64(w.Ready)
		w.Late = w.Soon + time.Duration(r.IntN(120))*time.Second
		w.Price = []float64{0.5, 1, 1.05, 3}[r.IntN(4)]
		w.Moving = r.IntN(3) == 0
		w.Calm, w.Stuck, w.Alone = r.IntN(3) > 0, r.IntN(12) == 0, r.IntN(12) == 0
		w.Age = []time.Duration{0, 0, 0, 0, 0, 0, 16 * time.Second, time.Minute}[r.IntN(8)]
		out = append(out, w)
	}
	return out
}

// TestProperties: enough for all unless bounds forbid it, nobody outside its bounds, the same in whatever order, and
// nothing given up that is not replaced.
func TestProperties(t *testing.T) {
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 3))
		words := random(r)
		p := placement.Divide(words)
		shuffled := append([]placement.Word(nil), words...)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := placement.Divide(shuffled); !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d: in another order\n%+v\nnot\n%+v", seed, again, p)
		}
		sum, can, serves, served := 0, 0, 0, 0
		for i, s := range p.Shares {
			w := words[i]
			if s.Pods < w.Min || s.Pods > w.Max {
				t.Fatalf("seed %d: %+v of %+v", seed, s, w)
			}
			if s.Out {
				continue
			}
			n := s.Pods
			if w.Stuck {
				n = min(n, w.Ready)
			} else if s.Pods < w.Max && w.Age == 0 {
				can++
			}
			sum, serves, served = sum+n, serves+min(w.Ready, s.Pods), served+w.Ready
		}
		if sum < p.Total-p.Short || p.Short > 0 && can > 0 {
			t.Fatalf("seed %d: %d pods of %d wanted, %d short: %s\n%+v", seed, sum, p.Total, p.Short, said(p), words)
		}
		if serves < min(served, p.Kept) {
			t.Fatalf("seed %d: of %d ready pods %d are left, %d are wanted: %s\n%+v", seed, served, serves, p.Kept, said(p), words)
		}
	}
}

// TestComesToRest: where what is wanted stays, pods come to rest, and no cluster orders what it has given up.
func TestComesToRest(t *testing.T) {
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 4))
		words := random(r)
		for i := range words {
			words[i].Stuck = false
			words[i].Kept = 0
		}
		rest := false
		gave := map[string]bool{}
		var trail []string
		for step := range 400 {
			p := placement.Divide(words)
			trail = append(trail, said(p))
			changed := false
			for i, s := range p.Shares {
				w := &words[i]
				if !s.Out && s.Pods > w.Pods && gave[s.Cluster] {
					t.Fatalf("seed %d, step %d: %s orders what it gave up\n%s", seed, step, s.Cluster, strings.Join(trail, "\n"))
				}
				gave[s.Cluster] = gave[s.Cluster] || s.Pods < w.Pods
				changed = changed || s.Pods != w.Pods
				w.Room = max(0, w.Room-(s.Pods-w.Pods))
				each := w.Load / float64(max(w.Ready, 1))
				w.Pods = s.Pods
				w.Ready = min(w.Ready, w.Pods)
				if w.Ready < w.Pods && r.IntN(3) == 0 { // a pod gets ready
					w.Ready++
				}
				w.Load = each * float64(w.Ready) // it goes where the pods are
				changed = changed || w.Ready < w.Pods
			}
			if rest = !changed; rest {
				break
			}
		}
		if !rest {
			t.Fatalf("seed %d: no rest\n%s", seed, strings.Join(trail[len(trail)-20:], "\n"))
		}
	}
}

// TestLoadFollows: two clusters whose clients are spread evenly over all ready pods. The jump is served by the one with
// room; in calm, the pods end up where they are cheap, and the total is served all the while.
func TestLoadFollows(t *testing.T) {
	words := []placement.Word{word("dear", 4, func(w *placement.Word) { w.Price, w.Room = 3, 0 }), word("cheap", 4, func(w *placement.Word) { w.Room = 30 })}
	load, actions := 24, 0
	for step := range 200 {
		ready := words[0].Ready + words[1].Ready
		for i := range words {
			w := &words[i]
			w.Needs = (load*w.Ready + ready - 1) / ready
			w.Wants, w.Floor, w.Calm = w.Needs, w.Needs, step > 20
			w.Load = float64(load*w.Ready) / float64(ready)
		}
		p := placement.Divide(words)
		for _, s := range p.Shares {
			for j := range words {
				if w := &words[j]; w.Cluster == s.Cluster && w.Pods != s.Pods {
					w.Room -= s.Pods - w.Pods
					w.Pods = s.Pods
					actions++
				}
			}
		}
		for i := range words {
			words[i].Ready = min(words[i].Pods, words[i].Ready+2)
		}
		if step > 20 {
			if n := words[0].Ready + words[1].Ready; n < load {
				t.Fatalf("step %d: %d pods ready of %d", step, n, load)
			}
		}
	}
	if words[0].Pods > 2 || words[1].Pods < 22 || actions > 60 {
		t.Errorf("dear %d, cheap %d pods after %d actions", words[0].Pods, words[1].Pods, actions)
	}
}
