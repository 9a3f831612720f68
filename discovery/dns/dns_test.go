package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"seaway.dev/seaway/discovery/zone"
	"seaway.dev/seaway/fleet"
)

// headless is a service with n ready pods.
func headless(n int) fleet.Service {
	s := fleet.Service{Namespace: "shop", Name: "db", Slice: "pay", Headless: true,
		Ports: []fleet.Port{{Name: "pg", Protocol: fleet.TCP, Port: 5432}}}
	for i := range n {
		s.Endpoints = append(s.Endpoints, fleet.Endpoint{Cluster: "c1", Pod: fmt.Sprintf("db-%d", i), Hostname: fmt.Sprintf("db-%d", i),
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})}, Ready: true, Ports: map[string]uint16{"pg": 5432}})
	}
	return s
}

func web(ip string) fleet.Service {
	return fleet.Service{Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr(ip)},
		Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}}
}

// start serves on a free port of loopback until the test ends.
func start(t testing.TB, current func() *zone.Zone, reg prometheus.Registerer) string {
	t.Helper()
	addr := freePort(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- Serve(ctx, Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort(addr)}, Log: slog.New(slog.DiscardHandler), Metrics: reg}, current)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	listening(t, addr)
	return addr
}

// freePort returns an address with a port that was free for TCP a moment ago.
func freePort(t testing.TB, ip string) string {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listening waits until somebody accepts connections.
func listening(t testing.TB, addr string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// ask exchanges one question.
func ask(t *testing.T, network, addr, name string, qtype uint16, change ...func(*dns.Msg)) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	for _, c := range change {
		c(q)
	}
	r, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 4096}).Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s %s %s: %v", network, name, dns.TypeToString[qtype], err)
	}
	return r
}

func TestAnswersByUDPAndTCP(t *testing.T) {
	var s State
	addr := start(t, s.Zone, nil)
	const name = "web.shop.svc.clusterset.local."
	for _, network := range []string{"udp", "tcp"} {
		if r := ask(t, network, addr, name, dns.TypeA); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: before the first state: %s, want SERVFAIL", network, dns.RcodeToString[r.Rcode])
		}
	}
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1"), headless(2)}})
	for _, network := range []string{"udp", "tcp"} {
		r := ask(t, network, addr, "WEB.shop.SVC.clusterset.LOCAL.", dns.TypeA)
		if r.Rcode != 0 || len(r.Answer) != 1 || !r.Authoritative || r.RecursionAvailable || r.Truncated {
			t.Fatalf("%s: %v", network, r)
		}
		if a := r.Answer[0].(*dns.A); a.A.String() != "10.9.255.1" || a.Hdr.Ttl != 5 || a.Hdr.Name != "WEB.shop.SVC.clusterset.LOCAL." {
			t.Errorf("%s: %v; the name's case is to be kept", network, a)
		}
		r = ask(t, network, addr, "nobody.shop.svc.clusterset.local.", dns.TypeA)
		if soa, ok := r.Ns[0].(*dns.SOA); r.Rcode != dns.RcodeNameError || !ok || soa.Hdr.Name != "clusterset.local." || soa.Minttl != 1 {
			t.Errorf("%s: unknown name: %v", network, r)
		}
		r = ask(t, network, addr, "web.shop.svc.slice.local.", dns.TypeAAAA)
		if r.Rcode != 0 || len(r.Answer) != 0 || r.Ns[0].Header().Name != "slice.local." {
			t.Errorf("%s: a name without that type: %v", network, r)
		}
		r = ask(t, network, addr, "_pg._tcp.db.shop.svc.clusterset.local.", dns.TypeSRV)
		if len(r.Answer) != 2 || len(r.Extra) != 2 || r.Extra[0].Header().Name != r.Answer[0].(*dns.SRV).Target && r.Extra[0].Header().Name != r.Answer[1].(*dns.SRV).Target {
			t.Errorf("%s: SRV: %v", network, r)
		}
		if r = ask(t, network, addr, "example.com.", dns.TypeA); r.Rcode != dns.RcodeRefused || r.Authoritative {
			t.Errorf("%s: another zone: %v", network, r)
		}
	}
}

