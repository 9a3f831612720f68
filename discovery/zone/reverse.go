package zone

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// reverseKind is one of the two trees of reverse names.
type reverseKind struct {
	apex   string
	labels int // of a whole address
	bits   int // that one label stands for
	base   int // of the label's number
}

var reverseKinds = [...]reverseKind{{"in-addr.arpa.", 4, 8, 10}, {"ip6.arpa.", 32, 4, 16}}

// Within returns the zone of somebody who is asked for the reverse names of some prefixes: in them a name that nobody has
// does not exist, and is not merely none of ours.
func (z *Zone) Within(prefixes []netip.Prefix) *Zone {
	out := *z
	out.prefixes = slices.Clone(prefixes)
	return &out
}

// pointer answers for reverse names: of addresses that are ours, and of the prefixes that are ours whole. Nothing is said
// of others: they may be anybody's.
func (z *Zone) pointer(name string, qtype uint16) Answer {
	if z == nil {
		if strings.HasSuffix(name, ".arpa.") { // it may be ours
			return Answer{Code: dns.RcodeServerFailure}
		}
		return Answer{Code: dns.RcodeRefused}
	}
	apex, within, whole := z.reverseApex(name)
	var set *Set
	if addr, ok := reverseAddr(name); ok {
		set = z.reverse[part(addr)][addr]
	}
	switch {
	case set != nil && (qtype == dns.TypePTR || qtype == dns.TypeANY):
		return Answer{Set: *set}
	case set == nil && !within:
		return Answer{Code: dns.RcodeRefused}
	case set == nil && z.unsure:
		return Answer{Code: dns.RcodeServerFailure}
	}
	var none Answer
	if within {
		none.Authority = z.authority(apex)
	}
	if set == nil && whole {
		none.Code = dns.RcodeNameError
	}
	return none
}

// reverseApex finds the prefix of ours in which a reverse name lies with all that is below it, and returns the name above
// it at or within which that begins. whole: the name is that of one address, or below one, or of none; else there may be
// names below it.
func (z *Zone) reverseApex(name string) (apex string, within, whole bool) {
	for _, k := range reverseKinds {
		rest, ok := strings.CutSuffix(name, "."+k.apex)
		if !ok {
			continue
		}
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		bytes, good := k.address(labels)
		addr, _ := netip.AddrFromSlice(bytes)
		for _, p := range z.prefixes {
			n := (p.Bits() + k.bits - 1) / k.bits // labels that lie within
			if p.Addr().Is4() != (k.labels == 4) || good < n || !p.Contains(addr) {
				continue
			}
			top := slices.Clone(labels[:n])
			slices.Reverse(top)
			return strings.Join(append(top, k.apex), "."), true, good < len(labels) || good == k.labels
		}
	}
	return "", false, false
}

// reverseAddr is the address whose reverse name this is.
func reverseAddr(name string) (netip.Addr, bool) {
	for _, k := range reverseKinds {
		rest, ok := strings.CutSuffix(name, "."+k.apex)
		if !ok {
			continue
		}
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		bytes, good := k.address(labels)
		addr, _ := netip.AddrFromSlice(bytes)
		return addr, good == k.labels && len(labels) == k.labels
	}
	return netip.Addr{}, false
}

// address reads the labels of a reverse name from the top, as far as they are those of an address.
func (k reverseKind) address(labels []string) (bytes []byte, good int) {
	bytes = make([]byte, k.labels*k.bits/8)
	for i, l := range labels {
		v, err := strconv.ParseUint(l, k.base, k.bits)
		if i == k.labels || err != nil || strconv.FormatUint(v, k.base) != l {
			return bytes, i
		}
		bytes[i*k.bits/8] |= byte(v) << (8 - k.bits - i*k.bits%8)
	}
	return bytes, len(labels)
}

// authority is the SOA record for what does not exist below a reverse name.
func (z *Zone) authority(apex string) dns.RR {
	soa := *z.soa[0].(*dns.SOA)
	soa.Hdr.Name = apex
	return &soa
}
