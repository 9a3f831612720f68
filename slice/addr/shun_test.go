package addr_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"seaway.dev/seaway/slice/addr"
)

// TestShunnedAddressesAreTheLastResort: the slice has the prefix of the cluster's pods, and its first block is the
// range of a node.
func TestShunnedAddressesAreTheLastResort(t *testing.T) {
	l := addr.NewLedger(time.Minute)
	slice := prefixes("10.244.0.0/16", "fd00:10::/56")
	v6 := "fd00:10::/72"
	l.SetBlocks(slice, prefixes("10.244.1.0/24", v6))
	dns := netip.MustParseAddr("fd00:10::80:0:0:0")
	l.Shun(prefixes("10.244.1.0/24", "10.244.2.0/24", "fd00:10::/64"), map[netip.Addr]bool{dns: true})
	if got, err := l.Take("a", epoch); err == nil {
		t.Fatalf("a got %v at once", got)
	}
	if want := epoch.Add(5 * time.Second); !l.NextFree(epoch).Equal(want) {
		t.Errorf("look again at %v, want %v", l.NextFree(epoch), want)
	}
	if got := l.Shunned(); got != 256 {
		t.Errorf("%d shunned addresses, want 256: the hub would not help", got)
	}
	// A service's address is nobody's own.
	if got, err := l.TakeVirtual("svc/a/b", epoch); err != nil || got[0] != netip.MustParseAddr("10.244.1.0") {
		t.Errorf("a service got %v, %v", got, err)
	}
	// The hub adds a block.
	l.SetBlocks(slice, prefixes("10.244.1.0/24", "10.244.3.0/24", v6))
	a, err := l.Take("a", epoch.Add(time.Second))
	if err != nil || a[0] != netip.MustParseAddr("10.244.3.0") {
		t.Errorf("with another block a got %v, %v", a, err)
	}
	// IPv6 has no better block to wait for: from the middle, past what is in use.
	if a[1] != dns.Next() {
		t.Errorf("a's IPv6 address is %v, want %v", a[1], dns.Next())
	}
}

func TestShunnedAddressesAreBetterThanNone(t *testing.T) {
	l := addr.NewLedger(time.Minute)
	l.SetBlocks(prefixes("10.244.0.0/16"), prefixes("10.244.1.0/24"))
	inUse := netip.MustParseAddr("10.244.1.128")
	l.Shun(prefixes("10.244.0.0/16"), map[netip.Addr]bool{inUse: true})
	l.Take("a", epoch)
	a, err := l.Take("a", epoch.Add(5*time.Second))
	if err != nil || a[0] != inUse.Next() {
		t.Fatalf("after the patience a got %v, %v", a, err)
	}
	if next := l.NextFree(epoch.Add(5 * time.Second)); !next.IsZero() {
		t.Errorf("look again at %v although the patience is over", next)
	}
	if b, err := l.Take("b", epoch.Add(5*time.Second)); err != nil || b[0] != inUse.Next().Next() {
		t.Errorf("b waits again or got %v: %v", b, err)
	}
	// Who has one keeps it when better ones come.
	l.SetBlocks(prefixes("10.0.0.0/8"), prefixes("10.244.1.0/24", "10.7.0.0/24"))
	if again, _ := l.Take("a", epoch.Add(time.Hour)); !slices.Equal(a, again) {
		t.Errorf("a had %v, now %v", a, again)
	}
	if c, _ := l.Take("c", epoch.Add(time.Hour)); c[0] != netip.MustParseAddr("10.7.0.0") {
		t.Errorf("c got %v although there is better", c)
	}
}

// TestShunProperties: as long as there is a free address that is not shunned, no pod gets a shunned one.
func TestShunProperties(t *testing.T) {
	for range 100 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 3))
		l := addr.NewLedger(time.Minute)
		block := netip.MustParsePrefix("10.1.0.64/27")
		l.SetBlocks(prefixes("10.1.0.0/24"), []netip.Prefix{block})
		var shun []netip.Prefix
		for range rng.IntN(4) {
			a := netip.AddrFrom4([4]byte{10, 1, 0, byte(56 + rng.IntN(48))})
			shun = append(shun, netip.PrefixFrom(a, 27+rng.IntN(6)).Masked())
		}
		exact := map[netip.Addr]bool{}
		for range rng.IntN(4) {
			exact[netip.AddrFrom4([4]byte{10, 1, 0, byte(64 + rng.IntN(32))})] = true
		}
		bad := func(a netip.Addr) bool {
			return exact[a] || slices.ContainsFunc(shun, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		good := 0
		for a := block.Addr(); block.Contains(a); a = a.Next() {
			if !bad(a) {
				good++
			}
		}
		l.Shun(shun, exact)
		if got := l.Shunned(); got != 32-good {
			t.Fatalf("seed %d: %d shunned, want %d", seed, got, 32-good)
		}
		now := epoch
		for i := range 32 {
			as, err := l.Take(fmt.Sprint("k", i), now)
			if err != nil { // the patience
				now = now.Add(5 * time.Second)
				as, err = l.Take(fmt.Sprint("k", i), now)
			}
			if err != nil || (i < good) == bad(as[0]) {
				t.Fatalf("seed %d: number %d of %d good ones got %v, %v", seed, i, good, as, err)
			}
		}
		if as, err := l.Take("one more", now.Add(time.Hour)); err == nil {
			t.Fatalf("seed %d: the 33rd of 32 got %v", seed, as)
		}
	}
}
