package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Converge applies the difference between what was read and what is wanted, and returns how many changes it made. An
// error of one link does not stop the others: errors come by the name of the link, those of no link under "".
func (s *Space) Converge(want Want) (ops int, errs map[string]error) {
	c := converger{s: s, errs: map[string]error{}}
	c.links(want.Links)
	c.addrs(want.Addrs)
	c.neighbours(want.Neighbours)
	c.routes(want.Routes)
	c.rules(want.Rules)
	return c.ops, c.errs
}

type converger struct {
	s    *Space
	ops  int
	errs map[string]error
}

// do counts a change or keeps its error.
func (c *converger) do(link string, err error, format string, args ...any) {
	if err == nil {
		c.ops++
		return
	}
	c.errs[link] = errors.Join(c.errs[link], fmt.Errorf(format+": %w", append(args, err)...))
}

// index finds a link that is to be changed; a missing one is that link's error.
func (c *converger) index(name, what string) (int, bool) {
	if i := c.s.Index(name); i != 0 {
		return i, true
	}
	c.errs[name] = errors.Join(c.errs[name], fmt.Errorf("%s: there is no link %s", what, name))
	return 0, false
}

func (c *converger) links(want []Link) {
	for _, w := range want {
		is, ok := c.s.Links[w.Name]
		if !ok {
			c.index(w.Name, "bring the link up")
			continue
		}
		l := device(is)
		if w.Alias != "" && is.Alias != w.Alias {
			c.do(w.Name, c.s.h.LinkSetAlias(l, w.Alias), "mark link %s", w.Name)
			is.Alias = w.Alias
		}
		if w.MTU != 0 && is.MTU != w.MTU {
			c.do(w.Name, c.s.h.LinkSetMTU(l, w.MTU), "set the MTU of link %s to %d", w.Name, w.MTU)
		}
		if !is.Up {
			if is.Kind == "veth" {
				// No link-local address of its own, hence no duplicate address detection, no router solicitations.
				// It fails where IPv6 is off; then there is nothing to switch off.
				_ = c.s.h.LinkSetIP6AddrGenMode(l, nl6AddrGenModeNone)
			}
			c.do(w.Name, c.s.h.LinkSetUp(l), "bring link %s up", w.Name)
		}
		c.s.Links[w.Name] = is
	}
}

// nl6AddrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const nl6AddrGenModeNone = 1

func (c *converger) addrs(want []Addr) {
	keep := map[Addr]bool{}
	for _, w := range want {
		keep[w] = true
	}
	for _, w := range want {
		if c.s.addrs[w] {
			continue
		}
		if _, ok := c.index(w.Link, "add address "+w.Prefix.String()); !ok {
			continue
		}
		c.do(w.Link, c.addAddr(w), "add address %s to link %s", w.Prefix, w.Link)
	}
	// Afterwards: with its last address a link loses its neighbours and routes.
	for a := range c.s.addrs {
		// The slice's end holds nothing but what was wanted; so does a pod's.
		if keep[a] || !c.s.ours(a.Link) {
			continue
		}
		l := device(c.s.Links[a.Link])
		err := c.s.h.AddrDel(l, &netlink.Addr{IPNet: ipnet(a.Prefix)})
		c.do(a.Link, err, "remove address %s from link %s", a.Prefix, a.Link)
	}
}

func (c *converger) addAddr(w Addr) error {
	a := &netlink.Addr{IPNet: ipnet(w.Prefix)}
	if w.Prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	l := device(c.s.Links[w.Link])
	err := c.s.h.AddrAdd(l, a)
	if w.Prefix.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) && c.s.ours(w.Link) {
		// The pod's IPv6 is switched off, as runtimes do on clusters without it. Switch it on for our link alone:
		// the setting lives and dies with the link.
		if e := c.s.enableIPv6(w.Link); e != nil {
			return e
		}
		err = c.s.h.AddrAdd(l, a)
	}
	return err
}

