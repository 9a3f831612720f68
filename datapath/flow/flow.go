// Package flow ends what still talks to addresses that are gone, so that nobody waits for an answer that will not come.
//
//	slice's namespace   [Forget]  conntrack entries from or to the addresses are deleted, and say who was talking by
//	                              another address, a service's
//	each pod's          [End]     TCP sockets are destroyed: whoever reads, writes or dials gets ECONNABORTED at once
//	                              (SOCK_DESTROY of Linux's sock_diag); connected UDP sockets get ECONNREFUSED, by the ICMP
//	                              error that the host would have sent if it were there
//
// Only sockets are touched whose own address is the pod's on the slice: what a pod has over its CNI is none of ours, even
// where the numbers are the same.
package flow

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
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

// Flows is a set of them.
type Flows map[Flow]bool

// Forget deletes the conntrack entries of a slice's namespace whose client or server is gone, and returns those flows whose
// near end sees another address than the one that is gone: a client by a service's address sees that.
func Forget(ns *netns.NS, gone map[netip.Addr]bool) (Flows, error) {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	defer h.Close()
	f := forgetting{gone, Flows{}}
	for _, family := range families(gone) {
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family), f); err != nil {
			return f.found, fmt.Errorf("forget connections with what is gone: %w", err)
		}
	}
	return f.found, nil
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

type forgetting struct {
	gone  map[netip.Addr]bool
	found Flows
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f forgetting) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	client, server := end(c.Forward.SrcIP, c.Forward.SrcPort), end(c.Reverse.SrcIP, c.Reverse.SrcPort)
	if !f.gone[client.Addr()] && !f.gone[server.Addr()] {
		return false
	}
	// What has ended is kept for two minutes, thousands of entries where connections are short, each a system call to delete.
	// Nobody waits at such a one, and a new connection with its numbers is a new one to the kernel, too.
	if tcp, ok := c.ProtoInfo.(*netlink.ProtoInfoTCP); ok && (tcp.State == nl.TCP_CONNTRACK_TIME_WAIT || tcp.State == nl.TCP_CONNTRACK_CLOSE) {
		return false
	}
	f.note(c.Forward.Protocol, client, end(c.Forward.DstIP, c.Forward.DstPort))
	f.note(c.Forward.Protocol, server, end(c.Reverse.DstIP, c.Reverse.DstPort))
	return true
}

func (f forgetting) note(protocol uint8, local, remote netip.AddrPort) {
	if !f.gone[remote.Addr()] {
		f.found[Flow{protocol, local, remote}] = true
	}
}

func end(ip []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// Ended counts what End did.
type Ended struct {
	TCP, UDP int // sockets
}

// End ends the sockets of one pod that talk to an address that is gone, or that are the near end of one of flows. addrs are
// the pod's addresses on the slice.
func End(slice, pod *netns.NS, addrs []netip.Addr, gone map[netip.Addr]bool, flows Flows) (Ended, error) {
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
	var unreachable []Flow
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			socks, err := d.sockets(family, proto)
			if err != nil {
				return n, err
			}
			for _, s := range socks {
				if !own[s.Local.Addr()] || !gone[s.Remote.Addr()] && !flows[s.Flow] {
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
