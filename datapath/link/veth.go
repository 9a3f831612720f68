package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

// The two ends of every pod's link. Each link is a network of its own with exactly these two on it, so the addresses
// can be the same on all (locally administered, "5ea" for Seaway).
var (
	SliceMAC = [6]byte{0x02, 0x5e, 0xa0, 0x4d, 0x00, 0x01}
	PodMAC   = [6]byte{0x02, 0x5e, 0xa0, 0x4d, 0x00, 0x02}
)

// Veth makes a pair: one end called name in this space, the other called peer in another namespace. Both ends are
// made in place, in one step: neither is ever seen in the host's namespace. Converge marks and raises them.
func (s *Space) Veth(name string, mtu int, peer string, peerNS *netns.NS) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, mtu, net.HardwareAddr(SliceMAC[:])
	v := &netlink.Veth{
		LinkAttrs: attrs, PeerName: peer, PeerMTU: uint32(mtu), PeerTxQLen: -1,
		PeerHardwareAddr: net.HardwareAddr(PodMAC[:]), PeerNamespace: netlink.NsFd(peerNS.FD()),
	}
	if err := s.h.LinkAdd(v); err != nil {
		return fmt.Errorf("make link %s with its other end %s in the pod: %w", name, peer, err)
	}
	return nil
}

// Remove removes a link, and with a veth its other end. It is no error if it is gone.
func (s *Space) Remove(name string) error {
	l, ok := s.Links[name]
	if !ok {
		return nil
	}
	err := s.h.LinkDel(device(l))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	delete(s.Links, name)
	return nil
}

// enableIPv6 switches IPv6 on for one link.
func (s *Space) enableIPv6(name string) error {
	return s.ns.Do(func() error {
		file := path.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
		if err := os.WriteFile(file, []byte("0"), 0o644); err != nil {
			return fmt.Errorf("switch IPv6 on for link %s: %w", name, err)
		}
		return nil
	})
}
