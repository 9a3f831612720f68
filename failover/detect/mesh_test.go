package detect_test

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/failover/detect"
	"seaway.dev/seaway/failover/steer"
	"seaway.dev/seaway/fleet"
)

// mesh is a fleet: nodes of several clusters, each pair of which holds the two ends of a [detect.Pair], on machines that
// share a few processors. What one pair of nodes does costs the others' time: a machine that decides worse the busier it
// is, and makes itself busier by what it decides, can be seen here and not with two ends and no cost.
type mesh struct {
	now   time.Duration
	queue events
	seq   uint64
	rng   *rand.Rand
	nodes []*meshNode
	rtt   time.Duration // between clusters
	lost  func(from, to *meshNode) bool
	quiet bool // nobody talks any more

	// The processors: what waits for one, oldest first, and how long a packet or a look at a pair takes.
	cores  int
	ready  []*meshNode
	packet time.Duration
	look   time.Duration
}

// As datapath/relay has them: packets to a node that may go by a second way as well.
const hedgeBurst, hedgeRate = 1000, 50

// hogSlice is how long a program that never sleeps keeps a processor that others wait for.
const hogSlice = 3 * time.Millisecond

type meshNode struct {
	m       *mesh
	id      int
	name    string
	cluster int
	ends    map[int]*meshEnd
	work    []job
	on      bool // it has or waits for a processor
	hog     bool // it is another program
	asleep  bool
	count   meshCount
}

type job struct {
	cost time.Duration
	do   func()
}

// meshEnd is one node's side of a pair: what datapath/relay does around the machines.
type meshEnd struct {
	node, peer *meshNode
	lead       bool
	by         []*meshNode // gateway of each way, nil: direct
	class      []steer.Class
	pair       *detect.Pair
	steer      steer.Pair
	choice     steer.Choice
	wake       time.Duration
	state      fleet.ReachState
	got        []time.Duration
	count      meshCount
	hedges     float64 // spent
	hedged     time.Duration
}

type meshCount struct{ packets, asks, looks, moves, falls, dropped, data, shakes int }

func (c meshCount) less(b meshCount) meshCount {
	return meshCount{c.packets - b.packets, c.asks - b.asks, c.looks - b.looks, c.moves - b.moves, c.falls - b.falls, c.dropped - b.dropped, c.data - b.data, c.shakes - b.shakes}
}

// newMesh makes clusters of two nodes each, all of them gateways.
func newMesh(seed uint64, clusters int, rtt time.Duration) *mesh {
	m := &mesh{rng: rand.New(rand.NewPCG(seed, 7)), now: time.Second, rtt: rtt, cores: 2, packet: 25 * time.Microsecond, look: 20 * time.Microsecond,
		lost: func(_, _ *meshNode) bool { return false }}
	for i := range 2 * clusters {
		m.nodes = append(m.nodes, &meshNode{m: m, id: i, cluster: i / 2, name: fmt.Sprintf("c%dn%d", i/2, i%2+1), ends: map[int]*meshEnd{}})
	}
	for _, n := range m.nodes {
		for _, o := range m.nodes {
			if n != o {
				n.ends[o.id] = m.end(n, o)
			}
		}
	}
	for _, n := range m.nodes {
		for _, o := range m.nodes {
			if e := n.ends[o.id]; e != nil {
				m.at(m.now+time.Duration(m.rng.Int64N(int64(time.Second))), func() { n.add(job{m.look, e.due}) })
			}
		}
	}
	return m
}

