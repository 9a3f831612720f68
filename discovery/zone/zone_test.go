package zone

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"seaway.dev/seaway/fleet"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// texts are records as people write them, without owner and TTL: "A 10.9.0.1", "SRV 0 100 80 web.shop.svc…".
func texts(list []dns.RR) []string {
	var out []string
	for _, rr := range list {
		out = append(out, dns.TypeToString[rr.Header().Rrtype]+" "+strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return out
}

// fixture has a service with addresses of both families, a StatefulSet in two clusters, and the odd cases.
func fixture() []fleet.Service {
	http, udp := fleet.Port{Name: "http", Protocol: fleet.TCP, Port: 80}, fleet.Port{Name: "dns", Protocol: fleet.UDP, Port: 80}
	unnamed := fleet.Port{Protocol: fleet.TCP, Port: 5432}
	long := strings.Repeat("x", 63)
	return []fleet.Service{
		{Namespace: "shop", Name: "web", Slice: "pay", IPs: addrs("10.9.255.1", "fd00:9::ff01"), Ports: []fleet.Port{http, udp},
			Endpoints: []fleet.Endpoint{{Cluster: "c1", Pod: "web-x", Addrs: addrs("10.9.1.1"), Ready: true}}},
		{Namespace: "shop", Name: "db", Slice: "pay", Headless: true, Ports: []fleet.Port{{Name: "pg", Protocol: fleet.TCP, Port: 5432}},
			Endpoints: []fleet.Endpoint{
				{Cluster: "c1", Pod: "db-0", Hostname: "db-0", Addrs: addrs("10.9.1.10", "fd00:9:1::10"), Ready: true, Ports: map[string]uint16{"pg": 15432}},
				{Cluster: "c1", Pod: "db-1", Hostname: "db-1", Addrs: addrs("10.9.1.11"), Ports: map[string]uint16{"pg": 15432}},
				{Cluster: "c2", Pod: "db-0", Hostname: "db-0", Addrs: addrs("10.9.2.10"), Ready: true, Ports: map[string]uint16{"pg": 15432}},
				{Cluster: "c2", Pod: "db-1", Hostname: "db-1"}, // known, without an address yet
			}},
		{Namespace: "shop", Name: "idle", Slice: "pay", Headless: true},
		{Namespace: "shop", Name: "new", Slice: "pay", Ports: []fleet.Port{unnamed}}, // no address yet
		{Namespace: "shop", Name: "plain", Slice: "pay", IPs: addrs("10.9.255.2"), Ports: []fleet.Port{unnamed}},
		{Namespace: long, Name: long, Slice: "pay", Headless: true, Endpoints: []fleet.Endpoint{
			{Cluster: long, Pod: long, Hostname: long, Addrs: addrs("10.9.1.66"), Ready: true}}},
		{Namespace: "shop", Name: "bad.name", Slice: "pay", IPs: addrs("10.9.255.3")},
	}
}

func TestLookup(t *testing.T) {
	z := Build(fixture(), nil)
	const base = ".svc.clusterset.local"
	long := strings.Repeat("x", 63)
	for _, c := range []struct {
		name  string
		qtype uint16
		code  int
		want  string // the records, separated by commas
	}{
		{"web.shop" + base, dns.TypeA, dns.RcodeSuccess, "A 10.9.255.1"},
		{"web.shop" + base, dns.TypeAAAA, dns.RcodeSuccess, "AAAA fd00:9::ff01"},
		{"WeB.sHoP.SVC.ClusterSet.LOCAL.", dns.TypeA, dns.RcodeSuccess, "A 10.9.255.1"},
		{"web.shop.svc.slice.local", dns.TypeA, dns.RcodeSuccess, "A 10.9.255.1"},
		{"web.shop" + base, dns.TypeTXT, dns.RcodeSuccess, ""},
		{"web.shop" + base, dns.TypeANY, dns.RcodeSuccess, "A 10.9.255.1"},
		// One target and number once: two ports share the number 80.
		{"web.shop" + base, dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 80 web.shop.svc.clusterset.local."},
		{"_http._tcp.web.shop" + base, dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 80 web.shop.svc.clusterset.local."},
		{"_dns._udp.web.shop" + base, dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 80 web.shop.svc.clusterset.local."},
		{"_http._tcp.web.shop.svc.slice.local", dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 80 web.shop.svc.slice.local."},
		{"_http._tcp.web.shop" + base, dns.TypeA, dns.RcodeSuccess, ""},
		{"_tcp.web.shop" + base, dns.TypeSRV, dns.RcodeSuccess, ""},
		{"_http._udp.web.shop" + base, dns.TypeSRV, dns.RcodeNameError, ""},
		{"_._tcp.plain.shop" + base, dns.TypeSRV, dns.RcodeNameError, ""}, // unnamed ports have no name to ask for
		{"plain.shop" + base, dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 5432 plain.shop.svc.clusterset.local."},
		{"plain.shop" + base, dns.TypeAAAA, dns.RcodeSuccess, ""},

		{"db.shop" + base, dns.TypeA, dns.RcodeSuccess, "A 10.9.1.10,A 10.9.2.10"},
		{"db.shop" + base, dns.TypeAAAA, dns.RcodeSuccess, "AAAA fd00:9:1::10"},
		{"db.shop" + base, dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 15432 db-0.c1.db.shop.svc.clusterset.local.,SRV 0 100 15432 db-0.c2.db.shop.svc.clusterset.local."},
		{"_pg._tcp.db.shop" + base, dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 15432 db-0.c1.db.shop.svc.clusterset.local.,SRV 0 100 15432 db-0.c2.db.shop.svc.clusterset.local."},
		{"db-0.c1.db.shop" + base, dns.TypeA, dns.RcodeSuccess, "A 10.9.1.10"},
		{"db-0.c2.db.shop" + base, dns.TypeA, dns.RcodeSuccess, "A 10.9.2.10"},
		{"db-1.c1.db.shop" + base, dns.TypeA, dns.RcodeSuccess, "A 10.9.1.11"}, // not ready; its address is its for life
		{"db-1.c2.db.shop" + base, dns.TypeA, dns.RcodeServerFailure, ""},      // known, and not yet where
		{"db-1.c2.db.shop" + base, dns.TypeTXT, dns.RcodeSuccess, ""},
		{"db-0.c1.db.shop.svc.slice.local", dns.TypeA, dns.RcodeSuccess, "A 10.9.1.10"},
		{"db-2.c1.db.shop" + base, dns.TypeA, dns.RcodeNameError, ""},
		{"c1.db.shop" + base, dns.TypeA, dns.RcodeSuccess, ""}, // the standard: no record for one cluster's part
		{"c9.db.shop" + base, dns.TypeA, dns.RcodeNameError, ""},
		{"db-0.db.shop" + base, dns.TypeA, dns.RcodeNameError, ""},

		// Pods of services that are not headless have names under the alias alone.
		{"web-x.c1.web.shop.svc.slice.local", dns.TypeA, dns.RcodeSuccess, "A 10.9.1.1"},
		{"web-x.c1.web.shop" + base, dns.TypeA, dns.RcodeNameError, ""},

		{"idle.shop" + base, dns.TypeA, dns.RcodeSuccess, ""},
		{"new.shop" + base, dns.TypeA, dns.RcodeServerFailure, ""},
		{"new.shop" + base, dns.TypeSRV, dns.RcodeSuccess, "SRV 0 100 5432 new.shop.svc.clusterset.local."},

		{"nobody.shop" + base, dns.TypeA, dns.RcodeNameError, ""},
		{"web.nowhere" + base, dns.TypeA, dns.RcodeNameError, ""},
		{"shop" + base, dns.TypeA, dns.RcodeSuccess, ""},
		{"nowhere" + base, dns.TypeA, dns.RcodeNameError, ""},
		{"svc.clusterset.local", dns.TypeA, dns.RcodeSuccess, ""},
		{"pod.clusterset.local", dns.TypeA, dns.RcodeNameError, ""},
		{"clusterset.local", dns.TypeNS, dns.RcodeSuccess, "NS ns.dns.clusterset.local."},
		{"clusterset.local", dns.TypeSOA, dns.RcodeSuccess, "SOA ns.dns.clusterset.local. hostmaster.clusterset.local. 1 7200 1800 86400 1"},
		{"slice.local", dns.TypeNS, dns.RcodeSuccess, "NS ns.dns.slice.local."},
		{"ns.dns.clusterset.local", dns.TypeA, dns.RcodeSuccess, ""},
		{"dns-version.clusterset.local", dns.TypeTXT, dns.RcodeSuccess, `TXT "1.0.0"`},
		{"dns-version.slice.local", dns.TypeTXT, dns.RcodeSuccess, `TXT "1.0.0"`},
		{"dns-version.clusterset.local", dns.TypeA, dns.RcodeSuccess, ""},

		{"cluster.local", dns.TypeA, dns.RcodeRefused, ""},
		{"local", dns.TypeA, dns.RcodeRefused, ""},
		{"xclusterset.local", dns.TypeA, dns.RcodeRefused, ""},
		{"example.com", dns.TypeA, dns.RcodeRefused, ""},
		{"web.shop.svc.cluster.local", dns.TypeA, dns.RcodeRefused, ""},

		{"1.255.9.10.in-addr.arpa", dns.TypePTR, dns.RcodeSuccess, "PTR web.shop.svc.clusterset.local."},
		{"10.1.9.10.in-addr.arpa", dns.TypePTR, dns.RcodeSuccess, "PTR db-0.c1.db.shop.svc.clusterset.local."},
		{"0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa", dns.TypePTR, dns.RcodeSuccess, "PTR db-0.c1.db.shop.svc.clusterset.local."},
		{"10.1.9.10.in-addr.arpa", dns.TypeA, dns.RcodeSuccess, ""},
		{"1.1.9.10.in-addr.arpa", dns.TypePTR, dns.RcodeRefused, ""}, // a pod of no headless service: somebody else may know

		// At the limits of DNS: the service has its names, the pod's would be too long.
		{long + "." + long + base, dns.TypeA, dns.RcodeSuccess, "A 10.9.1.66"},
		{"66.1.9.10.in-addr.arpa", dns.TypePTR, dns.RcodeRefused, ""},
	} {
		t.Run(c.name+" "+dns.TypeToString[c.qtype], func(t *testing.T) {
			a := z.Lookup(c.name, c.qtype)
			if got := strings.Join(texts(a.Records), ","); a.Code != c.code || got != c.want {
				t.Errorf("%s %s: got %s %q, want %s %q", c.name, dns.TypeToString[c.qtype], dns.RcodeToString[a.Code], got, dns.RcodeToString[c.code], c.want)
			}
			if negative := a.Records == nil && (a.Code == dns.RcodeSuccess || a.Code == dns.RcodeNameError) && !strings.HasSuffix(c.name, ".arpa"); negative != (a.Authority != nil) {
				t.Errorf("SOA in the authority section: %v, want %v", a.Authority != nil, negative)
			}
		})
	}
}

func TestBeforeTheFirstStateNothingIsDenied(t *testing.T) {
	var z *Zone
	for name, want := range map[string]int{
		"web.shop.svc.clusterset.local": dns.RcodeServerFailure, "clusterset.local": dns.RcodeServerFailure, "web.shop.svc.slice.local": dns.RcodeServerFailure,
		"example.com": dns.RcodeRefused, "1.255.9.10.in-addr.arpa": dns.RcodeServerFailure,
	} {
		if got := z.Lookup(name, dns.TypeA).Code; got != want {
			t.Errorf("%s: %s, want %s", name, dns.RcodeToString[got], dns.RcodeToString[want])
		}
	}
}

// A headless service's pods may be told with the addresses that their own clusters gave them, in all records but those
// back: what an address of a cluster's own network is called is that cluster's business.
func TestPodsOwnAddresses(t *testing.T) {
	s := fleet.Service{Namespace: "shop", Name: "db", Slice: "pay", Headless: true, Ports: []fleet.Port{{Name: "pg", Protocol: fleet.TCP, Port: 5432}},
		Endpoints: []fleet.Endpoint{
			{Cluster: "c1", Pod: "db-0", Hostname: "db-0", Addrs: addrs("10.9.1.10", "fd00:9:1::10"), PodAddrs: addrs("10.1.0.7"), Ready: true, Ports: map[string]uint16{"pg": 5432}},
			{Cluster: "c1", Pod: "db-1", Hostname: "db-1", Addrs: addrs("10.9.1.11"), Ready: true}, // not told
		}}
	z := Build([]fleet.Service{s}, nil)
	const base = "db.shop.svc.clusterset.local"
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{base, dns.TypeA, "A 10.1.0.7, A 10.9.1.11"},
		{base, dns.TypeAAAA, "AAAA fd00:9:1::10"},
		{"db-0.c1." + base, dns.TypeA, "A 10.1.0.7"},
		{"10.1.9.10.in-addr.arpa", dns.TypePTR, "PTR db-0.c1." + base + "."},
	} {
		if got := strings.Join(texts(z.Lookup(c.name, c.qtype).Records), ", "); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.qtype], got, c.want)
		}
	}
	if got := texts(z.Lookup(base, dns.TypeSRV).Extra); !slices.Contains(got, "A 10.1.0.7") {
		t.Errorf("beside the SRV record: %v, want the pod's own address", got)
	}
}

func TestSRVComesWithItsTargetsAddresses(t *testing.T) {
	a := Build(fixture(), nil).Lookup("_pg._tcp.db.shop.svc.clusterset.local", dns.TypeSRV)
	if len(a.Extra) != 3 { // two IPv4 addresses and one IPv6 address of the two ready pods
		t.Errorf("got %d additional records, want 3", len(a.Extra))
	}
}

// Two slices may have the same prefix: a reverse name then has both names, and neither slice is told a lie.
func TestOneAddressOnTwoSlices(t *testing.T) {
	z := Build([]fleet.Service{
		{Namespace: "a", Name: "web", Slice: "s1", IPs: addrs("10.9.255.1")},
		{Namespace: "b", Name: "web", Slice: "s2", IPs: addrs("10.9.255.1")},
	}, nil)
	got := texts(z.Lookup("1.255.9.10.in-addr.arpa", dns.TypePTR).Records)
	if want := []string{"PTR web.a.svc.clusterset.local.", "PTR web.b.svc.clusterset.local."}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBuildDoesNotDependOnTheOrderOfServices(t *testing.T) {
	services := fixture()
	want := Build(services, nil)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		r.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
		if !reflect.DeepEqual(Build(services, nil), want) {
			t.Fatalf("seed %d: another zone from the same services", seed)
		}
	}
}

// A zone that follows another is the same as one made from nothing, but for its serial, and takes over what is equal.
func TestBuildOnAnOldZone(t *testing.T) {
	old := Build(fixture(), nil)
	changed := fixture()
	changed[0].IPs = addrs("10.9.255.9")
	changed = append(changed[:2:2], changed[3:]...) // idle is gone
	next, fresh := Build(changed, old), Build(changed, nil)
	fresh.serial = next.serial
	for i, apex := range []string{Main, Alias} {
		fresh.addSpecial(i, apex)
	}
	if !reflect.DeepEqual(next, fresh) {
		t.Error("the zone depends on the one before")
	}
	if next.services["db.shop"] != old.services["db.shop"] {
		t.Error("an unchanged service was built again")
	}
	if got := texts(old.Lookup("web.shop.svc.clusterset.local", dns.TypeA).Records); !reflect.DeepEqual(got, []string{"A 10.9.255.1"}) {
		t.Errorf("the old zone changed: %v", got)
	}
	if next.Lookup("idle.shop.svc.clusterset.local", dns.TypeA).Code != dns.RcodeNameError {
		t.Error("a service that is gone is still there")
	}
}

// Whatever a cluster calls its pods and services, Build makes no name that is not well formed, and finds each it made.
func FuzzBuild(f *testing.F) {
	f.Add("web", "shop", "web-0", "c1", "http", "web-0.c1.web.shop.svc.clusterset.local")
	f.Add("a.b", "\x00", strings.Repeat("y", 64), "c.1", "_", "..")
	f.Fuzz(func(t *testing.T, svc, ns, host, cluster, port, question string) {
		services := []fleet.Service{{Name: svc, Namespace: ns, Headless: len(svc)%2 == 0, IPs: addrs("10.9.255.1"),
			Ports: []fleet.Port{{Name: port, Protocol: fleet.Protocol(port), Port: 1}},
			Endpoints: []fleet.Endpoint{{Cluster: cluster, Hostname: host, Pod: host, Addrs: addrs("10.9.1.1"), Ready: true,
				Ports: map[string]uint16{port: 2}}}}}
		z := Build(services, nil)
		if len(z.services) > 0 {
			if a := z.Lookup(fmt.Sprintf("%s.%s.svc.clusterset.local", svc, ns), dns.TypeA); a.Code != dns.RcodeSuccess || a.Records == nil {
				t.Errorf("the service's own name answers %v", a)
			}
		}
		for _, sv := range z.services {
			for _, names := range sv.names {
				for rel, n := range names {
					for _, set := range n.sets {
						wellFormed(t, z, rel, set)
					}
				}
			}
		}
		z.Lookup(question, dns.TypeA)
	})
}

// wellFormed packs the records of a name, reads them again, and looks their owner up.
func wellFormed(t *testing.T, z *Zone, rel string, set *Set) {
	t.Helper()
	for _, rr := range slices.Concat(set.Records, set.Extra) {
		b := make([]byte, 1024)
		end, err := dns.PackRR(dns.Copy(rr), b, 0, nil, false)
		if err != nil {
			t.Fatalf("%q: pack %v: %v", rel, rr, err)
		}
		back, _, err := dns.UnpackRR(b[:end], 0)
		if err != nil || back.String() != rr.String() {
			t.Fatalf("%q: %v became %v: %v", rel, rr, back, err)
		}
	}
	h := set.Records[0].Header()
	if a := z.Lookup(h.Name, h.Rrtype); len(a.Records) != len(set.Records) {
		t.Fatalf("%q: %v is not found: %v", rel, h, a)
	}
}

func services(n, endpoints int) []fleet.Service {
	var out []fleet.Service
	for i := range n {
		s := fleet.Service{Namespace: fmt.Sprintf("ns-%d", i%50), Name: fmt.Sprintf("svc-%d", i), Slice: "pay", Headless: i%4 == 0,
			IPs:   []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})},
			Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}}
		for e := range endpoints {
			s.Endpoints = append(s.Endpoints, fleet.Endpoint{Cluster: fmt.Sprintf("c%d", e%100), Pod: fmt.Sprintf("p-%d", e),
				Hostname: fmt.Sprintf("p-%d", e), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(e)})},
				Ready: true, Ports: map[string]uint16{"http": 8080}})
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b fleet.Service) int { // as intents have them
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

func BenchmarkBuild1000Services10000Endpoints(b *testing.B) {
	in := services(1000, 10)
	b.ReportAllocs()
	for b.Loop() {
		Build(in, nil)
	}
}

func BenchmarkBuildOneChangeIn1000Services(b *testing.B) {
	in := services(1000, 10)
	z := Build(in, nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		in[7].IPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 201, 0, byte(i)})}
		z = Build(in, z)
	}
}

