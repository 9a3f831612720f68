package underlay

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/netns"
)

// end is one end of a cable; an empty ns is the host's namespace.
type end struct {
	name, ns, master string
	mac              net.HardwareAddr
	addrs            []netip.Prefix
}

func (e end) do(fn func() error) error {
	if e.ns == "" {
		return fn()
	}
	return netns.Do(e.ns, fn)
}

// cable lays a veth pair between two namespaces. It is made in the namespace of
// the first end and the peer is born in the other, so no name can clash.
func cable(a, b end, mtu int) error {
	peer, err := os.Open(netns.Path(b.ns))
	if err != nil {
		return err
	}
	defer peer.Close()
	err = a.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = a.name, mtu
		if a.mac != nil {
			attrs.HardwareAddr = a.mac
		}
		v := netlink.NewVeth(attrs)
		v.PeerName, v.PeerMTU = b.name, uint32(mtu)
		v.PeerNamespace, v.PeerHardwareAddr = netlink.NsFd(peer.Fd()), b.mac
		if err := netlink.LinkAdd(v); err != nil {
			return fmt.Errorf("cable %s - %s: %w", a.name, b.name, err)
		}
		return a.configure()
	})
	if err != nil {
		return err
	}
	return b.do(b.configure)
}

func (e end) configure() error {
	l, err := netlink.LinkByName(e.name)
	if err != nil {
		return fmt.Errorf("link %s: %w", e.name, err)
	}
	if e.master != "" {
		m, err := netlink.LinkByName(e.master)
		if err != nil {
			return fmt.Errorf("bridge %s: %w", e.master, err)
		}
		if err := netlink.LinkSetMaster(l, m); err != nil {
			return fmt.Errorf("link %s to bridge %s: %w", e.name, e.master, err)
		}
	}
	return address(l, e.addrs)
}

func address(l netlink.Link, addrs []netip.Prefix) error {
	for _, p := range addrs {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			// Nobody else can have it; without this it is unusable for a second or two.
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(l, a); err != nil {
			return fmt.Errorf("address %s on %s: %w", p, l.Attrs().Name, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("link %s up: %w", l.Attrs().Name, err)
	}
	return nil
}

func bridge(name string, mtu int, addrs []netip.Prefix) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	// A fixed address: else the bridge takes its lowest port's and changes it
	// whenever a machine comes or goes.
	attrs.HardwareAddr = macOf(addrs[0].Addr())
	b := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(b); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return address(b, addrs)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func route(dst netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{Dst: ipNet(dst), Gw: via.AsSlice()}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s via %s: %w", dst, via, err)
	}
	return nil
}

func defaultRoutes(link string, v6 bool, gw, gw6 netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	via := []netip.Addr{gw}
	if v6 {
		via = append(via, gw6)
	}
	for _, a := range via {
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: a.AsSlice()}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("default route via %s: %w", a, err)
		}
	}
	return nil
}

// forwarding makes a router of the namespace that the caller is in.
func forwarding(bridgeFilter bool) error {
	if err := loopback(); err != nil {
		return err
	}
	set := [][2]string{
		{"net/ipv4/ip_forward", "1"}, {"net/ipv4/conf/all/rp_filter", "0"}, {"net/ipv4/conf/default/rp_filter", "0"},
		{"net/ipv6/conf/all/disable_ipv6", "0"}, {"net/ipv6/conf/default/disable_ipv6", "0"},
		{"net/ipv6/conf/all/forwarding", "1"}, {"net/ipv6/conf/default/accept_dad", "0"},
	}
	if _, err := os.Stat("/proc/sys/net/bridge"); err == nil {
		v := "0"
		if bridgeFilter {
			// Else pod to Service to pod on one node breaks on the way back.
			v = "1"
		}
		set = append(set, [2]string{"net/bridge/bridge-nf-call-iptables", v}, [2]string{"net/bridge/bridge-nf-call-ip6tables", v})
	}
	for _, kv := range set {
		if err := netns.Sysctl(kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}

func loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
