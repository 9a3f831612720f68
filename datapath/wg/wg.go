// Package wg drives WireGuard devices: makes them in a slice's network namespace, and changes what differs from what
// is wanted, without disturbing the sessions of peers that stay. Two drivers do so, [Userspace] and [Kernel], and one
// suite of tests holds for both. How packets leave the node is not theirs: see package relay.
package wg

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// PrivateKey is a Curve25519 private key. It prints as "(private)".
type PrivateKey struct{ b [32]byte }

// NewPrivateKey draws a key.
func NewPrivateKey() (PrivateKey, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("draw a private key: %w", err)
	}
	return PrivateKeyFrom(k.Bytes())
}

// PrivateKeyFrom takes 32 bytes as a key.
func PrivateKeyFrom(b []byte) (PrivateKey, error) {
	var k PrivateKey
	if len(b) != len(k.b) {
		return k, fmt.Errorf("a private key of %d bytes: want 32", len(b))
	}
	copy(k.b[:], b)
	k.b[0] &= 248 // as RFC 7748 says, so that the stored form is what is used
	k.b[31] = k.b[31]&127 | 64
	return k, nil
}

// Bytes returns the key for the one file that holds it.
func (k PrivateKey) Bytes() []byte { return k.b[:] }

// Public returns the public key.
func (k PrivateKey) Public() fleet.Key {
	p, err := ecdh.X25519().NewPrivateKey(k.b[:])
	if err != nil {
		panic("X25519 refuses 32 bytes: " + err.Error())
	}
	return fleet.Key(p.PublicKey().Bytes())
}

// Shared returns what only the holders of this key and of the other, whose public part is given, can compute (X25519).
func (k PrivateKey) Shared(other fleet.Key) ([32]byte, error) {
	priv, err := ecdh.X25519().NewPrivateKey(k.b[:])
	if err != nil {
		panic("X25519 refuses 32 bytes: " + err.Error())
	}
	pub, err := ecdh.X25519().NewPublicKey(other[:])
	if err != nil {
		panic("X25519 refuses 32 bytes: " + err.Error())
	}
	s, err := priv.ECDH(pub)
	if err != nil {
		return [32]byte{}, fmt.Errorf("public key %s: %w", other, err) // of low order
	}
	return [32]byte(s), nil
}

func (k PrivateKey) hex() string { return hex.EncodeToString(k.b[:]) }

// String hides the key.
func (PrivateKey) String() string { return "(private)" }

// GoString hides the key.
func (PrivateKey) GoString() string { return "(private)" }

// Driver makes WireGuard devices. Its methods are called by one goroutine at a time.
type Driver interface {
	// Name is "userspace" or "kernel".
	Name() string
	// Apply makes a slice's device what want says and tells how many things it had to change: 0 the second time.
	// bind is the device's place at the switch.
	Apply(want plan.Device, key PrivateKey, bind *relay.Port) (changes int, err error)
	// Remove deletes a device, by its name, and with the last one of a slice the link. A device that is not there is no
	// error.
	Remove(name string) error
	// Peers tells how a device's peers do.
	Peers(name string) (map[fleet.Key]PeerStat, error)
	// Handshake starts a handshake of a device with a peer. With renew the present session is given up first.
	Handshake(name string, peer fleet.Key, renew bool)
	// Settle is to be called every second. Of slices with several devices, which have keys of different generations, it
	// has the newer ones shake hands, and moves each peer's packets to the newest device that has a session with it.
	Settle()
	// Close stops all devices. Their links stay, with addresses and routes, for whoever takes over.
	Close()
}

// PeerStat is what WireGuard counts of a peer.
type PeerStat struct {
	Handshake time.Time // of the last complete one
	RxBytes   uint64
	TxBytes   uint64
	Keepalive int // seconds
	Allowed   []netip.Prefix
}