func TestEDNS(t *testing.T) {
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1")}})
	addr := start(t, s.Zone, nil)
	const name = "web.shop.svc.clusterset.local."
	if r := ask(t, "udp", addr, name, dns.TypeA); r.IsEdns0() != nil {
		t.Error("an OPT record for a client that sent none")
	}
	r := ask(t, "udp", addr, name, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(4096, true) })
	if o := r.IsEdns0(); o == nil || o.UDPSize() != 1232 || o.Version() != 0 || len(r.Answer) != 1 {
		t.Errorf("with EDNS: %v", r)
	}
	r = ask(t, "udp", addr, name, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) })
	if r.Rcode != dns.RcodeBadVers || len(r.Answer) != 0 {
		t.Errorf("version 1: %v, want BADVERS", r)
	}
}

func TestTruncation(t *testing.T) {
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{headless(300)}})
	addr := start(t, s.Zone, nil)
	const name = "db.shop.svc.clusterset.local."
	for _, c := range []struct {
		size  uint16
		limit int
	}{{0, 512}, {100, 512}, {800, 800}, {65535, 1232}} {
		r := ask(t, "udp", addr, name, dns.TypeA, func(m *dns.Msg) {
			if c.size > 0 {
				m.SetEdns0(c.size, false)
			}
		})
		packed, err := r.Pack()
		if err != nil {
			t.Fatal(err)
		}
		// Uncompressed by the packer: what counts is that one more record of 16 bytes would not have fitted.
		wire := 12 + len("db.shop.svc.clusterset.local.") + 1 + 4 + 16*len(r.Answer)
		if r.IsEdns0() != nil {
			wire += 11
		}
		if !r.Truncated || wire > c.limit || wire+16 <= c.limit {
			t.Errorf("size %d: truncated=%v, %d records in %d bytes (%d packed), want at most %d and no room for one more", c.size, r.Truncated, len(r.Answer), wire, len(packed), c.limit)
		}
	}
	if r := ask(t, "tcp", addr, name, dns.TypeA); r.Truncated || len(r.Answer) != 300 {
		t.Errorf("by TCP: truncated=%v, %d records, want all 300", r.Truncated, len(r.Answer))
	}
	if r := ask(t, "tcp", addr, name, dns.TypeSRV); r.Truncated || len(r.Answer) != 300 || len(r.Extra) != 300 {
		t.Errorf("SRV by TCP: truncated=%v, %d records, %d additional, want 300 and 300", r.Truncated, len(r.Answer), len(r.Extra))
	}
}

// Clients that take the first address spread over all of them.
func TestRecordsTakeTurns(t *testing.T) {
	z := zone.Build([]fleet.Service{headless(5)}, nil)
	first := map[string]int{}
	for id := range 1000 {
		m := new(dns.Msg)
		m.SetQuestion("db.shop.svc.clusterset.local.", dns.TypeA)
		m.Id = uint16(id)
		r := direct(t, z, m, true)
		seen := map[string]bool{}
		for _, rr := range r.Answer {
			seen[rr.(*dns.A).A.String()] = true
		}
		if len(seen) != 5 {
			t.Fatalf("got %d different addresses of 5", len(seen))
		}
		first[r.Answer[0].(*dns.A).A.String()]++
	}
	for a, n := range first {
		if n != 200 {
			t.Errorf("%s came first %d times of 1000, want 200", a, n)
		}
	}
}

// direct asks respond itself.
func direct(t *testing.T, z *zone.Zone, m *dns.Msg, udp bool) *dns.Msg {
	t.Helper()
	out, err := respond(m, z, udp).Pack()
	if err != nil {
		t.Fatalf("%v: pack the response: %v", m, err)
	}
	r := new(dns.Msg)
	if err := r.Unpack(out); err != nil {
		t.Fatalf("%v: unpack the response: %v", m, err)
	}
	return r
}

