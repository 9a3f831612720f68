package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/datapath/wg"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/tunnel"
)

// way is one way from a sender's namespace to a receiver's, ready to use.
type way struct {
	name     string
	from, to *netnstest.NS
	addr     netip.Addr // of the receiver
	source   netip.Addr // of the sender
	procs    []int      // the processes that carry the packets
}

// workshop makes ways and removes everything at the end. It is the namespaces' [netnstest.TB].
type workshop struct {
	ctx      context.Context
	dir      string
	profile  string
	cleanups []func()
}

// Helper implements [netnstest.TB].
func (*workshop) Helper() {}

// failure carries an error through netnstest's calls, which cannot return one.
type failure struct{ error }

// Fatalf implements [netnstest.TB]: it unwinds to [workshop.make].
func (*workshop) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// Cleanup implements [netnstest.TB].
func (w *workshop) Cleanup(f func()) { w.cleanups = append(w.cleanups, f) }

func (w *workshop) close() {
	for i := len(w.cleanups) - 1; i >= 0; i-- {
		w.cleanups[i]()
	}
}

// make calls a maker and turns what it panics with into an error.
func (w *workshop) make(f func(*workshop) way) (v way, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	return f(w), nil
}

func (w *workshop) must(err error) {
	if err != nil {
		w.Fatalf("%w", err)
	}
}

func (w *workshop) ns(name string) *netnstest.NS {
	n := netnstest.New(w, "swbench-"+name)
	w.must(n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }))
	return n
}

// start runs this program in another role, or another program, in a namespace.
func (w *workshop) start(n *netnstest.NS, name string, args ...string) int {
	cmd := n.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	w.must(cmd.Start())
	w.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		if os.Getenv("BENCH_DEBUG") != "" {
			fmt.Println(out.String())
		}
	})
	return cmd.Process.Pid // nsenter becomes the program
}

func (w *workshop) self() string {
	exe, err := os.Executable()
	w.must(err)
	return exe
}

// underlay joins machines by one veth pair for each pair of them, and returns their addresses by pair.
func underlay(a *netnstest.NS, b *netnstest.NS, link, net string) (aAddr, bAddr netip.Addr) {
	netnstest.Veth(a, link, b, link)
	a.IP("addr add " + net + ".1/24 dev " + link)
	b.IP("addr add " + net + ".2/24 dev " + link)
	return netip.MustParseAddr(net + ".1"), netip.MustParseAddr(net + ".2")
}

// pod makes a pod's namespace and links it to a slice's (or host's) as the agent does.
func (w *workshop) pod(host *netnstest.NS, addr netip.Addr, link string, mtu int) *netnstest.NS {
	p := w.ns("pod")
	netnstest.Veth(host, link, p, plan.PodLink)
	host.IP(fmt.Sprintf("link set %s mtu %d", link, mtu))
	p.IP(fmt.Sprintf("link set %s mtu %d", plan.PodLink, mtu))
	host.IP(fmt.Sprintf("addr add %s/32 dev %s", plan.Gateway4, link))
	host.IP(fmt.Sprintf("route add %s/32 dev %s", addr, link))
	p.IP(fmt.Sprintf("addr add %s/32 dev %s", addr, plan.PodLink))
	p.IP(fmt.Sprintf("route add %s/32 dev %s", plan.Gateway4, plan.PodLink))
	p.IP(fmt.Sprintf("route add 10.77.0.0/16 via %s dev %s src %s", plan.Gateway4, plan.PodLink, addr))
	return p
}

var (
	podA = netip.MustParseAddr("10.77.1.1")
	podB = netip.MustParseAddr("10.77.2.1")
)

func plainVeth(w *workshop) way {
	a, b := w.ns("veth"), w.ns("veth")
	x, y := underlay(a, b, "eth0", "10.66.0")
	return way{from: a, to: b, source: x, addr: y}
}

func vxlan(w *workshop) way {
	a, b := w.ns("vxlan"), w.ns("vxlan")
	x, y := underlay(a, b, "eth0", "10.66.1")
	a.IP(fmt.Sprintf("link add vx0 type vxlan id 7 remote %s dstport 4789 dev eth0", y))
	b.IP(fmt.Sprintf("link add vx0 type vxlan id 7 remote %s dstport 4789 dev eth0", x))
	for n, addr := range map[*netnstest.NS]string{a: "10.67.0.1", b: "10.67.0.2"} {
		n.IP("link set vx0 up")
		n.IP("addr add " + addr + "/24 dev vx0")
	}
	a.IP(fmt.Sprintf("route add %s/32 via 10.67.0.2", podB))
	b.IP(fmt.Sprintf("route add %s/32 via 10.67.0.1", podA))
	return way{from: w.pod(a, podA, "pod0", 1450), to: w.pod(b, podB, "pod0", 1450), source: podA, addr: podB}
}

func bareWireGuard(w *workshop) way {
	a, b := w.ns("bare"), w.ns("bare")
	x, y := underlay(a, b, "eth0", "10.66.2")
	ka, err := wg.NewPrivateKey()
	w.must(err)
	kb, err := wg.NewPrivateKey()
	w.must(err)
	v := way{from: a, to: b, source: podA, addr: podB}
	for _, s := range []struct {
		n     *netnstest.NS
		c     bareConf
		addr  netip.Addr
		other netip.Addr
	}{
		{a, bareConf{ka.Bytes(), kb.Public(), netip.AddrPortFrom(y, 51820).String(), 51820}, podA, podB},
		{b, bareConf{kb.Bytes(), ka.Public(), netip.AddrPortFrom(x, 51820).String(), 51820}, podB, podA},
	} {
		conf, err := json.Marshal(s.c)
		w.must(err)
		v.procs = append(v.procs, w.start(s.n, w.self(), "-role", "wireguard", "-conf", string(conf)))
		w.waitLink(s.n, "wg0")
		s.n.IP(fmt.Sprintf("addr add %s/32 dev wg0", s.addr))
		s.n.IP("link set wg0 up")
		s.n.IP(fmt.Sprintf("route add %s/32 dev wg0", s.other))
	}
	return v
}

