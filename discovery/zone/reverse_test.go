package zone

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
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
