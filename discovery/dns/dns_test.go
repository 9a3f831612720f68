package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"seaway.dev/seaway/discovery/zone"
	"seaway.dev/seaway/fleet"
)

// The client in these tests is github.com/miekg/dns: an implementation of DNS that shares nothing with ours.

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
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that was free a moment ago
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
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
	for deadline := time.Now().Add(5 * time.Second); ; { // until somebody listens
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// ask exchanges one question.
func ask(t *testing.T, network, addr, name string, qtype uint16, change ...func(*miekg.Msg)) *miekg.Msg {
	t.Helper()
	q := new(miekg.Msg)
	q.SetQuestion(name, qtype)
	for _, c := range change {
		c(q)
	}
	r, _, err := (&miekg.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 4096}).Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s %s %s: %v", network, name, miekg.TypeToString[qtype], err)
	}
	return r
}

func TestAnswersByUDPAndTCP(t *testing.T) {
	var s State
	addr := start(t, s.Zone, nil)
	const name = "web.shop.svc.clusterset.local."
	for _, network := range []string{"udp", "tcp"} {
		if r := ask(t, network, addr, name, miekg.TypeA); r.Rcode != miekg.RcodeServerFailure {
			t.Errorf("%s: before the first state: %s, want SERVFAIL", network, miekg.RcodeToString[r.Rcode])
		}
	}
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1"), headless(2)}})
	for _, network := range []string{"udp", "tcp"} {
		r := ask(t, network, addr, "WEB.shop.SVC.clusterset.LOCAL.", miekg.TypeA)
		if r.Rcode != 0 || len(r.Answer) != 1 || !r.Authoritative || r.RecursionAvailable || r.Truncated {
			t.Fatalf("%s: %v", network, r)
		}
		if a := r.Answer[0].(*miekg.A); a.A.String() != "10.9.255.1" || a.Hdr.Ttl != 5 || a.Hdr.Name != "WEB.shop.SVC.clusterset.LOCAL." {
			t.Errorf("%s: %v; the name's case is to be kept", network, a)
		}
		r = ask(t, network, addr, "nobody.shop.svc.clusterset.local.", miekg.TypeA)
		if soa, ok := r.Ns[0].(*miekg.SOA); r.Rcode != miekg.RcodeNameError || !ok || soa.Hdr.Name != "clusterset.local." || soa.Minttl != 1 {
			t.Errorf("%s: unknown name: %v", network, r)
		}
		r = ask(t, network, addr, "web.shop.svc.slice.local.", miekg.TypeAAAA)
		if r.Rcode != 0 || len(r.Answer) != 0 || r.Ns[0].Header().Name != "slice.local." {
			t.Errorf("%s: a name without that type: %v", network, r)
		}
		r = ask(t, network, addr, "_pg._tcp.db.shop.svc.clusterset.local.", miekg.TypeSRV)
		if len(r.Answer) != 2 || len(r.Extra) != 2 || r.Extra[0].Header().Name != r.Answer[0].(*miekg.SRV).Target && r.Extra[0].Header().Name != r.Answer[1].(*miekg.SRV).Target {
			t.Errorf("%s: SRV: %v", network, r)
		}
		if r = ask(t, network, addr, "example.com.", miekg.TypeA); r.Rcode != miekg.RcodeRefused || r.Authoritative {
			t.Errorf("%s: another zone: %v", network, r)
		}
	}
}

