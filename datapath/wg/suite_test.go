package wg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

var quiet = slog.New(slog.DiscardHandler)

func TestUserspace(t *testing.T) {
	netnstest.NeedRoot(t)
	suite(t, func() Driver { return NewUserspace(quiet) })
}

func TestKernel(t *testing.T) {
	netnstest.NeedRoot(t)
	if err := KernelHasWireGuard(); err != nil {
		// A kernel that has the module must pass, whatever the reason that the probe failed for.
		if hasModule() {
			t.Fatalf("this kernel has WireGuard, but: %v", err)
		}
		t.Skipf("SKIPPED, NOT TESTED: the kernel driver: this kernel has no WireGuard (%v)", err)
	}
	suite(t, func() Driver { return NewKernel(quiet) })
}

func hasModule() bool {
	if _, err := os.Stat("/sys/module/wireguard"); err == nil {
		return true
	}
	return exec.Command("modinfo", "wireguard").Run() == nil
}

// machine is a switch and a driver in this process, with slices' namespaces.
type machine struct {
	t    *testing.T
	new  func() Driver
	drv  Driver
	sw   *relay.Switch
	stop func()
	keys map[string]PrivateKey
	want map[string]plan.Device
	ns   map[string]*netnstest.NS
}

func newMachine(t *testing.T, create func() Driver) *machine {
	m := &machine{t: t, new: create, keys: map[string]PrivateKey{}, want: map[string]plan.Device{}, ns: map[string]*netnstest.NS{}}
	m.boot()
	t.Cleanup(func() {
		for s := range m.want {
			if err := m.drv.Remove(s); err != nil {
				t.Error(err)
			}
		}
		m.halt()
	})
	return m
}

func (m *machine) boot() {
	m.t.Helper()
	m.drv = m.new()
	m.sw = relay.New(quiet, func(h relay.Handshake) { m.drv.Handshake(h.Slice, h.Peer, h.Renew) })
	if err := m.sw.Listen(0); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.sw.Run(ctx)
	}()
	m.stop = func() { cancel(); <-done }
}

func (m *machine) halt() {
	m.drv.Close()
	m.stop()
}

func (m *machine) slice(name, addr string) fleet.Key {
	m.t.Helper()
	key, err := NewPrivateKey()
	if err != nil {
		m.t.Fatal(err)
	}
	ns := netnstest.New(m.t, "swwg-"+name)
	ns.IP("addr add " + addr + " dev lo")
	m.ns[name], m.keys[name] = ns, key
	m.want[name] = plan.Device{Slice: name, NetNS: ns.Path, Link: "wg0", MTU: 1380, Addrs: []netip.Prefix{netip.MustParsePrefix("fd5e::1/128")}}
	return key.Public()
}

func (m *machine) apply() (changes int) {
	m.t.Helper()
	var c relay.Config
	for s, d := range m.want {
		c.Devices = append(c.Devices, relay.Device{Slice: s, Key: m.keys[s].Public(), Peers: d.Peers})
	}
	slices.SortFunc(c.Devices, func(a, b relay.Device) int { return strings.Compare(a.Slice, b.Slice) })
	m.sw.Configure(c)
	for s, d := range m.want {
		n, err := m.drv.Apply(d, m.keys[s], m.sw.Bind(s))
		if err != nil {
			m.t.Fatal(err)
		}
		changes += n
		for _, p := range d.Peers {
			for _, a := range p.Allowed {
				m.ns[s].IP("route replace " + a.String() + " dev wg0")
			}
		}
	}
	return changes
}

func (m *machine) peers(slice string, ps ...plan.Peer) {
	d := m.want[slice]
	d.Peers = ps
	m.want[slice] = d
}

func (m *machine) path() plan.Path {
	return plan.Path{Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), m.sw.Port())}
}

