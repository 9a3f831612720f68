package flow

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

// refuse tells the near ends of UDP flows that their far ends are gone: an ICMP "port unreachable" about a datagram of
// theirs, from the slice's namespace, where refusals come from anyway.
func refuse(slice *netns.NS, flows []Flow) error {
	for _, v4 := range []bool{true, false} {
		var of []Flow
		for _, f := range flows {
			if f.Local.Addr().Is4() == v4 {
				of = append(of, f)
			}
		}
		if len(of) == 0 {
			continue
		}
		network, local := "ip6:ipv6-icmp", "::"
		if v4 {
			network, local = "ip4:icmp", "0.0.0.0"
		}
		var c net.PacketConn
		err := slice.Do(func() (err error) { c, err = net.ListenPacket(network, local); return err })
		if err != nil {
			return fmt.Errorf("open a socket for ICMP: %w", err)
		}
		for _, f := range of {
			_, err = c.WriteTo(unreachable(f), &net.IPAddr{IP: f.Local.Addr().AsSlice()})
			if err != nil {
				break
			}
		}
		_ = c.Close()
		if err != nil {
			return fmt.Errorf("tell %s by ICMP that its peer is gone: %w", of[0].Local, err)
		}
	}
	return nil
}

// unreachable is the ICMP message about a datagram of a flow (RFC 792, RFC 4443 §3.1): its IP header and first 8 bytes.
func unreachable(f Flow) []byte {
	src, dst := f.Local.Addr(), f.Remote.Addr()
	b := []byte{3, 3, 0, 0, 0, 0, 0, 0} // destination unreachable, port
	if src.Is4() {
		head := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		head = append(append(head, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(head[10:], checksum(head))
		b = append(b, head...)
	} else {
		b[0], b[1] = 1, 4
		b = append(b, 0x60, 0, 0, 0, 0, 8, unix.IPPROTO_UDP, 64)
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	}
	b = binary.BigEndian.AppendUint16(b, f.Local.Port())
	b = binary.BigEndian.AppendUint16(b, f.Remote.Port())
	b = append(b, 0, 8, 0, 0)
	if src.Is4() { // the kernel fills in ICMPv6's
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is the Internet's (RFC 1071), of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
