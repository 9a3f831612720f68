// Package flow ends what still talks to addresses that are gone, so that nobody waits for an answer that will not come.
//
//	each pod's          [End]     TCP sockets are destroyed: whoever reads, writes or dials gets ECONNABORTED at once
//	                              (SOCK_DESTROY of Linux's sock_diag); connected UDP sockets get ECONNREFUSED, by the ICMP
//	                              error that the host would have sent if it were there
//	slice's namespace   [Forget]  conntrack entries from or to the addresses are deleted, so that what goes to a service
//	                              next goes to who is there
//
// Only sockets are touched whose own address is the pod's on the slice: what a pod has over its CNI is none of ours, even
// where the numbers are the same.
package flow

import (
	"fmt"
	"net/netip"

	vnetlink "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

// Flow is a connection as one of its ends sees it.
type Flow struct {
	Protocol      uint8 // IANA's number
	Local, Remote netip.AddrPort
}

// Forget deletes the conntrack entries of a slice's namespace whose client or server is gone.
func Forget(ns *netns.NS, gone map[netip.Addr]bool) error {
	h, err := vnetlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open conntrack: %w", err)
	}
	defer h.Close()
	for _, family := range families(gone) {
		if _, err := h.ConntrackDeleteFilters(vnetlink.ConntrackTable, vnetlink.InetFamily(family), forgetting(gone)); err != nil {
			return fmt.Errorf("forget connections with what is gone: %w", err)
		}
	}
	return nil
}

// families of addresses: AF_INET, AF_INET6.
func families(addrs map[netip.Addr]bool) []uint8 {
	var four, six bool
	for a := range addrs {
		four, six = four || a.Is4(), six || a.Is6()
	}
	var out []uint8
	if four {
		out = append(out, unix.AF_INET)
	}
	if six {
		out = append(out, unix.AF_INET6)
	}
	return out
}

// forgetting are the addresses that are gone.
type forgetting map[netip.Addr]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (gone forgetting) MatchConntrackFlow(c *vnetlink.ConntrackFlow) bool {
	client, _ := netip.AddrFromSlice(c.Forward.SrcIP)
	server, _ := netip.AddrFromSlice(c.Reverse.SrcIP)
	if !gone[client.Unmap()] && !gone[server.Unmap()] {
		return false
	}
	// What has ended is kept for two minutes, thousands of entries where connections are short, each a system call to delete.
	// Nobody waits at such a one, and a new connection with its numbers is a new one to the kernel, too.
	tcp, ok := c.ProtoInfo.(*vnetlink.ProtoInfoTCP)
	return !ok || tcp.State != nl.TCP_CONNTRACK_TIME_WAIT && tcp.State != nl.TCP_CONNTRACK_CLOSE
}

// Ended counts what End did.
type Ended struct {
	TCP, UDP int // sockets
}

// End ends the sockets of one pod that talk to an address that is gone, be it by a service's address. addrs are the pod's
// addresses on the slice.
func End(slice, pod *netns.NS, addrs []netip.Addr, gone map[netip.Addr]bool) (Ended, error) {
	var n Ended
	own := map[netip.Addr]bool{}
	for _, a := range addrs {
		own[a] = true
	}
	d, err := dial(pod)
	if err != nil {
		return n, err
	}
	defer d.close()
	t, err := track(slice)
	if err != nil {
		return n, err
	}
	defer t.close()
	talks := func(f Flow) (bool, error) { // to what is gone
		if !own[f.Local.Addr()] || gone[f.Remote.Addr()] {
			return own[f.Local.Addr()], nil
		}
		server, err := t.server(f)
		return gone[server], err
	}
	var unreachable []Flow
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			socks, err := d.sockets(family, proto)
			if err != nil {
				return n, err
			}
			for _, s := range socks {
				hit, err := talks(s.Flow)
				if err != nil {
					return n, err
				}
				if !hit {
					continue
				}
				if proto == unix.IPPROTO_UDP {
					unreachable = append(unreachable, s.Flow)
					continue
				}
				ended, err := d.destroy(s)
				if err != nil {
					return n, err
				}
				if ended {
					n.TCP++
				}
			}
		}
	}
	n.UDP = len(unreachable)
	return n, refuse(slice, unreachable)
}