func (w *workshop) waitLink(n *netnstest.NS, link string) {
	w.wait("link "+link, func() error {
		return exec.Command("ip", "-n", n.Name, "link", "show", link).Run()
	})
}

// wait retries until f succeeds.
func (w *workshop) wait(what string, f func() error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(15 * time.Second); ; <-tick.C {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(limit) || w.ctx.Err() != nil {
			w.Fatalf("wait for %s: %w", what, err)
		}
	}
}

// seawayNode is a machine with a tunnel process and, unless it only relays, a slice.
type seawayNode struct {
	w      *workshop
	id     string
	host   *netnstest.NS
	slice  *netnstest.NS
	client *tunnel.Client
	pid    int
	key    fleet.Key
	want   plan.Tunnel
}

func (w *workshop) seawayNode(id string, host *netnstest.NS) *seawayNode {
	dir, err := os.MkdirTemp(w.dir, "node")
	w.must(err)
	conf, err := json.Marshal(map[string]any{"Socket": filepath.Join(dir, "s"), "RunDir": dir, "StateDir": dir, "Port": fleet.DefaultPort})
	w.must(err)
	n := &seawayNode{w: w, id: id, host: host, client: tunnel.NewClient(filepath.Join(dir, "s")), want: plan.Tunnel{Port: fleet.DefaultPort}}
	n.pid = w.start(host, w.self(), "-role", "tunnel", "-profile", w.profile, "-conf", string(conf))
	w.wait("the tunnel process", func() error {
		_, err := n.client.Status(w.ctx)
		return err
	})
	return n
}

const seawayMTU = 1420

func (n *seawayNode) join(addr netip.Addr) (pod *netnstest.NS) {
	n.slice = n.w.ns("slice")
	key, err := n.client.EnsureKey(n.w.ctx, "bench")
	n.w.must(err)
	n.key = key
	n.want.Devices = []plan.Device{{Slice: "bench", NetNS: n.slice.Path, Link: plan.TunLink, MTU: seawayMTU}}
	return n.w.pod(n.slice, addr, "pod0", seawayMTU)
}

func (n *seawayNode) peer(other *seawayNode, addr netip.Addr, paths ...plan.Path) {
	p := plan.Peer{ID: other.id, Key: other.key, Allowed: []netip.Prefix{netip.PrefixFrom(addr, 32)}, Paths: paths}
	n.want.Devices[0].Peers = append(n.want.Devices[0].Peers, p)
}

func (n *seawayNode) put() {
	r, err := n.client.Put(n.w.ctx, n.want)
	if err == nil && len(r.Problems) > 0 {
		err = errors.New(r.Problems[0].Message)
	}
	n.w.must(err)
	if n.slice != nil {
		for _, p := range n.want.Devices[0].Peers {
			n.slice.IP(fmt.Sprintf("route replace %s dev %s", p.Allowed[0], plan.TunLink))
		}
	}
}

func seawaySameNode(w *workshop) way {
	slice := w.ns("slice")
	return way{from: w.pod(slice, podA, "pod0", seawayMTU), to: w.pod(slice, podB, "pod1", seawayMTU), source: podA, addr: podB}
}

func seawayDirect(w *workshop) way {
	ha, hb := w.ns("direct"), w.ns("direct")
	x, y := underlay(ha, hb, "eth0", "10.66.3")
	a, b := w.seawayNode("c1/a", ha), w.seawayNode("c2/b", hb)
	v := way{from: a.join(podA), to: b.join(podB), source: podA, addr: podB, procs: []int{a.pid, b.pid}}
	a.peer(b, podB, plan.Path{Endpoint: netip.AddrPortFrom(y, fleet.DefaultPort)})
	b.peer(a, podA, plan.Path{Endpoint: netip.AddrPortFrom(x, fleet.DefaultPort)})
	a.put()
	b.put()
	return v
}

func seawayRelayed(w *workshop) way {
	ha, hb, hg := w.ns("relay"), w.ns("relay"), w.ns("gateway")
	_, ga := underlay(ha, hg, "eth0", "10.66.4")
	bAddr, _ := underlay(hb, hg, "eth1", "10.66.5")
	a, b, g := w.seawayNode("c1/a", ha), w.seawayNode("c2/b", hb), w.seawayNode("c2/g", hg)
	v := way{from: a.join(podA), to: b.join(podB), source: podA, addr: podB, procs: []int{a.pid, b.pid, g.pid}}
	a.peer(b, podB, plan.Path{Endpoint: netip.AddrPortFrom(ga, fleet.DefaultPort), Relay: g.id})
	b.peer(a, podA)
	g.want.Relay = []plan.Target{{Key: b.key, ID: b.id, Slice: "bench", Endpoints: []netip.AddrPort{netip.AddrPortFrom(bAddr, fleet.DefaultPort)}}}
	g.put()
	b.put()
	a.put()
	return v
}
