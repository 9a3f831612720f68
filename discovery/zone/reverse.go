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
	r, ok := parseReverse(name)
	if !ok {
		return Answer{Code: dns.RcodeRefused}
	}
	apex, within, whole := z.apexOf(r)
	var set *Set
	if r.whole() {
		set = z.reverse[part(r.addr)][r.addr]
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

// reverseName is what a name below one of the reverse zones says of an address.
type reverseName struct {
	kind   reverseKind
	labels []string   // below the kind's apex, from the top
	good   int        // so many of them are an address's
	addr   netip.Addr // which begins so
}

// parseReverse takes a reverse name apart; false if it is none.
func parseReverse(name string) (r reverseName, ok bool) {
	for _, k := range reverseKinds {
		rest, ok := strings.CutSuffix(name, "."+k.apex)
		if !ok {
			continue
		}
		r = reverseName{kind: k, labels: strings.Split(rest, ".")}
		slices.Reverse(r.labels)
		bytes, good := k.address(r.labels)
		r.good = good
		r.addr, _ = netip.AddrFromSlice(bytes)
		return r, true
	}
	return r, false
}

// whole tells whether it is the name of one address.
func (r reverseName) whole() bool { return r.good == r.kind.labels && len(r.labels) == r.kind.labels }

// apexOf finds the prefix of ours in which a reverse name lies with all that is below it, and returns the name above it
// at or within which that begins. whole: the name is that of one address, or below one, or of none; else there may be
// names below it.
func (z *Zone) apexOf(r reverseName) (apex string, within, whole bool) {
	for _, p := range z.prefixes {
		n := (p.Bits() + r.kind.bits - 1) / r.kind.bits // labels that lie within
		if p.Addr().Is4() != (r.kind.labels == 4) || r.good < n || !p.Contains(r.addr) {
			continue
		}
		top := slices.Clone(r.labels[:n])
		slices.Reverse(top)
		return strings.Join(append(top, r.kind.apex), "."), true, r.good < len(r.labels) || r.good == r.kind.labels
	}
	return "", false, false
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
