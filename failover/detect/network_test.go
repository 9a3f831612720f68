package detect_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"seaway.dev/seaway/failover/detect"
	"seaway.dev/seaway/failover/steer"
)

// network joins the two ends of a pair by ways whose delay and loss a test sets, in a time of its own.
type network struct {
	now   time.Duration
	queue events
	rng   *rand.Rand
	links map[string]*link
	ends  [2]*end
	seq   uint64
	log   strings.Builder
}

// link is one way's quality, per direction (0: from the lead).
type link struct {
	delay, jitter [2]time.Duration
	loss          [2]float64
	cut           [2]bool
}

// end is one node: what the shell around the machines would do.
type end struct {
	n      *network
	i      int
	name   string
	ways   []string
	class  []steer.Class
	pair   *detect.Pair
	steer  steer.Pair
	choice steer.Choice
	wake   time.Duration
	asleep bool // does not run
	shown  string
	asks   int
	got    []time.Duration // when data arrived
	downs  int
	dead   map[string]int
}

type event struct {
	at time.Duration
	id uint64
	do func()
}
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].id < e[j].id
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func newNetwork(seed uint64, rtts map[string]time.Duration, ways ...string) *network {
	n := &network{rng: rand.New(rand.NewPCG(seed, 1)), links: map[string]*link{}, now: time.Second}
	for i := range n.ends {
		e := &end{n: n, i: i, name: []string{"a", "b"}[i], ways: ways, pair: detect.New(detect.Default(), i == 0), dead: map[string]int{}}
		for _, w := range ways {
			e.class = append(e.class, map[byte]steer.Class{'d': steer.Direct, 'n': steer.Near, 'f': steer.Far}[w[0]])
		}
		e.pair.SetWays(ways)
		n.ends[i] = e
		n.at(n.now, e.tick)
	}
	for _, w := range ways {
		d := rtts[w] / 2
		n.links[w] = &link{delay: [2]time.Duration{d, d}}
	}
	return n
}

func (n *network) at(t time.Duration, do func()) {
	n.seq++
	heap.Push(&n.queue, event{t, n.seq, do})
}

// run lets time pass until t.
func (n *network) run(t time.Duration) {
	for len(n.queue) > 0 && n.queue[0].at <= t {
		e := heap.Pop(&n.queue).(event)
		n.now = e.at
		e.do()
	}
	n.now = t
}

// send carries something over a way, or not.
func (n *network) send(from int, way string, do func(e *end)) {
	l := n.links[way]
	if l.cut[from] || n.rng.Float64() < l.loss[from] {
		return
	}
	d := l.delay[from] + time.Duration(n.rng.Int64N(int64(l.jitter[from])+1))
	to := n.ends[1-from]
	n.at(n.now+d, func() {
		if !to.asleep {
			do(to)
			to.after()
		}
	})
}

func (e *end) tick() {
	if e.asleep {
		return
	}
	if e.n.now < e.wake {
		return
	}
	e.after()
}

// after is what follows whatever happened: tick, ask, steer.
func (e *end) after() {
	n := e.n
	e.steerNow()
	ask, wake := e.pair.Tick(n.now)
	e.steerNow()
	for _, w := range ask {
		e.ask(w)
	}
	if wake != e.wake {
		e.wake = wake
		n.at(wake, e.tick)
	}
	e.show()
}

func (e *end) ask(way int) {
	n := e.n
	w := e.pair.Ways()[way]
	n.seq++
	num := n.seq
	e.asks++
	h := detect.Heard{Alive: w.State == detect.Alive, Every: e.pair.Every(way), RTT: w.RTT, Loss: w.Loss}
	use := way == e.pair.InUse()
	e.pair.Sent(way, num, n.now)
	n.send(e.i, w.Name, func(o *end) {
		o.pair.Heard(way, h, n.now)
		if use && o.i == 1 && o.pair.InUse() != way {
			o.pair.Use(way)
			o.steer.Reset(way)
		}
		n.send(o.i, w.Name, func(me *end) { me.pair.Answered(num, n.now) })
	})
}

func (e *end) steerNow() {
	var ws []steer.Way
	for i, w := range e.pair.Ways() {
		ws = append(ws, steer.Way{Class: e.class[i], State: w.State, RTT: w.RTT, Lost: w.Lost(), Seen: w.Seen(), Worse: w.Worse() != "", Hush: w.Hushed()})
	}
	if e.i == 1 && e.pair.InUse() >= 0 && ws[e.pair.InUse()].State == detect.Alive {
		e.choice = steer.Choice{Use: e.pair.InUse(), Hedge: [2]int{-1, -1}} // the lead decides
		if ws[e.choice.Use].Hush {
			e.choice.Hedge = steer.Hedge(ws, e.choice.Use)
		}
		return
	}
	e.choice = e.steer.Step(ws, e.n.now)
	e.pair.Use(e.choice.Use)
	if e.choice.Ask >= 0 {
		e.pair.Prompt(e.choice.Ask)
	}
}

// data sends one packet of data to the other end.
func (e *end) data() {
	if e.asleep {
		return
	}
	e.pair.Sending(e.n.now)
	for _, w := range []int{e.choice.Use, e.choice.Hedge[0], e.choice.Hedge[1]} {
		if w >= 0 {
			e.n.send(e.i, e.ways[w], func(o *end) {
				o.pair.Data(w, o.n.now)
				o.got = append(o.got, o.n.now)
			})
		}
	}
}

// stream sends data both ways every so often until a time.
func (n *network) stream(every, until time.Duration) {
	for t := n.now; t < until; t += every {
		n.at(t, n.ends[0].data)
		n.at(t, n.ends[1].data)
	}
}

// gap is the longest time without data at an end, from a time on.
func (e *end) gap(from time.Duration) (longest time.Duration) {
	last := from
	for _, t := range e.got {
		if t < from {
			continue
		}
		longest = max(longest, t-last)
		last = t
	}
	return max(longest, e.n.now-last)
}

func (e *end) show() {
	s := e.pair.String()
	for _, h := range e.choice.Hedge {
		if h >= 0 {
			s += " hedged by " + e.ways[h]
		}
	}
	if s == e.shown {
		return
	}
	for i, w := range e.pair.Ways() {
		if w.State == detect.Dead && !strings.Contains(e.shown, e.ways[i]+"=dead") && !strings.Contains(e.shown, e.ways[i]+"*=dead") {
			e.dead[w.Name]++
		}
	}
	if strings.HasPrefix(s, "down") && !strings.HasPrefix(e.shown, "down") {
		e.downs++
	}
	e.shown = s
	fmt.Fprintf(&e.n.log, "%8.3fs %s %s\n", e.n.now.Seconds(), e.name, s)
}

// all lists the links, always in the same order.
func (n *network) all() (out []*link) {
	for _, w := range n.ends[0].ways {
		out = append(out, n.links[w])
	}
	return out
}

func (n *network) cut(way string, on bool, dirs ...int) {
	if len(dirs) == 0 {
		dirs = []int{0, 1}
	}
	for _, d := range dirs {
		n.links[way].cut[d] = on
	}
	fmt.Fprintf(&n.log, "%8.3fs -- %s %v cut: %v\n", n.now.Seconds(), way, dirs, on)
}
