package tun

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// vnet is the header that the kernel puts before each frame: struct virtio_net_hdr of <linux/virtio_net.h>.
type vnet struct {
	flags, gso                             byte
	hdrLen, gsoSize, csumStart, csumOffset uint16
}

const vnetLen = 10

func readVnet(b []byte) vnet {
	n := binary.NativeEndian
	return vnet{b[0], b[1], n.Uint16(b[2:]), n.Uint16(b[4:]), n.Uint16(b[6:]), n.Uint16(b[8:])}
}

func (v vnet) put(b []byte) {
	b[0], b[1] = v.flags, v.gso
	n := binary.NativeEndian
	n.PutUint16(b[2:], v.hdrLen)
	n.PutUint16(b[4:], v.gsoSize)
	n.PutUint16(b[6:], v.csumStart)
	n.PutUint16(b[8:], v.csumOffset)
}

const (
	tcpUrgent          = 18
	tcpFlags           = 13 // where they are in a TCP header
	flagFIN, flagPSH   = 0x01, 0x08
	flagACK            = 0x10
	tcpCheck, udpCheck = 16, 6 // where the checksums are
	minTCP             = 20
	udpLen             = 8
	protoTCP, protoUDP = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	gsoTCP4, gsoTCP6   = unix.VIRTIO_NET_HDR_GSO_TCPV4, unix.VIRTIO_NET_HDR_GSO_TCPV6
	gsoUDP             = unix.VIRTIO_NET_HDR_GSO_UDP_L4
	needsCheck         = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
)

// cutter cuts what the kernel hands out as one frame, up to 64 kB, into packets of the link's MTU, as a network card
// with TCP or UDP segmentation offload does.
type cutter struct {
	data []byte // what of the frame is not handed out yet; nil: nothing
	head []byte // what stands before each segment: the IP and the transport header
	size int    // of a segment
	nth  int

	protocol byte
	l4       int    // where the transport header begins
	seq      uint32 // of the next segment
	last     byte   // TCP flags that belong to the last segment only
	ipSum    uint64 // of the IPv4 header without length, identification, checksum
	l4Sum    uint64 // of the pseudo-header and the header without lengths, sequence number, flags' word, checksum
}

var errFrame = errors.New("the kernel's frame is damaged")

// begin takes a frame, which must stay as it is until the last packet was cut.
func (c *cutter) begin(v vnet, frame []byte) error {
	*c = cutter{}
	if len(frame) == 0 {
		return nil
	}
	if v.gso == unix.VIRTIO_NET_HDR_GSO_NONE {
		if v.flags&needsCheck != 0 {
			at := int(v.csumStart) + int(v.csumOffset)
			if int(v.csumStart) > len(frame) || at+2 > len(frame) {
				return fmt.Errorf("%w: checksum at %d of %d bytes", errFrame, at, len(frame))
			}
			putCheck(frame[at:], sum(frame[v.csumStart:], 0)) // the pseudo-header's sum stands there already
		}
		c.data, c.size = frame, len(frame)
		return nil
	}
	return c.train(v, frame)
}

// train takes a frame that is to be cut.
func (c *cutter) train(v vnet, frame []byte) error {
	version, least := frame[0]>>4, 20
	if version == 6 {
		least = 40
	}
	c.l4 = int(v.csumStart)
	if v.gsoSize == 0 || c.l4 < least || c.l4 > len(frame) {
		return fmt.Errorf("%w: transport header at %d, segments of %d, %d bytes", errFrame, c.l4, v.gsoSize, len(frame))
	}
	l4 := frame[c.l4:]
	head := c.l4
	switch {
	case v.gso == gsoUDP && (version == 4 || version == 6) && len(l4) >= udpLen:
		c.protocol = protoUDP
		head += udpLen
	case (v.gso == gsoTCP4 && version == 4 || v.gso == gsoTCP6 && version == 6) && len(l4) >= minTCP:
		c.protocol = protoTCP
		head += int(l4[12]>>4) * 4
		if head < c.l4+minTCP || head > len(frame) {
			return fmt.Errorf("%w: TCP header of %d bytes", errFrame, head-c.l4)
		}
	default:
		return fmt.Errorf("%w: offload of type %d in IP version %d, %d bytes", errFrame, v.gso, version, len(frame))
	}
	c.head, c.data, c.size = frame[:head], frame[head:], int(v.gsoSize)
	if len(c.data) == 0 {
		c.data = nil
		return fmt.Errorf("%w: no data after a header of %d bytes", errFrame, head)
	}
	c.prepare()
	return nil
}

// prepare sums what is the same in all segments.
func (c *cutter) prepare() {
	h, t := c.head, c.head[c.l4:]
	if h[0]>>4 == 4 {
		clear(h[10:12])
		c.ipSum = sum(h[:2], 0)
		c.ipSum = sum(h[6:c.l4], c.ipSum)
	}
	c.l4Sum = pseudo(h, c.protocol)
	if c.protocol == protoUDP {
		c.l4Sum = sum(t[:4], c.l4Sum)
		return
	}
	c.seq = binary.BigEndian.Uint32(t[4:])
	c.last = t[tcpFlags] & (flagFIN | flagPSH)
	t[tcpFlags] &^= c.last
	clear(t[tcpCheck : tcpCheck+2])
	c.l4Sum = sum(t[:4], c.l4Sum)
	c.l4Sum = sum(t[8:], c.l4Sum)
}

// cut writes the next packet into buf and returns its length.
func (c *cutter) cut(buf []byte) (int, error) {
	n := min(c.size, len(c.data))
	total := len(c.head) + n
	if total > len(buf) {
		c.data = nil
		return 0, fmt.Errorf("%w: a packet of %d bytes", errFrame, total)
	}
	copy(buf, c.head)
	copy(buf[len(c.head):], c.data[:n])
	c.data = c.data[n:]
	if c.head == nil { // a packet that was whole
		c.data = nil
		return n, nil
	}
	c.dress(buf[:total], n)
	if len(c.data) == 0 {
		c.data = nil
	}
	c.nth++
	return total, nil
}

// dress sets what differs from segment to segment.
func (c *cutter) dress(p []byte, n int) {
	be := binary.BigEndian
	if p[0]>>4 == 4 {
		be.PutUint16(p[2:], uint16(len(p)))
		be.PutUint16(p[4:], be.Uint16(p[4:])+uint16(c.nth))
		putCheck(p[10:], sum(p[2:6], c.ipSum))
	} else {
		be.PutUint16(p[4:], uint16(len(p)-40))
	}
	t := p[c.l4:]
	acc := add(c.l4Sum, word(uint16(len(t))))
	if c.protocol == protoUDP {
		be.PutUint16(t[4:], uint16(len(t)))
		putCheck(t[udpCheck:], sum(t[udpLen:], add(acc, word(uint16(len(t))))))
		return
	}
	be.PutUint32(t[4:], c.seq)
	c.seq += uint32(n)
	if len(c.data) == 0 {
		t[tcpFlags] |= c.last
		acc = add(acc, word(uint16(c.last)))
	}
	acc = sum(t[4:8], acc)
	putCheck(t[tcpCheck:], sum(t[len(c.head)-c.l4:], acc))
}
