package podtest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

// answerWait bounds how long Ask waits; on a loopback-like path answers take less than a millisecond.
const answerWait = 400 * time.Millisecond

// Serve runs a server inside a namespace that answers each line or datagram with its name and the client's address, as
// "name 10.0.0.1". proto is tcp, udp or sctp. It ends with the test.
func Serve(t testing.TB, ns *netns.NS, name, proto string, at netip.AddrPort) {
	t.Helper()
	switch proto {
	case "tcp":
		var l net.Listener
		must(t, ns.Do(func() (err error) { l, err = net.Listen("tcp", at.String()); return err }))
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go answer(c, name)
			}
		}()
	case "udp":
		var c net.PacketConn
		must(t, ns.Do(func() (err error) { c, err = net.ListenPacket("udp", at.String()); return err }))
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				_, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte(name+" "+hostOf(from)), from)
			}
		}()
	case "sctp":
		fd := sctp(t, ns, at.Addr())
		must(t, unix.Bind(fd, sockaddr(at)))
		must(t, unix.Listen(fd, 8))
		t.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); _ = unix.Close(fd) })
		go func() {
			for {
				conn, from, err := unix.Accept(fd)
				if err != nil {
					return
				}
				_, _ = unix.Write(conn, []byte(name+" "+addrOf(from).String()+"\n"))
				_ = unix.Close(conn)
			}
		}()
	default:
		t.Fatalf("no protocol %q", proto)
	}
}

func answer(c net.Conn, name string) {
	defer c.Close()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		fmt.Fprintf(c, "%s %s\n", name, hostOf(c.RemoteAddr()))
	}
}

// Conn is an open connection (TCP, or a UDP socket that keeps its port) from inside a namespace to a server made by Serve.
type Conn struct {
	c net.Conn
	r *bufio.Reader
}

// Dial opens a TCP connection.
func Dial(ns *netns.NS, to netip.AddrPort) (*Conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: answerWait, FallbackDelay: -1}).Dial("tcp", to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Conn{c: c, r: bufio.NewReader(c)}, nil
}

// DialUDP opens a UDP socket that keeps its port.
func DialUDP(t testing.TB, ns *netns.NS, to netip.AddrPort) *Conn {
	t.Helper()
	var c net.Conn
	must(t, ns.Do(func() (err error) { c, err = net.Dial("udp", to.String()); return err }))
	t.Cleanup(func() { _ = c.Close() })
	return &Conn{c: c}
}

// Ask sends a line and returns the answer.
func (c *Conn) Ask() (string, error) {
	_ = c.c.SetDeadline(time.Now().Add(answerWait))
	if _, err := fmt.Fprintln(c.c, "?"); err != nil {
		return "", err
	}
	if c.r == nil {
		buf := make([]byte, 2048)
		n, err := c.c.Read(buf)
		return string(buf[:n]), err
	}
	s, err := c.r.ReadString('\n')
	return strings.TrimSpace(s), err
}

// Wait reads in silence and returns what comes of it.
func (c *Conn) Wait(limit time.Duration) error {
	_ = c.c.SetDeadline(time.Now().Add(limit))
	_, err := c.c.Read(make([]byte, 1))
	return err
}

// Close closes the connection.
func (c *Conn) Close() { _ = c.c.Close() }

// Ask asks a server made by Serve, over a new connection from inside a namespace.
func Ask(t testing.TB, ns *netns.NS, proto string, to netip.AddrPort) (string, error) {
	t.Helper()
	switch proto {
	case "tcp":
		c, err := Dial(ns, to)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return c.Ask()
	case "udp":
		var c net.Conn
		if err := ns.Do(func() (err error) { c, err = net.Dial("udp", to.String()); return err }); err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(answerWait))
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
		buf := make([]byte, 2048)
		n, err := c.Read(buf)
		return string(buf[:n]), err
	case "sctp":
		fd := sctp(t, ns, to.Addr())
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(answerWait.Nanoseconds())
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			return "", os.NewSyscallError("connect", err)
		}
		buf := make([]byte, 2048)
		n, err := unix.Read(fd, buf)
		return strings.TrimSpace(string(buf[:max(n, 0)])), err
	}
	return "", errors.New("no such protocol")
}

// sctp makes an SCTP socket, or skips the test where the kernel has none.
func sctp(t testing.TB, ns *netns.NS, a netip.Addr) int {
	t.Helper()
	domain, fd := unix.AF_INET, -1
	if a.Is6() {
		domain = unix.AF_INET6
	}
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return err
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skip("SKIPPED: this kernel has no SCTP")
	}
	must(t, err)
	return fd
}

// Forge sends one UDP datagram with a source of one's choice from inside a namespace, out of one link.
func Forge(t testing.TB, ns *netns.NS, link string, from, to netip.AddrPort) {
	t.Helper()
	must(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.BindToDevice(fd, link); err != nil {
			return err
		}
		b := []byte{0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0}
		b = append(b, from.Addr().AsSlice()...)
		b = append(b, to.Addr().AsSlice()...)
		b = append(b, byte(from.Port()>>8), byte(from.Port()), byte(to.Port()>>8), byte(to.Port()), 0, 9, 0, 0, '!')
		return unix.Sendto(fd, b, 0, sockaddr(to))
	}))
}

// SCTPInit sends an SCTP INIT chunk (RFC 9260 §3.3.2) from one namespace and returns the source address and the
// destination port that arrive at an address in another: for kernels without SCTP sockets. "" means nothing arrived.
func SCTPInit(t testing.TB, from, at *netns.NS, to netip.AddrPort) (source string, port uint16) {
	t.Helper()
	network := "ip4:132"
	if to.Addr().Is6() {
		network = "ip6:132"
	}
	var ear, mouth net.PacketConn
	must(t, at.Do(func() (err error) { ear, err = net.ListenPacket(network, ""); return err }))
	defer ear.Close()
	must(t, from.Do(func() (err error) { mouth, err = net.ListenPacket(network, ""); return err }))
	defer mouth.Close()
	p := []byte{0x9c, 0x40, byte(to.Port() >> 8), byte(to.Port()), 0, 0, 0, 0, 0, 0, 0, 0, // ports, tag 0, checksum
		1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1} // INIT: tag, window, streams, sequence
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	_, err := mouth.WriteTo(p, &net.IPAddr{IP: to.Addr().AsSlice()})
	must(t, err)
	buf := make([]byte, 256)
	_ = ear.SetReadDeadline(time.Now().Add(answerWait))
	n, addr, err := ear.ReadFrom(buf)
	if err != nil || n < 12 {
		return "", 0
	}
	return addr.String(), binary.BigEndian.Uint16(buf[2:])
}

// Listen opens a UDP socket inside a namespace; Heard tells whether a datagram comes within a moment.
func Listen(t testing.TB, ns *netns.NS, at netip.AddrPort) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	must(t, ns.Do(func() (err error) { c, err = net.ListenPacket("udp", at.String()); return err }))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Heard returns the source of the next datagram, "" if none comes.
func Heard(c net.PacketConn) string {
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, from, err := c.ReadFrom(make([]byte, 64))
	if err != nil {
		return ""
	}
	return hostOf(from)
}

func hostOf(a net.Addr) string {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap().WithZone("").String()
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrOf(s unix.Sockaddr) netip.Addr {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(s.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(s.Addr)
	}
	return netip.Addr{}
}
