package hole

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"seaway.dev/seaway/datapath/netnstest"
)

// TestAHoleClosesByItself: packets pass, do not, and pass again although nobody closes anything.
func TestAHoleClosesByItself(t *testing.T) {
	netnstest.NeedRoot(t)
	a, b := netnstest.New(t, "chaos-hole-a"), netnstest.New(t, "chaos-hole-b")
	netnstest.Veth(a, "eth0", b, "eth0")
	for i, n := range []*netnstest.NS{a, b} {
		n.IP(fmt.Sprintf("addr add 10.9.0.%d/24 dev eth0", i+1))
		n.IP(fmt.Sprintf("addr add fd09::%d/64 dev eth0 nodad", i+1))
	}
	for _, addr := range []string{"10.9.0.2", "fd09::2"} {
		peer := netip.AddrPortFrom(netip.MustParseAddr(addr), 51871)
		other := netip.AddrPortFrom(peer.Addr(), 51999)
		in, out := echo(t, b, peer), echo(t, b, other)
		defer in.Close()
		defer out.Close()
		if !answers(t, a, peer) || !answers(t, a, other) {
			t.Fatalf("%s does not answer before anything is done", addr)
		}
		if err := a.Do(func() error { return Open([]netip.AddrPort{peer}, time.Second) }); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if answers(t, a, peer) {
			t.Errorf("%s answers through the hole", peer)
		}
		if !answers(t, a, other) {
			t.Errorf("%s is another port and does not answer", other)
		}
		for !answers(t, a, peer) {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("the hole does not close")
			}
		}
		if d := time.Since(begin); d < 500*time.Millisecond {
			t.Errorf("the hole closed after %s, and was to stay for a second", d)
		}
		if err := a.Do(func() error { return Open([]netip.AddrPort{peer}, time.Minute) }); err != nil {
			t.Fatal(err)
		}
		if err := a.Do(Close); err != nil || !answers(t, a, peer) {
			t.Errorf("closed, and %s does not answer (%v)", peer, err)
		}
		if err := a.Do(Close); err != nil {
			t.Errorf("closed twice: %v", err)
		}
	}
	for _, d := range []time.Duration{0, Longest + 1} {
		if Open([]netip.AddrPort{netip.MustParseAddrPort("10.9.0.2:1")}, d) == nil {
			t.Errorf("a hole of %s was opened", d)
		}
	}
}

func echo(t *testing.T, n *netnstest.NS, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := n.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 64)
		for {
			k, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:k], from)
		}
	}()
	return c
}

func answers(t *testing.T, n *netnstest.NS, at netip.AddrPort) bool {
	t.Helper()
	var c *net.UDPConn
	if err := n.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return false // a dropped packet of one's own is EPERM
	}
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, err := c.Read(make([]byte, 64))
	return err == nil
}
