package addr

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"seaway.dev/seaway/fleet"
)

func TestBlockBits(t *testing.T) {
	for in, want := range map[string]int{
		"10.0.0.0/8": 24, "10.77.0.0/16": 24, "10.77.0.0/20": 24, "10.77.0.0/24": 28, "10.77.0.0/26": 30,
		"10.77.0.0/30": 30, "10.77.0.0/31": 31, "10.77.0.1/32": 32,
		"fd00::/48": 64, "fd00::/64": 80, "fd00::/96": 112, "fd00::/107": 112, "fd00::/112": 116,
		"fd00::/120": 124, "fd00::/126": 126, "fd00::/127": 127, "fd00::1/128": 128,
	} {
		if got := BlockBits(netip.MustParsePrefix(in)); got != want {
			t.Errorf("%s: got /%d, want /%d", in, got, want)
		}
	}
}

func TestCarve(t *testing.T) {
	for _, c := range []struct {
		name, prefix string
		existing     []fleet.Block
		demand       map[string]int
		want         []fleet.Block
		short        []string
	}{
		{"first blocks, by name", "10.77.0.0/16", nil, map[string]int{"c2": 0, "c1": 5},
			blocks("c1 10.77.0.0/24", "c2 10.77.1.0/24"), nil},
		{"a third one joins", "10.77.0.0/16", blocks("c1 10.77.0.0/24", "c2 10.77.1.0/24"),
			map[string]int{"c2": 0, "c1": 5, "a0": 0},
			blocks("c1 10.77.0.0/24", "c2 10.77.1.0/24", "a0 10.77.2.0/24"), nil},
		{"one left: its block is free again", "10.77.0.0/16", blocks("c1 10.77.0.0/24", "c2 10.77.1.0/24"),
			map[string]int{"c2": 0, "c3": 0}, blocks("c3 10.77.0.0/24", "c2 10.77.1.0/24"), nil},
		{"three quarters are enough", "10.77.0.0/16", blocks("c1 10.77.0.0/24"),
			map[string]int{"c1": 192}, blocks("c1 10.77.0.0/24"), nil},
		{"more than three quarters: as much again", "10.77.0.0/16", blocks("c1 10.77.0.0/24"),
			map[string]int{"c1": 193}, blocks("c1 10.77.0.0/24", "c1 10.77.1.0/24"), nil},
		{"a burst: doubled until it fits", "10.77.0.0/16", blocks("c1 10.77.0.0/24", "c2 10.77.1.0/24"),
			map[string]int{"c1": 1000, "c2": 1},
			blocks("c1 10.77.0.0/24", "c2 10.77.1.0/24", "c1 10.77.2.0/24", "c1 10.77.4.0/23", "c1 10.77.8.0/22"), nil},
		{"grown prefix: old blocks stay", "10.76.0.0/15", blocks("c1 10.77.0.0/24"),
			map[string]int{"c1": 0, "c2": 0}, blocks("c2 10.76.0.0/24", "c1 10.77.0.0/24"), nil},
		{"foreign blocks are given up", "10.77.0.0/16", blocks("c1 10.99.0.0/24", "c1 fd00::/80"),
			map[string]int{"c1": 0}, blocks("c1 10.77.0.0/24"), nil},
		{"nobody's growth takes a first block", "10.77.0.0/26", nil, map[string]int{"c1": 60, "c2": 1, "c3": 1},
			blocks("c1 10.77.0.0/30", "c2 10.77.0.4/30", "c3 10.77.0.8/30", "c1 10.77.0.12/30", "c1 10.77.0.16/29", "c1 10.77.0.24/29",
				"c1 10.77.0.32/28", "c1 10.77.0.48/28"), []string{"c1"}},
		{"tiny prefix: first come", "10.77.0.0/30", nil, map[string]int{"c1": 1, "c2": 1},
			blocks("c1 10.77.0.0/30"), []string{"c2"}},
		{"the last piece is smaller", "10.77.0.0/29", blocks("c1 10.77.0.0/30", "c2 10.77.0.4/31"),
			map[string]int{"c1": 1, "c2": 1, "c3": 0},
			blocks("c1 10.77.0.0/30", "c2 10.77.0.4/31", "c3 10.77.0.6/31"), nil},
		{"full to the last address", "10.77.0.0/30", blocks("c1 10.77.0.0/30"), map[string]int{"c1": 4},
			blocks("c1 10.77.0.0/30"), []string{"c1"}},
		{"one address", "10.77.0.9/32", nil, map[string]int{"c1": 0}, blocks("c1 10.77.0.9/32"), nil},
		{"the end of the address space", "255.255.255.0/24", blocks("c1 255.255.255.240/28"),
			map[string]int{"c1": 100}, blocks("c1 255.255.255.0/28", "c1 255.255.255.32/27", "c1 255.255.255.64/26",
				"c1 255.255.255.128/26", "c1 255.255.255.240/28"), nil},
		{"IPv6", "fd00:77::/48", blocks("c1 fd00:77::/64"), map[string]int{"c1": 1 << 40, "c2": 0},
			blocks("c1 fd00:77::/64", "c2 fd00:77:0:1::/64"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Carve(netip.MustParsePrefix(c.prefix), c.existing, c.demand)
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
			var ex *Exhausted
			if errors.As(err, &ex) != (c.short != nil) || ex != nil && !slices.Equal(ex.Clusters, c.short) {
				t.Errorf("got error %v, want short %v", err, c.short)
			}
		})
	}
}

