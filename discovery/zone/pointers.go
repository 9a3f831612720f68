package zone

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// directory knows which names each address has. It is cut into parts, and a change copies the parts that it touches, so
// that what a change costs does not grow with all there is.
type directory [parts]map[netip.Addr]*Set

// parts is a power of two; with it, 10,000 addresses are 40 a part.
const parts = 256

// part is where an address belongs: neighbours are in different ones.
func part(a netip.Addr) int {
	b := a.As16()
	h := uint32(0)
	for _, x := range b[10:] {
		h = h*31 + uint32(x)
	}
	return int(h % parts)
}

// change is the names that an address gets and loses.
type change struct{ put, gone []string }

// turn collects what becomes of addresses from one zone to the next.
type turn map[netip.Addr]*change

func (t turn) at(a netip.Addr) *change {
	c := t[a]
	if c == nil {
		c = new(change)
		t[a] = c
	}
	return c
}

// swap notes that a service's pointers became others.
func (t turn) swap(old, now []pointer) {
	for _, p := range old {
		c := t.at(p.addr)
		c.gone = append(c.gone, p.name)
	}
	for _, p := range now {
		c := t.at(p.addr)
		c.put = append(c.put, p.name)
	}
}

// next returns the directory after some changes; d stays as it is.
func (d directory) next(t turn) directory {
	copied := [parts]bool{}
	for addr, c := range t {
		owner, err := dns.ReverseAddr(addr.String())
		if err != nil {
			continue
		}
		i := part(addr)
		names := without(d[i][addr].targets(), c.gone)
		names = append(names, c.put...)
		if !copied[i] {
			if d[i], copied[i] = maps.Clone(d[i]), true; d[i] == nil {
				d[i] = map[netip.Addr]*Set{}
			}
		}
		if len(names) == 0 {
			delete(d[i], addr)
		} else {
			d[i][addr] = pointerSet(owner, names)
		}
		if len(d[i]) == 0 {
			d[i], copied[i] = nil, false
		}
	}
	return d
}

// targets lists the names in a set of pointers; none if there is no set.
func (s *Set) targets() []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, rr := range s.Records {
		out = append(out, rr.(*dns.PTR).Ptr)
	}
	return out
}

// without takes names out. A name is of one service, and what a service still says of the address it says anew.
func without(names, gone []string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(gone, n) })
}

func pointerSet(owner string, names []string) *Set {
	slices.Sort(names)
	s := new(Set)
	for _, n := range slices.Compact(names) {
		s.Records = append(s.Records, &dns.PTR{Hdr: header(owner, dns.TypePTR, TTL), Ptr: n})
	}
	return s
}
