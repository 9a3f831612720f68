// Package wire reads what a capture of the WAN recorded and says what an eavesdropper learns from it: who talks to
// whom, by which protocol and port, and whether a text that was sent can be read.
package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Packet is one IP packet.
type Packet struct {
	Src, Dst netip.AddrPort // port 0 where the protocol has none, or in a later fragment
	Protocol string         // udp, tcp, icmp, icmp6, or the number
	Payload  []byte         // after the transport header
}

const (
	nanoMagic  = 0xa1b23c4d
	microMagic = 0xa1b2c3d4
	maxPacket  = 1 << 20
)

// Read returns the IP packets of a pcap file (Ethernet). Other frames are left out; a capture that was cut off in the
// middle of a packet ends there.
func Read(r io.Reader) ([]Packet, error) {
	h := make([]byte, 24)
	if _, err := io.ReadFull(r, h); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if m := order.Uint32(h); m != nanoMagic && m != microMagic {
		order = binary.BigEndian
	}
	if m := order.Uint32(h); m != nanoMagic && m != microMagic {
		return nil, fmt.Errorf("capture: %x is not how a pcap file begins", h[:4])
	}
	var out []Packet
	for head := make([]byte, 16); ; {
		if _, err := io.ReadFull(r, head); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return out, nil
			}
			return out, err
		}
		n := order.Uint32(head[8:])
		if n > maxPacket {
			return out, fmt.Errorf("capture: a packet of %d bytes", n)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return out, nil
		}
		if p, ok := parse(frame); ok {
			out = append(out, p)
		}
	}
}

func parse(frame []byte) (Packet, bool) {
	if len(frame) < 14 {
		return Packet{}, false
	}
	kind, b := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	switch {
	case kind == 0x0800 && len(b) >= 20:
		head := int(b[0]&15) * 4
		if head < 20 || len(b) < head {
			return Packet{}, false
		}
		if total := int(binary.BigEndian.Uint16(b[2:])); total >= head && total <= len(b) {
			b = b[:total] // without Ethernet's padding
		}
		src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0
		return transport(src, dst, b[9], b[head:], first), true
	case kind == 0x86dd && len(b) >= 40:
		src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		return transport(src, dst, b[6], b[40:], true), true
	}
	return Packet{}, false
}

func transport(src, dst netip.Addr, proto byte, b []byte, first bool) Packet {
	p := Packet{Src: netip.AddrPortFrom(src, 0), Dst: netip.AddrPortFrom(dst, 0), Payload: b}
	head := 0
	switch proto {
	case 6:
		p.Protocol = "tcp"
		if first && len(b) >= 20 {
			head = int(b[12]>>4) * 4
		}
	case 17:
		p.Protocol, head = "udp", 8
	case 1:
		p.Protocol = "icmp"
	case 58:
		p.Protocol = "icmp6"
	default:
		p.Protocol = fmt.Sprintf("protocol-%d", proto)
	}
	if first && head > 0 && len(b) >= head {
		p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
		p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
		p.Payload = b[head:]
	}
	return p
}

// Place names the networks that a capture is about.
type Place struct {
	Name string
	Nets []netip.Prefix
}

// Flow is what went from one place to another by one protocol and server port.
type Flow struct {
	From, To string
	Protocol string
	Port     uint16 // the lower of the two ports: the server's
	Packets  int
	Bytes    int
	Readable int // packets in which the text was found
}

// Flows sums up the packets between the places; packets to or from anywhere else are left out.
func Flows(packets []Packet, places []Place, text string) []Flow {
	find := func(a netip.Addr) string {
		for _, p := range places {
			if slices.ContainsFunc(p.Nets, func(n netip.Prefix) bool { return n.Contains(a) }) {
				return p.Name
			}
		}
		return ""
	}
	type key struct {
		from, to, protocol string
		port               uint16
	}
	sum := map[key]*Flow{}
	for _, p := range packets {
		from, to := find(p.Src.Addr()), find(p.Dst.Addr())
		if from == "" || to == "" || from == to || neighbourhood(p) {
			continue
		}
		k := key{from, to, p.Protocol, server(p)}
		f := sum[k]
		if f == nil {
			f = &Flow{From: from, To: to, Protocol: p.Protocol, Port: k.port}
			sum[k] = f
		}
		f.Packets++
		f.Bytes += len(p.Payload)
		if text != "" && bytes.Contains(p.Payload, []byte(text)) {
			f.Readable++
		}
	}
	return slices.SortedFunc(func(yield func(Flow) bool) {
		for f := range maps.Values(sum) {
			if !yield(*f) {
				return
			}
		}
	}, func(a, b Flow) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To), strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
}

// neighbourhood is the links' own talk: neighbour discovery and the like, which crosses no router.
func neighbourhood(p Packet) bool {
	return p.Protocol == "icmp6" && len(p.Payload) > 0 && p.Payload[0] >= 130
}

// server guesses which side is the server. Behind a NAT a client's port may be anything, so the well-known port of
// Seaway is taken if either side has it.
func server(p Packet) uint16 {
	a, b := p.Src.Port(), p.Dst.Port()
	for _, known := range []uint16{51871, 6443, 443, 8080} {
		if a == known || b == known {
			return known
		}
	}
	return min(a, b)
}

// Table prints flows for people, one a line.
func Table(flows []Flow) string {
	var b strings.Builder
	for _, f := range flows {
		fmt.Fprintf(&b, "%s > %s %s/%d packets=%d bytes=%d readable=%d\n", f.From, f.To, f.Protocol, f.Port, f.Packets, f.Bytes, f.Readable)
	}
	return b.String()
}
