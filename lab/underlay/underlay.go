// Package underlay builds the wires of the lab: the WAN router, one network per
// cluster, NAT routers in front of private clusters, and the cables of machines.
package underlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/netns"
)

// Names of what the lab makes in the host's own namespaces. All of them begin
// with a prefix of ours, so that leftovers can be found.
const (
	NetnsPrefix = "seaway-"
	LinkPrefix  = "swlab-"
	Router      = NetnsPrefix + "router"
)

var (
	rootIP   = netip.MustParsePrefix("172.30.0.2/24")
	routerIP = netip.MustParsePrefix("172.30.0.1/24")
	allIP    = netip.MustParsePrefix("172.30.0.0/16")
)

// NetnsOf is the namespace name of a machine.
func NetnsOf(machine string) string { return NetnsPrefix + machine }

// NATOf is the namespace name of a private cluster's NAT router.
func NATOf(cluster string) string { return NetnsPrefix + cluster + "-nat" }

// Namespaces lists every namespace name that a layout may use.
func Namespaces(l layout.Layout) []string {
	names := []string{Router}
	for _, c := range l.Clusters {
		if c.Private {
			names = append(names, NATOf(c.Name))
		}
		for _, m := range c.Machines {
			names = append(names, NetnsOf(m.Name))
		}
	}
	return names
}

// Check says who already uses the lab's addresses in the host's namespace.
func Check(l layout.Layout) error {
	nets := []netip.Prefix{allIP}
	for _, c := range l.Clusters {
		if c.Private {
			nets = append(nets, c.LAN)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		dst, ok := netip.AddrFromSlice(r.Dst.IP)
		ones, _ := r.Dst.Mask.Size()
		if !ok || ones == 0 {
			continue
		}
		p := netip.PrefixFrom(dst.Unmap(), ones)
		for _, n := range nets {
			if p.Overlaps(n) {
				return fmt.Errorf("the host already has a route to %s (link %s), which the lab needs (%s); "+
					"if it is of an earlier lab, `seaway-lab down --state ITS_DIRECTORY` removes it", p, linkName(r.LinkIndex), n)
			}
		}
	}
	return nil
}

func linkName(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprint(index)
	}
	return l.Attrs().Name
}

// Up builds the router, the networks and the NAT routers.
func Up(l layout.Layout) error {
	if err := netns.Create(Router); err != nil {
		return err
	}
	if err := netns.Do(Router, func() error { return forwarding(false) }); err != nil {
		return err
	}
	if err := cable(end{name: LinkPrefix + "wan", addrs: []netip.Prefix{rootIP}},
		end{name: "root", ns: Router, addrs: []netip.Prefix{routerIP}}, l.MTU); err != nil {
		return err
	}
	if err := route(allIP, routerIP.Addr()); err != nil {
		return err
	}
	for _, c := range l.Clusters {
		err := netns.Do(Router, func() error {
			return bridge(c.Bridge(), l.MTU, addrs(l.IPv6, c.Router(), c.Router6()))
		})
		if err == nil && c.Private {
			err = natUp(c, l)
		}
		if err != nil {
			return fmt.Errorf("network of %s: %w", c.Name, err)
		}
	}
	return nil
}

// natUp puts a masquerading router between a private cluster and the WAN. The
// WAN router has no route to what is behind it, so nothing can be dialled from
// outside, and the forward chain drops what would try.
func natUp(c layout.Cluster, l layout.Layout) error {
	ns := NATOf(c.Name)
	if err := netns.Create(ns); err != nil {
		return err
	}
	err := cable(end{name: "v-" + c.Name + "nat", ns: Router, master: c.Bridge()},
		end{name: "wan", ns: ns, mac: macOf(c.Outside), addrs: addrs(l.IPv6, c.Outside, c.Outside6)}, l.MTU)
	if err != nil {
		return err
	}
	err = netns.Do(ns, func() error {
		if err := forwarding(false); err != nil {
			return err
		}
		if err := bridge("lan", l.MTU, addrs(l.IPv6, c.Gateway(), c.Gateway6())); err != nil {
			return err
		}
		if err := defaultRoutes("wan", l.IPv6, c.Router(), c.Router6()); err != nil {
			return err
		}
		return Nft(natRules)
	})
	if err != nil {
		return err
	}
	// The lab's own way in, for kubectl; no other cluster can use it.
	return cable(end{name: LinkPrefix + c.Name, addrs: []netip.Prefix{netip.PrefixFrom(c.Management(), 24)}},
		end{name: "mgmt", ns: ns, master: "lan"}, l.MTU)
}

const natRules = `
table inet nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname "wan" masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" accept
	}
}
`

// Nft feeds a ruleset to nft in the namespace that the caller is in.
func Nft(ruleset string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(ruleset)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Down removes everything that Up and Plug made, also after half an Up, and
// also what a layout no longer knows (found by the names' prefixes).
func Down() error {
	var errs []error
	for _, ns := range netns.List(NetnsPrefix) {
		errs = append(errs, netns.Delete(ns))
	}
	links, err := netlink.LinkList()
	errs = append(errs, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, LinkPrefix) {
			// Its peer may take it along at any moment.
			if err := netlink.LinkDel(l); err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("delete link %s: %w", l.Attrs().Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func gone(err error) bool {
	_, missing := errors.AsType[netlink.LinkNotFoundError](err)
	return missing || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EINVAL)
}

func addrs(v6 bool, a, a6 netip.Addr) []netip.Prefix {
	p := []netip.Prefix{netip.PrefixFrom(a, 24)}
	if v6 {
		p = append(p, netip.PrefixFrom(a6, 64))
	}
	return p
}

// macOf gives an address a MAC that survives power cycles; with a new one at
// each boot the neighbours would keep the stale entry for about 30 s.
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{2, 0, b[0], b[1], b[2], b[3]}
}
