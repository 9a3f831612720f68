package nft

import (
	"cmp"
	"net/netip"
	"slices"

	"seaway.dev/seaway/slice/plan"
)

// maxSlots bounds the slots of one service port: weights are exact up to it, and rounded beyond.
const maxSlots = 1024

// Slots spreads backends over slots so that a slot drawn at random is a backend drawn by weight: as many slots as the
// weights sum up to when divided by what they have in common; where that is more than fits, the nearest shares of
// maxSlots, at least one each. Backends of the other address family are left out. Who had a slot before keeps it where
// that is possible: a backend that comes or goes changes its own slots, and at most as many others.
func Slots(backends []plan.Backend, v4 bool, had []netip.AddrPort) []netip.AddrPort {
	var bs []plan.Backend
	sum, common := 0, 0
	for _, b := range backends {
		if b.Addr.Addr().Is4() != v4 || len(bs) == maxSlots {
			continue
		}
		b.Weight = max(b.Weight, 1)
		sum += b.Weight
		common = gcd(b.Weight, common)
		bs = append(bs, b)
	}
	if len(bs) == 0 {
		return nil
	}
	shares := make([]int, len(bs))
	if sum/common <= maxSlots {
		for i, b := range bs {
			shares[i] = b.Weight / common
		}
	} else {
		apportion(bs, sum, shares)
	}
	return settle(bs, shares, had)
}

// settle gives each backend its number of slots: first those that it had.
func settle(bs []plan.Backend, shares []int, had []netip.AddrPort) []netip.AddrPort {
	left, total := make(map[netip.AddrPort]int, len(bs)), 0
	for i, b := range bs {
		left[b.Addr] += shares[i]
		total += shares[i]
	}
	out := make([]netip.AddrPort, total)
	for i := range min(total, len(had)) {
		if left[had[i]] > 0 {
			out[i] = had[i]
			left[had[i]]--
		}
	}
	next := 0
	for _, b := range bs {
		for ; left[b.Addr] > 0; left[b.Addr]-- {
			for out[next].IsValid() {
				next++
			}
			out[next] = b.Addr
		}
	}
	return out
}

// apportion shares maxSlots by the largest remainder method, after one slot for each.
func apportion(bs []plan.Backend, sum int, shares []int) {
	free := maxSlots - len(bs)
	type rest struct{ i, part int }
	var rests []rest
	given := 0
	for i, b := range bs {
		whole := b.Weight * free / sum
		shares[i] = 1 + whole
		given += whole
		rests = append(rests, rest{i, b.Weight * free % sum})
	}
	slices.SortStableFunc(rests, func(a, b rest) int { return cmp.Compare(b.part, a.part) })
	for k := range free - given {
		shares[rests[k].i]++
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
