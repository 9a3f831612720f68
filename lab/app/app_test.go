package main

import (
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestProbeTellsOpenFromClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := probeTCP(l.Addr().String(), time.Second); v != open || err != nil {
		t.Errorf("a listening port is %v (%v)", v, err)
	}
	addr := l.Addr().String()
	l.Close()
	if v, err := probeTCP(addr, time.Second); v != closed {
		t.Errorf("a port that nobody listens on is %v (%v)", v, err)
	}
}

func TestProbeUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().String()
	// It listens, but says nothing.
	if v, err := probeUDP(addr, 50*time.Millisecond); v != silent {
		t.Errorf("a silent port is %v (%v)", v, err)
	}
	c.Close()
	if v, err := probeUDP(addr, time.Second); v != closed {
		t.Errorf("a closed port is %v (%v)", v, err)
	}
}

func TestForge(t *testing.T) {
	p := forge(netip.MustParseAddrPort("10.0.0.1:5"), netip.MustParseAddrPort("10.0.0.2:9001"), []byte("x"))
	want := "4500001d00000000401166cd0a0000010a00000200052329000940bd78"
	if got := fmt.Sprintf("%x", p); got[:20] != want[:20] || got[24:48] != want[24:48] || len(p) != 29 {
		t.Errorf("IPv4 packet %s", got)
	}
	if checksum(p[:20]) != 0 {
		t.Error("the header's checksum is wrong")
	}
	p = forge(netip.MustParseAddrPort("[fd00::1]:5"), netip.MustParseAddrPort("[fd00::2]:9001"), []byte("hello"))
	pseudo := append(append([]byte{}, p[8:40]...), 0, 17, 0, 13)
	if len(p) != 53 || checksum(pseudo, p[40:]) != 0 {
		t.Errorf("IPv6 packet %x", p)
	}
}

func TestServeAndGet(t *testing.T) {
	s := httptest.NewServer(httpHandler())
	defer s.Close()
	var b strings.Builder
	if err := fetch(s.Client(), s.URL+"/?format=json", &b); err != nil || !strings.Contains(b.String(), `"remote":"127.0.0.1:`) {
		t.Errorf("%q, %v", b.String(), err)
	}
	var n count
	if err := fetch(s.Client(), s.URL+"/blob?mb=2", &n); err != nil || n != 2<<20 {
		t.Errorf("blob of %d bytes, %v", n, err)
	}
}

func TestSplitArgs(t *testing.T) {
	for _, c := range []struct{ in, first string }{{"u -n 3", "u"}, {"-n 3 u", "u"}, {"-n=3 u", "u"}, {"", ""}, {"-h", ""}} {
		if first, _ := splitArgs(strings.Fields(c.in)); first != c.first {
			t.Errorf("%q: %q", c.in, first)
		}
	}
}
