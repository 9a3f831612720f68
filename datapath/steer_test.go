package datapath_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/flow"
	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// town is a slice with a client a, a server b that is to go and a server d that stays; each serves TCP and UDP on 8080,
// and two services lead to b alone.
func town(r *rig) (s plan.Slice, a, b, d *podtest.Pod) {
	a, b, d = r.pod("a"), r.pod("b"), r.pod("d")
	for _, p := range []*podtest.Pod{b, d} {
		podtest.Serve(r.T, p.NS, p.UID, "tcp", addrPort("[::]:8080"))
		podtest.Serve(r.T, p.NS, p.UID, "udp", addrPort("[::]:8080"))
	}
	s = r.slice("pay", dual, a, b, d)
	for _, at := range s.Attachments {
		s.Hosts = append(s.Hosts, at.Addrs...)
	}
	slices.SortFunc(s.Hosts, netip.Addr.Compare)
	for _, v := range []struct{ ip, backend string }{{"10.77.1.1", "10.77.0.6:8080"}, {"fd77::1:1", "[fd77::6]:8080"}} {
		for _, proto := range []fleet.Protocol{fleet.TCP, fleet.UDP} {
			bal := balance(v.ip, 80, v.backend)
			bal.Protocol = proto
			s.Services = append(s.Services, bal)
		}
	}
	return s, a, b, d
}

// lose is the slice as planned when b cannot be reached: it is no host any more and, since nobody else serves, stays
// the services' backend.
func lose(s plan.Slice) plan.Slice {
	s.Hosts = slices.DeleteFunc(slices.Clone(s.Hosts), func(a netip.Addr) bool {
		return a == netip.MustParseAddr("10.77.0.6") || a == netip.MustParseAddr("fd77::6")
	})
	return s
}

var toB = []struct{ proto, at string }{
	{"tcp", "10.77.0.6:8080"}, {"tcp", "[fd77::6]:8080"}, {"tcp", "10.77.1.1:80"}, {"tcp", "[fd77::1:1]:80"},
	{"udp", "10.77.0.6:8080"}, {"udp", "[fd77::6]:8080"}, {"udp", "10.77.1.1:80"}, {"udp", "[fd77::1:1]:80"},
}

// open opens a connection, asks once over it and then waits in silence: what comes of that is sent on the channel.
func open(t *testing.T, p *podtest.Pod, proto, at string) (net.Conn, chan error) {
	t.Helper()
	var c net.Conn
	err := p.NS.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: time.Second, FallbackDelay: -1}).Dial(proto, at)
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v", proto, at, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	buf := make([]byte, 64)
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("?\n")); err != nil {
		t.Fatalf("%s %s: %v", proto, at, err)
	}
	if _, err := c.Read(buf); err != nil {
		t.Fatalf("%s %s: %v", proto, at, err)
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	got := make(chan error, 1)
	go func() {
		_, err := c.Read(buf)
		got <- err
	}()
	return c, got
}

