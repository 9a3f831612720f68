package addr_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"seaway.dev/seaway/slice/addr"
)

var epoch = time.Unix(1_800_000_000, 0)

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestTakeSkipsTheEndsOfThePrefix(t *testing.T) {
	l := addr.NewLedger(time.Minute)
	l.SetBlocks(prefixes("10.1.0.0/29", "fd00::/125"), prefixes("10.1.0.0/29", "fd00::/125"))
	var got []string
	for i := range 7 {
		as, err := l.Take(fmt.Sprint("k", i), epoch)
		if err != nil {
			got = append(got, "none")
			if !errors.Is(err, addr.ErrExhausted) {
				t.Errorf("error %v is not ErrExhausted", err)
			}
			continue
		}
		got = append(got, as[0].String()+" "+as[1].String())
	}
	want := []string{"10.1.0.1 fd00::1", "10.1.0.2 fd00::2", "10.1.0.3 fd00::3", "10.1.0.4 fd00::4",
		"10.1.0.5 fd00::5", "10.1.0.6 fd00::6", "none"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestReleasedAddressRests(t *testing.T) {
	l := addr.NewLedger(10 * time.Minute)
	l.SetBlocks(prefixes("10.1.0.0/16"), prefixes("10.1.4.0/31"))
	a, _ := l.Take("a", epoch)
	l.Take("b", epoch)
	l.Release("a", epoch)
	if got, err := l.Take("c", epoch.Add(10*time.Minute-1)); err == nil {
		t.Fatalf("c got %v, which still rests", got)
	}
	if want := epoch.Add(10 * time.Minute); !l.NextFree(epoch).Equal(want) {
		t.Errorf("next free at %v, want %v", l.NextFree(epoch), want)
	}
	c, err := l.Take("c", epoch.Add(10*time.Minute))
	if err != nil || c[0] != a[0] {
		t.Errorf("after the rest c got %v, %v; want %v", c, err, a)
	}
}

func TestSameKeyComesBackToItsAddress(t *testing.T) {
	l := addr.NewLedger(10 * time.Minute)
	l.SetBlocks(prefixes("10.1.0.0/16"), prefixes("10.1.4.0/24"))
	a, _ := l.Take("svc/shop/web", epoch)
	l.Release("svc/shop/web", epoch)
	b, _ := l.Take("svc/shop/web", epoch.Add(time.Minute))
	if !slices.Equal(a, b) {
		t.Errorf("came back to %v, want %v", b, a)
	}
}

func TestBlocksGrowAndMove(t *testing.T) {
	l := addr.NewLedger(time.Minute)
	slice := prefixes("10.1.0.0/16")
	l.SetBlocks(slice, prefixes("10.1.4.0/31"))
	l.Take("a", epoch)
	l.Take("b", epoch)
	if _, err := l.Take("c", epoch); !errors.Is(err, addr.ErrExhausted) {
		t.Fatalf("error %v, want ErrExhausted", err)
	}
	l.SetBlocks(slice, prefixes("10.1.4.0/31", "10.1.9.0/31"))
	c, err := l.Take("c", epoch)
	if err != nil || c[0] != netip.MustParseAddr("10.1.9.0") {
		t.Fatalf("after growth c got %v, %v", c, err)
	}
	l.SetBlocks(slice, prefixes("10.1.9.0/31")) // the first block is another cluster's now
	a, err := l.Take("a", epoch)
	if err != nil || a[0] != netip.MustParseAddr("10.1.9.1") {
		t.Errorf("after the move a got %v, %v", a, err)
	}
	// A second family is added to those who hold the first already.
	l.SetBlocks(append(slice, prefixes("fd00::/48")...), prefixes("10.1.9.0/31", "fd00:0:0:1::/64"))
	a, err = l.Take("a", epoch)
	if err != nil || len(a) != 2 || a[1] != netip.MustParseAddr("fd00:0:0:1::") {
		t.Errorf("with a second family a got %v, %v", a, err)
	}
}

// TestLedgerProperties drives a ledger at random, written down and read back in between, and checks after each step
// that nobody's address is another's, that holders keep theirs, and that every rest is respected.
func TestLedgerProperties(t *testing.T) {
	for round := range 60 {
		seed := uint64(time.Now().UnixNano()) + uint64(round)
		rng := rand.New(rand.NewPCG(seed, 7))
		if err := drive(rng); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func drive(rng *rand.Rand) error {
	const rest = 5 * time.Minute
	slice := prefixes("10.1.0.0/24", "fd00::/64")
	blocks := prefixes("10.1.0.0/28", "fd00::/122")
	l, now := addr.NewLedger(rest), epoch
	l.SetBlocks(slice, blocks)
	held := map[string][]netip.Addr{}
	released := map[netip.Addr]time.Time{}
	lastKey := map[netip.Addr]string{}
	for range 400 {
		key := fmt.Sprint("ns/pod-", rng.IntN(24))
		switch rng.IntN(12) {
		case 0:
			l.Release(key, now)
			for _, a := range held[key] {
				released[a], lastKey[a] = now, key
			}
			delete(held, key)
		case 1:
			now = now.Add(time.Duration(rng.IntN(120)) * time.Second)
		case 2:
			b, err := l.MarshalBinary()
			if err != nil {
				return err
			}
			l = addr.NewLedger(rest)
			if rng.IntN(2) == 0 {
				l.SetBlocks(slice, blocks)
			}
			if err := l.UnmarshalBinary(b); err != nil {
				return err
			}
			l.SetBlocks(slice, blocks)
		case 3:
			if len(blocks) < 4 {
				blocks = append(blocks, prefixes(fmt.Sprintf("10.1.0.%d/28", 16*len(blocks)))...)
				l.SetBlocks(slice, blocks)
			}
		default:
			as, err := l.Take(key, now)
			if err != nil {
				if len(as) != len(held[key]) {
					return fmt.Errorf("refused %s but gave it %v", key, as)
				}
				continue
			}
			if old, ok := held[key]; ok && !slices.Equal(old, as) {
				return fmt.Errorf("%s had %v, now %v", key, old, as)
			}
			for _, a := range as {
				since, rested := released[a]
				if _, kept := held[key]; !kept && rested && now.Sub(since) < rest && lastKey[a] != key {
					return fmt.Errorf("%v went from %s to %s after %v", a, lastKey[a], key, now.Sub(since))
				}
				delete(released, a)
				if !slices.ContainsFunc(blocks, func(p netip.Prefix) bool { return p.Contains(a) }) {
					return fmt.Errorf("%v is outside the blocks %v", a, blocks)
				}
			}
			held[key] = as
		}
		owner := map[netip.Addr]string{}
		for key, as := range l.Leases() {
			for _, a := range as {
				if owner[a] != "" {
					return fmt.Errorf("%v has two holders, %s and %s", a, owner[a], key)
				}
				owner[a] = key
			}
			if !slices.Equal(as, held[key]) {
				return fmt.Errorf("%s holds %v, the ledger says %v", key, held[key], as)
			}
		}
	}
	return nil
}

func FuzzLedgerRecord(f *testing.F) {
	l := addr.NewLedger(time.Minute)
	l.SetBlocks(prefixes("10.1.0.0/24", "fd00::/64"), prefixes("10.1.0.0/28", "fd00::/122"))
	l.Take("a", epoch)
	l.Take("b", epoch)
	l.Release("a", epoch)
	b, err := l.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"next":["",""],"leases":{"a":["10.1.0.1"],"b":["10.1.0.1"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := addr.NewLedger(time.Minute)
		if l.UnmarshalBinary(b) != nil {
			return
		}
		l.SetBlocks(prefixes("10.1.0.0/24"), prefixes("10.1.0.0/28"))
		l.Take("new", epoch)
		owner := map[netip.Addr]string{}
		for key, as := range l.Leases() {
			for _, a := range as {
				if owner[a] != "" {
					t.Fatalf("%v: %s and %s", a, owner[a], key)
				}
				owner[a] = key
			}
		}
		again, err := l.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := addr.NewLedger(time.Minute).UnmarshalBinary(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

func BenchmarkTake10000(b *testing.B) {
	for b.Loop() {
		l := addr.NewLedger(time.Minute)
		l.SetBlocks(prefixes("10.0.0.0/8", "fd00::/48"), prefixes("10.1.0.0/16", "fd00::/64"))
		for i := range 10000 {
			if _, err := l.Take(fmt.Sprint(i), epoch); err != nil {
				b.Fatal(err)
			}
		}
	}
}