func (m *machine) reaches(slice, addr string) error {
	_, err := m.ns[slice].Ping(netip.MustParseAddr(addr), 300*time.Millisecond)
	return err
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	limit := time.Now().Add(8 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// suite is what both drivers must do.
func suite(t *testing.T, create func() Driver) {
	a, b := newMachine(t, create), newMachine(t, create)
	ka, kb := a.slice("pay", "10.77.1.1/32"), b.slice("pay", "10.77.2.1/32")
	c := newMachine(t, create)
	kc := c.slice("pay", "10.77.3.1/32")
	pb := plan.Peer{ID: "c2/b", Key: kb, Allowed: prefixes("10.77.2.1/32", "10.77.9.9/32"), Paths: []plan.Path{b.path()}, Keepalive: 20}
	pc := plan.Peer{ID: "c3/c", Key: kc, Allowed: prefixes("10.77.3.1/32"), Paths: []plan.Path{c.path()}}
	a.peers("pay", pb, pc)
	for _, m := range []*machine{b, c} {
		m.peers("pay", plan.Peer{ID: "c1/a", Key: ka, Allowed: prefixes("10.77.1.1/32")})
		m.apply()
	}
	if a.apply() == 0 {
		t.Fatal("the first apply changed nothing")
	}
	if n := a.apply(); n != 0 {
		t.Fatalf("the second apply changed %d things", n)
	}
	eventually(t, func() error { return errors.Join(a.reaches("pay", "10.77.2.1"), a.reaches("pay", "10.77.3.1")) })

	t.Run("link", func(t *testing.T) {
		out, err := a.ns["pay"].Command("ip", "addr", "show", "dev", "wg0").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "mtu 1380") || !strings.Contains(string(out), "fd5e::1/128") || !strings.Contains(string(out), "UP") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a change leaves other sessions alone", func(t *testing.T) {
		before, err := a.drv.Peers("pay")
		if err != nil {
			t.Fatal(err)
		}
		a.peers("pay", pb)
		if n := a.apply(); n != 1 {
			t.Errorf("removing a peer was %d changes", n)
		}
		after, err := a.drv.Peers("pay")
		if err != nil || len(after) != 1 || after[kb].Handshake != before[kb].Handshake || after[kb].Keepalive != 20 {
			t.Errorf("%v: %+v, before %+v", err, after, before)
		}
		if a.reaches("pay", "10.77.3.1") == nil {
			t.Error("the removed peer is still reached")
		}
		if err := a.reaches("pay", "10.77.2.1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a prefix moves to another peer", func(t *testing.T) {
		b2, c2 := pb, pc
		b2.Allowed, c2.Allowed = prefixes("10.77.2.1/32"), prefixes("10.77.3.1/32", "10.77.9.9/32")
		a.peers("pay", b2, c2)
		a.apply()
		st, err := a.drv.Peers("pay")
		if err != nil || !slices.Contains(st[kc].Allowed, netip.MustParsePrefix("10.77.9.9/32")) || len(st[kb].Allowed) != 1 {
			t.Errorf("%v: %+v", err, st)
		}
		if n := a.apply(); n != 0 {
			t.Errorf("again: %d changes", n)
		}
		eventually(t, func() error { return a.reaches("pay", "10.77.3.1") })
	})
	t.Run("MTU and keepalive", func(t *testing.T) {
		d := a.want["pay"]
		d.MTU = 1300
		d.Peers = slices.Clone(d.Peers)
		d.Peers[0].Keepalive = 0
		a.want["pay"] = d
		if n := a.apply(); n != 2 {
			t.Errorf("%d changes", n)
		}
		if err := a.reaches("pay", "10.77.2.1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("restart keeps the link", func(t *testing.T) {
		index := linkIndex(t, a.ns["pay"])
		a.halt()
		if got := linkIndex(t, a.ns["pay"]); got != index {
			t.Fatalf("without a driver the link is %s, it was %s", got, index)
		}
		a.boot()
		a.apply()
		if got := linkIndex(t, a.ns["pay"]); got != index {
			t.Errorf("after the restart the link is %s, it was %s", got, index)
		}
		eventually(t, func() error { return a.reaches("pay", "10.77.2.1") })
	})
	t.Run("a link that somebody deleted is made again", func(t *testing.T) {
		a.ns["pay"].IP("link del wg0")
		eventually(t, func() error {
			if a.apply() == 0 {
				return errors.New("nothing was repaired")
			}
			return nil
		})
		eventually(t, func() error { a.apply(); return a.reaches("pay", "10.77.2.1") })
	})
	t.Run("no namespace", func(t *testing.T) {
		d := plan.Device{Slice: "lost", NetNS: "/run/netns/swwg-not-there", Link: "wg0", MTU: 1380}
		if _, err := a.drv.Apply(d, a.keys["pay"], a.sw.Bind("pay")); err == nil || !strings.Contains(err.Error(), "swwg-not-there") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("remove", func(t *testing.T) {
		if err := a.drv.Remove("pay"); err != nil {
			t.Fatal(err)
		}
		if err := a.drv.Remove("pay"); err != nil {
			t.Errorf("again: %v", err)
		}
		if out, err := a.ns["pay"].Command("ip", "link", "show", "dev", "wg0").CombinedOutput(); err == nil {
			t.Errorf("the link is still there: %s", out)
		}
		delete(a.want, "pay")
	})
}

func linkIndex(t *testing.T, ns *netnstest.NS) string {
	t.Helper()
	out, err := ns.Command("cat", "/sys/class/net/wg0/ifindex").CombinedOutput()
	if err != nil {
		if out, err = ns.Command("ip", "-o", "link", "show", "dev", "wg0").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.SplitN(string(out), ":", 2)[0]
	}
	return strings.TrimSpace(string(out))
}

// TestForwarder: a WireGuard device with a UDP socket of its own, as the kernel's has, talks through the switch to
// one that is at the switch itself.
func TestForwarder(t *testing.T) {
	var devs [2]*device.Device
	var tuns [2]*tuntest.ChannelTUN
	var keys [2]PrivateKey
	var sws [2]*relay.Switch
	for i := range 2 {
		var err error
		if keys[i], err = NewPrivateKey(); err != nil {
			t.Fatal(err)
		}
		sws[i] = relay.New(quiet, func(relay.Handshake) {})
		if err := sws[i].Listen(0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _ = sws[i].Run(ctx) }()
		t.Cleanup(cancel)
	}
	for i := range 2 {
		other := 1 - i
		var paths []plan.Path
		if i == 0 {
			paths = []plan.Path{{Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), sws[other].Port())}}
		}
		sws[i].Configure(relay.Config{Devices: []relay.Device{{Slice: "pay", Key: keys[i].Public(), Peers: []plan.Peer{{ID: "c/x", Key: keys[other].Public(), Paths: paths}}}}})
		tuns[i] = tuntest.NewChannelTUN()
		var bind conn.Bind = sws[i].Bind("pay")
		endpoint := relay.Auto
		if i == 0 {
			bind = conn.NewDefaultBind()
		}
		devs[i] = device.NewDevice(tuns[i].TUN(), bind, device.NewLogger(device.LogLevelSilent, ""))
		t.Cleanup(devs[i].Close)
		if err := devs[i].IpcSet("private_key=" + keys[i].hex() + "\n"); err != nil {
			t.Fatal(err)
		}
		if err := devs[i].Up(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			f, err := newForwarder(sws[0].Bind("pay"), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listenPort(t, devs[0])))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.close)
			endpoint = f.auto.local().String()
		}
		pub := keys[other].Public()
		if err := devs[i].IpcSet(fmt.Sprintf("public_key=%x\nendpoint=%s\nallowed_ip=0.0.0.0/0\n", pub[:], endpoint)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 4 {
		from, to := round%2, 1-round%2
		p := tuntest.Ping(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"))
		tuns[from].Outbound <- p
		select {
		case got := <-tuns[to].Inbound:
			if !slices.Equal(got, p) {
				t.Error("another packet")
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("round %d: nothing arrived", round)
		}
	}
}

func listenPort(t *testing.T, d *device.Device) uint16 {
	t.Helper()
	text, err := d.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		var port uint16
		if _, err := fmt.Sscanf(line, "listen_port=%d", &port); err == nil {
			return port
		}
	}
	t.Fatal("no port")
	return 0
}
