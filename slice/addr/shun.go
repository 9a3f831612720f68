package addr

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

// patience is how long a key waits for an address that is not shunned: about the time in which the hub gives a
// cluster another block. With the hub away, a shunned address is better than none.
const patience = 5 * time.Second

// shunned are addresses that a cluster uses itself, for its nodes and on its own network.
//
// A slice may have the same prefix as a cluster's pods. But a pod whose slice address is also the cluster address of
// another pod on its node does not answer that one: the sender looks like itself (a martian, in the kernel's words).
// If that one serves the cluster's names, the pod has none.
type shunned struct {
	prefixes []netip.Prefix // sorted, none inside another
	addrs    map[netip.Addr]bool
}

// Shun says which addresses the cluster uses itself. Those who have one already keep it.
func (l *Ledger) Shun(prefixes []netip.Prefix, addrs map[netip.Addr]bool) {
	var kept []netip.Prefix
	for _, p := range ordered(prefixes) { // a prefix sorts right before those inside it
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	if slices.Equal(kept, l.shunned.prefixes) && maps.Equal(addrs, l.shunned.addrs) {
		return
	}
	l.shunned = shunned{kept, maps.Clone(addrs)}
	l.lack = [2]time.Time{}
}

// Shunned counts the IPv4 addresses of the blocks that are shunned and held by nobody: so many more are needed. IPv6
// blocks are so large that it does not matter there.
func (l *Ledger) Shunned() int {
	var n float64
	for _, b := range l.blocks {
		if !b.Addr().Is4() {
			continue
		}
		for _, p := range l.shunned.prefixes {
			if b.Overlaps(p) {
				n += math.Exp2(float64(32 - max(b.Bits(), p.Bits())))
			}
		}
		for a := range l.shunned.addrs {
			if b.Contains(a) && !l.shunned.inPrefix(a) {
				n++
			}
		}
	}
	for a := range l.holders {
		if a.Is4() && l.shunned.has(a) {
			n--
		}
	}
	return int(max(n, 0))
}

func (s *shunned) inPrefix(a netip.Addr) bool {
	return slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (s *shunned) has(a netip.Addr) bool { return s.addrs[a] || s.inPrefix(a) }

// touches tells whether anything in the blocks is shunned.
func (s *shunned) touches(blocks []netip.Prefix) bool {
	for _, b := range blocks {
		if slices.ContainsFunc(s.prefixes, b.Overlaps) {
			return true
		}
		for a := range s.addrs {
			if b.Contains(a) {
				return true
			}
		}
	}
	return false
}

// past returns the first address from a on that is not shunned, leaping over whole prefixes; invalid if there is none.
func (s *shunned) past(a netip.Addr) netip.Addr {
	for a.IsValid() {
		i := slices.IndexFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
		switch {
		case i >= 0:
			next, ok := after(s.prefixes[i], a.BitLen())
			if !ok {
				return netip.Addr{}
			}
			a = next.Addr()
		case s.addrs[a]:
			a = a.Next()
		default:
			return a
		}
	}
	return a
}

// settleFor chooses a shunned address when there is no other. In IPv4 it first waits for the hub to give another
// block. It begins in the middle of a block, because clusters hand out their own from the bottom, and avoids those
// that are known to be in use.
func (l *Ledger) settleFor(f int, blocks []netip.Prefix, now time.Time) (netip.Addr, bool) {
	if l.lack[f].IsZero() {
		l.lack[f] = now
	}
	if f == 0 && now.Sub(l.lack[f]) < patience {
		return netip.Addr{}, false
	}
	for _, inUse := range []bool{false, true} {
		for _, b := range blocks {
			half := middle(b)
			for _, from := range []netip.Addr{half, b.Addr()} {
				for from.IsValid() {
					a, ok := l.scan(b, from, now, false)
					if !ok {
						break
					}
					if inUse || !l.shunned.addrs[a] {
						return a, true
					}
					from = a.Next()
				}
			}
		}
	}
	return netip.Addr{}, false
}

// middle is the first address of a block's upper half.
func middle(b netip.Prefix) netip.Addr {
	if b.IsSingleIP() {
		return b.Addr()
	}
	a := b.Masked().Addr().AsSlice()
	a[b.Bits()/8] |= 0x80 >> (b.Bits() % 8)
	m, _ := netip.AddrFromSlice(a)
	return m
}