func TestMalformedAndOddQueries(t *testing.T) {
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1")}})
	reg := prometheus.NewRegistry()
	addr := start(t, s.Zone, reg)
	good := new(dns.Msg)
	good.SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA)
	good.Id = 7
	pack := func(change func(m *dns.Msg)) []byte {
		m := good.Copy()
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain := pack(func(*dns.Msg) {})
	patch := func(at int, v ...byte) []byte {
		b := slices.Clone(plain)
		copy(b[at:], v)
		return b
	}
	const dropped = -1
	for _, c := range []struct {
		name  string
		query []byte
		want  int
	}{
		{"good", plain, dns.RcodeSuccess},
		{"nothing", nil, dropped},
		{"half a header", plain[:11], dropped},
		{"a response", pack(func(m *dns.Msg) { m.Response = true }), dropped},
		{"a header alone", plain[:12], dns.RcodeFormatError},
		{"half a name", plain[:20], dns.RcodeFormatError},
		{"no class", plain[:len(plain)-2], dns.RcodeRefused}, // the library reads class 0
		{"half a class", plain[:len(plain)-1], dns.RcodeFormatError},
		{"two questions", patch(4, 0, 2), dns.RcodeFormatError},
		{"no question", patch(4, 0, 0), dns.RcodeFormatError},
		{"a pointer to itself", patch(12, 0xc0, 12), dns.RcodeFormatError},
		{"a label of 64", patch(12, 64), dns.RcodeFormatError},
		{"records that are not there", patch(6, 0, 1), dns.RcodeSuccess}, // the library forgives it
		{"half a record", append(patch(6, 0, 1), 0, 0), dns.RcodeFormatError},
		{"too many records", patch(10, 0xff, 0xff), dns.RcodeFormatError},
		{"two OPT", pack(func(m *dns.Msg) { m.SetEdns0(1232, false); m.Extra = append(m.Extra, m.Extra[0]) }), dns.RcodeFormatError},
		{"bytes behind the end", append(slices.Clone(plain), 1, 2, 3), dns.RcodeSuccess},
		{"a signature that nobody checks", pack(func(m *dns.Msg) { m.SetTsig("k.", dns.HmacSHA256, 300, 1) }), dns.RcodeSuccess},
		{"notify", pack(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"update", pack(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"class CHAOS", pack(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"zone transfer", pack(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeSuccess},
		{"the root", pack(func(m *dns.Msg) { m.Question[0].Name = "." }), dns.RcodeRefused},
		{"a label with a dot in it", pack(func(m *dns.Msg) { m.Question[0].Name = `x\.clusterset.local.` }), dns.RcodeRefused},
		{"our zone's bytes inside a label", append(append(slices.Clone(plain[:12]), append([]byte("\x12a\x0aclusterset\x05local"), 0)...), 0, 1, 0, 1), dns.RcodeRefused},
		{"the longest name", pack(func(m *dns.Msg) {
			m.Question[0].Name = strings.Repeat(strings.Repeat("y", 62)+".", 3) + strings.Repeat("z", 46) + ".clusterset.local."
		}), dns.RcodeNameError},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				r := raw(t, network, addr, c.query)
				if c.want == dropped {
					if r != nil {
						t.Errorf("%s: answered with %v, want silence", network, r)
					}
					continue
				}
				if r == nil || r.Rcode != c.want || !r.Response || r.Id != binary.BigEndian.Uint16(c.query) {
					t.Errorf("%s: want %s, got %v", network, dns.RcodeToString[c.want], r)
				}
			}
		})
	}
	if n, err := testutil.GatherAndCount(reg, "seaway_dns_responses_total"); err != nil || n != 2*len(usual) {
		t.Errorf("%d counters of responses (%v), want %d: a code that is not usual was answered", n, err, 2*len(usual))
	}
	want := "seaway_dns_dropped_total{proto=\"udp\"} 3\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP seaway_dns_dropped_total Messages that were no DNS queries and got no response.
# TYPE seaway_dns_dropped_total counter
seaway_dns_dropped_total{proto="tcp"} 3
`+want), "seaway_dns_dropped_total"); err != nil {
		t.Error(err)
	}
}

// raw sends some bytes and a good query behind them, and returns the response to the bytes, nil if there is none.
func raw(t *testing.T, network, addr string, query []byte) *dns.Msg {
	t.Helper()
	c, err := dns.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	const last = 0xfffe
	after := new(dns.Msg)
	after.SetQuestion("clusterset.local.", dns.TypeSOA)
	after.Id = last
	if err := c.WriteMsg(after); err != nil {
		t.Fatal(err)
	}
	var first *dns.Msg
	for { // by UDP, the two may be answered in any order
		r, err := c.ReadMsg()
		switch {
		case network == "tcp" && err != nil: // the connection was ended
			return first
		case err != nil:
			t.Fatalf("%s: %v", network, err)
		case r.Id != last:
			first = r
		}
		if r.Id == last && (network == "tcp" || len(query) < headerLen || query[2]&0x80 != 0) || network == "udp" && first != nil {
			return first
		}
	}
}

// Another implementation of DNS, the Go resolver's, understands the answers.
func TestGoResolver(t *testing.T) {
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1"), headless(50)}})
	addr := start(t, s.Zone, nil)
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	if got, err := r.LookupHost(t.Context(), "web.shop.svc.clusterset.local."); err != nil || !slices.Equal(got, []string{"10.9.255.1"}) {
		t.Errorf("host: %v %v", got, err)
	}
	if got, err := r.LookupHost(t.Context(), "db.shop.svc.clusterset.local."); err != nil || len(got) != 50 { // by TCP
		t.Errorf("headless: %v %v", got, err)
	}
	if _, got, err := r.LookupSRV(t.Context(), "pg", "tcp", "db.shop.svc.clusterset.local."); err != nil || len(got) != 50 || got[0].Port != 5432 {
		t.Errorf("SRV: %v %v", got, err)
	}
	if got, err := r.LookupAddr(t.Context(), "10.9.255.1"); err != nil || !slices.Equal(got, []string{"web.shop.svc.clusterset.local."}) {
		t.Errorf("PTR: %v %v", got, err)
	}
	if got, err := r.LookupTXT(t.Context(), "dns-version.clusterset.local."); err != nil || !slices.Equal(got, []string{zone.Version}) {
		t.Errorf("TXT: %v %v", got, err)
	}
	var no *net.DNSError
	if _, err := r.LookupHost(t.Context(), "nobody.shop.svc.clusterset.local."); !errors.As(err, &no) || !no.IsNotFound {
		t.Errorf("unknown name: %v", err)
	}
}

// TCP carries several queries on one connection, sent without waiting; garbage ends it.
func TestConnection(t *testing.T) {
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1")}})
	reg := prometheus.NewRegistry()
	addr := start(t, s.Zone, reg)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c}
	for id := range 50 {
		m := new(dns.Msg)
		m.SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA)
		m.Id = uint16(id)
		if err := conn.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	for id := range 50 {
		r, err := conn.ReadMsg()
		if err != nil || r.Id != uint16(id) || len(r.Answer) != 1 {
			t.Fatalf("response %d: %v %v", id, r, err)
		}
	}
	if _, err := c.Write([]byte{0, 3, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after garbage: %v, want the connection closed", err)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP seaway_dns_dropped_total Messages that were no DNS queries and got no response.
# TYPE seaway_dns_dropped_total counter
seaway_dns_dropped_total{proto="tcp"} 1
seaway_dns_dropped_total{proto="udp"} 0
`), "seaway_dns_dropped_total"); err != nil {
		t.Error(err)
	}
}

