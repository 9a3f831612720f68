package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"seaway.dev/seaway/scale"
)

// pod is one replica. Times are seconds since the start; math.Inf until they are known.
type pod struct {
	id                        int
	created, scheduled, ready float64
	pulled                    float64
	node                      *node
	newNode                   bool
	queue                     state // the requests in it, while it warms up
}

// node is one machine.
type node struct {
	id           int
	asked, ready float64
	cached       bool // has the image
	pods         []*pod
	empty        float64 // since when nothing runs on it
	fails        bool    // never becomes ready; ready is then when that is noticed
}

// cluster is the pods and nodes of one service. Pods wait for room in order; the scheduler fills the fullest node
// first, and scaling down takes pods that are not ready first, then those on the emptiest node: what node autoscalers
// that consolidate come to soon after.
type cluster struct {
	p     Profile
	perN  int // pods a node takes; 0: no nodes
	pods  *rand.Rand
	made  *rand.Rand
	epoch time.Time

	pending  []*pod // not scheduled
	starting []*pod // scheduled, not ready
	young    []*pod // ready, still warming up
	nodes    []*node
	ordered  []*node   // asked for, not ready
	leaving  []float64 // when each terminating pod is gone
	warm     int       // ready, warmed up
	steady   []*pod    // those, in the order of their readiness
	wait     float64   // warm-up, seconds
	scan     float64   // next look of the node autoscaler
	nextPod  int
	nextNode int
	spare    int
	now      float64
	starts   []scale.Start // finished since last asked
}

func newCluster(p Profile, perNode int, warm float64, epoch time.Time, seed uint64) *cluster {
	return &cluster{p: p, perN: perNode, wait: warm, epoch: epoch,
		pods: rand.New(rand.NewPCG(seed, 2)), made: rand.New(rand.NewPCG(seed, 3))}
}

// begin puts n warm pods onto their nodes.
func (c *cluster) begin(n int) {
	for range n {
		p := &pod{id: c.nextPod, ready: -c.wait}
		c.nextPod++
		if c.perN > 0 {
			nd := c.room()
			if nd == nil {
				nd = &node{id: c.nextNode, cached: true}
				c.nextNode++
				c.nodes = append(c.nodes, nd)
			}
			p.node = nd
			nd.pods = append(nd.pods, p)
		}
		c.steady = append(c.steady, p)
	}
	c.warm = n
}

// replicas is how many pods are wanted and not terminating.
func (c *cluster) replicas() int {
	return len(c.pending) + len(c.starting) + len(c.young) + len(c.steady)
}

func (c *cluster) readyPods() int { return len(c.young) + len(c.steady) }

// billed is what is paid for now: pods from creation until they are gone, nodes from the request for them on.
func (c *cluster) billed() (pods, nodes int) {
	return c.replicas() + len(c.leaving), len(c.nodes) + len(c.ordered)
}

// scaleTo makes or removes pods.
func (c *cluster) scaleTo(n int, now float64) {
	for c.replicas() < n {
		c.pending = append(c.pending, &pod{id: c.nextPod, created: now, ready: math.Inf(1)})
		c.nextPod++
	}
	for c.replicas() > n {
		switch {
		case len(c.pending) > 0:
			c.pending = c.pending[:len(c.pending)-1]
		case len(c.starting) > 0:
			p := c.starting[len(c.starting)-1]
			c.starting = c.starting[:len(c.starting)-1]
			c.leave(p, now)
		default:
			c.leave(c.victim(), now)
		}
	}
}

// victim takes a ready pod out of service: from the emptiest node, the youngest there.
func (c *cluster) victim() *pod {
	var best *pod
	fill := math.MaxInt
	for _, list := range [][]*pod{c.young, c.steady} {
		for i := len(list) - 1; i >= 0; i-- {
			p := list[i]
			if p.node == nil {
				c.drop(p)
				return p
			}
			if len(p.node.pods) < fill {
				best, fill = p, len(p.node.pods)
			}
		}
	}
	c.drop(best)
	return best
}

// drop takes a pod out of the lists of those that serve.
func (c *cluster) drop(p *pod) {
	c.young = without(c.young, p)
	if n := len(c.steady); n > 0 {
		c.steady = without(c.steady, p)
	}
	c.warm = len(c.steady)
}

