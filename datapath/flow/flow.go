// Package flow ends what still talks to addresses that are gone, so that nobody waits for an answer that will not come.
//
//	pods'               [End]     TCP sockets are destroyed: whoever reads, writes or dials gets ECONNABORTED at once
//	                              (SOCK_DESTROY of Linux's sock_diag); connected UDP sockets get ECONNREFUSED, by the ICMP
//	                              error that the host would have sent if it were there
//	slice's namespace   [Forget]  conntrack entries from or to the addresses are deleted, so that what goes to a service
//	                              next goes to who is there
//
// Only sockets are touched whose own address is the pod's on the slice: what a pod has over its CNI is none of ours, even
// where the numbers are the same.
package flow

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

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

// Add adds what another End did.
func (n *Ended) Add(o Ended) { n.TCP, n.UDP = n.TCP+o.TCP, n.UDP+o.UDP }

// Pod is a pod on a slice.
type Pod struct {
	Name  string // namespace/name, for errors
	NS    *netns.NS
	Addrs []netip.Addr // on the slice
}

// End ends the sockets of a slice's pods that talk to an address that is gone, be it by a service's address: first those that
// talk to it directly, of all pods, as they are told apart at once. Who talks to one of hosts, which are there, talks to no
// service, and is not asked about. An error with one socket or pod keeps no other from being told.
func End(slice *netns.NS, pods []Pod, gone, hosts map[netip.Addr]bool) (Ended, error) {
	var n Ended
	var errs []error
	note := func(p Pod, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("pod %s: %w", p.Name, err))
		}
	}
	var unsure []talker
	for _, p := range pods {
		t, err := listen(p)
		note(p, err)
		if t.diag.c == nil {
			continue
		}
		defer t.diag.close()
		err = n.end(slice, t, func(s socket) (bool, error) { return gone[s.Remote.Addr()], nil })
		note(p, err)
		t.sockets = slices.DeleteFunc(t.sockets, func(s socket) bool { return gone[s.Remote.Addr()] || hosts[s.Remote.Addr()] })
		if len(t.sockets) > 0 {
			unsure = append(unsure, t)
		}
	}
	if len(unsure) == 0 {
		return n, errors.Join(errs...)
	}
	ct, err := track(slice)
	if err != nil {
		return n, errors.Join(append(errs, err)...)
	}
	defer ct.close()
	for _, t := range unsure {
		note(t.Pod, n.end(slice, t, func(s socket) (bool, error) {
			server, err := ct.server(s.Flow)
			return gone[server], err
		}))
	}
	return n, errors.Join(errs...)
}

// talker is a pod with its sockets on the slice.
type talker struct {
	Pod
	diag    diag
	sockets []socket
}

// listen lists a pod's sockets. What it could list before an error counts.
func listen(p Pod) (t talker, err error) {
	t.Pod = p
	if t.diag, err = dial(p.NS); err != nil {
		return t, err
	}
	var errs []error
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			all, err := t.diag.sockets(family, proto)
			errs = append(errs, err)
			for _, s := range all {
				if slices.Contains(p.Addrs, s.Local.Addr()) {
					t.sockets = append(t.sockets, s)
				}
			}
		}
	}
	return t, errors.Join(errs...)
}

// end ends those of a talker's sockets that are hit.
func (n *Ended) end(slice *netns.NS, t talker, hit func(socket) (bool, error)) error {
	var errs []error
	var unreachable []Flow
	able := true // as the kernel was built; to say so once is enough
	for _, s := range t.sockets {
		yes, err := hit(s)
		switch {
		case err != nil:
			errs = append(errs, err)
		case yes && s.Protocol == unix.IPPROTO_UDP:
			unreachable = append(unreachable, s.Flow)
		case yes && able:
			ended, err := t.diag.destroy(s)
			errs, able = append(errs, err), !errors.Is(err, unix.EOPNOTSUPP)
			if ended {
				n.TCP++
			}
		}
	}
	n.UDP += len(unreachable)
	return errors.Join(append(errs, refuse(slice, unreachable))...)
}
