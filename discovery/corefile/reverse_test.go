package corefile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestReverse(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.77.0.0/16":      "[77.10.in-addr.arpa]",
		"10.0.0.0/8":        "[10.in-addr.arpa]",
		"10.76.0.0/15":      "[76.10.in-addr.arpa 77.10.in-addr.arpa]",
		"192.168.7.0/24":    "[7.168.192.in-addr.arpa]",
		"192.168.7.4/31":    "[4.7.168.192.in-addr.arpa 5.7.168.192.in-addr.arpa]",
		"10.1.2.3/32":       "[3.2.1.10.in-addr.arpa]",
		"fd00:77::/32":      "[7.7.0.0.0.0.d.f.ip6.arpa]",
		"fd00:77:8000::/33": "[8.7.7.0.0.0.0.d.f.ip6.arpa 9.7.7.0.0.0.0.d.f.ip6.arpa a.7.7.0.0.0.0.d.f.ip6.arpa b.7.7.0.0.0.0.d.f.ip6.arpa c.7.7.0.0.0.0.d.f.ip6.arpa d.7.7.0.0.0.0.d.f.ip6.arpa e.7.7.0.0.0.0.d.f.ip6.arpa f.7.7.0.0.0.0.d.f.ip6.arpa]",
	} {
		got, err := Reverse(netip.MustParsePrefix(prefix))
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v (%v), want %s", prefix, got, err, want)
		}
	}
	if _, err := Reverse(netip.MustParsePrefix("0.0.0.0/0")); err == nil {
		t.Error("everything has a reverse zone")
	}
}

// An address's reverse name is in the zones of a prefix if and only if the address is in the prefix.
func FuzzReverse(f *testing.F) {
	f.Add([]byte{10, 77, 0, 0}, uint8(16), []byte{10, 77, 3, 4})
	f.Add([]byte{172, 16, 0, 0}, uint8(12), []byte{172, 32, 0, 1})
	f.Fuzz(func(t *testing.T, base []byte, bits uint8, addr []byte) {
		b, ok1 := netip.AddrFromSlice(base)
		a, ok2 := netip.AddrFromSlice(addr)
		if !ok1 || !ok2 || b.Is4() != a.Is4() {
			return
		}
		p, err := b.Prefix(int(bits))
		if err != nil || p.Bits() == 0 {
			return
		}
		zones, err := Reverse(p)
		if err != nil {
			t.Fatal(err)
		}
		name, err := dns.ReverseAddr(a.String())
		if err != nil || a.Is4In6() {
			return
		}
		in := false
		for _, z := range zones {
			in = in || strings.HasSuffix("."+name, "."+z+".")
		}
		if in != p.Contains(a) {
			t.Fatalf("%s in %s: %v; its name %s in %v: %v", a, p, p.Contains(a), name, zones, in)
		}
	})
}
