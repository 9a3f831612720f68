package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// internet is a router to which machines are joined.
type internet struct {
	t *testing.T
	*netnstest.NS
	n int
}

func newInternet(t *testing.T) *internet {
	netnstest.NeedRoot(t)
	r := &internet{t: t, NS: netnstest.New(t, "swtun-net")}
	if err := r.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }); err != nil {
		t.Fatal(err)
	}
	return r
}

// machine joins a machine to the internet and starts a tunnel process on it.
func (r *internet) machine(id string) *node {
	r.t.Helper()
	r.n++
	h := netnstest.New(r.t, "swtun-m")
	port := fmt.Sprintf("m%d", r.n)
	netnstest.Veth(h, "eth0", r.NS, port)
	addr := fmt.Sprintf("10.88.%d.2", r.n)
	h.IP("addr add " + addr + "/24 dev eth0")
	r.IP(fmt.Sprintf("addr add 10.88.%d.1/24 dev %s", r.n, port))
	h.IP(fmt.Sprintf("route add default via 10.88.%d.1", r.n))
	return newNode(r.t, id, h, addr)
}

// cut makes the internet lose what goes from a to b.
func (r *internet) cut(a, b *node)  { r.rule("add", a, b) }
func (r *internet) heal(a, b *node) { r.rule("del", a, b) }

func (r *internet) rule(verb string, a, b *node) {
	r.IP(fmt.Sprintf("rule %s pref 10 from %s to %s blackhole", verb, a.addr, b.addr))
}

