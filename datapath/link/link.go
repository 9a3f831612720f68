// Package link makes a network namespace's links, addresses, neighbours, routes and rules what they should be.
//
// [Read] reads what the kernel has into a [Space]; [Space.Converge] compares it with a [Want] and applies only the
// difference. Nothing is remembered between calls. Only what carries Seaway's mark is ever changed or removed: links
// whose alias begins with "seaway:", and routes and rules of protocol 77.
package link

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

const (
	// Protocol marks Seaway's routes and rules (rtnetlink's rtm_protocol and FRA_PROTOCOL; 77 is nobody's in
	// /etc/iproute2/rt_protos).
	Protocol = 77
	// Table is the routing table in a pod's namespace that holds the slice's prefixes.
	Table = 77
	// aliasMark begins the alias of each of our links: "seaway:<slice>:<pod UID>".
	aliasMark = "seaway:"
)

// Alias is the mark on both ends of a pod's link.
func Alias(slice, podUID string) string { return aliasMark + slice + ":" + podUID }

// ParseAlias takes an alias apart; ok tells whether it is one of ours.
func ParseAlias(alias string) (slice, podUID string, ok bool) {
	rest, ok := strings.CutPrefix(alias, aliasMark)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// Link is a link as it is, or as it should be.
type Link struct {
	Name  string
	Alias string
	MTU   int // bytes, 0 in a Want: whatever it has
	Index int // as read
	Peer  int // as read, of a veth: the other end's index in its namespace
	Up    bool
	// Carrier is whether it can carry packets, as read: a veth whose other end is down cannot.
	Carrier bool
	Kind    string // as read: "veth", "tun", ...
}

// Addr is an address on a link.
type Addr struct {
	Link   string
	Prefix netip.Prefix
}

// Neighbour is a permanent neighbour entry: with it nobody asks (ARP, NDP) and nobody can lie.
type Neighbour struct {
	Link string
	IP   netip.Addr
	MAC  [6]byte
}

// Route is a route of protocol 77. A zero Link means unreachable.
type Route struct {
	Dst   netip.Prefix
	Link  string
	Via   netip.Addr // next hop on the link, zero if the link itself
	Src   netip.Addr // preferred source, zero if the kernel may choose
	Table int        // 0 means main
}

// Rule is a policy routing rule of protocol 77: a lookup in a table, or unreachable if Table is 0.
type Rule struct {
	Priority int
	V6       bool
	From     netip.Prefix // zero means all
	Table    int
}

// Want is what a namespace should hold. Links must exist already, except that a missing one fails only what needs it.
type Want struct {
	Links      []Link // to be up, with alias and MTU
	Addrs      []Addr
	Neighbours []Neighbour
	Routes     []Route
	Rules      []Rule
}

// Space is a namespace as it was read. It holds a netlink socket until Close.
type Space struct {
	Links map[string]Link

	ns      *netns.NS
	h       *netlink.Handle
	names   map[int]string // link names by index
	addrs   map[Addr]bool
	neighs  map[Neighbour]bool
	routes  map[Route]netlink.Route
	rules   map[Rule]int // how many of each
	foreign []netip.Addr // addresses on links that are not ours
}

// Read reads a namespace.
func Read(ns *netns.NS) (*Space, error) {
	h, err := ns.Netlink()
	if err != nil {
		return nil, err
	}
	s := &Space{ns: ns, h: h}
	if err := s.Reload(); err != nil {
		h.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the socket.
func (s *Space) Close() { s.h.Close() }

// Foreign lists the addresses on links that are not ours and not loopback: in a pod, those that its CNI gave it.
func (s *Space) Foreign() []netip.Addr { return s.foreign }

// Index returns a link's index, 0 if there is no such link.
func (s *Space) Index(name string) int { return s.Links[name].Index }

// Reload reads everything again, after links were made or removed.
func (s *Space) Reload() error {
	links, err := s.h.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	s.Links, s.names = map[string]Link{}, map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		s.names[a.Index] = a.Name
		s.Links[a.Name] = Link{
			Name: a.Name, Alias: a.Alias, MTU: a.MTU, Index: a.Index,
			Peer: a.ParentIndex, Up: a.Flags&net.FlagUp != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, Kind: l.Type(),
		}
	}
	for _, read := range []func() error{s.readAddrs, s.readNeighbours, s.readRoutes, s.readRules} {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

// ours tells whether a link is ours to clean.
func (s *Space) ours(name string) bool { return strings.HasPrefix(s.Links[name].Alias, aliasMark) }

func (s *Space) readAddrs() error {
	list, err := s.h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	s.addrs, s.foreign = map[Addr]bool{}, nil
	for _, a := range list {
		p, ok := prefix(a.IPNet)
		if !ok {
			continue
		}
		name := s.names[a.LinkIndex]
		s.addrs[Addr{Link: name, Prefix: p}] = true
		if !s.ours(name) && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			s.foreign = append(s.foreign, p.Addr())
		}
	}
	return nil
}

func (s *Space) readNeighbours() error {
	s.neighs = map[Neighbour]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := s.h.NeighList(0, family)
		if err != nil {
			return fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range list {
			ip, ok := netip.AddrFromSlice(n.IP)
			if !ok || n.State&netlink.NUD_PERMANENT == 0 || len(n.HardwareAddr) != 6 {
				continue
			}
			s.neighs[Neighbour{Link: s.names[n.LinkIndex], IP: ip.Unmap(), MAC: [6]byte(n.HardwareAddr)}] = true
		}
	}
	return nil
}

func (s *Space) readRoutes() error {
	s.routes = map[Route]netlink.Route{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		// Table 0 in the filter: all tables.
		list, err := s.h.RouteListFiltered(family, &netlink.Route{Protocol: Protocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			if r.Protocol != Protocol {
				continue
			}
			dst, ok := prefix(r.Dst)
			if !ok {
				continue
			}
			w := Route{Dst: dst, Table: r.Table}
			if r.Type != unix.RTN_UNREACHABLE {
				w.Link = s.names[r.LinkIndex]
			}
			if w.Table == unix.RT_TABLE_MAIN {
				w.Table = 0
			}
			if a, ok := netip.AddrFromSlice(r.Gw); ok {
				w.Via = a.Unmap()
			}
			if a, ok := netip.AddrFromSlice(r.Src); ok {
				w.Src = a.Unmap()
			}
			s.routes[w] = r
		}
	}
	return nil
}

func (s *Space) readRules() error {
	s.rules = map[Rule]int{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := s.h.RuleList(family)
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		for _, r := range list {
			if r.Protocol != Protocol {
				continue
			}
			w := Rule{Priority: r.Priority, V6: family == netlink.FAMILY_V6, Table: max(r.Table, 0)}
			if r.Src != nil {
				w.From, _ = prefix(r.Src)
			}
			s.rules[w]++
		}
	}
	return nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, bits := n.Mask.Size()
	if bits == 32 {
		ip = ip.Unmap()
	}
	return netip.PrefixFrom(ip, ones), true
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
