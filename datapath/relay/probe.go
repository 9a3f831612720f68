package relay

import (
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"time"

	"golang.org/x/crypto/blake2s"

	"seaway.dev/seaway/fleet"
)

// Seaway's own two messages, of types that WireGuard does not use. A switch that does not know them drops them as it
// drops anything that is not WireGuard, and WireGuard itself does, too. All numbers are little-endian.
//
// A probe is an ask or its answer, of equal size, so that nobody can amplify by it:
//
//	 0  type 128    1  kind     2  flags     3  way: the asker's number for it
//	 4  sender: the first 8 bytes of BLAKE2s-256("seaway node" ‖ its management public key)
//	12  number: rises with each message of the sender, across restarts as long as its clock does not step back
//	20  echo: an answer's: the ask's number; an ask's: the newest number heard of the other, which proves it fresh
//	28  round trip, µs (4)     32  until the next ask, ms (2)     34  loss, 1/255     35  zero
//	36  MAC: 12 bytes of BLAKE2s-128 over all before, keyed by a secret of the pair of nodes
//
// A relayed message carries a WireGuard message or a probe, never another relayed message, to a node by name:
//
//	 0  type 129    1  0: to be forwarded; 1: was forwarded    2  zero (2)
//	 4  whom it is for, or, once forwarded, whom it is from: as a probe's sender
//	12  the message
const (
	typeProbe   = 128
	typeRelayed = 129

	sizeProbe = 48
	sizeHead  = 12
	macOffset = 36

	kindAsk    = 0
	kindAnswer = 1

	flagAlive = 1 // the asker hears answers by this way
	flagUse   = 2 // the asker sends its data by this way
)

// nodeID names a node in Seaway's own messages.
type nodeID [8]byte

func idOf(key fleet.Key) nodeID {
	sum := blake2s.Sum256(append([]byte("seaway node"), key[:]...))
	return nodeID(sum[:8])
}

// probe is a parsed probe.
type probe struct {
	kind, flags, way byte
	from             nodeID
	number, echo     uint64
	rtt              time.Duration
	every            time.Duration
	loss             float64
}

// parseProbe reads a probe, but for its MAC. ok is false for anything else.
func parseProbe(p []byte) (m probe, ok bool) {
	if len(p) != sizeProbe || p[0] != typeProbe || p[1] > kindAnswer || p[35] != 0 {
		return m, false
	}
	le := binary.LittleEndian
	return probe{kind: p[1], flags: p[2], way: p[3], from: nodeID(p[4:12]), number: le.Uint64(p[12:]), echo: le.Uint64(p[20:]),
		rtt: time.Duration(le.Uint32(p[28:])) * time.Microsecond, every: time.Duration(le.Uint16(p[32:])) * time.Millisecond,
		loss: float64(p[34]) / 255}, true
}

// seal writes a probe with its MAC.
func (m probe) seal(key hash.Hash) []byte {
	p := make([]byte, sizeProbe)
	le := binary.LittleEndian
	p[0], p[1], p[2], p[3] = typeProbe, m.kind, m.flags, m.way
	copy(p[4:], m.from[:])
	le.PutUint64(p[12:], m.number)
	le.PutUint64(p[20:], m.echo)
	le.PutUint32(p[28:], uint32(min(m.rtt/time.Microsecond, 1<<32-1)))
	le.PutUint16(p[32:], uint16(min(m.every/time.Millisecond, 1<<16-1)))
	p[34] = byte(min(max(m.loss, 0), 1)*255 + 0.5)
	copy(p[macOffset:], probeMAC(key, p))
	return p
}

// genuine tells whether a probe's MAC was made with the key.
func genuine(key hash.Hash, p []byte) bool {
	return subtle.ConstantTimeCompare(probeMAC(key, p), p[macOffset:sizeProbe]) == 1
}

func probeMAC(key hash.Hash, p []byte) []byte {
	var sum [blake2s.Size128]byte
	key.Reset()
	key.Write(p[:macOffset])
	return key.Sum(sum[:0])[:sizeProbe-macOffset]
}

// newProbeKey makes what probes between two nodes are authenticated with, from a secret that only those two have. Not
// safe for concurrent use.
func newProbeKey(secret [32]byte) hash.Hash {
	k := blake2s.Sum256(append([]byte("seaway probe"), secret[:]...))
	h, err := blake2s.New128(k[:])
	if err != nil {
		panic("blake2s refuses a 32-byte key: " + err.Error()) // its documented limit is 32
	}
	return h
}

// parseRelayed reads a relayed message. ok is false for anything else, and for one that carries another.
func parseRelayed(p []byte) (id nodeID, forwarded bool, inner []byte, ok bool) {
	if len(p) < sizeHead+sizeDataMin || p[0] != typeRelayed || p[1] > 1 || p[2]|p[3] != 0 || p[sizeHead] == typeRelayed {
		return id, false, nil, false
	}
	return nodeID(p[4:12]), p[1] == 1, p[sizeHead:], true
}

// headFor is the head of messages to be forwarded to a node.
func headFor(id nodeID) *[sizeHead]byte {
	h := &[sizeHead]byte{0: typeRelayed}
	copy(h[4:], id[:])
	return h
}

// readdress makes of a message to be forwarded one that was, in place.
func readdress(p []byte, from nodeID) {
	p[1] = 1
	copy(p[4:], from[:])
}
