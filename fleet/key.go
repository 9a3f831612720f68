package fleet

import (
	"encoding/base64"
	"fmt"
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
