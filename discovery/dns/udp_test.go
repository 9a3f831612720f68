package dns

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"seaway.dev/seaway/discovery/zone"
	"seaway.dev/seaway/fleet"
)

func testServer(t testing.TB, z **zone.Zone) *server {
	t.Helper()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &server{current: func() *zone.Zone { return *z }, metrics: m}
}

// What is remembered is what would be answered afresh: to each question its own answer, in the case it was asked in,
// under its own ID, and nothing of an earlier zone.
func TestRememberedAnswersAreFreshOnes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	zones := []*zone.Zone{
		zone.Build([]fleet.Service{web("10.9.255.1"), headless(5)}, nil),
		zone.Build([]fleet.Service{web("10.9.255.2"), headless(60)}, nil),
	}
	names := []string{"web.shop.svc.clusterset.local.", "WEB.shop.svc.clusterset.local.", "db.shop.svc.clusterset.local.",
		"db-1.c1.db.shop.svc.slice.local.", "none.shop.svc.clusterset.local.", "_pg._tcp.db.shop.svc.clusterset.local."}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeANY}
	z := zones[0]
	s, known, hits := testServer(t, &z), new(answers), 0
	for i := range 20000 {
		if i%500 == 499 {
			z = zones[r.IntN(len(zones))]
		}
		m := new(dns.Msg)
		m.SetQuestion(names[r.IntN(len(names))], types[r.IntN(len(types))])
		m.Id = uint16(r.IntN(240)) // so that 5 and 60, which divide the turns, are in step, and what is repeated is hit
		if r.IntN(2) == 0 {
			m.SetEdns0(uint16(512+r.IntN(2)*720), r.IntN(2) == 0)
		}
		m.RecursionDesired, m.CheckingDisabled = r.IntN(2) == 0, r.IntN(2) == 0
		query, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		response := s.message(query, z, protoUDP)
		fresh, err := response.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got, k := known.find(z, query)
		if k != nil {
			hits++
			if !bytes.Equal(got, fresh) || k.code != response.Rcode || k.cut != response.Truncated {
				t.Fatalf("seed (1,2), query %d, %v:\nremembered % x\nfresh      % x", i, m, got, fresh)
			}
			continue
		}
		known.keep(query, fresh, response)
	}
	if hits < 4000 {
		t.Errorf("%d of 20000 were remembered", hits)
	}
}

// A flood of different questions does not fill the memory.
func TestOnlySoMuchIsRemembered(t *testing.T) {
	var services []fleet.Service
	for i := range maxKept + 10 {
		s := web("10.9.255.1")
		s.Name = fmt.Sprintf("web%d", i)
		s.IPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})}
		services = append(services, s)
	}
	z := zone.Build(services, nil)
	s, known := testServer(t, &z), new(answers)
	ask := func(name string) {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		query, _ := m.Pack()
		known.find(z, query)
		r := s.message(query, z, protoUDP)
		out, _ := r.Pack()
		known.keep(query, out, r)
	}
	for i := range maxKept + 10 {
		ask(fmt.Sprintf("none%d.shop.svc.clusterset.local.", i))
	}
	if len(known.kept) != 0 {
		t.Errorf("%d names that do not exist are remembered", len(known.kept))
	}
	for i := range maxKept + 10 {
		ask(fmt.Sprintf("web%d.shop.svc.clusterset.local.", i))
	}
	if len(known.kept) != maxKept {
		t.Errorf("%d are remembered, want %d", len(known.kept), maxKept)
	}
}

func BenchmarkRemembered(b *testing.B) {
	z := zone.Build([]fleet.Service{web("10.9.255.1"), headless(20)}, nil)
	s, known := testServer(b, &z), new(answers)
	m := new(dns.Msg)
	m.SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA)
	query, _ := m.Pack()
	known.find(z, query)
	r := s.message(query, z, protoUDP)
	out, _ := r.Pack()
	known.keep(query, out, r)
	b.ReportAllocs()
	for b.Loop() {
		if _, k := known.find(z, query); k == nil {
			b.Fatal("not remembered")
		}
	}
}

// Whatever bytes come, there is no response or one that can be packed, is small enough, and has the query's ID; and
// asked again, the same.
func FuzzMessage(f *testing.F) {
	z := zone.Build([]fleet.Service{web("10.9.255.1"), headless(7)}, nil)
	for _, name := range []string{"web.shop.svc.clusterset.local.", "db.shop.svc.slice.local.", "."} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		b, _ := m.Pack()
		f.Add(b)
		m.SetEdns0(4096, true)
		b, _ = m.Pack()
		f.Add(b)
	}
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	s, known := testServer(f, &z), new(answers)
	f.Fuzz(func(t *testing.T, query []byte) {
		known.find(z, query)
		r := s.message(query, z, protoUDP)
		if r == nil {
			return
		}
		out, err := r.Pack()
		if err != nil {
			t.Fatalf("query % x: %v", query, err)
		}
		if len(out) > largestUDP || !bytes.Equal(out[:2], query[:2]) || out[2]&0x80 == 0 {
			t.Fatalf("query % x\nresponse % x", query, out)
		}
		known.keep(query, bytes.Clone(out), r)
		if again, k := known.find(z, query); k != nil && !bytes.Equal(again, out) {
			t.Fatalf("query % x\nfirst % x\nthen  % x", query, out, again)
		}
	})
}
