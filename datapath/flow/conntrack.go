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

// The kernel's numbers for asking conntrack (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctNew = unix.NFNL_SUBSYS_CTNETLINK << 8
	ctGet = ctNew | 1

	ctTupleOrig, ctTupleReply = 1, 2
	ctTupleIP, ctTupleProto   = 1, 2
	ctProtoNum                = 1
	ctSourcePort, ctDestPort  = 2, 3
)

// ctSource and ctDest are the attributes of a family's addresses.
func ctSource(v6 bool) uint16 { return map[bool]uint16{false: 1, true: 3}[v6] }
func ctDest(v6 bool) uint16   { return ctSource(v6) + 1 }

// tracker asks conntrack who serves a connection. To ask for one is a system call; to list all was a tenth of a second on a
// node with a few thousand, most of which had ended.
type tracker struct{ c *netlink.Conn }

func track(ns *netns.NS) (tracker, error) {
	c, err := open(ns, unix.NETLINK_NETFILTER, "conntrack")
	return tracker{c}, err
}

func (t tracker) close() { _ = t.c.Close() }

// server is the address that answers a flow, which by a service's address is a pod's; the zero address if conntrack knows of
// no such flow.
func (t tracker) server(f Flow) (netip.Addr, error) {
	local, remote := f.Local.Addr().Unmap(), f.Remote.Addr().Unmap()
	v6 := local.Is6()
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(ctTupleOrig, func(e *netlink.AttributeEncoder) error {
		e.Nested(ctTupleIP, func(e *netlink.AttributeEncoder) error {
			e.Bytes(ctSource(v6), local.AsSlice())
			e.Bytes(ctDest(v6), remote.AsSlice())
			return nil
		})
		e.Nested(ctTupleProto, func(e *netlink.AttributeEncoder) error {
			e.Uint8(ctProtoNum, f.Protocol)
			e.Uint16(ctSourcePort, f.Local.Port())
			e.Uint16(ctDestPort, f.Remote.Port())
			return nil
		})
		return nil
	})
	attrs, err := e.Encode()
	if err != nil {
		return netip.Addr{}, err
	}
	// The kernel calls its one answer a part of many and sends no last one: the acknowledgement is the end.
	msgs, err := t.c.Execute(netlink.Message{
		Header: netlink.Header{Type: ctGet, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{family, 0, 0, 0}, attrs...),
	})
	if errors.Is(err, unix.ENOENT) {
		return netip.Addr{}, nil
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("ask conntrack for %s to %s: %w", f.Local, f.Remote, err)
	}
	for _, m := range msgs {
		if a := replySource(m.Data, v6); m.Header.Type == ctNew && a != local { // which serves itself
			return a, nil
		}
	}
	return netip.Addr{}, nil
}

// replySource is where the answers of a conntrack entry come from; the zero address if the message does not say.
func replySource(b []byte, v6 bool) netip.Addr {
	if len(b) < 4 {
		return netip.Addr{}
	}
	from, _ := netip.AddrFromSlice(within(b[4:], ctTupleReply, ctTupleIP, ctSource(v6)))
	return from
}

// within is the value at a path of nested attributes; nil if it is not there.
func within(b []byte, path ...uint16) []byte {
	for _, want := range path {
		d, err := netlink.NewAttributeDecoder(b)
		if err != nil {
			return nil
		}
		b = nil
		for b == nil && d.Next() {
			if d.Type() == want {
				b = d.Bytes()
			}
		}
	}
	return b
}
