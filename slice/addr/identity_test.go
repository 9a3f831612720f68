package addr

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// history is what must be true of a ledger, kept beside it in the plainest way.
type history struct {
	holds map[string][]netip.Addr  // by key, until it is released
	last  map[netip.Addr]string    // who had an address last
	freed map[netip.Addr]time.Time // when it was released
	trace []string                 // the last events, for a failure
}

func (h *history) note(format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf(format, args...))
	if len(h.trace) > 12 {
		h.trace = h.trace[1:]
	}
}

func (h *history) release(key string, now time.Time) {
	for _, a := range h.holds[key] {
		h.freed[a] = now
	}
	delete(h.holds, key)
}

// take checks what a key was given.
func (h *history) take(key string, got []netip.Addr, rest time.Duration, now time.Time) error {
	if had := h.holds[key]; len(had) > 0 && !slices.Equal(had, got) {
		return fmt.Errorf("%s had %v and was given %v", key, had, got)
	}
	for _, a := range got {
		for other, addrs := range h.holds {
			if other != key && slices.Contains(addrs, a) {
				return fmt.Errorf("%s was given %v, which %s has", key, a, other)
			}
		}
		if who, freed := h.last[a], h.freed[a]; who != "" && who != key && now.Before(freed.Add(rest)) {
			return fmt.Errorf("%s was given %v, which %s left %s ago, before it had rested", key, a, who, now.Sub(freed))
		}
		h.last[a] = key
	}
	h.holds[key] = got
	return nil
}

// Whatever happens in whatever order (pods come, go and come back, controllers restart, blocks are added, addresses are
// shunned, the cluster runs out), a key keeps its addresses until it is released, nobody else has them meanwhile, and
// nobody else gets them before they have rested.
func TestIdentityOverManyEvents(t *testing.T) {
	const rest = time.Minute
	events := 10000
	for seed := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, 3))
		now := time.Unix(1_800_000_000, 0)
		prefixes := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/48")}
		blocks := []netip.Prefix{netip.MustParsePrefix("10.77.1.0/27"), netip.MustParsePrefix("fd77:0:0:1::/64")}
		l := NewLedger(rest)
		l.SetBlocks(prefixes, blocks)
		h := &history{holds: map[string][]netip.Addr{}, last: map[netip.Addr]string{}, freed: map[netip.Addr]time.Time{}}
		kept, exhausted, restarts := 0, 0, 0
		for n := range events {
			key := fmt.Sprintf("shop/db-%d", r.IntN(40))
			switch x := r.IntN(100); {
			case x < 50:
				h.note("%s takes", key)
				got, err := l.Take(key, now)
				if errors.Is(err, ErrExhausted) {
					exhausted++
					break
				}
				if len(h.holds[key]) > 0 {
					kept++
				}
				if err := h.take(key, slices.Clone(got), rest, now); err != nil {
					t.Fatalf("seed %d, event %d: %v\n%q", seed, n, err, h.trace)
				}
			case x < 70:
				h.note("%s is released", key)
				l.Release(key, now)
				h.release(key, now)
			case x < 75:
				h.note("all but some are released")
				keep := func(key string) bool { return len(key)%2 == 0 || key < "shop/db-3" }
				l.Settle(keep, now)
				for key := range h.holds {
					if !keep(key) {
						h.release(key, now)
					}
				}
			case x < 90:
				d := time.Duration(r.IntN(40)) * time.Second
				h.note("%s pass", d)
				now = now.Add(d)
			case x < 97:
				h.note("the controller restarts")
				b, err := l.MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				l = NewLedger(rest)
				if err := l.UnmarshalBinary(b); err != nil {
					t.Fatalf("seed %d, event %d: %v\n%q", seed, n, err, h.trace)
				}
				l.SetBlocks(prefixes, blocks)
				restarts++
			case x < 99:
				h.note("others are shunned")
				l.Shun(nil, map[netip.Addr]bool{netip.AddrFrom4([4]byte{10, 77, 1, byte(r.IntN(32))}): true})
			case len(blocks) < 4 && n > events/2:
				h.note("a block is added")
				blocks = append(blocks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(len(blocks)), 0}), 28))
				l.SetBlocks(prefixes, blocks)
			}
		}
		if kept < events/20 || exhausted == 0 || restarts < events/50 {
			t.Errorf("seed %d: kept %d times, exhausted %d times, %d restarts: the test tests too little", seed, kept, exhausted, restarts)
		}
	}
}