func without(list []*pod, p *pod) []*pod {
	for i, q := range list {
		if q == p {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

func (c *cluster) leave(p *pod, now float64) {
	c.leaving = append(c.leaving, now+c.p.Grace.Seconds())
	if p.node != nil {
		p.node.pods = without(p.node.pods, p)
		p.node.empty = now
	}
}

// step brings pods and nodes to the second now. It calls warmed for each pod that has warmed up.
func (c *cluster) step(now float64, warmed func(*pod)) {
	c.now = now
	keep := c.leaving[:0]
	for _, t := range c.leaving {
		if t > now {
			keep = append(keep, t)
		}
	}
	c.leaving = keep
	if c.perN > 0 {
		c.stepNodes(now)
	}
	c.schedule(now)
	start := c.starting[:0]
	for _, p := range c.starting {
		if p.ready > now {
			start = append(start, p)
			continue
		}
		if p.node != nil {
			p.node.cached = true
		}
		c.young = append(c.young, p)
		c.starts = append(c.starts, c.podStart(p))
	}
	c.starting = start
	if len(c.young) > 0 {
		young := c.young[:0]
		for _, p := range c.young {
			if now-p.ready < c.wait {
				young = append(young, p)
				continue
			}
			warmed(p)
			c.steady = append(c.steady, p)
		}
		c.young = young
	}
	c.warm = len(c.steady)
}

func (c *cluster) schedule(now float64) {
	for len(c.pending) > 0 {
		p := c.pending[0]
		span := c.p.Cached
		if c.perN > 0 {
			nd := c.room()
			if nd == nil {
				break
			}
			if !nd.cached {
				span = c.p.Pulled
			}
			p.newNode = nd.asked > p.created
			p.node = nd
			nd.pods = append(nd.pods, p)
		}
		c.pending = c.pending[1:]
		p.scheduled = now
		took := span.draw(c.pods)
		p.ready = now + 1 + took
		p.pulled = p.scheduled
		if span == c.p.Pulled {
			p.pulled = now + max(0, took-c.p.Cached.Median.Seconds())
		}
		c.starting = append(c.starting, p)
	}
}

// room is the fullest node that takes one more pod.
func (c *cluster) room() (best *node) {
	for _, n := range c.nodes {
		if len(n.pods) < c.perN && (best == nil || len(n.pods) > len(best.pods)) {
			best = n
		}
	}
	return best
}

func (c *cluster) stepNodes(now float64) {
	wait := c.ordered[:0]
	for i, n := range c.ordered {
		if c.p.AtOnce > 0 && i >= c.p.AtOnce { // in the provider's queue: its time has not begun
			n.ready++
		}
		switch {
		case n.ready > now:
			wait = append(wait, n)
		case n.fails:
			c.starts = append(c.starts, c.nodeStart(n))
		default:
			n.empty = now
			c.nodes = append(c.nodes, n)
			c.starts = append(c.starts, c.nodeStart(n))
		}
	}
	c.ordered = wait
	if now >= c.scan {
		c.scan = now + c.p.Scan.Seconds()
		c.order(now)
		c.reap(now)
	}
}

// order asks for the nodes that pending pods and the spare room need. A node that will fail is believed in until then.
func (c *cluster) order(now float64) {
	free := len(c.ordered) * c.perN
	for _, n := range c.nodes {
		free += c.perN - len(n.pods)
	}
	for need := len(c.pending) + c.spare*c.perN; free < need; free += c.perN {
		n := &node{id: c.nextNode, asked: now, ready: now + c.p.Node.draw(c.made)}
		if c.made.Float64() < c.p.NodeFails {
			n.fails, n.ready = true, now+c.p.GiveUp.Seconds()*(0.5+0.5*c.made.Float64())
		}
		c.nextNode++
		c.ordered = append(c.ordered, n)
	}
}

// reap removes nodes that have been empty for long enough and are not wanted as spare room.
func (c *cluster) reap(now float64) {
	free := 0
	for _, n := range c.nodes {
		free += c.perN - len(n.pods)
	}
	keep := c.nodes[:0]
	for _, n := range c.nodes {
		if len(n.pods) == 0 && now-n.empty >= c.p.Linger.Seconds() && free-c.perN >= c.spare*c.perN {
			free -= c.perN
			continue
		}
		keep = append(keep, n)
	}
	c.nodes = keep
}

// kill lets count nodes fail, with all that runs on them; the pods are made anew.
func (c *cluster) kill(count int, now float64) (lost []*pod) {
	for ; count > 0 && len(c.nodes) > 0; count-- {
		n := c.nodes[0]
		for _, o := range c.nodes { // the fullest: the worst case
			if len(o.pods) > len(n.pods) {
				n = o
			}
		}
		for i, o := range c.nodes {
			if o == n {
				c.nodes = append(c.nodes[:i], c.nodes[i+1:]...)
				break
			}
		}
		want := c.replicas()
		for _, p := range append([]*pod(nil), n.pods...) {
			if !math.IsInf(p.ready, 1) && p.ready <= now {
				lost = append(lost, p)
			}
			c.starting = without(c.starting, p)
			c.drop(p)
		}
		c.scaleTo(want, now)
	}
	return lost
}

// age is for how long a pod has been ready.
func (c *cluster) age(p *pod) float64 { return c.now - p.ready }

func (c *cluster) at(s float64) time.Time {
	return c.epoch.Add(time.Duration(s * float64(time.Second)))
}

func (c *cluster) podStart(p *pod) scale.Start {
	return scale.Start{Name: fmt.Sprintf("pod-%d", p.id), Cluster: "sim", Provider: c.p.Name, Pool: "default", Image: "app",
		Created: c.at(p.created), Scheduled: c.at(p.scheduled), Pulled: c.at(p.pulled), Ready: c.at(p.ready), NewNode: p.newNode}
}

func (c *cluster) nodeStart(n *node) scale.Start {
	s := scale.Start{Name: fmt.Sprintf("node-%d", n.id), Cluster: "sim", Provider: c.p.Name, Pool: "default",
		Created: c.at(n.asked), NewNode: true, Failed: n.fails}
	if !n.fails {
		s.Ready = c.at(n.ready)
	}
	return s
}