func TestEDNS(t *testing.T) {
	var s State
	s.OnIntent(fleet.Intent{Services: []fleet.Service{web("10.9.255.1")}})
	addr := start(t, s.Zone, nil)
	const name = "web.shop.svc.clusterset.local."
	if r := ask(t, "udp", addr, name, miekg.TypeA); r.IsEdns0() != nil {
		t.Error("an OPT record for a client that sent none")
	}
	r := ask(t, "udp", addr, name, miekg.TypeA, func(m *miekg.Msg) { m.SetEdns0(4096, true) })
	if o := r.IsEdns0(); o == nil || o.UDPSize() != 1232 || o.Version() != 0 || len(r.Answer) != 1 {
		t.Errorf("with EDNS: %v", r)
	}
	r = ask(t, "udp", addr, name, miekg.TypeA, func(m *miekg.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) })
	if r.Rcode != miekg.RcodeBadVers || len(r.Answer) != 0 {
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
		r := ask(t, "udp", addr, name, miekg.TypeA, func(m *miekg.Msg) {
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
	if r := ask(t, "tcp", addr, name, miekg.TypeA); r.Truncated || len(r.Answer) != 300 {
		t.Errorf("by TCP: truncated=%v, %d records, want all 300", r.Truncated, len(r.Answer))
	}
	if r := ask(t, "tcp", addr, name, miekg.TypeSRV); r.Truncated || len(r.Answer) != 300 || len(r.Extra) != 300 {
		t.Errorf("SRV by TCP: truncated=%v, %d records, %d additional, want 300 and 300", r.Truncated, len(r.Answer), len(r.Extra))
	}
}

// Clients that take the first address spread over all of them.
func TestRecordsTakeTurns(t *testing.T) {
	z := zone.Build([]fleet.Service{headless(5)}, nil)
	first := map[string]int{}
	for id := range 1000 {
		m := new(miekg.Msg)
		m.SetQuestion("db.shop.svc.clusterset.local.", miekg.TypeA)
		m.Id = uint16(id)
		r := direct(t, z, m, true)
		seen := map[string]bool{}
		for _, rr := range r.Answer {
			seen[rr.(*miekg.A).A.String()] = true
		}
		if len(seen) != 5 {
			t.Fatalf("got %d different addresses of 5", len(seen))
		}
		first[r.Answer[0].(*miekg.A).A.String()]++
	}
	for a, n := range first {
		if n != 200 {
			t.Errorf("%s came first %d times of 1000, want 200", a, n)
		}
	}
}

// direct asks respond itself.
func direct(t *testing.T, z *zone.Zone, m *miekg.Msg, udp bool) *miekg.Msg {
	t.Helper()
	q, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := respond(nil, q, z, udp)
	r := new(miekg.Msg)
	if err := r.Unpack(out); err != nil {
		t.Fatalf("%v: unpack the response: %v", m, err)
	}
	return r
}

func TestMalformedAndOddQueries(t *testing.T) {
	z := zone.Build([]fleet.Service{web("10.9.255.1")}, nil)
	good := new(miekg.Msg)
	good.SetQuestion("web.shop.svc.clusterset.local.", miekg.TypeA)
	pack := func(change func(m *miekg.Msg)) []byte {
		m := good.Copy()
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain := pack(func(*miekg.Msg) {})
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
		{"good", plain, miekg.RcodeSuccess},
		{"nothing", nil, dropped},
		{"half a header", plain[:11], dropped},
		{"a response", pack(func(m *miekg.Msg) { m.Response = true }), dropped},
		{"a header alone", plain[:12], miekg.RcodeFormatError},
		{"half a name", plain[:20], miekg.RcodeFormatError},
		{"no class", plain[:len(plain)-2], miekg.RcodeFormatError},
		{"two questions", patch(4, 0, 2), miekg.RcodeFormatError},
		{"no question", patch(4, 0, 0), miekg.RcodeFormatError},
		{"a pointer to itself", patch(12, 0xc0, 12), miekg.RcodeFormatError},
		{"a label of 64", patch(12, 64), miekg.RcodeFormatError},
		{"records that are not there", patch(6, 0, 1), miekg.RcodeFormatError},
		{"too many records", patch(10, 0xff, 0xff), miekg.RcodeFormatError},
		{"two OPT", pack(func(m *miekg.Msg) { m.SetEdns0(1232, false); m.Extra = append(m.Extra, m.Extra[0]) }), miekg.RcodeFormatError},
		{"bytes behind the end", append(slices.Clone(plain), 1, 2, 3), miekg.RcodeSuccess},
		{"a signature that nobody checks", pack(func(m *miekg.Msg) { m.SetTsig("k.", miekg.HmacSHA256, 300, 1) }), miekg.RcodeSuccess},
		{"notify", pack(func(m *miekg.Msg) { m.Opcode = miekg.OpcodeNotify }), miekg.RcodeNotImplemented},
		{"update", pack(func(m *miekg.Msg) { m.Opcode = miekg.OpcodeUpdate }), miekg.RcodeNotImplemented},
		{"class CHAOS", pack(func(m *miekg.Msg) { m.Question[0].Qclass = miekg.ClassCHAOS }), miekg.RcodeRefused},
		{"zone transfer", pack(func(m *miekg.Msg) { m.Question[0].Qtype = miekg.TypeAXFR }), miekg.RcodeSuccess},
		{"the root", pack(func(m *miekg.Msg) { m.Question[0].Name = "." }), miekg.RcodeRefused},
		{"a label with a dot in it", pack(func(m *miekg.Msg) { m.Question[0].Name = `x\.clusterset.local.` }), miekg.RcodeRefused},
		{"our zone's bytes inside a label", append(append(slices.Clone(plain[:12]), append([]byte("\x12a\x0aclusterset\x05local"), 0)...), 0, 1, 0, 1), miekg.RcodeRefused},
		{"the longest name", pack(func(m *miekg.Msg) {
			m.Question[0].Name = strings.Repeat(strings.Repeat("y", 62)+".", 3) + strings.Repeat("z", 46) + ".clusterset.local."
		}), miekg.RcodeNameError},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _ := respond(nil, c.query, z, true)
			if c.want == dropped {
				if out != nil {
					t.Errorf("answered with % x, want silence", out)
				}
				return
			}
			r := new(miekg.Msg)
			if err := r.Unpack(out); err != nil {
				t.Fatalf("unpack % x: %v", out, err)
			}
			if r.Rcode != c.want || !r.Response || r.Id != binary.BigEndian.Uint16(c.query) {
				t.Errorf("got %s, want %s: %v", miekg.RcodeToString[r.Rcode], miekg.RcodeToString[c.want], r)
			}
		})
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
	conn := &miekg.Conn{Conn: c}
	for id := range 50 {
		m := new(miekg.Msg)
		m.SetQuestion("web.shop.svc.clusterset.local.", miekg.TypeA)
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
		if r := ask(t, "udp", addr, "web.shop.svc.clusterset.local.", miekg.TypeA); r.Rcode != 0 || len(r.Answer) != 1 {
			t.Fatalf("a state was seen half-made: %v", r)
		}
	}
	close(stop)
	wg.Wait()
}

func TestServeRefusesBadAddresses(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, c := range []struct{ addr, want string }{
		{"0.0.0.0:5453", "name the node's addresses"},
		{"[::]:5453", "name the node's addresses"},
		{"192.0.2.1:5453", "no such address"},
		{busy.LocalAddr().String(), "another process has the port"},
	} {
		err := Serve(t.Context(), Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort(c.addr)}, Log: slog.New(slog.DiscardHandler)}, func() *zone.Zone { return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.addr, err, c.want)
		}
	}
	if err := Serve(t.Context(), Config{}, nil); err == nil {
		t.Error("no address: no error")
	}
}