// While states come and go, every query gets a whole answer: the address before or the one after.
func TestStatesAreSwappedWhole(t *testing.T) {
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.0")}})
	addr := start(t, s.Zone, nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				s.OnIntent(fleet.Intent{Services: []fleet.Service{web(fmt.Sprintf("10.9.255.%d", i%256)), headless(i % 20)}})
			}
		}
	})
	for range 2000 {
		if r := ask(t, "udp", addr, "web.shop.svc.clusterset.local.", dns.TypeA); r.Rcode != 0 || len(r.Answer) != 1 {
			t.Fatalf("a state was seen half-made: %v", r)
		}
	}
	close(stop)
	wg.Wait()
}

func TestServeRefusesBadAddresses(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:5453", "[::]:5453"} {
		err := Serve(t.Context(), Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort(addr)}, Log: slog.New(slog.DiscardHandler)}, nil)
		if err == nil || !strings.Contains(err.Error(), "name the node's addresses") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := Serve(t.Context(), Config{}, nil); err == nil {
		t.Error("no address: no error")
	}
}

// A port that is taken, or an address that is not there, is told of and tried again, and keeps no other address down.
func TestTakenPortIsTriedAgain(t *testing.T) {
	taken, free := freePort(t, "127.0.0.1"), freePort(t, "127.0.0.2")
	busy, err := net.ListenPacket("udp", taken)
	if err != nil {
		t.Fatal(err)
	}
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1")}})
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan error, 100), make(chan error)
	parse := netip.MustParseAddrPort
	cfg := Config{Addrs: []netip.AddrPort{parse(taken), parse(free), parse("192.0.2.1:5453")},
		Log: slog.New(slog.DiscardHandler), Retry: time.Millisecond, Failing: func(err error) { told <- err }}
	go func() { done <- Serve(ctx, cfg, s.Zone) }()
	until := func(taken bool) {
		t.Helper()
		text := ""
		for {
			select {
			case err := <-told:
				text = fmt.Sprint(err)
				if strings.Contains(text, "another process has the port") == taken && strings.Contains(text, "no such address") {
					return
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("taken=%v was never told, last: %s", taken, text)
			}
		}
	}
	until(true)
	listening(t, free)
	ask(t, "udp", free, "web.shop.svc.clusterset.local.", dns.TypeA)
	busy.Close()
	until(false)
	if r := ask(t, "udp", taken, "web.shop.svc.clusterset.local.", dns.TypeA); len(r.Answer) != 1 {
		t.Errorf("after the port came free: %v", r)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Errorf("told again of what was known: %v", <-told)
	}
}

