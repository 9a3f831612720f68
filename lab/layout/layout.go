// Package layout is the lab's address plan: which machine is where.
//
// It is computed once from the configuration and then kept in the lab's state,
// so that every later command (and a clean-up after a crash) sees the same names.
package layout

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"seaway.dev/seaway/lab/config"
)

// Role of a machine.
type Role string

// The roles.
const (
	ControlPlane Role = "control-plane"
	Node         Role = "node"
)

// Layout is the plan of the whole lab.
type Layout struct {
	Clusters  []Cluster `json:"clusters"`
	IPv6      bool      `json:"ipv6"`
	MTU       int       `json:"mtu"`
	ProxyMode string    `json:"proxyMode"`
	DNS       bool      `json:"dns"`
	Metrics   bool      `json:"metrics"`
}

// Cluster is the plan of one cluster. LAN is the network its machines are in:
// for a public cluster this is also its place in the WAN (Outside is empty);
// a private one sits behind a NAT router whose WAN addresses are Outside*.
type Cluster struct {
	Name         string       `json:"name"`
	Number       int          `json:"number"`
	Private      bool         `json:"private"`
	PodCIDR      netip.Prefix `json:"podCIDR"`
	ServiceCIDR  netip.Prefix `json:"serviceCIDR"`
	APIServiceIP netip.Addr   `json:"apiServiceIP"`
	DNSIP        netip.Addr   `json:"dnsIP"`
	LAN          netip.Prefix `json:"lan"`
	LAN6         netip.Prefix `json:"lan6"`
	WAN          netip.Prefix `json:"wan"`
	WAN6         netip.Prefix `json:"wan6"`
	Outside      netip.Addr   `json:"outside,omitzero"`
	Outside6     netip.Addr   `json:"outside6,omitzero"`
	Machines     []Machine    `json:"machines"`
}

// Machine is the plan of one machine.
type Machine struct {
	Name    string       `json:"name"`
	Cluster string       `json:"cluster"`
	Role    Role         `json:"role"`
	IP      netip.Addr   `json:"ip"`
	IPv6    netip.Addr   `json:"ipv6"`
	PodCIDR netip.Prefix `json:"podCIDR,omitzero"`
}

// New plans a lab from a completed configuration.
func New(c config.Config) (Layout, error) {
	l := Layout{IPv6: *c.IPv6, MTU: c.MTU, ProxyMode: c.ProxyMode, DNS: *c.DNS, Metrics: c.Metrics}
	for _, cc := range c.Clusters {
		cl, err := newCluster(cc)
		if err != nil {
			return Layout{}, fmt.Errorf("cluster %q: %w", cc.Name, err)
		}
		l.Clusters = append(l.Clusters, cl)
	}
	return l, l.checkNames()
}

func newCluster(c config.Cluster) (Cluster, error) {
	pods, err := netip.ParsePrefix(c.PodCIDR)
	if err != nil {
		return Cluster{}, err
	}
	services, err := netip.ParsePrefix(c.ServiceCIDR)
	if err != nil {
		return Cluster{}, err
	}
	n := byte(c.Number)
	cl := Cluster{
		Name: c.Name, Number: c.Number, Private: c.Private, PodCIDR: pods, ServiceCIDR: services,
		APIServiceIP: nth(services.Addr(), 1), DNSIP: nth(services.Addr(), 10),
		WAN:  netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, n, 0}), 24),
		WAN6: lan6("fd30", c.Number),
	}
	cl.LAN, cl.LAN6 = cl.WAN, cl.WAN6
	if c.Private {
		cl.LAN = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, n, 0}), 24)
		cl.LAN6 = lan6("fd31", c.Number)
		cl.Outside, cl.Outside6 = nth(cl.WAN.Addr(), 10), host6(cl.WAN6, 10)
	}
	add := func(name string, role Role, host int, pod netip.Prefix) {
		cl.Machines = append(cl.Machines, Machine{Name: name, Cluster: c.Name, Role: role,
			IP: nth(cl.LAN.Addr(), host), IPv6: host6(cl.LAN6, host), PodCIDR: pod})
	}
	add(c.Name+"cp", ControlPlane, 10, netip.Prefix{})
	for i := 1; i <= c.Nodes; i++ {
		add(fmt.Sprintf("%sn%d", c.Name, i), Node, 10+i, netip.PrefixFrom(nth(pods.Addr(), i*256), 24))
	}
	return cl, nil
}

// IPv6 addresses carry the numbers of the IPv4 ones as they are written, so that
// 172.30.100.11 and fd30:100::11 are seen to be the same machine.
func lan6(ula string, number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("%s:%d::/64", ula, number))
}

func host6(p netip.Prefix, n int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("%s%d", p.Addr(), n))
}

// nth is the address n after a.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	for i := len(b) - 1; n > 0 && i >= 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	r, _ := netip.AddrFromSlice(b)
	return r
}

// Gateway is the first address of the machines' network.
func (c Cluster) Gateway() netip.Addr { return nth(c.LAN.Addr(), 1) }

// Gateway6 is Gateway's IPv6 counterpart.
func (c Cluster) Gateway6() netip.Addr { return host6(c.LAN6, 1) }

// Router is the WAN router's address in the cluster's WAN network.
func (c Cluster) Router() netip.Addr { return nth(c.WAN.Addr(), 1) }

// Router6 is Router's IPv6 counterpart.
func (c Cluster) Router6() netip.Addr { return host6(c.WAN6, 1) }

// Management is the lab's own address in a private cluster's network.
func (c Cluster) Management() netip.Addr { return nth(c.LAN.Addr(), 2) }

// ControlPlane is the control-plane machine.
func (c Cluster) ControlPlane() Machine { return c.Machines[0] }

// Nodes are the worker machines.
func (c Cluster) Nodes() []Machine { return c.Machines[1:] }

// Server is the URL of the cluster's API.
func (c Cluster) Server() string { return fmt.Sprintf("https://%s:6443", c.ControlPlane().IP) }

// Bridge is the cluster's interface at the WAN router.
func (c Cluster) Bridge() string { return "br-" + c.Name }

// Machines of all clusters.
func (l Layout) Machines() []Machine {
	var ms []Machine
	for _, c := range l.Clusters {
		ms = append(ms, c.Machines...)
	}
	return ms
}

// Cluster by name; the error lists the known ones.
func (l Layout) Cluster(name string) (Cluster, error) {
	var known []string
	for _, c := range l.Clusters {
		if c.Name == name {
			return c, nil
		}
		known = append(known, c.Name)
	}
	return Cluster{}, fmt.Errorf("no cluster %q in this lab; there are %s", name, strings.Join(known, ", "))
}

// Machine by name; the error lists the known ones.
func (l Layout) Machine(name string) (Machine, Cluster, error) {
	var known []string
	for _, c := range l.Clusters {
		for _, m := range c.Machines {
			if m.Name == name {
				return m, c, nil
			}
			known = append(known, m.Name)
		}
	}
	return Machine{}, Cluster{}, fmt.Errorf("no machine %q in this lab; there are %s", name, strings.Join(known, ", "))
}

// A cluster c1 with 11 nodes and a cluster c1n1 would share machine names.
func (l Layout) checkNames() error {
	var seen []string
	for _, c := range l.Clusters {
		seen = append(seen, c.Name)
	}
	for _, m := range l.Machines() {
		if slices.Contains(seen, m.Name) {
			return fmt.Errorf("two things would be called %s; rename a cluster", m.Name)
		}
		seen = append(seen, m.Name)
	}
	return nil
}
