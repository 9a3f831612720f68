package policy

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// without returns a block less its exceptions, as prefixes. A block that cannot be read is empty; an exception that
// cannot be read takes the whole block away: in doubt closed.
func without(b *networkingv1.IPBlock) []netip.Prefix {
	cidr, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return nil
	}
	out := []netip.Prefix{cidr.Masked()}
	for _, e := range b.Except {
		x, err := netip.ParsePrefix(e)
		if err != nil {
			return nil
		}
		var left []netip.Prefix
		for _, p := range out {
			left = append(left, subtract(p, x.Masked())...)
		}
		out = left
	}
	slices.SortFunc(out, comparePrefixes)
	return out
}

// subtract returns p less x: the siblings on the way down from p to x.
func subtract(p, x netip.Prefix) []netip.Prefix {
	switch {
	case !p.Overlaps(x):
		return []netip.Prefix{p}
	case x.Bits() <= p.Bits():
		return nil
	}
	low, high := halves(p)
	return append(subtract(low, x), subtract(high, x)...)
}

// halves splits a prefix that is not a single address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return low, netip.PrefixFrom(a, p.Bits()+1)
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