func (c *converger) neighbours(want []Neighbour) {
	keep := map[Neighbour]bool{}
	for _, w := range want {
		keep[w] = true
	}
	for n := range c.s.neighs {
		if keep[n] || !c.s.ours(n.Link) {
			continue
		}
		c.do(n.Link, c.s.h.NeighDel(neigh(n, c.s.Index(n.Link))), "remove neighbour %s from link %s", n.IP, n.Link)
	}
	for _, w := range want {
		if c.s.neighs[w] {
			continue
		}
		if i, ok := c.index(w.Link, "add neighbour "+w.IP.String()); ok {
			c.do(w.Link, c.s.h.NeighSet(neigh(w, i)), "add neighbour %s to link %s", w.IP, w.Link)
		}
	}
}

func (c *converger) routes(want []Route) {
	keep := map[Route]bool{}
	for _, w := range want {
		keep[w] = true
	}
	// Which destinations are taken over by a replacement; only the others are removed.
	type slot struct {
		dst   netip.Prefix
		table int
	}
	replaced := map[slot]bool{}
	for _, w := range want {
		if _, ok := c.s.routes[w]; ok {
			continue
		}
		r := netlink.Route{Dst: ipnet(w.Dst), Protocol: Protocol, Table: w.Table, Type: unix.RTN_UNICAST}
		if w.Table == 0 {
			r.Table = unix.RT_TABLE_MAIN
		}
		switch {
		case w.Link == "":
			r.Type = unix.RTN_UNREACHABLE
		default:
			i, ok := c.index(w.Link, "add route "+w.Dst.String())
			if !ok {
				continue
			}
			r.LinkIndex = i
		}
		if w.Via.IsValid() {
			r.Gw = w.Via.AsSlice()
			r.Flags = int(netlink.FLAG_ONLINK)
		} else if w.Link != "" && w.Dst.Addr().Is4() {
			r.Scope = netlink.SCOPE_LINK
		}
		if w.Src.IsValid() {
			r.Src = w.Src.AsSlice()
		}
		err := c.s.h.RouteReplace(&r)
		c.do(w.Link, err, "add route %s", w.Dst)
		if err == nil {
			replaced[slot{w.Dst, w.Table}] = true
		}
	}
	for is, r := range c.s.routes {
		if keep[is] || replaced[slot{is.Dst, is.Table}] {
			continue
		}
		err := c.s.h.RouteDel(&r)
		if errors.Is(err, unix.ESRCH) {
			continue // it went with its link
		}
		c.do(is.Link, err, "remove route %s", is.Dst)
	}
}

func (c *converger) rules(want []Rule) {
	left := map[Rule]int{}
	for r, n := range c.s.rules {
		left[r] = n
	}
	for _, w := range slices.Compact(slices.Clone(want)) {
		if left[w] > 0 {
			left[w]--
			continue
		}
		c.do("", c.s.h.RuleAdd(rule(w)), "add rule %s", w)
	}
	for r, n := range left {
		for range n {
			c.do("", c.s.h.RuleDel(rule(r)), "remove rule %s", r)
		}
	}
}

// String says "7700: from 10.0.0.1/32 lookup 77".
func (r Rule) String() string {
	from, act := "all", "unreachable"
	if r.From.IsValid() {
		from = r.From.String()
	}
	if r.Table != 0 {
		act = fmt.Sprintf("lookup %d", r.Table)
	}
	return fmt.Sprintf("%d: from %s %s", r.Priority, from, act)
}

func rule(w Rule) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Protocol = w.Priority, w.Table, Protocol
	r.Family = netlink.FAMILY_V4
	if w.V6 {
		r.Family = netlink.FAMILY_V6
	}
	if w.From.IsValid() {
		r.Src = ipnet(w.From)
	}
	if w.Table == 0 {
		r.Type = unix.RTN_UNREACHABLE // FR_ACT_UNREACHABLE has the same number
	}
	return r
}

func neigh(n Neighbour, index int) *netlink.Neigh {
	family := netlink.FAMILY_V4
	if n.IP.Is6() {
		family = netlink.FAMILY_V6
	}
	return &netlink.Neigh{
		LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT,
		IP: n.IP.AsSlice(), HardwareAddr: net.HardwareAddr(n.MAC[:]),
	}
}

// device names a link for the netlink library.
func device(l Link) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: l.Name, Index: l.Index}, LinkType: l.Kind}
}
