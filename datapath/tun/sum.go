package tun

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071). Sums are kept in the machine's own byte order, which the sum does not care for as
// long as it is written the way it was read.

// sum adds the 16-bit words of b to acc; an odd last byte counts as if a zero followed it.
func sum(b []byte, acc uint64) uint64 {
	var c uint64
	for ; len(b) >= 64; b = b[64:] {
		w := (*[64]byte)(b)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[0:]), 0)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[8:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[16:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[24:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[32:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[40:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[48:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[56:]), c)
		acc += c
	}
	for ; len(b) >= 8; b = b[8:] {
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(b), 0)
		acc += c
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(last[:]), 0)
		acc += c
	}
	return acc
}

// add adds two sums.
func add(a, b uint64) uint64 {
	s, c := bits.Add64(a, b, 0)
	return s + c
}

// fold makes 16 bits of a sum.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// pseudo is the sum of the pseudo-header that TCP and UDP put before theirs, but for the length, which [word] gives.
func pseudo(ip []byte, protocol byte) uint64 {
	if ip[0]>>4 == 4 {
		return sum(ip[12:20], word(uint16(protocol)))
	}
	return sum(ip[8:40], word(uint16(protocol)))
}

// word is a 16-bit number as it counts in a sum.
func word(n uint16) uint64 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return uint64(binary.NativeEndian.Uint16(b[:]))
}

// putSum writes the folded sum of acc.
func putSum(b []byte, acc uint64) { binary.NativeEndian.PutUint16(b, fold(acc)) }

// putCheck writes the checksum of what acc is the sum of. That of UDP must not be 0, which means none; ^0 is equal to it.
func putCheck(b []byte, acc uint64) {
	n := ^fold(acc)
	if n == 0 {
		n = 0xffff
	}
	binary.NativeEndian.PutUint16(b, n)
}
