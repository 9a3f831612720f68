package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// deadline is when one answer is overdue.
func deadline() time.Time { return time.Now().Add(patience) }

func resolve(addr string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap, nil
	}
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// shot is one packet to send: SOURCE DESTINATION MARK, a line each in the file ("-" for standard input). The source may
// be anything: the packet is built by hand and put on slice0 as a frame to the next hop, past the pod's own routes.
type shot struct {
	src, dst netip.Addr
	mark     string
}

func parseShots(in *bufio.Scanner) ([]shot, error) {
	var shots []shot
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("shot %q: want SOURCE DESTINATION MARK", in.Text())
		}
		src, err := netip.ParseAddr(f[0])
		if err != nil {
			return nil, err
		}
		dst, err := netip.ParseAddr(f[1])
		if err != nil {
			return nil, err
		}
		if src.Is4() != dst.Is4() {
			return nil, fmt.Errorf("shot %q: two address families", in.Text())
		}
		shots = append(shots, shot{src, dst, f[2]})
	}
	return shots, in.Err()
}

// shoot sends every packet of a file out of slice0 and prints how many left.
func shoot(args []string) error {
	if len(args) != 1 {
		return errors.New("shoot: want a file of SOURCE DESTINATION MARK lines, or -")
	}
	in := os.Stdin
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	shots, err := parseShots(bufio.NewScanner(in))
	if err != nil {
		return err
	}
	link, err := net.InterfaceByName("slice0")
	if err != nil {
		return fmt.Errorf("link slice0: %w", err)
	}
	hop, err := nextHop(link.Index)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	for _, s := range shots {
		to := &unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6, Protocol: htons(unix.ETH_P_IP)}
		if s.dst.Is6() {
			to.Protocol = htons(unix.ETH_P_IPV6)
		}
		copy(to.Addr[:], hop)
		if err := unix.Sendto(fd, datagram(s), 0, to); err != nil {
			return fmt.Errorf("shot %s > %s: %w", s.src, s.dst, err)
		}
	}
	fmt.Printf("shot=%d\n", len(shots))
	return nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// nextHop is the hardware address of slice0's other end. The kernel learns it with the first packet to the slice.
func nextHop(link int) (net.HardwareAddr, error) {
	for until := deadline(); time.Now().Before(until); {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			neighs, err := netlink.NeighList(link, family)
			if err != nil {
				return nil, fmt.Errorf("neighbours: %w", err)
			}
			for _, n := range neighs {
				if len(n.HardwareAddr) == 6 && n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE|netlink.NUD_NOARP) == 0 {
					return n.HardwareAddr, nil
				}
			}
		}
		if err := provoke(link); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("slice0 has no neighbour: is the pod attached?")
}

// provoke makes the kernel look for slice0's next hops by sending them something.
func provoke(link int) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: link}, netlink.RT_FILTER_OIF)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw == nil {
			continue
		}
		a := net.UDPAddr{IP: r.Gw, Port: 9}
		if r.Gw.IsLinkLocalUnicast() && r.Gw.To4() == nil {
			a.Zone = "slice0"
		}
		if c, err := net.DialUDP("udp", nil, &a); err == nil {
			c.Write([]byte{0})
			c.Close()
		}
	}
	unix.Nanosleep(&unix.Timespec{Nsec: 50e6}, nil)
	return nil
}

// datagram builds a UDP datagram to the server's port that carries the mark.
func datagram(s shot) []byte {
	payload := []byte(markPrefix + s.mark + ";")
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp[0:], 40000)
	binary.BigEndian.PutUint16(udp[2:], echoPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	pseudo := append(append([]byte{}, s.src.AsSlice()...), s.dst.AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_UDP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(udp)))
	sum := ^checksum(append(pseudo, udp...))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	if s.dst.Is6() {
		h := make([]byte, 40)
		h[0] = 0x60
		binary.BigEndian.PutUint16(h[4:], uint16(len(udp)))
		h[6], h[7] = unix.IPPROTO_UDP, 64
		copy(h[8:], s.src.AsSlice())
		copy(h[24:], s.dst.AsSlice())
		return append(h, udp...)
	}
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(udp)))
	copy(h[12:], s.src.AsSlice())
	copy(h[16:], s.dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^checksum(h))
	return append(h, udp...)
}
