package zone

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/miekg/dns"

	"seaway.dev/seaway/fleet"
)

// TestReverse: within the prefixes of our slices a reverse name that nobody has does not exist, unless there is doubt; no
// other reverse name is ours to speak of.
func TestReverse(t *testing.T) {
	sure := Build(fixture(), nil).Within([]netip.Prefix{
		netip.MustParsePrefix("10.9.0.0/20"), netip.MustParsePrefix("10.9.255.0/24"), netip.MustParsePrefix("fd00:9::/32"),
	})
	const v6 = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa"
	for _, c := range []struct {
		name    string
		sure    int
		doubted int
		soa     string // of the zone where it does not exist
	}{
		{"10.1.9.10.in-addr.arpa", dns.RcodeSuccess, dns.RcodeSuccess, ""},
		{"10.1.9.10.IN-ADDR.ARPA.", dns.RcodeSuccess, dns.RcodeSuccess, ""},
		{"77.1.9.10.in-addr.arpa", dns.RcodeNameError, dns.RcodeServerFailure, "1.9.10.in-addr.arpa."},
		{"77.255.9.10.in-addr.arpa", dns.RcodeNameError, dns.RcodeServerFailure, "255.9.10.in-addr.arpa."},
		{"2." + v6, dns.RcodeNameError, dns.RcodeServerFailure, "9.0.0.0.0.0.d.f.ip6.arpa."},
		{"x.10.1.9.10.in-addr.arpa", dns.RcodeNameError, dns.RcodeServerFailure, "1.9.10.in-addr.arpa."}, // below an address
		{"1.9.10.in-addr.arpa", dns.RcodeSuccess, dns.RcodeServerFailure, "1.9.10.in-addr.arpa."},        // above addresses
		{"9.10.in-addr.arpa", dns.RcodeRefused, dns.RcodeRefused, ""},                                    // of others as well
		{"77.16.9.10.in-addr.arpa", dns.RcodeRefused, dns.RcodeRefused, ""},                              // outside
		{"256.1.9.10.in-addr.arpa", dns.RcodeNameError, dns.RcodeServerFailure, "1.9.10.in-addr.arpa."},
		{"077.1.9.10.in-addr.arpa", dns.RcodeNameError, dns.RcodeServerFailure, "1.9.10.in-addr.arpa."},
		{"in-addr.arpa", dns.RcodeRefused, dns.RcodeRefused, ""},
		{"ip6.arpa", dns.RcodeRefused, dns.RcodeRefused, ""},
		{"1.0.0.127.in-addr.arpa", dns.RcodeRefused, dns.RcodeRefused, ""},
		{"zz.9.0.0.0.0.0.d.f.ip6.arpa", dns.RcodeNameError, dns.RcodeServerFailure, "9.0.0.0.0.0.d.f.ip6.arpa."},
	} {
		a := sure.Lookup(c.name, dns.TypePTR)
		if a.Code != c.sure {
			t.Errorf("%s: %s, want %s", c.name, dns.RcodeToString[a.Code], dns.RcodeToString[c.sure])
		}
		soa := ""
		if a.Authority != nil {
			soa = a.Authority.Header().Name
		}
		if soa != c.soa {
			t.Errorf("%s: SOA of %q, want %q", c.name, soa, c.soa)
		}
		if got := sure.Doubt().Lookup(c.name, dns.TypePTR).Code; got != c.doubted {
			t.Errorf("in doubt, %s: %s, want %s", c.name, dns.RcodeToString[got], dns.RcodeToString[c.doubted])
		}
	}
	if got := Build(fixture(), nil).Lookup("77.1.9.10.in-addr.arpa", dns.TypePTR).Code; got != dns.RcodeRefused {
		t.Errorf("without prefixes: %s", dns.RcodeToString[got])
	}
	if got := sure.Lookup("10.1.9.10.in-addr.arpa", dns.TypeA); got.Code != dns.RcodeSuccess || got.Records != nil || got.Authority == nil {
		t.Errorf("another type of a name that exists: %+v, want nothing, and an SOA", got)
	}
}

// A directory that follows another through many changes is the one made from nothing, and each before it stays as it was.
func TestReverseOverManyChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	draw := func() []fleet.Service {
		var out []fleet.Service
		for i := range 12 {
			if r.IntN(4) == 0 {
				continue
			}
			s := fleet.Service{Namespace: "shop", Name: fmt.Sprint("s", i), Slice: "pay", Headless: i%2 == 0}
			if !s.Headless {
				s.IPs = addrs(fmt.Sprintf("10.9.255.%d", r.IntN(6)))
			}
			for e := range r.IntN(4) {
				s.Endpoints = append(s.Endpoints, fleet.Endpoint{Cluster: "c1", Pod: fmt.Sprint("p-", e), Hostname: fmt.Sprint("p-", e), Ready: true,
					Addrs: addrs(fmt.Sprintf("10.9.1.%d", r.IntN(8)), fmt.Sprintf("fd00:9::%x", r.IntN(8)))})
			}
			out = append(out, s)
		}
		return out
	}
	services := draw()
	z := Build(services, nil)
	for turn := range 300 {
		old, before := z, Build(services, nil).reverse
		services = draw()
		z = Build(services, old)
		if want := Build(services, nil).reverse; !reflect.DeepEqual(z.reverse, want) {
			t.Fatalf("turn %d: names of addresses depend on the zone before", turn)
		}
		if !reflect.DeepEqual(old.reverse, before) {
			t.Fatalf("turn %d: the zone before has changed", turn)
		}
	}
}
