package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

// The kernel's sock_diag interface (linux/sock_diag.h, linux/inet_diag.h).
const (
	diagByFamily = 20
	diagDestroy  = 21

	requestSize = 56 // struct inet_diag_req_v2
	messageSize = 72 // struct inet_diag_msg
	idSize      = 48 // struct inet_diag_sockid
)

// States of sockets that have a peer: all but TIME_WAIT, CLOSE, LISTEN and NEW_SYN_RECV (net/tcp_states.h).
const withPeer = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// socket is a socket as the kernel lists it.
type socket struct {
	Flow
	family uint8
	id     [idSize]byte // as it came: names the socket and, by its cookie, no later one with the same addresses
}

type diag struct{ c *netlink.Conn }

func dial(ns *netns.NS) (diag, error) {
	c, err := open(ns, unix.NETLINK_SOCK_DIAG, "sock_diag")
	return diag{c}, err
}

// open opens one of the kernel's netlink families in a namespace.
func open(ns *netns.NS, family int, name string) (*netlink.Conn, error) {
	c, err := netlink.Dial(family, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("open %s in network namespace %d: %w", name, ns.Inode(), err)
	}
	return c, nil
}

func (d diag) close() { _ = d.c.Close() }

func request(family, proto uint8, states uint32, id []byte) []byte {
	b := make([]byte, 8, requestSize)
	b[0], b[1] = family, proto
	binary.NativeEndian.PutUint32(b[4:], states)
	return append(b, id...)
}

// sockets lists those of a family and protocol that have a peer.
func (d diag) sockets(family, proto uint8) ([]socket, error) {
	msgs, err := d.c.Execute(netlink.Message{
		Header: netlink.Header{Type: diagByFamily, Flags: netlink.Request | netlink.Dump},
		Data:   request(family, proto, withPeer, make([]byte, idSize)),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // the kernel cannot list this protocol
	}
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	out := make([]socket, 0, len(msgs))
	for _, m := range msgs {
		if s, ok := parse(m.Data, proto); ok {
			out = append(out, s)
		}
	}
	return out, nil
}

// parse reads one struct inet_diag_msg.
func parse(b []byte, proto uint8) (socket, bool) {
	if len(b) < messageSize {
		return socket{}, false
	}
	s := socket{family: b[0]}
	s.Protocol = proto
	id := b[4 : 4+idSize] // ports, source, destination, interface, cookie
	copy(s.id[:], id)
	addr := func(at []byte) (netip.Addr, bool) {
		switch s.family {
		case unix.AF_INET:
			return netip.AddrFrom4([4]byte(at)), true
		case unix.AF_INET6:
			return netip.AddrFrom16([16]byte(at)).Unmap(), true
		}
		return netip.Addr{}, false
	}
	local, ok := addr(id[4:])
	remote, _ := addr(id[20:])
	s.Local = netip.AddrPortFrom(local, binary.BigEndian.Uint16(id))
	s.Remote = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(id[2:]))
	return s, ok && s.Remote.Port() != 0
}

// destroy ends a socket; false if it is gone already.
func (d diag) destroy(s socket) (bool, error) {
	_, err := d.c.Execute(netlink.Message{
		Header: netlink.Header{Type: diagDestroy, Flags: netlink.Request | netlink.Acknowledge},
		Data:   request(s.family, s.Protocol, withPeer, s.id[:]),
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return false, fmt.Errorf("end a connection: this kernel is built without INET_DIAG_DESTROY: %w", err)
	case err != nil:
		return false, fmt.Errorf("end connection %s to %s: %w", s.Local, s.Remote, err)
	}
	return true, nil
}
