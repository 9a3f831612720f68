package fleet

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Key is a public key of 32 bytes: WireGuard's (Curve25519) or, where it says signer, Ed25519's. Private keys have no type here: no message can carry one.
type Key [32]byte

// ParseKey reads a key in the base64 form that WireGuard's tools print.
func ParseKey(s string) (Key, error) {
	var k Key
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != len(k) {
		return k, fmt.Errorf("public key %.60q: want 44 characters of base64 for 32 bytes, as `wg pubkey` prints", s)
	}
	copy(k[:], b)
	return k, nil
}

// String returns the key in base64.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// IsZero tells whether no key was set.
func (k Key) IsZero() bool { return k == Key{} }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Key) UnmarshalText(b []byte) error {
	p, err := ParseKey(string(b))
	if err == nil {
		*k = p
	}
	return err
}

// KeyName names a node's key of one generation on a slice, in files and messages: "pay" for the first generation, 0,
// then "pay@1" and so on. While a slice's keys are changed a node holds keys of two generations.
func KeyName(slice string, generation uint64) string {
	if generation == 0 {
		return slice
	}
	return slice + "@" + strconv.FormatUint(generation, 10)
}

// SplitKeyName tells of what slice and generation a key is. A name that [KeyName] does not make is a slice's as it is.
func SplitKeyName(name string) (slice string, generation uint64) {
	slice, text, cut := strings.Cut(name, "@")
	g, err := strconv.ParseUint(text, 10, 63)
	if !cut || err != nil || g == 0 || KeyName(slice, g) != name {
		return name, 0
	}
	return slice, g
}

// Generations lists the generations of the node's keys on a slice, rising; none if it is not on the slice.
func (n Node) Generations(slice string) []uint64 {
	var out []uint64
	for name := range n.Keys {
		if s, g := SplitKeyName(name); s == slice {
			out = append(out, g)
		}
	}
	slices.Sort(out)
	return out
}

// On tells whether the node has a key on a slice, of any generation.
func (n Node) On(slice string) bool {
	if _, ok := n.Keys[slice]; ok {
		return true
	}
	return len(n.Generations(slice)) > 0
}
