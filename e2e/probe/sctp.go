package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// SCTP (RFC 9260) by the kernel where it has it. Where it has not, the same packets by hand: a chunk of type INIT from
// a raw socket, with its checksum, answered by one of type INIT ACK. That shows that the network carries the protocol,
// ports and addresses; answers say "raw" so that nobody takes it for an association.
const (
	sctpInit    = 1
	sctpInitAck = 2
)

func haveSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

func serveSCTP() error {
	if haveSCTP() {
		return serveKernelSCTP()
	}
	fault := make(chan error, 2)
	for _, network := range []string{"ip4:132", "ip6:132"} {
		go func() { fault <- serveRawSCTP(network) }()
	}
	return <-fault
}

func serveKernelSCTP() error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: echoPort}); err != nil {
		return fmt.Errorf("sctp: bind: %w", err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		return fmt.Errorf("sctp: listen: %w", err)
	}
	for {
		c, from, err := unix.Accept(fd)
		if err != nil {
			return fmt.Errorf("sctp: accept: %w", err)
		}
		go func() {
			defer unix.Close(c)
			local, _ := unix.Getsockname(c)
			buf := make([]byte, 256)
			for {
				n, err := unix.Read(c, buf)
				if err != nil || n == 0 {
					return
				}
				unix.Write(c, []byte(answer("sctp", sockaddr{local}, sockaddr{from})))
			}
		}()
	}
}

// sockaddr prints a kernel address as net does.
type sockaddr struct{ unix.Sockaddr }

// Network implements net.Addr.
func (s sockaddr) Network() string { return "sctp" }

// String implements net.Addr.
func (s sockaddr) String() string {
	switch a := s.Sockaddr.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	}
	return "?"
}

func serveRawSCTP(network string) error {
	c, err := net.ListenPacket(network, "")
	if err != nil {
		return fmt.Errorf("sctp: %w", err)
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		src, dst, chunk, err := parseSCTP(buf[:n])
		if err != nil || chunk != sctpInit || dst != echoPort {
			continue
		}
		text := fmt.Sprintf("proto=sctp-raw %s local=%d remote=%s", identity(), dst, net.JoinHostPort(from.String(), fmt.Sprint(src)))
		c.WriteTo(buildSCTP(dst, src, sctpInitAck, text), from)
	}
}

func askSCTP(addr string) error {
	ap, err := resolve(addr)
	if err != nil {
		return err
	}
	if haveSCTP() {
		return askKernelSCTP(ap)
	}
	network := "ip4:132"
	if ap.Addr().Is6() {
		network = "ip6:132"
	}
	c, err := net.DialTimeout(network, ap.Addr().String(), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(deadline())
	const from = 40132
	if _, err := c.Write(buildSCTP(from, ap.Port(), sctpInit, "who")); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := c.(*net.IPConn).ReadFrom(buf) // not Read, which would leave IPv4's header in
		if err != nil {
			return err
		}
		src, dst, chunk, err := parseSCTP(buf[:n])
		if err == nil && src == ap.Port() && dst == from && chunk == sctpInitAck {
			fmt.Println(string(buf[16:n]))
			return nil
		}
	}
}

func askKernelSCTP(ap netip.AddrPort) error {
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
	if ap.Addr().Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	if err := unix.Connect(fd, sa); err != nil {
		return fmt.Errorf("sctp: connect %s: %w", ap, err)
	}
	if _, err := unix.Write(fd, []byte("who\n")); err != nil {
		return err
	}
	buf := make([]byte, 512)
	n, err := unix.Read(fd, buf)
	if n > 0 {
		fmt.Print(string(buf[:n]))
	}
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// buildSCTP makes a packet of one chunk with a text as its value.
func buildSCTP(src, dst uint16, chunk byte, text string) []byte {
	b := make([]byte, 16, 16+len(text))
	binary.BigEndian.PutUint16(b[0:], src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[12] = chunk
	binary.BigEndian.PutUint16(b[14:], uint16(4+len(text)))
	b = append(b, text...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

func parseSCTP(b []byte) (src, dst uint16, chunk byte, err error) {
	if len(b) < 16 {
		return 0, 0, 0, errors.New("sctp: too short")
	}
	c := append([]byte(nil), b...)
	copy(c[8:12], []byte{0, 0, 0, 0})
	if binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(c, castagnoli) {
		return 0, 0, 0, errors.New("sctp: wrong checksum")
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[12], nil
}
