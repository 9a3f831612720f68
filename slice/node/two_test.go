package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/tunnel"
)

// TestTwoNodes runs two whole nodes, each with its agent, tunnel process and pods, in one process: kernel, WireGuard
// and UDP are real, the container runtime and the controllers are fakes. Pods of one cluster reach those of another.
func TestTwoNodes(t *testing.T) {
	netnstest.NeedRoot(t)
	duo := newDuo(t, "10.77.0.0/16", "fd77::/64")
	one, two := duo.one, duo.two
	duo.pod(t, one, "a", "10.77.0.1 fd77::1")
	b := duo.pod(t, two, "b", "10.77.16.1 fd77::2")
	d := duo.pod(t, two, "d", "10.77.16.2 fd77::3")
	service := fleet.Service{Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr("10.77.15.1")},
		Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}}
	for _, p := range []fleet.Pod{b, d} {
		service.Endpoints = append(service.Endpoints, fleet.Endpoint{
			Cluster: "c2", Addrs: p.Addrs, Ready: true, Ports: map[string]uint16{"http": 8080},
		})
		podtest.Serve(t, two.running[p.UID].NS, p.UID, "tcp", netip.MustParseAddrPort("[::]:8080"))
	}
	duo.services = []fleet.Service{service}
	duo.begin(t)

	targets := map[netip.Addr]time.Duration{}
	for _, p := range []fleet.Pod{b, d} {
		for _, addr := range p.Addrs {
			targets[addr] = 10 * time.Second
		}
	}
	started := time.Now()
	silent, err := datapath.Probe(t.Context(), one.running["a"].NS, targets)
	if err != nil || len(silent) > 0 {
		t.Fatalf("from a to the other cluster: no answer from %v, %v", silent, err)
	}
	t.Logf("all addresses in the other cluster answered after %v", time.Since(started))
	got := map[string]int{}
	for range 30 {
		s, err := podtest.Ask(t, one.running["a"].NS, "tcp", netip.MustParseAddrPort("10.77.15.1:80"))
		if err != nil {
			t.Fatalf("the service: %v", err)
		}
		got[s]++
	}
	if got["b 10.77.0.1"] < 3 || got["d 10.77.0.1"] < 3 || len(got) != 2 {
		t.Errorf("answers of the service: %v, want both, to a's own address", got)
	}
}

// TestNodeDies: a node goes, and by nothing but what the tunnels measure of each other those who talk to its pods are
// told, while the controllers say nothing; it comes back, and is reached again.
func TestNodeDies(t *testing.T) {
	netnstest.NeedRoot(t)
	duo := newDuo(t, "10.77.0.0/16")
	one, two := duo.one, duo.two
	duo.pod(t, one, "a", "10.77.0.1")
	b := duo.pod(t, two, "b", "10.77.16.1")
	podtest.Serve(t, two.running["b"].NS, "b", "tcp", netip.MustParseAddrPort("[::]:8080"))
	duo.services = []fleet.Service{{Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr("10.77.15.1")},
		Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}, Endpoints: []fleet.Endpoint{{
			Cluster: "c2", Node: "n2", Addrs: b.Addrs, Ready: true, Ports: map[string]uint16{"http": 8080}}}}}
	duo.begin(t)

	ask := func(to string, good func(error) bool) (took time.Duration) {
		t.Helper()
		started := time.Now()
		for {
			_, err := podtest.Ask(t, one.running["a"].NS, "tcp", netip.MustParseAddrPort(to))
			if good(err) {
				return time.Since(started)
			}
			if time.Since(started) > time.Minute {
				t.Fatalf("%s: still %v", to, err)
			}
		}
	}
	fine := func(err error) bool { return err == nil }
	ask("10.77.15.1:80", fine)
	ask("10.77.16.1:8080", fine)
	// Measured each other, they can miss each other.
	measured := func(p fleet.PeerState) bool { return p.Slice == "pay" && p.State == fleet.ReachUp }
	one.until(t, "the other measured", func(r fleet.Report) bool {
		return slices.ContainsFunc(r.Peers, measured) && !slices.ContainsFunc(r.Problems, unreachable)
	})
	type end struct {
		to  string
		err error
	}
	woken := make(chan end, 2)
	for _, to := range []string{"10.77.15.1:80", "10.77.16.1:8080"} {
		c, err := podtest.Dial(one.running["a"].NS, netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Ask(); err != nil {
			t.Fatal(err)
		}
		go func() {
			woken <- end{to, c.Wait(time.Minute)}
		}()
	}
	died := time.Now()
	two.stopTunnel()
	for range 2 {
		e := <-woken
		if !errors.Is(e.err, syscall.ECONNABORTED) {
			t.Fatalf("a silent reader of %s was not woken, after %v: %v; problems %+v", e.to, time.Since(died), e.err, one.controller.last(t).Problems)
		}
		t.Logf("a silent reader was woken after %v", time.Since(died))
	}
	refused := func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
	t.Logf("dials to the service refused after another %v", ask("10.77.15.1:80", refused))
	ask("10.77.16.1:8080", refused)
	one.until(t, "that the service cannot be reached", func(r fleet.Report) bool { return slices.ContainsFunc(r.Problems, unreachable) })

	two.startTunnel()
	t.Logf("back after %v", ask("10.77.15.1:80", fine))
	ask("10.77.16.1:8080", fine)
	one.until(t, "that it can again", func(r fleet.Report) bool { return !slices.ContainsFunc(r.Problems, unreachable) })
}