// TestDeadIsAnError: when a host goes, whoever waits for it is woken, whoever dials or sends is refused, and nobody else
// notices; when it is back, it is reached again.
func TestDeadIsAnError(t *testing.T) {
	r := newRig(t)
	s, a, b, d := town(r)
	r.apply(s)
	readers := map[string]chan error{}
	for _, c := range toB {
		_, readers[c.proto+" "+c.at] = open(t, a, c.proto, c.at)
	}
	// The other way: a server on a with a client on b, which is woken as well.
	podtest.Serve(t, a.NS, "a", "tcp", addrPort("[::]:9090"))
	stay, staying := open(t, a, "tcp", "10.77.0.7:8080")
	lasting, still := open(t, d, "tcp", "10.77.0.5:9090")
	cni := cniPair(t, a, b)
	if err := a.NS.Do(func() error { // from the CNI's address to a number that is b's on the slice
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.IPs[0], 0)), net.UDPAddrFromAddrPort(addrPort("10.77.0.6:8080")))
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}

	// Control: without Steer nobody hears anything.
	select {
	case err := <-readers["tcp 10.77.0.6:8080"]:
		t.Fatalf("control: a reader was woken before anything happened: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	started := time.Now()
	done, err := r.kernel.Steer(context.Background(), []plan.Slice{lose(s)})
	took := time.Since(started)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("steered in %v: %+v", took, done)
	if want := (flow.Ended{TCP: 4, UDP: 4}); done.Ended != want {
		t.Errorf("ended %+v, want %+v: each of %v once, and nothing that is not on the slice", done.Ended, want, toB)
	}
	for of, c := range readers {
		select {
		case err := <-c:
			want := syscall.ECONNABORTED
			if strings.HasPrefix(of, "udp") {
				want = syscall.ECONNREFUSED
			}
			if !errors.Is(err, want) {
				t.Errorf("reader of %s: %v, want %v", of, err, want)
			}
		case <-time.After(time.Second):
			t.Errorf("reader of %s still waits after a second", of)
		}
	}
	for _, c := range toB {
		started := time.Now()
		if _, err := podtest.Ask(t, a.NS, c.proto, addrPort(c.at)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("new %s to %s: %v, want a refusal", c.proto, c.at, err)
		}
		if took := time.Since(started); took > 200*time.Millisecond {
			t.Errorf("new %s to %s: refused after %v", c.proto, c.at, took)
		}
	}
	for name, c := range map[string]chan error{"to d": staying, "from d": still, "over the CNI": cni} {
		select {
		case err := <-c:
			t.Errorf("the connection %s was ended: %v", name, err)
		default:
		}
	}
	for name, c := range map[string]net.Conn{"to d": stay, "from d": lasting} {
		if _, err := c.Write([]byte("?\n")); err != nil {
			t.Errorf("the connection %s: %v", name, err)
		}
	}
	if err := <-staying; err != nil {
		t.Errorf("the connection to d: %v", err)
	}

	r.settled(lose(s))
	r.apply(s)
	for _, c := range toB {
		if got, err := podtest.Ask(t, a.NS, c.proto, addrPort(c.at)); err != nil || !strings.HasPrefix(got, "b ") {
			t.Errorf("back, %s to %s: %q, %v", c.proto, c.at, got, err)
		}
	}
	r.settled(s)
}

// cniPair is a connection between the pods over their CNI, which nothing on the slice may touch.
func cniPair(t *testing.T, from, to *podtest.Pod) chan error {
	podtest.Serve(t, to.NS, "cni", "tcp", netip.AddrPortFrom(to.IPs[0], 7070))
	_, c := open(t, from, "tcp", netip.AddrPortFrom(to.IPs[0], 7070).String())
	return c
}

// TestEndedConnectionsAreLeft: what ended by itself is none of the deaths that somebody must be told of, and is not deleted one
// by one; what lasts is. A table of thousands of ended ones kept those who waited waiting for seconds.
func TestEndedConnectionsAreLeft(t *testing.T) {
	r := newRig(t)
	s, a, _, _ := town(r)
	r.apply(s)
	at := addrPort("10.77.0.6:8080")
	if _, err := podtest.Ask(t, a.NS, "tcp", at); err != nil {
		t.Fatal(err)
	}
	_, lasting := open(t, a, "tcp", at.String())
	ended, lasts := states(t, r.open(s), at.Addr())
	if ended == 0 || lasts == 0 {
		t.Fatalf("before: %d connections that ended, %d that last; want some of each", ended, lasts)
	}
	if _, err := r.kernel.Steer(context.Background(), []plan.Slice{lose(s)}); err != nil {
		t.Fatal(err)
	}
	if err := <-lasting; !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("who waited: %v, want %v", err, syscall.ECONNABORTED)
	}
	if left, lasts := states(t, r.open(s), at.Addr()); left < ended || lasts != 0 {
		t.Errorf("after: %d of %d that ended, %d that last; want all of the ones and none of the others", left, ended, lasts)
	}
}

// states counts a namespace's TCP connections to an address, those that conntrack knows to have ended and the others.
func states(t *testing.T, ns *netns.NS, to netip.Addr) (ended, lasting int) {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	all, err := h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		tcp, ok := c.ProtoInfo.(*netlink.ProtoInfoTCP)
		switch server, _ := netip.AddrFromSlice(c.Reverse.SrcIP.To4()); {
		case !ok || server != to:
		case tcp.State == nl.TCP_CONNTRACK_TIME_WAIT || tcp.State == nl.TCP_CONNTRACK_CLOSE:
			ended++
		default:
			lasting++
		}
	}
	return ended, lasting
}

