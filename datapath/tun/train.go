package tun

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// joiner finds packets that follow each other in a flow, so that the kernel gets them as one frame, which it takes
// through the slice's namespace and into the pod as if it were one packet. It copies nothing: a train is a list of
// packets, and the kernel gathers them. The order within a flow is kept.
//
// The checksums of joined packets are not checked: that they came unchanged from the peer is what WireGuard's
// authentication says, and the kernel is told to trust them, as it does with what its own WireGuard decrypts
// (drivers/net/wireguard/receive.c, "We've already verified the Poly1305 auth tag").
type joiner struct {
	udp    bool // whether the kernel takes joined UDP
	trains []train
	next   [maxBatch]int16 // the packet after this one in its train; 0: none
}

// train is packets of one flow of which all but the last carry size bytes.
type train struct {
	first, last int16
	n           int16
	open        bool // more may follow
	kind        byte // gsoTCP4, gsoTCP6, gsoUDP; 0: a packet that cannot be joined
	l4, head    uint8
	size        uint16
	total       int    // bytes of the frame
	seq         uint32 // TCP: of what would follow
}

const (
	maxBatch    = 128   // packets at once: what WireGuard hands over at most
	maxFrame    = 65535 // bytes: the length of an IP packet
	maxSegments = 64    // the kernel's UDP_MAX_SEGMENTS before 6.9
	lookBack    = 32    // trains to look through for a packet's flow: bounds the work if each packet has its own
)

// join sorts packets, each pkts[i][offset:], into trains, in the order in which to write them.
func (j *joiner) join(pkts [][]byte, offset int) []train {
	j.trains = j.trains[:0]
	for i := range pkts {
		p := pkts[i][offset:]
		j.next[i] = 0
		t := j.look(p)
		t.first, t.last, t.n = int16(i), int16(i), 1
		if t.kind == 0 {
			j.part(pkts, offset, p)
		} else if j.append(pkts, offset, p, &t) {
			continue
		}
		j.trains = append(j.trains, t)
	}
	return j.trains
}

// append puts a packet, given as a train of one, behind the last of its flow, if it continues that.
func (j *joiner) append(pkts [][]byte, offset int, p []byte, t *train) bool {
	for k := len(j.trains) - 1; k >= max(0, len(j.trains)-lookBack); k-- {
		o := &j.trains[k]
		if o.kind != t.kind || o.l4 != t.l4 {
			continue
		}
		q := pkts[o.first][offset:]
		if !sameFlow(q, p, int(t.l4)) {
			continue
		}
		data := len(p) - int(t.head)
		if !o.open || o.head != t.head || data > int(o.size) || o.total+data > maxFrame || o.n == maxSegments || !continues(q, p, o, t) {
			return false
		}
		j.next[o.last] = t.last
		o.last = t.last
		o.n++
		o.total += data
		o.seq = t.seq
		o.open = t.open && data == int(o.size)
		if t.kind != gsoUDP {
			q[o.l4+tcpFlags] |= p[t.l4+tcpFlags] & flagPSH // it belongs to the last segment, where the kernel puts it
		}
		return true
	}
	return false
}

// part ends the trains between the addresses of a packet that cannot be joined, a fragment say, lest later ones
// overtake it.
func (j *joiner) part(pkts [][]byte, offset int, p []byte) {
	if len(p) < 40 && (len(p) < 20 || p[0]>>4 == 6) {
		return
	}
	for k := range j.trains {
		o := &j.trains[k]
		if !o.open {
			continue
		}
		if q := pkts[o.first][offset:]; q[0]>>4 == p[0]>>4 && sameHosts(q, p) {
			o.open = false
		}
	}
}

// look describes a packet as a train of one.
func (j *joiner) look(p []byte) (t train) {
	t.total = len(p)
	if len(p) < 28 {
		return t
	}
	protocol := byte(0)
	switch be := binary.BigEndian; p[0] >> 4 {
	case 4:
		if p[0]&15 != 5 || int(be.Uint16(p[2:])) != len(p) || be.Uint16(p[6:])&0x3fff != 0 {
			return t // options, padding or a fragment
		}
		protocol, t.l4 = p[9], 20
	case 6:
		if len(p) < 48 || int(be.Uint16(p[4:]))+40 != len(p) {
			return t
		}
		protocol, t.l4 = p[6], 40
	}
	switch l4 := p[t.l4:]; {
	case protocol == protoTCP && len(l4) >= minTCP:
		t.kind = gsoTCP4
		if t.l4 == 40 {
			t.kind = gsoTCP6
		}
		n := int(l4[12]>>4) * 4
		if n < minTCP || n > len(l4) {
			t.kind = 0
			return t
		}
		t.head = t.l4 + uint8(n)
		t.size = uint16(len(l4) - n)
		t.seq = binary.BigEndian.Uint32(l4[4:]) + uint32(t.size)
		t.open = t.size > 0 && l4[tcpFlags] == flagACK && l4[12]&15 == 0
	case protocol == protoUDP && j.udp:
		t.kind, t.head = gsoUDP, t.l4+udpLen
		t.size = uint16(len(l4) - udpLen)
		t.open = t.size > 0 && int(binary.BigEndian.Uint16(l4[4:])) == len(l4) && (l4[udpCheck]|l4[udpCheck+1]) != 0
	}
	return t
}