func unreachable(p fleet.Problem) bool { return p.Reason == "ServiceUnreachable" }

// site is a node with everything on it.
type site struct {
	cluster, name string
	controller    fakeController
	port          uint16
	running       map[string]*podtest.Pod
	boxes         podtest.Sandboxes
	machine       *podtest.Node

	startTunnel, stopTunnel func() // the power of the node's network
	startAgent, stopAgent   func() // each life of the agent knows nothing of the one before but what it wrote down
}

func newSite(t *testing.T, cluster, name string) *site {
	t.Helper()
	s := &site{cluster: cluster, name: name, running: map[string]*podtest.Pod{}, machine: podtest.NewNode(t), port: freePort(t)}
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	socket := filepath.Join(dir, "t.sock")
	client := tunnel.NewClient(socket)
	var kernel *datapath.Kernel
	s.startTunnel = func() {
		ctx, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		s.stopTunnel = sync.OnceFunc(func() { // again by the clean-up
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		go func() {
			ended <- tunnel.Run(ctx, tunnel.Config{
				Socket: socket, RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), Port: s.port, Log: log,
			})
		}()
	}
	s.startTunnel()
	s.startAgent = func() {
		ctx, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		kernel = datapath.New(datapath.Config{NetNSDir: filepath.Join(dir, "run/netns"), Sandboxes: &s.boxes, Log: log})
		life := kernel
		s.stopAgent = sync.OnceFunc(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			s.controller.forget()
		})
		go func() {
			done <- Run(ctx, Config{
				Node: name, Controller: "http://controller", Transport: &s.controller, RunDir: filepath.Join(dir, "run"),
				StateDir: filepath.Join(dir, "state"), HostRoot: "/", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
				Port: s.port, MTU: 1500, Tunnel: client, Datapath: life, Pods: noPods{}, Log: log,
			})
		}()
	}
	s.startAgent()
	t.Cleanup(func() {
		if err := client.Purge(context.Background()); err != nil {
			t.Error(err)
		}
		s.stopTunnel()
		s.stopAgent()
		cancel()
		if err := kernel.Purge(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// noPods sees no sandbox come or go: they run from the start.
type noPods struct{}

func (noPods) Watch(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }

func (noPods) Ready(context.Context, []string) bool { return false }

func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func (s *site) pod(t *testing.T, uid, addrs string) fleet.Pod {
	t.Helper()
	p := s.machine.Pod(t, uid)
	s.running[uid] = p
	s.boxes.Set(uid, p.NS)
	t.Cleanup(func() { s.boxes.Set(uid, nil) })
	out := fleet.Pod{UID: uid, Namespace: "shop", Name: uid, Slice: "pay", Cluster: s.cluster, Node: s.name}
	for _, a := range strings.Fields(addrs) {
		out.Addrs = append(out.Addrs, netip.MustParseAddr(a))
	}
	return out
}

// node is what the others are told of it.
func (s *site) node(t *testing.T) fleet.Node {
	t.Helper()
	r := s.until(t, "its whereabouts", func(r fleet.Report) bool { return len(r.Addrs) > 0 })
	return fleet.Node{Name: s.name, Cluster: s.cluster, Addrs: r.Addrs, Port: r.Port, MTU: r.MTU, Keys: r.Keys}
}

func (c *fakeController) heard() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams) > 0
}

// until waits for a report that satisfies a condition.
func (s *site) until(t *testing.T, what string, ok func(fleet.Report) bool) fleet.Report {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		s.controller.mu.Lock()
		var r fleet.Report
		if n := len(s.controller.reports); n > 0 {
			r = s.controller.reports[n-1]
		}
		s.controller.mu.Unlock()
		if r.Node != "" && ok(r) {
			return r
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: no report of %s; the last one: %+v", s.name, what, r)
		}
	}
}