func (m *mesh) end(n, o *meshNode) *meshEnd {
	e := &meshEnd{node: n, peer: o, lead: n.id < o.id, pair: detect.New(detect.Default(), n.id < o.id), choice: steer.Choice{Use: -1, Hedge: [2]int{-1, -1}}}
	e.by, e.class = []*meshNode{nil}, []steer.Class{steer.Direct}
	if n.cluster != o.cluster {
		var near, far []*meshNode
		for _, g := range m.nodes {
			switch {
			case g == n || g == o:
			case g.cluster == n.cluster || g.cluster == o.cluster:
				near = append(near, g)
			default:
				far = append(far, g)
			}
		}
		rank := func(a, b *meshNode) int { return int(pairHash(n, o, a)>>1) - int(pairHash(n, o, b)>>1) }
		slices.SortFunc(far, rank)
		slices.SortFunc(near, rank)
		for _, g := range near[:min(2, len(near))] {
			e.by, e.class = append(e.by, g), append(e.class, steer.Near)
		}
		for _, g := range far[:min(2, len(far))] {
			e.by, e.class = append(e.by, g), append(e.class, steer.Far)
		}
	}
	var names []string
	for _, g := range e.by {
		if g == nil {
			names = append(names, "direct")
		} else {
			names = append(names, "relay "+g.name)
		}
	}
	e.pair.SetWays(names)
	return e
}

func pairHash(a, b, g *meshNode) uint32 {
	h := fnv.New32a()
	fmt.Fprint(h, min(a.id, b.id), max(a.id, b.id), g.id)
	return h.Sum32()
}

func (m *mesh) at(t time.Duration, do func()) {
	m.seq++
	heap.Push(&m.queue, event{t, m.seq, do})
}

func (m *mesh) run(d time.Duration) {
	end := m.now + d
	for len(m.queue) > 0 && m.queue[0].at <= end {
		e := heap.Pop(&m.queue).(event)
		m.now = e.at
		e.do()
	}
	m.now = end
}

// add gives a node something to do, as soon as it gets a processor. A socket holds so much and no more.
func (n *meshNode) add(j job) {
	if len(n.work) > 2000 {
		n.count.dropped++
		return
	}
	n.work = append(n.work, j)
	if !n.on && !n.asleep {
		n.on = true
		n.m.ready = append(n.m.ready, n)
		n.m.dispatch()
	}
}

// dispatch gives free processors to those who wait.
func (m *mesh) dispatch() {
	for m.cores > 0 && len(m.ready) > 0 {
		n := m.ready[0]
		m.ready = m.ready[1:]
		m.cores--
		m.turn(n, m.now+hogSlice)
	}
}

// turn lets a node work until its time is over.
func (m *mesh) turn(n *meshNode, end time.Duration) {
	switch {
	case n.hog && n.asleep:
		m.cores++
		m.dispatch()
	case n.hog:
		m.at(end, func() {
			m.cores++
			m.ready = append(m.ready, n)
			m.dispatch()
		})
	case n.asleep || len(n.work) == 0 || m.now >= end:
		m.cores++
		n.on = len(n.work) > 0 && !n.asleep
		if n.on {
			m.ready = append(m.ready, n)
		}
		m.dispatch()
	default:
		j := n.work[0]
		n.work = n.work[1:]
		m.at(m.now+j.cost, func() {
			j.do()
			m.turn(n, end)
		})
	}
}

// load starts other programs that want all processors, for a while.
func (m *mesh) load(programs int, d time.Duration) {
	for range programs {
		h := &meshNode{m: m, hog: true}
		m.ready = append(m.ready, h)
		m.at(m.now+d, func() { h.asleep = true })
	}
	m.dispatch()
}

// pause stops a node; what is sent to it waits in its socket.
func (n *meshNode) pause() { n.asleep = true }

func (n *meshNode) resume() {
	n.asleep = false
	if len(n.work) > 0 && !n.on {
		n.on = true
		n.m.ready = append(n.m.ready, n)
		n.m.dispatch()
	}
}

// send carries a packet to a node, and by a gateway if there is one.
func (n *meshNode) send(by, to *meshNode, got func()) {
	if by != nil {
		n.hop(by, func() { by.hop(to, got) })
		return
	}
	n.hop(to, got)
}

