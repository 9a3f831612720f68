package nft

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

// Forget makes the kernel forget UDP flows to backends that are none any more by what Apply did: there is no connection
// that would end, so a client that goes on sending from one port would be sent to the old backend for ever. TCP and SCTP
// connections live on until they close: a backend that is to go may finish what it began.
func (c Changes) Forget(ns *netns.NS) error {
	have := c.moved
	if have == nil {
		return nil
	}
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open conntrack: %w", err)
	}
	defer h.Close()
	for _, f := range families() {
		stale := staleFlows{vips: have.sets["vip"+f.suffix], current: &behind{f: f, have: have}}
		if len(stale.vips) == 0 {
			continue
		}
		family := netlink.InetFamily(unix.AF_INET)
		if f.suffix == "6" {
			family = unix.AF_INET6
		}
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, stale); err != nil {
			return fmt.Errorf("forget flows to backends that are gone: %w", err)
		}
	}
	return nil
}

type staleFlows struct {
	vips    map[string]string
	current *behind
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok1 := netip.AddrFromSlice(flow.Forward.DstIP)
	by, ok2 := netip.AddrFromSlice(flow.Reverse.SrcIP)
	if !ok1 || !ok2 {
		return false
	}
	to, by = to.Unmap(), by.Unmap()
	if _, service := s.vips[string(regs{}.addr(to))]; !service {
		return false
	}
	key := regs{}.addr(to).proto(unix.IPPROTO_UDP).port(flow.Forward.DstPort)
	return !s.current.has(string(key), backendValue(netip.AddrPortFrom(by, flow.Reverse.SrcPort)))
}
