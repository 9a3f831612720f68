package corefile

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxReverse is how many zones one prefix may need: an IPv4 prefix of any length from /1 on needs at most 128.
const maxReverse = 128

// Reverse lists the zones that hold the reverse names of a prefix's addresses and of no others. A prefix that ends
// inside a label (10.64.0.0/10) needs several.
func Reverse(p netip.Prefix) ([]string, error) {
	p = p.Masked()
	step, suffix := 8, "in-addr.arpa" // bits of a label
	if p.Addr().Is6() {
		step, suffix = 4, "ip6.arpa"
	}
	if !p.IsValid() || p.Bits() == 0 {
		return nil, fmt.Errorf("prefix %s: want one that is shorter than everything", p)
	}
	labels := (p.Bits() + step - 1) / step
	count := 1 << (labels*step - p.Bits())
	if count > maxReverse {
		return nil, fmt.Errorf("prefix %s: its reverse names lie in %d zones, want at most %d", p, count, maxReverse)
	}
	var out []string
	digits := digitsOf(p.Addr(), labels)
	for i := range count {
		parts := make([]string, labels)
		for j, d := range digits {
			if j == labels-1 {
				d += i
			}
			if step == 8 {
				parts[labels-1-j] = fmt.Sprint(d)
			} else {
				parts[labels-1-j] = fmt.Sprintf("%x", d)
			}
		}
		out = append(out, strings.Join(append(parts, suffix), "."))
	}
	return out, nil
}

// digitsOf returns an address's first labels as numbers: bytes of IPv4, half bytes of IPv6.
func digitsOf(a netip.Addr, labels int) []int {
	var out []int
	for _, b := range a.AsSlice() {
		if a.Is4() {
			out = append(out, int(b))
		} else {
			out = append(out, int(b>>4), int(b&15))
		}
	}
	return out[:labels]
}
