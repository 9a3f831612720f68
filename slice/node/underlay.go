package node

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// underlay finds the node's own addresses and MTU where the configuration leaves them open: those of the link with the
// default route, IPv4 first. A node's address that was given picks the link instead.
func (a *agent) underlay() error {
	if len(a.addrs) > 0 && a.mtu > 0 {
		return nil
	}
	link, err := a.underlayLink()
	if err != nil {
		return fmt.Errorf("find the node's own address: %w; give it with --node-ip", err)
	}
	if a.mtu == 0 {
		a.mtu = link.Attrs().MTU
	}
	if len(a.addrs) > 0 {
		return nil
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.AddrList(link, family)
		if err != nil {
			return fmt.Errorf("find the node's own address: %w", err)
		}
		for _, addr := range list {
			if ip, ok := netip.AddrFromSlice(addr.IP); ok && ip.Unmap().IsGlobalUnicast() {
				a.addrs = append(a.addrs, ip.Unmap())
				break // one a family: the primary one
			}
		}
	}
	if len(a.addrs) == 0 {
		return fmt.Errorf("find the node's own address: link %s has none; give it with --node-ip", link.Attrs().Name)
	}
	return nil
}

func (a *agent) underlayLink() (netlink.Link, error) {
	if len(a.addrs) > 0 {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return nil, err
			}
			for _, addr := range list {
				if addr.IP.Equal(net.IP(a.addrs[0].AsSlice())) {
					return l, nil
				}
			}
		}
		return nil, fmt.Errorf("no link has the address %s", a.addrs[0])
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if ones, _ := mask(r.Dst); ones != 0 {
				continue
			}
			index := r.LinkIndex
			if index == 0 && len(r.MultiPath) > 0 {
				index = r.MultiPath[0].LinkIndex
			}
			if index != 0 {
				return netlink.LinkByIndex(index)
			}
		}
	}
	return nil, fmt.Errorf("there is no default route")
}

func mask(n *net.IPNet) (ones, bits int) {
	if n == nil {
		return 0, 0
	}
	return n.Mask.Size()
}
