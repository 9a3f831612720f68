package addr

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

// DefaultRest is how long a released address rests before somebody else gets it: longer than clients' DNS caches,
// TCP's TIME_WAIT (RFC 9293: 2×2 min) and the idle timeouts of common connection pools.
const DefaultRest = 10 * time.Minute

// ErrExhausted says that the blocks have no free address of a family that the slice has.
var ErrExhausted = errors.New("no free address in this cluster's blocks")

// Ledger hands out the addresses of one slice in one cluster. It remembers who has which, so that a key keeps its
// addresses until it is released, and lets released ones rest. It is deterministic: the same calls on the same ledger
// give the same addresses. It does no I/O and is not safe for concurrent use.
//
// A key names a holder: the caller chooses it so that it lives as long as the address is to be kept ("shop/db-0" for
// a StatefulSet's pod, a UID for a pod that will never come back).
//
//	        Take                 Release              rest is over
//	free ─────────▶ held by key ─────────▶ resting ───────────────▶ free
//	                     ▲                    │
//	                     └── Take by the same ┘ key
type Ledger struct {
	rest     time.Duration
	prefixes []netip.Prefix // of the slice: which families there are, and the ends that nobody gets
	blocks   []netip.Prefix // of this cluster, sorted
	leases   map[string][]netip.Addr
	holders  map[netip.Addr]string
	resting  map[netip.Addr]repose
	past     map[string][]netip.Addr // key → the addresses it left resting
	next     [2]netip.Addr           // by family: where the next search begins
	full     [2]time.Time            // by family: no search before this time can succeed
	shunned  shunned
	lack     [2]time.Time // by family: since when only shunned addresses are left; zero if others are
	rev      uint64
}

// repose is an address at rest.
type repose struct {
	key   string
	until time.Time
}

// never is a time that no clock reaches.
var never = time.Unix(math.MaxInt32, 0)

// NewLedger makes an empty ledger without blocks. A rest of 0 or less means DefaultRest.
func NewLedger(rest time.Duration) *Ledger {
	if rest <= 0 {
		rest = DefaultRest
	}
	return &Ledger{
		rest:    rest,
		leases:  map[string][]netip.Addr{},
		holders: map[netip.Addr]string{},
		resting: map[netip.Addr]repose{},
		past:    map[string][]netip.Addr{},
	}
}

// Rev rises with each change that must be written down before the addresses are used.
func (l *Ledger) Rev() uint64 { return l.rev }

// SetBlocks says from where to hand out: the slice's prefixes and this cluster's blocks of them. Blocks usually grow;
// an address outside the new ones belongs to somebody else and is taken from its holder, who gets another one by the
// next Take.
func (l *Ledger) SetBlocks(prefixes, blocks []netip.Prefix) {
	prefixes, blocks = ordered(prefixes), ordered(blocks)
	if slices.Equal(prefixes, l.prefixes) && slices.Equal(blocks, l.blocks) {
		return
	}
	l.prefixes, l.blocks = prefixes, blocks
	l.full, l.lack = [2]time.Time{}, [2]time.Time{}
	for a, key := range l.holders {
		if !l.ours(a) {
			delete(l.holders, a)
			l.leases[key] = slices.DeleteFunc(slices.Clone(l.leases[key]), func(b netip.Addr) bool { return a == b })
			l.rev++
		}
	}
	for a := range l.resting {
		if !l.ours(a) {
			l.wake(a)
			l.rev++
		}
	}
}

// Take returns the key's addresses, one of each family that the slice has, and leases those that it lacks. When a
// family has no free address nothing new is leased: the addresses that the key has are returned with ErrExhausted.
func (l *Ledger) Take(key string, now time.Time) ([]netip.Addr, error) { return l.take(key, now, true) }

// TakeVirtual is Take for addresses that are nobody's own, such as a service's: being shunned does not matter to them.
func (l *Ledger) TakeVirtual(key string, now time.Time) ([]netip.Addr, error) {
	return l.take(key, now, false)
}

func (l *Ledger) take(key string, now time.Time, picky bool) ([]netip.Addr, error) {
	have := l.leases[key]
	var fresh []netip.Addr
	for _, p := range l.prefixes {
		f := family(p.Addr())
		if slices.ContainsFunc(have, func(a netip.Addr) bool { return family(a) == f }) {
			continue
		}
		a, ok := l.find(f, key, now, picky)
		if !ok {
			return have, fmt.Errorf("%s from %s: %w", key, p, ErrExhausted)
		}
		fresh = append(fresh, a)
	}
	if len(fresh) == 0 {
		return have, nil
	}
	for _, a := range fresh {
		l.wake(a)
		l.holders[a] = key
		l.next[family(a)] = a.Next()
	}
	have = append(slices.Clone(have), fresh...)
	slices.SortFunc(have, netip.Addr.Compare)
	l.leases[key] = have
	l.rev++
	return have, nil
}

// Release ends a key's lease; its addresses rest from now on.
func (l *Ledger) Release(key string, now time.Time) {
	addrs, ok := l.leases[key]
	if !ok {
		return
	}
	delete(l.leases, key)
	for _, a := range addrs {
		delete(l.holders, a)
		l.resting[a] = repose{key: key, until: now.Add(l.rest)}
		l.past[key] = append(l.past[key], a)
	}
	l.full = [2]time.Time{}
	l.rev++
}

