package controller

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"seaway.dev/seaway/controller/roster"
)

// TestFootprintsTellWhatMoved: what differs between two rosters has discovery look at as little as is enough.
func TestFootprintsTellWhatMoved(t *testing.T) {
	b := newBigFleet(t, 100)
	base := b.l.board.snapshot()
	for _, c := range []struct {
		name, want string
		change     func(*roster.Facts)
	}{
		{"nothing", "[] [] []", func(*roster.Facts) {}},
		{"a pod goes", "[] [shop] []", func(f *roster.Facts) { delete(f.Pods, "shop/n3") }},
		{"a service's address", "[] [] [shop/c5-s0000]", func(f *roster.Facts) {
			leases := maps.Clone(f.Leases["pay"])
			leases["svc/shop/c5-s0000"] = []netip.Addr{netip.MustParseAddr("10.64.31.9")}
			f.Leases = map[string]map[string][]netip.Addr{"pay": leases}
		}},
		{"both", "[] [shop] [shop/c5-s0000]", func(f *roster.Facts) {
			delete(f.Pods, "shop/n3")
			leases := maps.Clone(f.Leases["pay"])
			delete(leases, "svc/shop/c5-s0000")
			f.Leases = map[string]map[string][]netip.Addr{"pay": leases}
		}},
		{"a family", "[shop] [] []", func(f *roster.Facts) {
			f.Slices = slices.Clone(f.Slices)
			f.Slices[0].Prefixes = append(slices.Clone(f.Slices[0].Prefixes), netip.MustParsePrefix("fd00:9::/48"))
		}},
		{"off the slice", "[shop] [] []", func(f *roster.Facts) { f.Namespaces = nil }},
	} {
		now := *base
		now.Here, now.Pods = 0, maps.Clone(base.Pods)
		c.change(&now)
		m := compareFootprints(roster.New(base), roster.New(&now))
		if got := fmt.Sprint(m.namespaces, m.pods, m.services); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestWhatDiscoveryDropsIsReleased: addresses of services that are gone are let go without waiting for other news.
func TestWhatDiscoveryDropsIsReleased(t *testing.T) {
	b := newBigFleet(t, 100)
	for _, old := range b.said {
		now := *old
		now.Rev++
		now.Exports = nil
		b.put(&now)
	}
	b.settle()
	if b.l.ledgers.unsettled() {
		t.Error("that services went waits for the next news")
	}
	if again := b.l.ledgers.again; again.IsZero() {
		t.Error("nobody looks again when requests for their addresses lapse")
	}
}