// dropProbes loses all probes, direct and relayed, and nothing else: by the first byte of a datagram, and by that of a
// relayed message's inner one.
func (r *internet) dropProbes() {
	r.t.Helper()
	cmd := r.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(`table ip probes {
		chain forward { type filter hook forward priority filter;
			udp length >= 56 @th,64,8 0x80 drop
			udp length >= 68 @th,64,8 0x81 @th,160,8 0x80 drop
		}
	}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("nft: %v: %s", err, out)
	}
}

// nat puts a machine behind a NAT that lets nothing in but answers.
func (r *internet) nat(n *node) {
	r.t.Helper()
	rules := fmt.Sprintf(`table ip nat {
		chain natout { type nat hook postrouting priority srcnat; ip saddr %s masquerade random; }
		chain filterfwd { type filter hook forward priority filter; ip daddr %s ct state new drop; }
	}`, n.addr, n.addr)
	cmd := r.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("nft: %v: %s", err, out)
	}
}

// stream keeps a TCP connection busy from one slice address to another; it counts what arrived.
type stream struct {
	bytes atomic.Int64
	fail  atomic.Value // error
}

func (s *stream) alive() error {
	if err, ok := s.fail.Load().(error); ok {
		return err
	}
	return nil
}

func startStream(t *testing.T, from, to *netnstest.NS, addr string) *stream {
	t.Helper()
	s := &stream{}
	var l net.Listener
	if err := to.Do(func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(addr, "7000")); return err }); err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := c.Read(buf)
			s.bytes.Add(int64(n))
			if err != nil {
				if !errors.Is(err, io.EOF) {
					s.fail.Store(err)
				}
				return
			}
		}
	}()
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "7000"), 5*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		buf := make([]byte, 1<<14)
		tick := time.NewTicker(2 * time.Millisecond) // steady, not a flood: the machine is shared
		defer tick.Stop()
		for ctx.Err() == nil {
			if _, err := c.Write(buf); err != nil && ctx.Err() == nil {
				s.fail.Store(err)
				return
			}
			<-tick.C
		}
	}()
	t.Cleanup(func() { stop(); c.Close(); l.Close() })
	return s
}

// moves waits until the stream carries data again and returns how long that took.
func (s *stream) moves(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	was := s.bytes.Load()
	return eventually(t, limit, func() error {
		if err := s.alive(); err != nil {
			t.Fatal("the connection broke: ", err)
		}
		if s.bytes.Load() < was+1<<16 {
			return errors.New("the stream stands still")
		}
		return nil
	})
}

// join makes two nodes peers on a slice.
func join(name string, a, b *node, ka, kb fleet.Key, ab, ba []plan.Path) {
	a.peer(name, plan.Peer{ID: b.id, Key: kb, Allowed: prefix("10.77.2.0/24"), Paths: ab})
	b.peer(name, plan.Peer{ID: a.id, Key: ka, Allowed: prefix("10.77.1.0/24"), Paths: ba})
}

// TestTwoNodes: two tunnel processes on two machines carry a slice between them; the second PUT changes nothing.
func TestTwoNodes(t *testing.T) {
	r := newInternet(t)
	a, b := r.machine("c1/a"), r.machine("c2/b")
	ka, kb := a.slice("pay", "10.77.1.1/32"), b.slice("pay", "10.77.2.1/32")
	join("pay", a, b, ka, kb, []plan.Path{direct(b)}, []plan.Path{direct(a)})
	a.put()
	b.put()
	took := eventually(t, 5*time.Second, func() error { return a.ping("pay", "10.77.2.1") })
	t.Logf("first ping after %v; path %s", took, a.path("pay", b.id))
	if r := a.put(); r.Changes != 0 {
		t.Errorf("the same value again changed %d things", r.Changes)
	}
	s := startStream(t, a.slices["pay"], b.slices["pay"], "10.77.2.1")
	s.moves(t, 5*time.Second)
	a.want.Port = 51999
	if r := a.put(); r.Changes != 1 {
		t.Errorf("another port was %d changes", r.Changes)
	}
	s.moves(t, 5*time.Second) // b follows, as WireGuard roams
	if st, err := a.client.Status(t.Context()); err != nil || st.Port != 51999 {
		t.Errorf("port %d, %v", st.Port, err)
	}
	if p := b.path("pay", a.id); p != "direct 10.88.1.2:51999" {
		t.Errorf("b sends to %q", p)
	}
}

// TestRelay: b is reached through the gateway g, which holds no key of the slice, and whose violent death and
// resurrection do not break the connection. When the direct way opens, the session moves there by itself.
func TestRelay(t *testing.T) {
	r := newInternet(t)
	a, b, g := r.machine("c1/a"), r.machine("c2/b"), r.machine("c2/g")
	r.cut(a, b)
	r.cut(b, a)
	ka, kb := a.slice("pay", "10.77.1.1/32"), b.slice("pay", "10.77.2.1/32")
	join("pay", a, b, ka, kb, []plan.Path{direct(b), relayVia(g)}, nil)
	g.want = plan.Tunnel{Port: fleet.DefaultPort, Relay: []plan.Target{{Key: kb, ID: b.id, Slice: "pay", Endpoints: []netip.AddrPort{b.endpoint()}}}}
	for _, n := range []*node{g, a, b} {
		n.put()
	}
	took := eventually(t, 5*time.Second, func() error { return a.ping("pay", "10.77.2.1") })
	t.Logf("first ping after %v; path %s", took, a.path("pay", b.id))
	if p := a.path("pay", b.id); !strings.HasPrefix(p, "relay c2/g ") {
		t.Errorf("path %q: want the relay", p)
	}
	if keys, _ := os.ReadDir(filepath.Join(g.conf.StateDir, "keys")); len(keys) != 0 {
		t.Errorf("the gateway has keys: %v", keys)
	}
	s := startStream(t, a.slices["pay"], b.slices["pay"], "10.77.2.1")
	s.moves(t, 5*time.Second)
	eventually(t, 3*time.Second, func() error { // the relay's memory is on file
		_, err := os.Stat(filepath.Join(g.conf.RunDir, sessionsFile))
		return err
	})
	g.kill()
	start := time.Now()
	g.start()
	s.moves(t, 5*time.Second)
	t.Logf("relay killed and restarted: data flow again after %v", time.Since(start))
	r.heal(a, b)
	r.heal(b, a)
	took = eventually(t, 20*time.Second, func() error {
		if p := a.path("pay", b.id); !strings.HasPrefix(p, "direct ") {
			return errors.New(p)
		}
		return nil
	})
	s.moves(t, 5*time.Second)
	t.Logf("moved to the direct path after %v", took)
}

// TestKillAndRestart: the tunnel process dies without warning and comes back: link, addresses, routes and key are the
// same, and the session is back within a second, in whichever direction the data flow.
func TestKillAndRestart(t *testing.T) {
	r := newInternet(t)
	a, b := r.machine("c1/a"), r.machine("c2/b")
	ka, kb := a.slice("pay", "10.77.1.1/32"), b.slice("pay", "10.77.2.1/32")
	join("pay", a, b, ka, kb, []plan.Path{direct(b)}, nil)
	a.put()
	b.put()
	eventually(t, 5*time.Second, func() error { return a.ping("pay", "10.77.2.1") })
	s := startStream(t, a.slices["pay"], b.slices["pay"], "10.77.2.1")
	s.moves(t, 5*time.Second)
	for _, n := range []*node{b, a} {
		eventually(t, 3*time.Second, func() error {
			_, err := os.Stat(filepath.Join(n.conf.RunDir, sessionsFile))
			return err
		})
		n.kill()
		start := time.Now()
		n.start()
		other := map[*node]string{a: "10.77.2.1", b: "10.77.1.1"}[n]
		eventually(t, 5*time.Second, func() error { return n.ping("pay", other) })
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: the session came back after %v: want less than a second", n.id, took)
		} else {
			t.Logf("%s: killed, restarted, and the session back after %v", n.id, took)
		}
		s.moves(t, 5*time.Second)
		if key, err := n.client.EnsureKey(t.Context(), "pay"); err != nil || key != map[*node]fleet.Key{a: ka, b: kb}[n] {
			t.Errorf("%s: key after the restart: %v %v", n.id, key, err)
		}
		if r := n.put(); r.Changes != 0 {
			t.Errorf("%s: the value that it was resumed from changed %d things", n.id, r.Changes)
		}
	}
}

// TestPrivateBoth: two nodes behind NATs meet at a third cluster's gateway: both are registered with it on the
// management slice, and it forwards to wherever it last heard them.
func TestPrivateBoth(t *testing.T) {
	r := newInternet(t)
	a, b, g := r.machine("c1/a"), r.machine("c3/b"), r.machine("c2/g")
	r.nat(b)
	r.cut(a, b) // a is private as well
	ma, mb := a.slice(fleet.ManagementSlice, "10.99.0.1/32"), b.slice(fleet.ManagementSlice, "10.99.0.2/32")
	mg := g.slice(fleet.ManagementSlice, "10.99.0.3/32")
	for _, n := range []*node{a, b} {
		n.peer(fleet.ManagementSlice, plan.Peer{ID: g.id, Key: mg, Allowed: prefix("10.99.0.3/32"), Paths: []plan.Path{direct(g)}, Keepalive: 25})
	}
	g.peer(fleet.ManagementSlice, plan.Peer{ID: a.id, Key: ma, Allowed: prefix("10.99.0.1/32")})
	g.peer(fleet.ManagementSlice, plan.Peer{ID: b.id, Key: mb, Allowed: prefix("10.99.0.2/32")})
	ka, kb := a.slice("pay", "10.77.1.1/32"), b.slice("pay", "10.77.2.1/32")
	join("pay", a, b, ka, kb, []plan.Path{relayVia(g)}, []plan.Path{relayVia(g)})
	g.want.Relay = []plan.Target{
		{Key: ka, ID: a.id, Slice: "pay", Management: ma},
		{Key: kb, ID: b.id, Slice: "pay", Management: mb},
	}
	for _, n := range []*node{g, a, b} {
		n.put()
	}
	took := eventually(t, 8*time.Second, func() error { return a.ping("pay", "10.77.2.1") })
	t.Logf("first ping after %v; %s, %s", took, a.path("pay", b.id), b.path("pay", a.id))
	s := startStream(t, a.slices["pay"], b.slices["pay"], "10.77.2.1")
	s.moves(t, 5*time.Second)
	eventually(t, 3*time.Second, func() error {
		_, err := os.Stat(filepath.Join(g.conf.RunDir, sessionsFile))
		return err
	})
	g.kill()
	start := time.Now()
	g.start()
	s.moves(t, 5*time.Second)
	t.Logf("relay killed and restarted: data flow again after %v", time.Since(start))
}

// TestTwoSlicesOnePrefix: two slices with the same addresses share the node's one port, over IPv6, and neither hears
// the other. Purging one node leaves nothing of it.
func TestTwoSlicesOnePrefix(t *testing.T) {
	r := newInternet(t)
	a, b := r.machine("c1/a"), r.machine("c2/b")
	netnstest.Veth(a.host, "eth6", b.host, "eth6")
	a.host.IP("addr add 2001:db8::1/64 dev eth6 nodad")
	b.host.IP("addr add 2001:db8::2/64 dev eth6 nodad")
	r.cut(a, b)
	r.cut(b, a)
	six := func(s string) []plan.Path {
		return []plan.Path{{Endpoint: netip.AddrPortFrom(netip.MustParseAddr(s), fleet.DefaultPort)}}
	}
	for _, s := range []string{"pay", "web"} {
		join(s, a, b, a.slice(s, "10.77.1.1/32"), b.slice(s, "10.77.2.1/32"), six("2001:db8::2"), six("2001:db8::1"))
	}
	a.put()
	b.put()
	for _, s := range []string{"pay", "web"} {
		eventually(t, 8*time.Second, func() error { return errors.Join(a.ping(s, "10.77.2.1"), b.ping(s, "10.77.1.1")) })
	}
	var heard atomic.Int64
	var l net.PacketConn
	if err := b.slices["web"].Do(func() (err error) { l, err = net.ListenPacket("udp", "10.77.2.1:7"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for buf := make([]byte, 64); ; heard.Add(1) {
			if _, _, err := l.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	say := func(slice string) {
		if err := a.slices[slice].Do(func() error {
			c, err := net.Dial("udp", "10.77.2.1:7")
			if err == nil {
				defer c.Close()
				_, err = c.Write([]byte("hello"))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		say("pay")
	}
	if err := a.ping("pay", "10.77.2.1"); err != nil { // behind them on the same way
		t.Error(err)
	}
	if n := heard.Load(); n != 0 {
		t.Errorf("slice web heard %d packets of slice pay", n)
	}
	say("web") // the control
	eventually(t, 2*time.Second, func() error {
		if heard.Load() == 0 {
			return errors.New("slice web does not hear its own packets either")
		}
		return nil
	})
	if err := a.client.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	for s, ns := range a.slices {
		if out, err := ns.Command("ip", "link", "show", "dev", plan.TunLink).CombinedOutput(); err == nil {
			t.Errorf("slice %s still has its link after a purge: %s", s, out)
		}
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(a.conf.RunDir), "*", "*"))
	if len(left) != 0 {
		t.Errorf("after a purge there is %v", left)
	}
}
