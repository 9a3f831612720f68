package netnstest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Ping sends one ICMP echo request from the namespace and waits for its answer.
func (n *NS) Ping(addr netip.Addr, wait time.Duration) (rtt time.Duration, err error) {
	err = n.Do(func() error {
		rtt, err = ping(addr, wait)
		return err
	})
	return rtt, err
}

func ping(addr netip.Addr, wait time.Duration) (time.Duration, error) {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if addr.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	c, err := net.Dial(network, addr.String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	msg := make([]byte, 64)
	msg[0] = request
	id := rand.Uint32()
	binary.BigEndian.PutUint32(msg[4:], id)
	if addr.Is4() { // for IPv6 the kernel does it
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	start := time.Now()
	if _, err := c.Write(msg); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(start.Add(wait)); err != nil {
		return 0, err
	}
	buf := make([]byte, 2048)
	for {
		l, err := c.Read(buf)
		if err != nil {
			return 0, fmt.Errorf("ping %s: %w", addr, err)
		}
		b := buf[:l]
		if addr.Is4() && l > 20 { // an IPv4 raw socket shows the IP header
			b = b[int(b[0]&15)*4:]
		}
		if len(b) >= 8 && b[0] == reply && binary.BigEndian.Uint32(b[4:]) == id {
			return time.Since(start), nil
		}
	}
}

// checksum is the internet checksum of RFC 1071.
func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
