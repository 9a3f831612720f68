package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"syscall"
)

// spoof sends datagrams that claim to come from somewhere else. That they were
// sent says nothing of whether they arrive: look at the receiver.
func spoof(args []string) int {
	fs := flag.NewFlagSet("spoof", flag.ExitOnError)
	src := fs.String("src", "", "forged source, ADDRESS:PORT")
	dst := fs.String("dst", "", "destination, ADDRESS:PORT")
	text := fs.String("data", "spoofed", "what to send")
	count := fs.Int("n", 1, "how many")
	_ = fs.Parse(args)
	from, err1 := netip.ParseAddrPort(*src)
	to, err2 := netip.ParseAddrPort(*dst)
	if err1 != nil || err2 != nil || from.Addr().Is4() != to.Addr().Is4() {
		fmt.Fprintln(os.Stderr, "usage: lab-app spoof -src 10.0.0.1:5000 -dst 10.0.0.2:9001 [-n N] [-data TEXT]   (both of one family; IPv6 as [::1]:5000)")
		return 2
	}
	if err := sendForged(from, to, []byte(*text), *count); err != nil {
		fmt.Fprintln(os.Stderr, "spoof:", err)
		return 1
	}
	fmt.Printf("sent %d from %s to %s\n", *count, from, to)
	return 0
}

func sendForged(from, to netip.AddrPort, data []byte, count int) error {
	family := syscall.AF_INET
	var sa syscall.Sockaddr
	if to.Addr().Is4() {
		sa = &syscall.SockaddrInet4{Addr: to.Addr().As4()}
	} else {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Addr: to.Addr().As16()}
	}
	// IPPROTO_RAW means that we write the IP header.
	fd, err := syscall.Socket(family, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w; the pod needs the capability NET_RAW", err)
	}
	defer syscall.Close(fd)
	p := forge(from, to, data)
	for range count {
		if err := syscall.Sendto(fd, p, 0, sa); err != nil {
			return err
		}
	}
	return nil
}

// forge builds an IP packet with a UDP datagram in it.
func forge(from, to netip.AddrPort, data []byte) []byte {
	be := binary.BigEndian
	udp := make([]byte, 8, 8+len(data))
	be.PutUint16(udp, from.Port())
	be.PutUint16(udp[2:], to.Port())
	be.PutUint16(udp[4:], uint16(8+len(data)))
	udp = append(udp, data...)
	s, d := from.Addr().AsSlice(), to.Addr().AsSlice()
	be.PutUint16(udp[6:], checksum(s, d, []byte{0, syscall.IPPROTO_UDP, byte(len(udp) >> 8), byte(len(udp))}, udp))
	if from.Addr().Is6() {
		h := make([]byte, 8, 40+len(udp))
		h[0], h[6], h[7] = 6<<4, syscall.IPPROTO_UDP, 64
		be.PutUint16(h[4:], uint16(len(udp)))
		return append(append(append(h, s...), d...), udp...)
	}
	h := make([]byte, 12, 20+len(udp))
	h[0], h[8], h[9] = 4<<4|5, 64, syscall.IPPROTO_UDP
	be.PutUint16(h[2:], uint16(20+len(udp)))
	h = append(append(h, s...), d...)
	be.PutUint16(h[10:], checksum(h))
	return append(h, udp...)
}