func (n *meshNode) hop(to *meshNode, got func()) {
	m := n.m
	n.count.packets++
	if m.lost(n, to) {
		return
	}
	d := 200 * time.Microsecond
	if n.cluster != to.cluster {
		d = m.rtt / 2
	}
	m.at(m.now+d, func() { to.add(job{m.packet, got}) })
}

// due looks at the pair if it is time to.
func (e *meshEnd) due() {
	if e.node.m.now >= e.wake {
		e.step()
	}
}

// step is what datapath/relay does whenever something happened: judge, steer, ask.
func (e *meshEnd) step() {
	m := e.node.m
	e.count.looks++
	asks, wake := e.pair.Tick(m.now)
	if e.choose() {
		more, _ := e.pair.Tick(m.now)
		for _, w := range more {
			if !slices.Contains(asks, w) {
				asks = append(asks, w)
			}
		}
		wake = m.now + time.Millisecond
	}
	if e.wake != wake {
		e.wake = wake
		m.at(wake, func() {
			if e.wake == wake {
				e.node.add(job{m.look, e.due})
			}
		})
	}
	for _, w := range asks {
		e.ask(w)
	}
	if e.pair.Check() {
		e.shake()
	}
	if s, _ := e.pair.State(); s != e.state {
		if s == fleet.ReachDown {
			e.count.falls++
		}
		e.state = s
	}
}

func (e *meshEnd) choose() (again bool) {
	in := e.pair.InUse()
	c := steer.Choice{Use: in, Hedge: [2]int{-1, -1}, Ask: -1}
	ds := e.pair.Ways()
	follows := !e.lead && in >= 0 && ds[in].State == detect.Alive
	if !follows || ds[in].Hushed() {
		var ws []steer.Way
		for i, w := range ds {
			ws = append(ws, steer.Way{Class: e.class[i], State: w.State, RTT: w.RTT, Lost: w.Lost(), Seen: w.Seen(), Worse: w.Worse() != "", Hush: w.Hushed()})
		}
		if follows {
			c.Hedge = steer.Hedge(ws, in)
		} else {
			c = e.steer.Step(ws, e.node.m.now)
		}
	}
	if c.Use != in {
		e.moved(c.Use)
		again = true
	}
	if c.Ask >= 0 {
		e.pair.Prompt(c.Ask)
		again = true
	}
	e.choice = c
	return again
}

func (e *meshEnd) moved(to int) {
	if e.pair.InUse() >= 0 {
		e.count.moves++
	}
	e.pair.Use(to)
}

func (e *meshEnd) ask(i int) {
	m := e.node.m
	w := e.pair.Ways()[i]
	m.seq++
	number := m.seq
	h := detect.Heard{Alive: w.State == detect.Alive, Every: e.pair.Every(i), RTT: w.RTT, Loss: w.Loss}
	use := i == e.pair.InUse()
	e.pair.Sent(i, number, m.now)
	e.count.asks++
	other := e.peer.ends[e.node.id]
	by := e.by[i]
	sent := m.now
	e.node.send(by, e.peer, func() {
		e.peer.send(by, e.node, func() {
			if _, _, ok := e.pair.Answered(number, m.now); ok {
				e.step()
			}
		})
		if m.now-sent > 10*time.Second {
			return // what it echoes is old
		}
		other.pair.Heard(i, h, m.now)
		if use && !other.lead && other.pair.InUse() != i && other.pair.Follows(i) {
			other.moved(i)
			other.steer.Reset(i)
		}
		other.step()
	})
}

// shake makes a handshake of WireGuard, which is tried by all ways at once and answered once. Either end then knows that
// the other lives.
func (e *meshEnd) shake() {
	e.count.shakes++
	m, other, done := e.node.m, e.peer.ends[e.node.id], false
	for _, by := range e.by {
		e.node.send(by, e.peer, func() {
			if done {
				return
			}
			done = true
			other.pair.Proof(m.now)
			other.step()
			e.peer.send(by, e.node, func() {
				e.pair.Proof(m.now)
				e.step()
			})
		})
	}
}