func TestAnsweringAllocatesNothing(t *testing.T) {
	z := zone.Build([]fleet.Service{web("10.9.255.1"), headless(20)}, nil)
	for _, name := range []string{"web.shop.svc.clusterset.local.", "DB.shop.svc.clusterset.local.", "none.shop.svc.slice.local."} {
		m := new(miekg.Msg)
		m.SetQuestion(name, miekg.TypeA)
		m.SetEdns0(1232, false)
		q, _ := m.Pack()
		buf := make([]byte, 0, largestUDP)
		if n := testing.AllocsPerRun(100, func() { respond(buf, q, z, true) }); n != 0 {
			t.Errorf("%s: %v allocations a query", name, n)
		}
	}
}

// Whatever comes, the response is one that another implementation can read, belongs to the query and keeps the limits.
func FuzzRespond(f *testing.F) {
	z := zone.Build([]fleet.Service{web("10.9.255.1"), headless(100)}, nil)
	for _, name := range []string{"web.shop.svc.clusterset.local.", "db.shop.svc.clusterset.local.", "db-1.c1.db.shop.svc.slice.local.", ".", "1.255.9.10.in-addr.arpa."} {
		for _, qtype := range []uint16{miekg.TypeA, miekg.TypeSRV, miekg.TypeANY, miekg.TypePTR} {
			m := new(miekg.Msg)
			m.SetQuestion(name, qtype)
			b, _ := m.Pack()
			f.Add(b)
			m.SetEdns0(1232, true)
			b, _ = m.Pack()
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		before := slices.Clone(query)
		for _, udp := range []bool{true, false} {
			out, what := respond([]byte{0xaa, 0xbb}, query, z, udp)
			if !reflect.DeepEqual(query, before) {
				t.Fatal("the query was changed")
			}
			if out == nil {
				continue
			}
			if out[0] != 0xaa || out[1] != 0xbb {
				t.Fatal("what stood before the response was changed")
			}
			out = out[2:]
			if udp && len(out) > largestUDP || len(out) > largestTCP {
				t.Fatalf("a response of %d bytes", len(out))
			}
			if out[0] != query[0] || out[1] != query[1] || out[2]&0x80 == 0 {
				t.Fatalf("% x does not answer % x", out[:4], query[:4])
			}
			r := new(miekg.Msg)
			if err := r.Unpack(out); err != nil {
				t.Fatalf("query % x\nresponse % x\n%v", query, out, err)
			}
			if codeName(what.code) == "" {
				t.Fatalf("a code without a name: %d", what.code)
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
	}{{"web.shop.svc.clusterset.local.", miekg.TypeA}, {"db.shop.svc.clusterset.local.", miekg.TypeA}, {"none.shop.svc.clusterset.local.", miekg.TypeA}, {"db.shop.svc.clusterset.local.", miekg.TypeSRV}} {
		m := new(miekg.Msg)
		m.SetQuestion(c.name, c.qtype)
		m.SetEdns0(1232, false)
		q, _ := m.Pack()
		b.Run(c.name+miekg.TypeToString[c.qtype], func(b *testing.B) {
			buf := make([]byte, 0, largestUDP)
			b.ReportAllocs()
			for b.Loop() {
				respond(buf, q, z, true)
			}
		})
	}
}