// A flood waits in the socket's buffer, not in goroutines.
func TestQueriesInHandAreBounded(t *testing.T) {
	var now, peak, handled atomic.Int32
	hold := make(chan struct{})
	addr := start(t, func() *zone.Zone {
		n := now.Add(1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		<-hold
		now.Add(-1)
		handled.Add(1)
		return nil
	}, nil)
	c, err := dns.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const sent = readers + 100
	m := new(dns.Msg)
	m.SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA)
	for range sent {
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); now.Load() < readers; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d in hand, want %d", now.Load(), readers)
		}
	}
	close(hold)
	for deadline := time.Now().Add(5 * time.Second); handled.Load() < sent; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d handled, want %d", handled.Load(), sent)
		}
	}
	if peak.Load() != readers {
		t.Errorf("%d were in hand at a time, want %d", peak.Load(), readers)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	var s State
	reg := prometheus.NewRegistry()
	addr := start(t, s.Zone, reg)
	served := func() bool {
		c, err := dns.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		m := new(dns.Msg)
		m.SetQuestion("clusterset.local.", dns.TypeSOA)
		if c.WriteMsg(m) != nil {
			return false
		}
		_, err = c.ReadMsg()
		return err == nil
	}
	var first *dns.Conn
	for i := range maxConns {
		c, err := dns.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 0 {
			first = c
		}
	}
	for deadline := time.Now().Add(5 * time.Second); served(); { // the one that start made may still hold a slot
		if time.Now().After(deadline) {
			t.Fatalf("served beside %d connections", maxConns)
		}
	}
	first.Close()
	for deadline := time.Now().Add(5 * time.Second); !served(); {
		if time.Now().After(deadline) {
			t.Fatal("not served after a connection had ended")
		}
	}
}

