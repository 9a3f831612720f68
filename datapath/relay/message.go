package relay

import (
	"crypto/subtle"
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/blake2s"

	"seaway.dev/seaway/fleet"
)

// WireGuard's four messages, and their sizes in bytes (https://www.wireguard.com/papers/wireguard.pdf, section 5.4).
const (
	typeInitiation = 1
	typeResponse   = 2
	typeCookie     = 3
	typeData       = 4

	sizeInitiation = 148
	sizeResponse   = 92
	sizeCookie     = 64
	sizeDataMin    = 32 // header 16, tag 16: a keepalive

	mac1Initiation = 116 // offset of mac1 in an initiation
	mac1Response   = 60  // offset of mac1 in a response
	mac1Size       = 16
)

// message is what can be read from a WireGuard packet without any key.
type message struct {
	kind     byte   // 0 means: not WireGuard
	sender   uint32 // initiation, response
	receiver uint32 // response, cookie, data
}

// parse looks at a packet. Wrong sizes, unknown types and reserved bytes that are not zero give kind 0.
func parse(p []byte) message {
	if len(p) < sizeDataMin || p[1]|p[2]|p[3] != 0 {
		return message{}
	}
	m := message{kind: p[0]}
	switch {
	case m.kind == typeData:
		m.receiver = binary.LittleEndian.Uint32(p[4:])
	case m.kind == typeInitiation && len(p) == sizeInitiation:
		m.sender = binary.LittleEndian.Uint32(p[4:])
	case m.kind == typeResponse && len(p) == sizeResponse:
		m.sender = binary.LittleEndian.Uint32(p[4:])
		m.receiver = binary.LittleEndian.Uint32(p[8:])
	case m.kind == typeCookie && len(p) == sizeCookie:
		m.receiver = binary.LittleEndian.Uint32(p[4:])
	default:
		return message{}
	}
	return m
}

// mac1 tells whether a handshake message is for the owner of one public key: mac1 is BLAKE2s-128 over the message up
// to it, keyed with BLAKE2s-256("mac1----" ‖ key). Not safe for concurrent use.
type mac1 struct{ h hash.Hash }

func newMac1(key fleet.Key) mac1 {
	k := blake2s.Sum256(append([]byte("mac1----"), key[:]...))
	h, err := blake2s.New128(k[:])
	if err != nil {
		panic("blake2s refuses a 32-byte key: " + err.Error()) // its documented limit is 32
	}
	return mac1{h}
}

// names tells whether the handshake message p (an initiation or a response) has mac1 at offset off for this key.
func (m mac1) names(p []byte, off int) bool {
	var sum [mac1Size]byte
	m.h.Reset()
	m.h.Write(p[:off])
	return subtle.ConstantTimeCompare(m.h.Sum(sum[:0]), p[off:off+mac1Size]) == 1
}
