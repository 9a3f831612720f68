// Package addr hands out the addresses of a slice: the hub carves a slice's prefixes into blocks for its clusters.
//
// Everything here is pure: what is handed out follows from the arguments alone, and the same arguments always give
// the same answer, so a hub that restarts (or a second one that takes over) carves nothing twice.
package addr

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// growAt is the used part of a cluster's addresses, in percent, above which it gets another block. A quarter stays in
// hand for pods that start before the hub has answered, and for released addresses that rest.
const growAt = 75

// BlockBits returns the length of the first block that a cluster gets from a prefix: one sixteenth of an IPv4 prefix,
// but not more than 256 addresses' nor less than 4 addresses' worth (where the prefix has them), and 1/65536 of an
// IPv6 prefix, where that leaves a block of 65,536 addresses or more.
//
//	10.77.0.0/16 → /24    10.0.0.0/8 → /24    10.77.0.0/26 → /30    10.77.0.0/31 → /31
//	fd00:77::/48 → /64    fd00:77::/64 → /80  fd00:77::/112 → /116  fd00:77::/127 → /127
func BlockBits(prefix netip.Prefix) int {
	p := prefix.Bits()
	if prefix.Addr().Is4() {
		return max(p, min(max(p+4, 24), 30))
	}
	if p < 112-4 {
		return min(p+16, 112)
	}
	return max(p, min(p+4, 126))
}

// Exhausted says that a prefix has no addresses left for some clusters. It comes with a valid, if incomplete, answer.
type Exhausted struct {
	Prefix   netip.Prefix
	Clusters []string // that want (more) addresses, sorted
}

func (e *Exhausted) Error() string {
	return fmt.Sprintf("prefix %s has no addresses left for %s: make the prefix larger (a shorter one that contains it)",
		e.Prefix, strings.Join(e.Clusters, ", "))
}

// Carve returns the blocks of a prefix for the clusters in demand, which says how many addresses each one uses.
//
// Blocks in existing stay as they are while their cluster is in demand; those of other clusters, and those that lie
// outside of the prefix, are given up. New ones are carved from the lowest free address upwards. First each cluster
// without a block gets one of [BlockBits]; then one that uses more than three quarters of what it has gets as much again,
// or what is left of that. Blocks never overlap. The answer is sorted by address.
//
// When addresses run out the answer is what could be carved, and the error is an [*Exhausted]. Any other error means
// that existing is wrong (two blocks overlap): the answer is existing, as it is.
func Carve(prefix netip.Prefix, existing []fleet.Block, demand map[string]int) ([]fleet.Block, error) {
	prefix = prefix.Masked()
	blocks := make([]fleet.Block, 0, len(existing)+len(demand))
	for _, b := range existing {
		if _, wanted := demand[b.Cluster]; wanted && contains(prefix, b.Prefix) {
			blocks = append(blocks, b)
		}
	}
	sortBlocks(blocks)
	for i := 1; i < len(blocks); i++ {
		if blocks[i-1].Prefix.Overlaps(blocks[i].Prefix) {
			return existing, fmt.Errorf("blocks %s of %s and %s of %s overlap: remove one of them from the slice's status",
				blocks[i-1].Prefix, blocks[i-1].Cluster, blocks[i].Prefix, blocks[i].Cluster)
		}
	}

	names := order(blocks, demand)
	for _, cluster := range names { // nobody's growth takes somebody's first block
		if capacity(blocks, cluster, prefix.Addr().BitLen()) == 0 {
			blocks, _ = provide(prefix, blocks, cluster, 0)
		}
	}
	var short []string
	for _, cluster := range names {
		var enough bool
		if blocks, enough = provide(prefix, blocks, cluster, demand[cluster]); !enough {
			short = append(short, cluster)
		}
	}
	if short != nil {
		slices.Sort(short)
		return blocks, &Exhausted{Prefix: prefix, Clusters: short}
	}
	return blocks, nil
}

// order says who is served first: clusters that have nothing yet, then the others, by name.
func order(blocks []fleet.Block, demand map[string]int) []string {
	has := map[string]bool{}
	for _, b := range blocks {
		has[b.Cluster] = true
	}
	names := make([]string, 0, len(demand))
	for c := range demand {
		names = append(names, c)
	}
	slices.SortFunc(names, func(a, b string) int {
		if has[a] != has[b] {
			if has[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}

// provide adds blocks for one cluster until it has enough for used addresses; false if the prefix ran out. A cluster
// that owns the whole prefix has enough until it is full, because nothing can be added.
func provide(prefix netip.Prefix, blocks []fleet.Block, cluster string, used int) ([]fleet.Block, bool) {
	first := BlockBits(prefix)
	for {
		have := capacity(blocks, cluster, prefix.Addr().BitLen())
		if have > 0 && !tight(used, have) {
			return blocks, true
		}
		want := first // bits of the block to add: as much again as there is
		if have > 0 {
			want = min(first, prefix.Addr().BitLen()-(bits.Len64(have)-1))
		}
		got, ok := find(prefix, blocks, want)
		if !ok {
			return blocks, have > 0 && uint64(used) < have
		}
		blocks = append(blocks, fleet.Block{Cluster: cluster, Prefix: got})
		sortBlocks(blocks)
	}
}

// tight tells whether used is more than growAt percent of have.
func tight(used int, have uint64) bool {
	hi, lo := bits.Mul64(have, growAt)
	return hi == 0 && uint64(max(used, 0))*100 > lo
}

// capacity counts a cluster's addresses, up to 2^63.
func capacity(blocks []fleet.Block, cluster string, width int) uint64 {
	const top = uint64(1) << 63
	var n uint64
	for _, b := range blocks {
		if b.Cluster != cluster {
			continue
		}
		host := width - b.Prefix.Bits()
		if host >= 63 {
			return top
		}
		if n += 1 << host; n >= top {
			return top
		}
	}
	return n
}

// find returns the lowest free block of the wanted length, or of the largest size below it that is free.
func find(prefix netip.Prefix, sorted []fleet.Block, want int) (netip.Prefix, bool) {
	for length := max(want, prefix.Bits()); length <= prefix.Addr().BitLen(); length++ {
		candidate := netip.PrefixFrom(prefix.Addr(), length)
		ok := true
		for _, b := range sorted {
			if !b.Prefix.Overlaps(candidate) {
				if b.Prefix.Addr().Compare(candidate.Addr()) > 0 {
					break // sorted: nothing later overlaps either
				}
				continue
			}
			larger := b.Prefix
			if candidate.Bits() < larger.Bits() {
				larger = candidate
			}
			if candidate, ok = after(larger, length); !ok || !contains(prefix, candidate) {
				ok = false
				break
			}
		}
		if ok {
			return candidate, true
		}
	}
	return netip.Prefix{}, false
}

// after returns the prefix of the given length, at least p's, that begins right after p.
func after(p netip.Prefix, length int) (netip.Prefix, bool) {
	a := p.Masked().Addr().AsSlice()
	// Add 1 to the address as a number, at the prefix's last bit.
	for i := p.Bits() - 1; i >= 0; i-- {
		mask := byte(0x80) >> (i % 8)
		a[i/8] ^= mask
		if a[i/8]&mask != 0 {
			addr, _ := netip.AddrFromSlice(a)
			return netip.PrefixFrom(addr, length), true
		}
	}
	return netip.Prefix{}, false
}

func contains(outer, inner netip.Prefix) bool {
	return inner.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

func sortBlocks(blocks []fleet.Block) {
	slices.SortFunc(blocks, func(a, b fleet.Block) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
}