// Whatever comes, the response is one that another implementation can read, belongs to the query and keeps the limits.
func FuzzRespond(f *testing.F) {
	z := zone.Build([]fleet.Service{web("10.9.255.1"), headless(100)}, nil).Within([]netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd00::/13")})
	for _, name := range []string{"77.255.9.10.in-addr.arpa.", "x.255.9.10.In-Addr.arpa.", "1.0.d.f.ip6.arpa.", "web.shop.svc.clusterset.local.", "db.shop.svc.clusterset.local.", "db-1.c1.db.shop.svc.slice.local.", ".", "1.255.9.10.in-addr.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeANY, dns.TypePTR} {
			m := new(dns.Msg)
			m.SetQuestion(name, qtype)
			b, _ := m.Pack()
			f.Add(b)
			m.SetEdns0(1232, true)
			b, _ = m.Pack()
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		m := new(dns.Msg)
		if m.Unpack(query) != nil || m.Response || m.Opcode != dns.OpcodeQuery {
			return // the library answers, or nobody
		}
		for _, udp := range []bool{true, false} {
			out, err := respond(m, z, udp).Pack()
			if err != nil {
				t.Fatalf("query % x: pack the response: %v", query, err)
			}
			if udp && len(out) > largestUDP || len(out) > dns.MaxMsgSize {
				t.Fatalf("a response of %d bytes", len(out))
			}
			r := new(dns.Msg)
			if err := r.Unpack(out); err != nil {
				t.Fatalf("query % x\nresponse % x\n%v", query, out, err)
			}
			if r.Id != m.Id || !r.Response || r.Rcode != dns.RcodeFormatError && !slices.Equal(r.Question, m.Question) {
				t.Fatalf("%v does not answer %v", r, m)
			}
			if !slices.Contains(usual, r.Rcode) {
				t.Fatalf("an unusual code: %d", r.Rcode)
			}
			if len(r.Answer) > 0 && !r.Authoritative {
				t.Fatal("an answer that is not authoritative")
			}
		}
	})
}

func BenchmarkRespond(b *testing.B) {
	z := zone.Build([]fleet.Service{web("10.9.255.1"), headless(20)}, nil)
	for _, c := range []struct {
		name  string
		qtype uint16
	}{{"web.shop.svc.clusterset.local.", dns.TypeA}, {"db.shop.svc.clusterset.local.", dns.TypeA}, {"none.shop.svc.clusterset.local.", dns.TypeA}, {"db.shop.svc.clusterset.local.", dns.TypeSRV}} {
		m := new(dns.Msg)
		m.SetQuestion(c.name, c.qtype)
		m.SetEdns0(1232, false)
		q, _ := m.Pack()
		b.Run(c.name+dns.TypeToString[c.qtype], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m := new(dns.Msg)
				if err := m.Unpack(q); err != nil {
					b.Fatal(err)
				}
				if _, err := respond(m, z, true).Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestNearestFirst: of a headless service's addresses the nearest come first, each of them first at times, the others
// behind in the order of their distance.
func TestNearestFirst(t *testing.T) {
	svc := fleet.Service{Namespace: "shop", Name: "db", Slice: "pay", Headless: true}
	for i, rank := range []int{1, 1, 4, 6} {
		a := netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})
		svc.Endpoints = append(svc.Endpoints, fleet.Endpoint{Cluster: "c1", Addrs: []netip.Addr{a}, Ready: true, Rank: rank})
	}
	z := zone.Build([]fleet.Service{svc}, nil)
	first := map[string]int{}
	for id := range uint16(10) {
		q := new(dns.Msg).SetQuestion("db.shop.svc.clusterset.local.", dns.TypeA)
		q.Id = id
		r := respond(q, z, true)
		var got []string
		for _, rr := range r.Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		if len(got) != 4 || got[2] != "10.9.0.2" || got[3] != "10.9.0.3" {
			t.Fatalf("answers %v, want 10.9.0.2 and 10.9.0.3 behind the near ones", got)
		}
		first[got[0]]++
	}
	if first["10.9.0.0"] != 5 || first["10.9.0.1"] != 5 {
		t.Errorf("first in the answers: %v, want each near one by turns", first)
	}
}