// TestSendersAreReset: a connection whose socket nobody destroyed (another agent's pod, a socket that came too late) is
// reset by its next packet, also by a service's address.
func TestSendersAreReset(t *testing.T) {
	for _, at := range []string{"10.77.0.6:8080", "[fd77::6]:8080", "10.77.1.1:80", "[fd77::1:1]:80"} {
		r := newRig(t)
		s, a, _, _ := town(r)
		r.apply(s)
		c, got := open(t, a, "tcp", at)
		// Rules alone: a kernel that holds no pod ends no socket.
		if _, err := r.restart().Steer(context.Background(), []plan.Slice{lose(s)}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("?\n")); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-got:
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %v, want a reset", at, err)
			}
		case <-time.After(time.Second):
			t.Errorf("%s: no reset within a second", at)
		}
	}
}

// TestSteerIsNotUndone: a round that began with an older plan does not bring back what Steer took out.
func TestSteerIsNotUndone(t *testing.T) {
	r := newRig(t)
	s, a, _, _ := town(r)
	s.Seq = 1
	r.apply(s)
	newer := lose(s)
	newer.Seq = 2
	if _, err := r.kernel.Steer(context.Background(), []plan.Slice{newer}); err != nil {
		t.Fatal(err)
	}
	r.apply(s) // the older one
	if _, err := podtest.Ask(t, a.NS, "tcp", addrPort("10.77.0.6:8080")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after a late round of the older plan: %v, want a refusal still", err)
	}
	s.Seq = 3
	r.apply(s)
	if _, err := podtest.Ask(t, a.NS, "tcp", addrPort("10.77.0.6:8080")); err != nil {
		t.Errorf("after a newer plan: %v", err)
	}
}

// TestSteerDoesNotWait: while a round waits for a mute pod's probe, Steer works.
func TestSteerDoesNotWait(t *testing.T) {
	r := newRig(t)
	s, _, b, _ := town(r)
	r.apply(s)
	r.run(b.NS, "nft add table inet mute")
	r.run(b.NS, "nft add chain inet mute in { type filter hook input priority 0 ; policy drop ; }")
	r.kernel = r.restart()
	done := make(chan time.Time, 1)
	go func() {
		_, _ = r.kernel.Apply(context.Background(), []plan.Slice{s}, datapath.Thorough)
		done <- time.Now()
	}()
	_ = r.open(s)
	begin, longest := time.Now(), time.Duration(0)
	for len(done) == 0 {
		steered := time.Now()
		if _, err := r.kernel.Steer(context.Background(), []plan.Slice{lose(s)}); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(steered))
	}
	if round := time.Since(begin); longest > round/2 { // the round waits for a pod that answers nothing
		t.Errorf("Steer took %v while a round of %v went on", longest, round)
	}
}

// TestOneErrorKeepsNobodyWaiting: that the sockets of one pod cannot be listed keeps no other from being told.
func TestOneErrorKeepsNobodyWaiting(t *testing.T) {
	r := newRig(t)
	s, a, _, _ := town(r)
	r.apply(s)
	_, reader := open(t, a, "tcp", "10.77.0.6:8080")
	broken, err := a.NS.Dup()
	if err != nil {
		t.Fatal(err)
	}
	_ = broken.Close()
	pods := []flow.Pod{{Name: "shop/broken", NS: broken, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.5")}},
		{Name: "shop/a", NS: a.NS, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.5")}}}
	done, err := flow.End(r.open(s), pods, map[netip.Addr]bool{netip.MustParseAddr("10.77.0.6"): true}, nil)
	if err == nil || !strings.Contains(err.Error(), "shop/broken") || done.TCP != 1 {
		t.Errorf("ended %+v, %v; want one, and an error that names shop/broken", done, err)
	}
	select {
	case err := <-reader:
		if !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("a's reader: %v", err)
		}
	case <-time.After(time.Second):
		t.Error("a's reader still waits")
	}
}
