package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/bulletin/post"
	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/fleet"
)

// carryPort is the TCP port of carriers on the management slice: nothing else listens in that namespace.
const carryPort = 51871

// Times of carrying.
const (
	carryLook = time.Second     // between looks at what changed
	dialLimit = 3 * time.Second // for reaching another carrier
	dialWait  = time.Second     // before the next try, longer each time
	dialMost  = 10 * time.Second
)

// Abroad is the network on which carriers of bulletins meet: the management slice's namespace, or a test's.
type Abroad interface {
	// Listen listens on a port of all addresses there; the error is [fs.ErrNotExist] while there is no such network.
	Listen(port uint16) (net.Listener, error)
	// ID changes when the network was made anew: what listens in the old one hears nothing any more. 0 is none.
	ID() uint64
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// carrier carries bulletins, if the intent says so.
type carrier struct {
	a      *agent
	office *post.Office
	store  *bulletin.Store

	mu    sync.Mutex
	carry *fleet.Carry // nil: it does not
	self  post.Peer
}

func newCarrier(a *agent) *carrier {
	c := &carrier{a: a}
	c.store = bulletin.NewStore(c.signer)
	return c
}

func (c *carrier) signer(cluster string) (fleet.Key, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.carry == nil {
		return fleet.Key{}, false
	}
	k, ok := c.carry.Signers[cluster]
	return k, ok
}

// state returns how it goes with the carriers of other clusters.
func (c *carrier) state() []fleet.CarryState {
	c.mu.Lock()
	office, self := c.office, c.self
	c.mu.Unlock()
	if office == nil {
		return nil
	}
	home := post.Peer{Cluster: self.Cluster}.ID()
	return slices.DeleteFunc(office.States(), func(s fleet.CarryState) bool { return s.Peer == home })
}

// run carries whenever the intent says so, until ctx ends.
func (c *carrier) run(ctx context.Context) error {
	tasks := crew{ctx: ctx, running: map[string]*task{}}
	defer tasks.stop()
	var told []fleet.CarryState
	look := time.NewTicker(carryLook)
	defer look.Stop()
	for {
		c.assign(&tasks)
		if now := c.state(); !reflect.DeepEqual(now, told) {
			told = now
			poke(c.a.dirty)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// assign gives each task its work as the newest intent says.
func (c *carrier) assign(tasks *crew) {
	c.a.mu.Lock()
	in := c.a.intent
	c.a.mu.Unlock()
	if in == nil || in.Carry == nil || in.Purge {
		tasks.only(nil)
		c.mu.Lock()
		c.carry = nil
		c.mu.Unlock()
		return
	}
	c.mu.Lock()
	fresh := c.carry != in.Carry
	var learnt []string
	if c.carry != nil {
		for name, key := range in.Carry.Signers {
			if c.carry.Signers[name] != key {
				learnt = append(learnt, name)
			}
		}
	}
	c.carry = in.Carry
	if self := (post.Peer{Cluster: in.Cluster, Node: in.Node}); c.office == nil || c.self != self {
		c.self = self
		c.office = post.New(post.Config{Cluster: self.Cluster, Node: self.Node, Store: c.store, Log: c.a.log})
	}
	office := c.office
	c.mu.Unlock()

	work := map[string]job{
		"home":   {run: func(ctx context.Context) { c.home(ctx, office) }},
		"listen": {id: fmt.Sprint(c.a.cfg.Abroad.ID()), run: func(ctx context.Context) { c.listen(ctx, office) }},
	}
	for cluster, peers := range dialled(in.Carry.Peers) {
		work["dial "+cluster] = job{id: fmt.Sprint(peers), run: func(ctx context.Context) { c.dial(ctx, office, peers) }}
	}
	tasks.only(work)
	if !fresh {
		return
	}
	known := map[post.Peer]bool{{Cluster: in.Cluster}: true}
	for _, p := range in.Carry.Peers {
		known[post.Peer{Cluster: p.Cluster, Node: p.Node}] = true
	}
	office.Keep(func(p post.Peer) bool { return known[p] })
	c.store.Keep(func(cluster string) bool { _, ok := in.Carry.Signers[cluster]; return ok })
	for _, cluster := range learnt {
		office.Ask(cluster)
	}
}

// dialled lists, for each cluster that this node dials, its carriers in the order in which to try them.
func dialled(peers []fleet.CarryPeer) map[string][]post.Peer {
	byCluster := map[string][]fleet.CarryPeer{}
	for _, p := range peers {
		if p.Dial {
			byCluster[p.Cluster] = append(byCluster[p.Cluster], p)
		}
	}
	out := map[string][]post.Peer{}
	for cluster, list := range byCluster {
		slices.SortFunc(list, func(a, b fleet.CarryPeer) int { return cmp.Compare(a.Spare, b.Spare) })
		for _, p := range list {
			out[cluster] = append(out[cluster], post.Peer{Cluster: p.Cluster, Node: p.Node})
		}
	}
	return out
}

// dial keeps a session with one of a cluster's carriers.
func (c *carrier) dial(ctx context.Context, office *post.Office, peers []post.Peer) {
	for attempt := 0; ; attempt++ {
		peer := peers[attempt%len(peers)]
		to := netip.AddrPortFrom(fleet.ManagementAddr(peer.Cluster, peer.Node), carryPort)
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, dialLimit)
		conn, err := c.a.cfg.Abroad.Dial(limited, to)
		cancel()
		if err != nil {
			office.Failed(peer, fmt.Errorf("dial carrier %s on the management slice: %w", peer.ID(), err))
		} else {
			err = office.Serve(ctx, conn, peer)
			if errors.Is(err, post.ErrShut) {
				office.Failed(peer, err)
			}
			if time.Since(began) > dialMost {
				attempt = -1 // it worked for a while: begin again with the first one
			}
		}
		pause := min(dialWait*time.Duration(1+max(attempt, 0)/len(peers)), dialMost)
		if !wait(ctx, pause/2+rand.N(pause)) {
			return
		}
	}
}

// listen takes other clusters' carriers in.
func (c *carrier) listen(ctx context.Context, office *post.Office) {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	l, err := c.a.cfg.Abroad.Listen(carryPort)
	for attempt := 0; err != nil; attempt++ {
		if !wait(ctx, dialWait) {
			return
		}
		l, err = c.a.cfg.Abroad.Listen(carryPort)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			if !wait(ctx, 100*time.Millisecond) { // out of descriptors, perhaps
				return
			}
			continue
		}
		peer, ok := c.caller(conn.RemoteAddr())
		if !ok {
			c.a.log.Warn("somebody who is no carrier called", "addr", conn.RemoteAddr().String())
			_ = conn.Close()
			continue
		}
		sessions.Go(func() {
			err := office.Serve(ctx, conn, peer)
			c.a.log.Info("a carrier's session ended", "peer", peer.ID(), "err", err)
		})
	}
}

// caller tells who calls, by the address: on the management slice it proves the node, since the tunnel takes an
// address from nobody but the holder of its node's key.
func (c *carrier) caller(from net.Addr) (post.Peer, bool) {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return post.Peer{}, false
	}
	addr := tcp.AddrPort().Addr().Unmap()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.carry == nil {
		return post.Peer{}, false
	}
	for _, p := range c.carry.Peers {
		if fleet.ManagementAddr(p.Cluster, p.Node) == addr {
			return post.Peer{Cluster: p.Cluster, Node: p.Node}, true
		}
	}
	return post.Peer{}, false
}

// home keeps a session with the controller.
func (c *carrier) home(ctx context.Context, office *post.Office) {
	c.mu.Lock()
	peer := post.Peer{Cluster: c.self.Cluster}
	c.mu.Unlock()
	for attempt := 0; ; attempt++ {
		began := time.Now()
		conn, err := c.a.upgrade(ctx)
		if err == nil {
			err = office.Serve(ctx, conn, peer)
		}
		if ctx.Err() != nil {
			return
		}
		c.a.log.Info("no session with the controller for bulletins", "err", err, "attempt", attempt)
		if time.Since(began) > dialMost {
			attempt = 0
		}
		if !wait(ctx, backoff(attempt)) {
			return
		}
	}
}

// upgrade makes a connection to the controller on which bulletins are exchanged.
func (a *agent) upgrade(ctx context.Context) (io.ReadWriteCloser, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	resp, err := a.request(ctx, client, http.MethodGet, "/v1/bulletins", nil, map[string]string{
		"Connection": "Upgrade", "Upgrade": "seaway-bulletins",
	})
	if err != nil {
		return nil, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the controller does not take bulletins: %s", resp.Status)
	}
	return conn, nil
}

// crew is tasks by name, each with its job.
type crew struct {
	ctx     context.Context
	running map[string]*task
}

// job is what a task does. Jobs with equal ids are the same.
type job struct {
	id  string
	run func(context.Context)
}

type task struct {
	id     string
	cancel context.CancelFunc
	done   chan struct{}
}

// only has these jobs running and no others.
func (c *crew) only(work map[string]job) {
	for name, t := range c.running {
		if j, ok := work[name]; !ok || j.id != t.id {
			t.cancel()
			<-t.done
			delete(c.running, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(work)) {
		if c.running[name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(c.ctx)
		t := &task{id: work[name].id, cancel: cancel, done: make(chan struct{})}
		c.running[name] = t
		run := work[name].run
		go func() {
			defer close(t.done)
			run(ctx)
		}()
	}
}

func (c *crew) stop() { c.only(nil) }

// management is the management slice's namespace on this node.
type management struct{ path string }

func newManagement(runDir string) management {
	return management{filepath.Join(runDir, "netns", fleet.ManagementSlice)}
}

// ID implements Abroad: the namespace's inode.
func (m management) ID() uint64 {
	ns, err := netns.Open(m.path)
	if err != nil {
		return 0
	}
	defer ns.Close()
	return ns.Inode()
}

func (m management) inside(f func() error) error {
	ns, err := netns.Open(m.path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(f)
}

// Listen implements Abroad.
func (m management) Listen(port uint16) (l net.Listener, err error) {
	err = m.inside(func() error {
		l, err = net.Listen("tcp6", net.JoinHostPort("::", fmt.Sprint(port)))
		return err
	})
	return l, err
}

// Dial implements Abroad.
func (m management) Dial(ctx context.Context, to netip.AddrPort) (conn net.Conn, err error) {
	err = m.inside(func() error {
		conn, err = (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp6", to.String())
		return err
	})
	return conn, err
}
