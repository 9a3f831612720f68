package plan

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

func balances(slice string, services []fleet.Service, view share.View) (out []Balance, kept []string) {
	l := (*ledger)(nil).next(slice, services, view, new(Work))
	return l.balances, l.kept
}

func TestBalances(t *testing.T) {
	http := fleet.Port{Name: "http", Protocol: fleet.TCP, Port: 80}
	dns := fleet.Port{Name: "dns", Protocol: fleet.UDP, Port: 53}
	ep := func(cluster string, ready bool, ports map[string]uint16, addrs ...string) fleet.Endpoint {
		e := fleet.Endpoint{Cluster: cluster, Ready: ready, Ports: ports}
		for _, a := range addrs {
			e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
		}
		return e
	}
	web := func(change func(*fleet.Service)) fleet.Service {
		s := fleet.Service{
			Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr("10.9.255.1")},
			Ports: []fleet.Port{http},
			Endpoints: []fleet.Endpoint{
				ep("c3", true, map[string]uint16{"http": 9090}, "10.9.32.1", "fd00:9:3::1"),
				ep("c1", true, map[string]uint16{"http": 8080}, "10.9.0.1", "fd00:9:1::1"),
			},
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	balance := func(ip string, proto fleet.Protocol, port uint16, affinity int32, backends ...string) Balance {
		b := Balance{Service: "shop/web", IP: netip.MustParseAddr(ip), Protocol: proto, Port: port, Affinity: affinity}
		for _, s := range backends {
			b.Backends = append(b.Backends, Backend{Addr: netip.MustParseAddrPort(s), Weight: 1})
		}
		return b
	}

	for _, c := range []struct {
		name string
		in   fleet.Service
		want []Balance
	}{
		{"all clusters' endpoints, sorted, each on its own port", web(nil),
			[]Balance{balance("10.9.255.1", fleet.TCP, 80, 0, "10.9.0.1:8080", "10.9.32.1:9090")}},
		{"not ready is left out", web(func(s *fleet.Service) { s.Endpoints[0].Ready = false }),
			[]Balance{balance("10.9.255.1", fleet.TCP, 80, 0, "10.9.0.1:8080")}},
		{"nobody ready keeps the entry: refuse, do not hang", web(func(s *fleet.Service) { s.Endpoints = nil }),
			[]Balance{balance("10.9.255.1", fleet.TCP, 80, 0)}},
		{"a port only to those who expose it", web(func(s *fleet.Service) {
			s.Ports = []fleet.Port{http, dns}
			s.Endpoints[0].Ports = map[string]uint16{"dns": 5353}
		}), []Balance{
			balance("10.9.255.1", fleet.UDP, 53, 0, "10.9.32.1:5353"),
			balance("10.9.255.1", fleet.TCP, 80, 0, "10.9.0.1:8080"),
		}},
		{"one entry per family with that family's endpoints", web(func(s *fleet.Service) {
			s.IPs = append(s.IPs, netip.MustParseAddr("fd00:9:ff::1"))
		}), []Balance{
			balance("10.9.255.1", fleet.TCP, 80, 0, "10.9.0.1:8080", "10.9.32.1:9090"),
			balance("fd00:9:ff::1", fleet.TCP, 80, 0, "[fd00:9:1::1]:8080", "[fd00:9:3::1]:9090"),
		}},
		{"an unnamed port", web(func(s *fleet.Service) {
			s.Ports = []fleet.Port{{Protocol: fleet.TCP, Port: 80}}
			s.Endpoints = []fleet.Endpoint{ep("c1", true, map[string]uint16{"": 8080}, "10.9.0.1")}
		}), []Balance{balance("10.9.255.1", fleet.TCP, 80, 0, "10.9.0.1:8080")}},
		{"one pod seen twice counts once", web(func(s *fleet.Service) { s.Endpoints[0] = s.Endpoints[1] }),
			[]Balance{balance("10.9.255.1", fleet.TCP, 80, 0, "10.9.0.1:8080")}},
		{"affinity by default lasts three hours", web(func(s *fleet.Service) { s.Affinity = true }),
			[]Balance{balance("10.9.255.1", fleet.TCP, 80, 10800, "10.9.0.1:8080", "10.9.32.1:9090")}},
		{"affinity with a time", web(func(s *fleet.Service) { s.Affinity, s.Timeout = true, 10 }),
			[]Balance{balance("10.9.255.1", fleet.TCP, 80, 10, "10.9.0.1:8080", "10.9.32.1:9090")}},
		{"a time without affinity is none", web(func(s *fleet.Service) { s.Timeout = 10 }),
			[]Balance{balance("10.9.255.1", fleet.TCP, 80, 0, "10.9.0.1:8080", "10.9.32.1:9090")}},
		{"headless has nothing to balance", web(func(s *fleet.Service) { s.Headless = true }), nil},
		{"no address yet", web(func(s *fleet.Service) { s.IPs = nil }), nil},
		{"another slice's", web(func(s *fleet.Service) { s.Slice = "other" }), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := balances("pay", []fleet.Service{c.in}, share.View{}); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// The order of services, endpoints and addresses in the intent must not matter: a plan that differs only in order
// would make the agent touch the kernel for nothing.
func TestBalancesDoNotDependOnOrder(t *testing.T) {
	var services []fleet.Service
	for i := range 20 {
		s := fleet.Service{Namespace: "ns", Name: string(rune('a' + i)), Slice: "pay",
			IPs:   []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 255, byte(i)})},
			Ports: []fleet.Port{{Name: "x", Protocol: fleet.TCP, Port: 1}, {Name: "y", Protocol: fleet.UDP, Port: 1}}}
		for j := range 9 {
			s.Endpoints = append(s.Endpoints, fleet.Endpoint{Ready: j%3 > 0,
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, byte(i), byte(j)})},
				Ports: map[string]uint16{"x": 11, "y": 12}})
		}
		services = append(services, s)
	}
	want, _ := balances("pay", services, share.View{})
	if len(want) != 40 || len(want[0].Backends) != 6 {
		t.Fatalf("got %d entries, the first with %d backends; want 40 and 6", len(want), len(want[0].Backends))
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		r.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
		for i := range services {
			eps, ports := slices.Clone(services[i].Endpoints), slices.Clone(services[i].Ports)
			r.Shuffle(len(eps), func(i, j int) { eps[i], eps[j] = eps[j], eps[i] })
			r.Shuffle(len(ports), func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
			services[i].Endpoints, services[i].Ports = eps, ports
		}
		if got, _ := balances("pay", services, share.View{}); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: the plan depends on the order of its input", seed)
		}
	}
}
