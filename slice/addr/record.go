package addr

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// recordVersion is the version of a written ledger.
//
//	1  2026-11  first
const recordVersion = 1

// record is a ledger as it is written down.
type record struct {
	Version int                     `json:"version"`
	Next    [2]netip.Addr           `json:"next"`
	Leases  map[string][]netip.Addr `json:"leases,omitempty"`
	Resting []restRecord            `json:"resting,omitempty"`
}

type restRecord struct {
	Addr  netip.Addr `json:"addr"`
	Key   string     `json:"key"`
	Until int64      `json:"until"` // unix seconds
}

// MarshalBinary writes the ledger down, all but its blocks. Equal ledgers give equal bytes.
func (l *Ledger) MarshalBinary() ([]byte, error) {
	r := record{Version: recordVersion, Next: l.next, Leases: l.leases}
	for _, a := range slices.SortedFunc(maps.Keys(l.resting), netip.Addr.Compare) {
		rest := l.resting[a]
		// Rounded up: a restart must not shorten a rest.
		until := rest.until.Add(time.Second - time.Nanosecond).Unix()
		r.Resting = append(r.Resting, restRecord{Addr: a, Key: rest.key, Until: until})
	}
	return json.Marshal(r)
}

// UnmarshalBinary reads what MarshalBinary wrote into an empty ledger. A ledger that cannot be true (one address with
// two holders) is refused: handing out addresses from it could give two pods the same one.
func (l *Ledger) UnmarshalBinary(b []byte) error {
	var r record
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return fmt.Errorf("address ledger: %w", err)
	}
	if r.Version != recordVersion {
		return fmt.Errorf("address ledger: version %d, this Seaway reads %d; run the version that wrote it or a newer one",
			r.Version, recordVersion)
	}
	fresh := NewLedger(l.rest)
	fresh.next = r.Next
	fresh.rev = l.rev
	for key, addrs := range r.Leases {
		for i, a := range addrs {
			other, taken := fresh.holders[a]
			twice := slices.ContainsFunc(addrs[:i], func(b netip.Addr) bool { return family(a) == family(b) })
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() || taken || twice {
				return fmt.Errorf("address ledger: %q has %v, which cannot be (other holder: %q)", key, addrs, other)
			}
			fresh.holders[a] = key
		}
		fresh.leases[key] = slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
	}
	for _, rest := range r.Resting {
		_, held := fresh.holders[rest.Addr]
		_, twice := fresh.resting[rest.Addr]
		if !rest.Addr.IsValid() || rest.Addr.Zone() != "" || rest.Addr.Is4In6() || held || twice {
			return fmt.Errorf("address ledger: %v rests, which cannot be: it is held or rests twice", rest.Addr)
		}
		fresh.resting[rest.Addr] = repose{key: rest.Key, until: time.Unix(rest.Until, 0)}
		fresh.past[rest.Key] = append(fresh.past[rest.Key], rest.Addr)
	}
	prefixes, blocks := l.prefixes, l.blocks
	*l = *fresh
	l.SetBlocks(prefixes, blocks)
	return nil
}