// data sends one packet of a flow, as datapath/relay does: by the way in use and those that hedge it.
func (e *meshEnd) data(got func()) {
	m := e.node.m
	if e.state == fleet.ReachDown {
		return
	}
	e.pair.Sending(m.now)
	other := e.peer.ends[e.node.id]
	e.hedges, e.hedged = max(0, e.hedges-hedgeRate*(m.now-e.hedged).Seconds()), m.now
	first := true
	for _, w := range []int{e.choice.Use, e.choice.Hedge[0], e.choice.Hedge[1]} {
		if w < 0 {
			continue
		}
		if w != e.choice.Use {
			if e.hedges++; e.hedges > hedgeBurst {
				e.hedges = hedgeBurst
				continue
			}
		}
		e.count.data++
		e.node.send(e.by[w], e.peer, func() {
			other.pair.Data(w, m.now)
			if first {
				first = false
				other.got = append(other.got, m.now)
				if got != nil {
					got()
				}
			}
		})
	}
}

// talk makes two nodes exchange requests and answers of several packets, with pauses of every length.
func (m *mesh) talk(a, b *meshNode, pause time.Duration) {
	ea, eb := a.ends[b.id], b.ends[a.id]
	var round func()
	round = func() {
		if m.quiet {
			return
		}
		burst := 1 + m.rng.IntN(4)
		for i := range burst {
			last := i == burst-1
			a.add(job{m.packet, func() {
				ea.data(func() {
					if last {
						b.add(job{m.packet, func() { eb.data(nil) }})
					}
				})
			}})
		}
		m.at(m.now+time.Duration(float64(pause)*m.rng.ExpFloat64()), round)
	}
	round()
}

// count sums up what all nodes did.
func (m *mesh) sum() (c meshCount) {
	for _, n := range m.nodes {
		c.packets += n.count.packets
		c.dropped += n.count.dropped
		for _, e := range n.ends {
			c.shakes += e.count.shakes
			c.asks, c.looks, c.moves, c.falls, c.data = c.asks+e.count.asks, c.looks+e.count.looks, c.moves+e.count.moves, c.falls+e.count.falls, c.data+e.count.data
		}
	}
	return c
}

func (m *mesh) String() string {
	var b strings.Builder
	for _, n := range m.nodes {
		for _, o := range m.nodes {
			if e := n.ends[o.id]; e != nil && (e.state != fleet.ReachUp || e.pair.InUse() != 0) {
				fmt.Fprintf(&b, "%s→%s %v\n", n.name, o.name, e.pair)
			}
		}
	}
	return b.String()
}

// second lets a second pass and tells what was done in it.
func (m *mesh) second() meshCount {
	was := m.sum()
	m.run(time.Second)
	return m.sum().less(was)
}

// seconds lets several pass, and returns the most that was done in one of them, and the sum.
func (m *mesh) seconds(n int) (most, sum meshCount) {
	was := m.sum()
	for range n {
		c := m.second()
		most.packets, most.asks, most.looks, most.data = max(most.packets, c.packets), max(most.asks, c.asks), max(most.looks, c.looks), max(most.data, c.data)
	}
	return most, m.sum().less(was)
}