func TestCarveRefusesOverlap(t *testing.T) {
	in := blocks("c1 10.77.0.0/24", "c2 10.77.0.128/25")
	got, err := Carve(netip.MustParsePrefix("10.77.0.0/16"), in, map[string]int{"c1": 0, "c2": 0})
	if err == nil || !slices.Equal(got, in) {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestCarveProperties drives Carve through random fleets: blocks never overlap, never leave the prefix, never move
// while their cluster is there, whoever is not short has room, and carving again changes nothing.
func TestCarveProperties(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 400 {
		addr, bits := netip.MustParseAddr("10.77.0.0"), 12+r.IntN(21)
		if r.IntN(2) == 0 {
			addr, bits = netip.MustParseAddr("fd00:77::"), 40+r.IntN(89)
		}
		prefix := netip.PrefixFrom(addr, bits).Masked()
		var have []fleet.Block
		demand := map[string]int{}
		for step := range 12 {
			mutate(r, demand)
			if r.IntN(8) == 0 && prefix.Bits() > 8 {
				prefix = netip.PrefixFrom(prefix.Addr(), prefix.Bits()-1).Masked()
			}
			next, err := Carve(prefix, have, demand)
			if fault := check(prefix, have, next, demand, err); fault != "" {
				t.Fatalf("seed %d step %d prefix %s demand %v: %s\nbefore %v\nafter  %v", seed, step, prefix, demand, fault, have, next)
			}
			again, _ := Carve(prefix, shuffled(r, next), maps.Clone(demand))
			if !slices.Equal(again, next) {
				t.Fatalf("seed %d step %d: carving again changed %v to %v", seed, step, next, again)
			}
			have = next
		}
	}
}

func mutate(r *rand.Rand, demand map[string]int) {
	name := fmt.Sprintf("c%d", r.IntN(9))
	switch r.IntN(5) {
	case 0:
		delete(demand, name)
	default:
		demand[name] += r.IntN(1 << r.IntN(12))
	}
}

func check(prefix netip.Prefix, before, after []fleet.Block, demand map[string]int, err error) string {
	var ex *Exhausted
	if err != nil && !errors.As(err, &ex) {
		return err.Error()
	}
	for i, b := range after {
		if !contains(prefix, b.Prefix) || b.Prefix != b.Prefix.Masked() {
			return fmt.Sprintf("%v is not a block of the prefix", b)
		}
		for _, o := range after[i+1:] {
			if o.Prefix.Overlaps(b.Prefix) {
				return fmt.Sprintf("%v and %v overlap", b, o)
			}
		}
	}
	for _, b := range before {
		if _, ok := demand[b.Cluster]; ok && !slices.Contains(after, b) {
			return fmt.Sprintf("%v was taken away", b)
		}
	}
	for c, used := range demand {
		short := ex != nil && slices.Contains(ex.Clusters, c)
		n := capacity(after, c, prefix.Addr().BitLen())
		if !short && (n == 0 || uint64(used) >= n) {
			return fmt.Sprintf("%s uses %d of %d and is not reported", c, used, n)
		}
		if short {
			if free, ok := find(prefix, after, prefix.Addr().BitLen()); ok {
				return fmt.Sprintf("%s is short although %s is free", c, free)
			}
		}
	}
	return ""
}

func shuffled(r *rand.Rand, in []fleet.Block) []fleet.Block {
	out := slices.Clone(in)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func blocks(in ...string) []fleet.Block {
	var out []fleet.Block
	for _, s := range in {
		var b fleet.Block
		var p string
		if _, err := fmt.Sscan(s, &b.Cluster, &p); err != nil {
			panic(err)
		}
		b.Prefix = netip.MustParsePrefix(p)
		out = append(out, b)
	}
	return out
}
