package underlay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/netns"
)

// switchOf is where a machine's cable ends: namespace and bridge.
func switchOf(c layout.Cluster) (ns, br string) {
	if c.Private {
		return NATOf(c.Name), "lan"
	}
	return Router, c.Bridge()
}

func portOf(m layout.Machine) string { return "v-" + m.Name }

// Plug makes a machine's network namespace with everything in it that a real
// machine would have configured at boot: addresses, routes, forwarding.
func Plug(m layout.Machine, c layout.Cluster, l layout.Layout) error {
	if err := Unplug(m, c); err != nil {
		return err
	}
	ns := NetnsOf(m.Name)
	if err := netns.Create(ns); err != nil {
		return err
	}
	sw, br := switchOf(c)
	err := cable(end{name: portOf(m), ns: sw, master: br},
		end{name: "eth0", ns: ns, mac: macOf(m.IP), addrs: addrs(l.IPv6, m.IP, m.IPv6)}, l.MTU)
	if err != nil {
		return err
	}
	return netns.Do(ns, func() error {
		if err := forwarding(true); err != nil {
			return err
		}
		if err := defaultRoutes("eth0", l.IPv6, c.Gateway(), c.Gateway6()); err != nil {
			return err
		}
		for _, n := range c.Nodes() {
			if n.Name == m.Name {
				continue
			}
			if err := route(n.PodCIDR, n.IP); err != nil {
				return err
			}
		}
		if m.Role == layout.ControlPlane {
			return nil
		}
		return Nft(masquerade(c.PodCIDR))
	})
}

// Pods that talk to the world outside the cluster's own address space borrow
// the node's address, as most CNI plugins do it.
func masquerade(pods netip.Prefix) string {
	return fmt.Sprintf(`
table ip lab_masquerade {
	chain post {
		type nat hook postrouting priority 101;
		ip saddr %[1]s ip daddr != %[1]s oifname "eth0" masquerade
	}
}
`, pods)
}

// Unplug removes a machine's cable and its namespace's name.
func Unplug(m layout.Machine, c layout.Cluster) error {
	sw, _ := switchOf(c)
	err := netns.Do(sw, func() error {
		l, err := netlink.LinkByName(portOf(m))
		if err == nil {
			err = netlink.LinkDel(l)
		}
		if err != nil && !gone(err) {
			return fmt.Errorf("unplug %s: %w", m.Name, err)
		}
		return nil
	})
	return errors.Join(err, netns.Delete(NetnsOf(m.Name)))
}

// SetCable pulls a machine's cable or plugs it in again.
func SetCable(m layout.Machine, c layout.Cluster, up bool) error {
	sw, _ := switchOf(c)
	return netns.Do(sw, func() error {
		l, err := netlink.LinkByName(portOf(m))
		if err != nil {
			return fmt.Errorf("cable of %s: %w; is the machine switched off?", m.Name, err)
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}

// Connected says whether a machine's cable is plugged in.
func Connected(m layout.Machine, c layout.Cluster) bool {
	sw, _ := switchOf(c)
	up := false
	_ = netns.Do(sw, func() error {
		l, err := netlink.LinkByName(portOf(m))
		if err == nil {
			up = l.Attrs().Flags&1 != 0
		}
		return err
	})
	return up
}