// TestMesh: a fleet with data between all clusters, on two processors for which other programs wait as well. A node is
// paused and resumed. None of that may make the fleet busy with itself.
//
// It is red if asks that were under way while this process stood still measure no round trip (patience then never
// learns that the machine is slow, every answer is late, and doubt asks more: 13,000 to 24,000 packets a second for good).
func TestMesh(t *testing.T) {
	for _, c := range []struct {
		programs int
		pause    time.Duration // between requests of a pair of nodes
	}{{0, 4 * ms}, {10, 4 * ms}, {20, 30 * ms}} {
		t.Run(fmt.Sprintf("%d programs, requests every %v", c.programs, c.pause), func(t *testing.T) {
			m := newMesh(1, 4, 20*ms)
			for i, n := range m.nodes {
				for _, o := range m.nodes[i+1:] {
					if n.cluster != o.cluster && (n.id+o.id)%2 == 0 && (c.pause > 10*ms || n.id%2 == 0) {
						m.talk(n, o, c.pause)
					}
				}
			}
			m.run(5 * time.Second)
			quiet, none := m.seconds(5)
			m.load(c.programs, 45*time.Second)
			_, loaded := m.seconds(10)
			m.nodes[2].pause()
			_, paused := m.seconds(5)
			m.nodes[2].resume()
			back, resumed := m.seconds(5)
			then, later := m.seconds(20)
			m.quiet = true
			m.run(70 * time.Second) // a way that failed soon after it was taken again waits for a minute
			t.Logf("handshakes: %d in the pause, %d when a node is back; packets/s: %d quiet, %d, %d then; asks/s %d, %d, %d; moves: %d, %d, %d", paused.shakes, resumed.shakes, quiet.packets,
				back.packets, then.packets, quiet.asks, back.asks, then.asks, paused.moves, resumed.moves, later.moves)
			if none.moves+none.falls+loaded.moves+loaded.falls > 0 {
				t.Errorf("nothing happened, and: quiet %+v, loaded %+v", none, loaded)
			}
			if paused.falls > len(m.nodes) || resumed.falls+later.falls > 1 {
				t.Errorf("one node is paused, and: paused %+v, resumed %+v, later %+v", paused, resumed, later)
			}
			if pairs := len(m.nodes) * (len(m.nodes) - 1); resumed.moves > pairs || later.moves > pairs/2 {
				t.Errorf("%d moves in 5 s, then %d in 20 s, of %d", resumed.moves, later.moves, pairs)
			}
			if then.packets > quiet.packets*2 || then.asks > quiet.asks*3 {
				t.Errorf("busy with itself, 5 to 25 s after a pause: %+v a second, %+v before", then, quiet)
			}
			if s := m.String(); s != "" {
				t.Errorf("at the end not direct and up:\n%s", s)
			}
		})
	}
}

// TestMeshGap: the gateway by which a stream goes stands still.
func TestMeshGap(t *testing.T) {
	for _, c := range []struct {
		programs int
		most     time.Duration
	}{{0, 100 * ms}, {10, 300 * ms}} {
		t.Run(fmt.Sprintf("%d programs", c.programs), func(t *testing.T) {
			var gaps []time.Duration
			for seed := range uint64(10) {
				m := newMesh(seed, 4, 20*ms)
				a, b := m.nodes[1], m.nodes[2]
				m.lost = func(from, to *meshNode) bool { return from == a && to == b || from == b && to == a }
				m.run(5 * time.Second)
				ea, eb := a.ends[b.id], b.ends[a.id]
				for i := range 1000 {
					m.at(m.now+time.Duration(i)*10*ms, func() {
						a.add(job{m.packet, func() { ea.data(func() { b.add(job{m.packet, func() { eb.data(nil) }}) }) }})
					})
				}
				m.load(c.programs, 10*time.Second)
				m.run(2*time.Second + time.Duration(m.rng.Int64N(int64(time.Second))))
				by := ea.by[ea.pair.InUse()]
				if by == nil {
					t.Fatalf("seed %d: by %v", seed, ea.pair)
				}
				by.pause()
				at, from := m.now, len(ea.got)
				m.run(2 * time.Second)
				gap := time.Duration(0)
				for i, g := range ea.got[from:] {
					if i == 0 {
						gap = g - at
						continue
					}
					gap = max(gap, g-ea.got[from+i-1])
				}
				gaps = append(gaps, max(gap, m.now-ea.got[len(ea.got)-1]))
			}
			slices.Sort(gaps)
			t.Log(gaps)
			if worst := gaps[len(gaps)-1]; worst > c.most {
				t.Errorf("longest gap %v", worst)
			}
		})
	}
}