func BenchmarkLookup(b *testing.B) {
	z := Build(services(1000, 10), nil)
	names := map[string]string{
		"service": "svc-777.ns-27.svc.clusterset.local.",
		"pod":     "p-3.c3.svc-776.ns-26.svc.clusterset.local.",
		"none":    "nobody.ns-26.svc.clusterset.local.",
	}
	for name, asked := range names {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a := z.Lookup(asked, dns.TypeA); (a.Records == nil) != (name == "none") {
					b.Fatal(a)
				}
			}
		})
	}
}

// Who has not heard of all services yet does not say that one does not exist.
func TestDoubt(t *testing.T) {
	sure := Build(fixture(), nil)
	z := sure.Doubt()
	for name, want := range map[string]int{
		"other.shop.svc.clusterset.local.":         dns.RcodeServerFailure,
		"db-9.c1.db.shop.svc.clusterset.local.":    dns.RcodeServerFailure,
		"db-0.c1.other.shop.svc.slice.local.":      dns.RcodeServerFailure,
		"web.shop.svc.clusterset.local.":           dns.RcodeSuccess,
		"dns-version.clusterset.local.":            dns.RcodeSuccess,
		"nothing.clusterset.local.":                dns.RcodeNameError,
		"other.shop.svc.cluster.local.":            dns.RcodeRefused,
		"_x._tcp.other.shop.svc.clusterset.local.": dns.RcodeServerFailure,
	} {
		if got := z.Lookup(name, dns.TypeA).Code; got != want {
			t.Errorf("%s: %s, want %s", name, dns.RcodeToString[got], dns.RcodeToString[want])
		}
	}
	if sure.Lookup("other.shop.svc.clusterset.local.", dns.TypeA).Code != dns.RcodeNameError {
		t.Error("the zone that was doubted has changed")
	}
	if Build(fixture(), z).Lookup("other.shop.svc.clusterset.local.", dns.TypeA).Code != dns.RcodeNameError {
		t.Error("the next zone inherits the doubt")
	}
}