// sameFlow tells whether two packets of one kind have the same addresses and ports.
func sameFlow(a, b []byte, l4 int) bool {
	n := binary.NativeEndian
	return n.Uint32(a[l4:]) == n.Uint32(b[l4:]) && sameHosts(a, b)
}

// sameHosts tells whether two packets of one IP version have the same addresses.
func sameHosts(a, b []byte) bool {
	if a[0]>>4 == 4 {
		return binary.NativeEndian.Uint64(a[12:]) == binary.NativeEndian.Uint64(b[12:])
	}
	return bytes.Equal(a[8:40], b[8:40])
}

// continues tells whether a packet b, described by t, may stand behind the train o, whose first packet is a: nothing in
// the headers may differ but what segmentation sets.
func continues(a, b []byte, o, t *train) bool {
	if o.l4 == 20 {
		if a[1] != b[1] || a[6] != b[6] || a[8] != b[8] { // type of service, don't fragment, time to live
			return false
		}
	} else if binary.NativeEndian.Uint32(a) != binary.NativeEndian.Uint32(b) || a[7] != b[7] { // class, flow label, hop limit
		return false
	}
	x, y := a[o.l4:], b[o.l4:]
	if o.kind == gsoUDP {
		return t.size > 0 && int(binary.BigEndian.Uint16(y[4:])) == len(y) && (y[udpCheck]|y[udpCheck+1]) != 0
	}
	return t.size > 0 && o.seq == t.seq-uint32(t.size) &&
		binary.NativeEndian.Uint32(x[8:]) == binary.NativeEndian.Uint32(y[8:]) && // acknowledged
		x[12] == y[12] && x[tcpFlags]&^flagPSH == y[tcpFlags]&^flagPSH && // length; the train's are ACK alone
		binary.NativeEndian.Uint16(x[14:]) == binary.NativeEndian.Uint16(y[14:]) && // window
		bytes.Equal(x[tcpUrgent:o.head-o.l4], y[tcpUrgent:o.head-o.l4]) // urgent pointer, options
}

// couple makes the headers of a train's first packet those of the whole frame.
func (t *train) couple(p []byte) vnet {
	h := p[:t.head]
	if t.l4 == 20 {
		binary.BigEndian.PutUint16(h[2:], uint16(t.total))
		clear(h[10:12])
		putCheck(h[10:], sum(h[:20], 0))
	} else {
		binary.BigEndian.PutUint16(h[4:], uint16(t.total-40))
	}
	l4, length := h[t.l4:], uint16(t.total-int(t.l4))
	v := vnet{flags: needsCheck, gso: t.kind, hdrLen: uint16(t.head), gsoSize: t.size, csumStart: uint16(t.l4), csumOffset: tcpCheck}
	protocol := byte(protoTCP)
	if t.kind == gsoUDP {
		protocol, v.csumOffset = protoUDP, udpCheck
		binary.BigEndian.PutUint16(l4[4:], length)
	}
	putSum(l4[v.csumOffset:], add(pseudo(h, protocol), word(length)))
	return v
}

// gather lists what a train's frame consists of, from the vnet header on, for writev.
func (j *joiner) gather(t *train, pkts [][]byte, offset int, iov []unix.Iovec) []unix.Iovec {
	first := pkts[t.first][offset-vnetLen:]
	v := vnet{}
	if t.n > 1 {
		v = t.couple(first[vnetLen:])
	}
	v.put(first)
	iov = appendIovec(iov[:0], first)
	for i := j.next[t.first]; i != 0; i = j.next[i] {
		iov = appendIovec(iov, pkts[i][offset+int(t.head):])
	}
	return iov
}

func appendIovec(iov []unix.Iovec, b []byte) []unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return append(iov, v)
}