// Settle releases every lease whose key is not held any more, and forgets rests that are over.
func (l *Ledger) Settle(held func(key string) bool, now time.Time) {
	for _, key := range slices.Sorted(maps.Keys(l.leases)) {
		if !held(key) {
			l.Release(key, now)
		}
	}
	for a, r := range l.resting {
		if !r.until.After(now) {
			l.wake(a)
		}
	}
}

// Leases returns a copy of who has which addresses.
func (l *Ledger) Leases() map[string][]netip.Addr { return maps.Clone(l.leases) }

// Held returns how many addresses of a family are in use, how many rest, and how many the blocks have in all.
func (l *Ledger) Held(ipv6 bool) (held, resting int, total float64) {
	f := 0
	if ipv6 {
		f = 1
	}
	for a := range l.holders {
		if family(a) == f {
			held++
		}
	}
	for a := range l.resting {
		if family(a) == f {
			resting++
		}
	}
	for _, b := range l.blocks {
		if family(b.Addr()) == f {
			total += math.Exp2(float64(b.Addr().BitLen() - b.Bits()))
		}
	}
	return held, resting, total
}

// NextFree is when, after now, an address may become free although nobody releases one: the end of the first rest, or
// of the patience with shunned ones. Zero if that is never.
func (l *Ledger) NextFree(now time.Time) time.Time {
	var first time.Time
	for _, since := range l.lack {
		if end := since.Add(patience); !since.IsZero() && end.After(now) && (first.IsZero() || end.Before(first)) {
			first = end
		}
	}
	for _, r := range l.resting {
		if r.until.After(now) && (first.IsZero() || r.until.Before(first)) {
			first = r.until
		}
	}
	return first
}

// find chooses an address for a key: the one it had before, or else the next free one after the last that was
// handed out, so that an address is reused as late as possible. A picky key gets a shunned one only if there has been
// no other for a while.
func (l *Ledger) find(f int, key string, now time.Time, picky bool) (netip.Addr, bool) {
	for _, a := range l.past[key] {
		if family(a) == f && l.ours(a) && !(picky && l.shunned.has(a)) {
			return a, true
		}
	}
	if l.full[f].After(now) {
		return netip.Addr{}, false
	}
	var blocks []netip.Prefix
	for _, b := range l.blocks {
		if family(b.Addr()) == f {
			blocks = append(blocks, b)
		}
	}
	picky = picky && l.shunned.touches(blocks)
	if a, ok := l.search(f, blocks, now, picky); ok {
		if picky {
			l.lack[f] = time.Time{}
		}
		return a, true
	}
	if picky {
		return l.settleFor(f, blocks, now)
	}
	l.full[f] = never
	for a, r := range l.resting {
		if family(a) == f && r.until.Before(l.full[f]) {
			l.full[f] = r.until
		}
	}
	return netip.Addr{}, false
}

// search goes once around the blocks, from where the last search ended.
func (l *Ledger) search(f int, blocks []netip.Prefix, now time.Time, picky bool) (netip.Addr, bool) {
	first := slices.IndexFunc(blocks, func(b netip.Prefix) bool { return b.Contains(l.next[f]) })
	if first >= 0 {
		if a, ok := l.scan(blocks[first], l.next[f], now, picky); ok {
			return a, true
		}
	}
	for i := range blocks { // the blocks after the first, then round to the first from its beginning
		b := blocks[(max(first, 0)+i+min(1, first+1))%len(blocks)]
		if a, ok := l.scan(b, b.Addr(), now, picky); ok {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// scan looks for a free address in a block from a start upwards.
func (l *Ledger) scan(block netip.Prefix, from netip.Addr, now time.Time, picky bool) (netip.Addr, bool) {
	for a := from; a.IsValid() && block.Contains(a); a = a.Next() {
		if picky {
			if a = l.shunned.past(a); !a.IsValid() || !block.Contains(a) {
				break
			}
		}
		if _, held := l.holders[a]; held || l.end(a) {
			continue
		}
		if r, rests := l.resting[a]; rests && r.until.After(now) {
			continue
		}
		return a, true
	}
	return netip.Addr{}, false
}

// end tells whether an address is an end of the slice's prefix: the network's own address, which IPv6 calls the
// routers' anycast (RFC 4291 §2.6.1), or IPv4's broadcast. Some software refuses to talk to those.
func (l *Ledger) end(a netip.Addr) bool {
	for _, p := range l.prefixes {
		if !p.Contains(a) || p.Bits() >= a.BitLen()-1 {
			continue
		}
		if a == p.Addr() || (a.Is4() && !p.Contains(a.Next())) {
			return true
		}
	}
	return false
}

// ours tells whether an address is in this cluster's blocks and the slice's prefixes.
func (l *Ledger) ours(a netip.Addr) bool {
	in := func(p netip.Prefix) bool { return p.Contains(a) }
	return slices.ContainsFunc(l.blocks, in) && slices.ContainsFunc(l.prefixes, in)
}

// wake ends an address's rest.
func (l *Ledger) wake(a netip.Addr) {
	r, ok := l.resting[a]
	if !ok {
		return
	}
	delete(l.resting, a)
	left := slices.DeleteFunc(l.past[r.key], func(b netip.Addr) bool { return a == b })
	if l.past[r.key] = left; len(left) == 0 {
		delete(l.past, r.key)
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func ordered(ps []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(ps))
	for _, p := range ps {
		if p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(out)
}
