package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

// WireGuard adds 80 bytes at most: an IPv6 header (40), UDP (8), its own header (16) and the authentication tag (16).
// See "Header and MTU sizes for WireGuard" by the protocol's author. IPv4 saves 20; paths can mix, so the larger one
// counts. A gateway is told in 12 bytes more whom a packet is for: those fit into what IPv4 saves, but not where a path
// may be IPv6, whose packets no router fragments.
const (
	overhead  = 80
	relayHead = 12
)

const (
	defaultMTU = 1500 // of an underlay whose MTU nobody reported
	minimumMTU = 1280 // IPv6 works on nothing smaller (RFC 8200 §5)
	// keepalive keeps a NAT's mapping alive: common ones forget a UDP flow after 30 s (RFC 4787 asks for 120).
	keepalive = 20
)

// Local is what a node knows of itself without being told.
type Local struct {
	Port uint16 // its UDP port
	MTU  int    // of its underlay, bytes
	// NetNS is where the slices' namespaces are mounted; default NetNSDir.
	NetNS string
	// Nodes is how the other nodes look from here, by cluster/node. Who is not in it is taken to be there.
	Nodes map[string]share.Sight
	// Generations are those of its own keys, by slice, rising: see package keys. A slice that is not in it has the one
	// generation that the intent says.
	Generations map[string][]uint64
}

// Compile says what the node of an intent should be. Problems are what could not be planned and why; the rest of the
// plan stands. Equal intents, in whatever order their lists are, give equal plans.
func Compile(in fleet.Intent, local Local) (Node, []fleet.Problem) {
	return new(Compiler).Compile(in, local)
}

// compileFrame compiles everything but services.
func compileFrame(in fleet.Intent, local Local, w *ways) (Node, []fleet.Problem) {
	c := compiler{in: in, local: local, ways: w, self: fleet.Node{Name: in.Node, Cluster: in.Cluster}}
	for _, cl := range in.Clusters {
		if cl.Name != in.Cluster {
			continue
		}
		c.private = cl.Private
		for _, n := range cl.Nodes {
			if n.Name == in.Node {
				c.self = n
			}
		}
	}
	n := Node{Cluster: in.Cluster, Name: in.Node, Tunnel: Tunnel{Port: local.Port}}
	if in.Purge {
		return n, nil
	}
	for _, s := range sorted(in.Slices, func(a, b fleet.Slice) int { return strings.Compare(a.Name, b.Name) }) {
		n.Slices = append(n.Slices, c.slice(s))
		gens := local.Generations[s.Name]
		if len(gens) == 0 {
			gens = []uint64{s.KeyGeneration}
		}
		for _, g := range gens {
			n.Tunnel.Devices = append(n.Tunnel.Devices, c.device(s, g))
		}
	}
	if dev, ns, ok := c.management(); ok {
		n.Slices = append(n.Slices, ns)
		n.Tunnel.Devices = append(n.Tunnel.Devices, dev)
	}
	slices.SortFunc(n.Slices, func(a, b Slice) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(n.Tunnel.Devices, func(a, b Device) int { return strings.Compare(a.Slice, b.Slice) })
	n.Tunnel.Relay = c.targets()
	if w.neighbors == nil {
		w.neighbors = c.neighbors()
	}
	n.Tunnel.Neighbors = w.neighbors
	n.Tunnel.Cluster, n.Tunnel.Gateway = in.Cluster, c.self.Gateway && !c.private
	if len(n.Tunnel.Devices) > 0 {
		for _, g := range c.gateways() {
			for _, ep := range g.Endpoints() {
				if g.ID() != c.self.ID() {
					n.Tunnel.Gateways = append(n.Tunnel.Gateways, Path{Endpoint: ep, Relay: g.ID()})
				}
			}
		}
	}
	return n, c.problems
}

type compiler struct {
	in       fleet.Intent
	local    Local
	ways     *ways
	self     fleet.Node
	private  bool // this node's cluster
	problems []fleet.Problem
}

// ways are the ways to other nodes. They depend on slices and clusters, not on who runs where.
type ways struct {
	paths     map[string][]Path // by node
	neighbors []Neighbor
}

func (c *compiler) problem(reason, where, message, next string) {
	c.problems = append(c.problems, fleet.Problem{Reason: reason, Where: where, Message: message, Next: next})
}

// slice plans one slice's namespace.
func (c *compiler) slice(s fleet.Slice) Slice {
	out := Slice{
		Name:     s.Name,
		NetNS:    c.netns(s.Name),
		MTU:      c.mtu(s.Name),
		Prefixes: sorted(s.Prefixes, comparePrefix),
		Hosts:    c.hosts(s.Name),
	}
	out.Networks = c.networks(s)
	for _, p := range c.in.Pods {
		if p.Slice != s.Name || p.Cluster != c.in.Cluster || p.Node != c.in.Node {
			continue
		}
		if len(p.Addrs) == 0 {
			c.problem("NoAddress", "pod "+p.Key(), "the pod has no address on slice "+s.Name,
				"see the slice's conditions: its prefix may be exhausted")
			continue
		}
		out.Attachments = append(out.Attachments, Attachment{
			PodUID: p.UID, Namespace: p.Namespace, Pod: p.Name,
			Addrs:    sorted(p.Addrs, netip.Addr.Compare),
			PodIPs:   sorted(p.PodIPs, netip.Addr.Compare),
			Link:     link(p.UID),
			Prefixes: sorted(slices.Concat(out.Prefixes, out.Networks), comparePrefix),
		})
	}
	slices.SortFunc(out.Attachments, func(a, b Attachment) int {
		return strings.Compare(a.Namespace+"/"+a.Pod+"/"+a.PodUID, b.Namespace+"/"+b.Pod+"/"+b.PodUID)
	})
	out.Routes = c.routes(s, out)
	for _, p := range c.in.Policies {
		if p.Slice == s.Name {
			out.Policies = append(out.Policies, p)
		}
	}
	slices.SortFunc(out.Policies, func(a, b fleet.Policy) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// hosts are the addresses of a slice's pods, but for those on nodes that cannot be reached.
func (c *compiler) hosts(slice string) []netip.Addr {
	out := make([]netip.Addr, 0, len(c.in.Pods))
	for i := range c.in.Pods {
		p := &c.in.Pods[i]
		if p.Slice != slice {
			continue
		}
		if own := p.Cluster == c.in.Cluster && p.Node == c.in.Node; !own {
			if s := c.local.Nodes[p.Cluster+"/"+p.Node]; s.Down && !s.Back {
				continue
			}
		}
		out = append(out, p.Addrs...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// routes are most specific first in meaning, sorted in form:
//
//	own pods        → their links
//	other pods here → the tunnel (their node's key decides the rest)
//	others' blocks  → the tunnel
//	the prefix      → unreachable: an address that nobody has is an error at once, not a hang
func (c *compiler) routes(s fleet.Slice, out Slice) []Route {
	dst := map[netip.Prefix]string{}
	for _, p := range out.Prefixes {
		dst[p] = ""
	}
	for _, b := range s.Blocks {
		if b.Cluster != c.in.Cluster {
			dst[b.Prefix] = TunLink
		}
	}
	blocks := map[string][]fleet.Block{}
	for _, b := range s.Blocks {
		blocks[b.Cluster] = append(blocks[b.Cluster], b)
	}
	for i := range c.in.Pods {
		p := &c.in.Pods[i]
		if p.Slice != s.Name || (p.Cluster == c.in.Cluster && p.Node == c.in.Node) {
			continue
		}
		for _, a := range p.Addrs {
			if p.Cluster == c.in.Cluster || !covered(blocks[p.Cluster], a) {
				dst[host(a)] = TunLink
			}
		}
	}
	for _, at := range out.Attachments {
		for _, a := range at.Addrs {
			dst[host(a)] = at.Link
		}
	}
	routes := make([]Route, 0, len(dst))
	for d, l := range dst {
		routes = append(routes, Route{Dst: d, Link: l})
	}
	slices.SortFunc(routes, func(a, b Route) int { return comparePrefix(a.Dst, b.Dst) })
	return routes
}

// device plans this node's end of a slice, with its key of one generation: a peer for every other node that has a key
// of that generation.
func (c *compiler) device(s fleet.Slice, generation uint64) Device {
	d := Device{Slice: s.Name, Generation: generation, NetNS: c.netns(s.Name), Link: TunLink, MTU: c.mtu(s.Name)}
	allowed := c.holders(s.Name)
	for _, cl := range c.in.Clusters {
		for _, n := range cl.Nodes {
			key, ok := n.Keys[d.Name()]
			if !ok || n.ID() == c.self.ID() {
				continue
			}
			p := Peer{ID: n.ID(), Key: key, Paths: c.pathsTo(cl, n)}
			p.Allowed = sorted(allowed[p.ID], comparePrefix)
			p.Allowed = slices.Compact(p.Allowed)
			if c.private && cl.Name != c.in.Cluster {
				p.Keepalive = keepalive
			}
			d.Peers = append(d.Peers, p)
		}
	}
	slices.SortFunc(d.Peers, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return d
}

// holders says which addresses each node's pods have. WireGuard gives an address to one peer only, so of two claims
// the first by node and pod stands, and the other is a problem.
func (c *compiler) holders(slice string) map[string][]netip.Prefix {
	if out := c.undisputed(slice); out != nil {
		return out
	}
	out, owner := map[string][]netip.Prefix{}, map[netip.Addr]string{}
	for _, p := range sorted(c.in.Pods, func(a, b fleet.Pod) int {
		return strings.Compare(a.Cluster+"/"+a.Node+" "+a.Key(), b.Cluster+"/"+b.Node+" "+b.Key())
	}) {
		if p.Slice != slice {
			continue
		}
		id := p.Cluster + "/" + p.Node
		for _, a := range p.Addrs {
			if o, taken := owner[a]; taken && o != id {
				c.problem("AddressTwice", "pod "+p.Key(), fmt.Sprintf("address %s on slice %s is claimed by nodes %s and %s", a, slice, o, id),
					"if it lasts, restart the controller of cluster "+p.Cluster+": it hands the addresses out")
				continue
			}
			owner[a] = id
			out[id] = append(out[id], host(a))
		}
	}
	return out
}

// undisputed is holders where no two nodes claim one address, as it should be: then no order is needed. Else it is nil.
func (c *compiler) undisputed(slice string) map[string][]netip.Prefix {
	type place struct{ cluster, node string }
	at, owner := map[place][]netip.Prefix{}, make(map[netip.Addr]place, len(c.in.Pods))
	for i := range c.in.Pods {
		p := &c.in.Pods[i]
		if p.Slice != slice {
			continue
		}
		here := place{p.Cluster, p.Node}
		for _, a := range p.Addrs {
			if o, taken := owner[a]; taken && o != here {
				return nil
			}
			owner[a] = here
			at[here] = append(at[here], host(a))
		}
	}
	out := make(map[string][]netip.Prefix, len(at))
	for p, list := range at {
		out[p.cluster+"/"+p.node] = list
	}
	return out
}

// pathsTo is paths, worked out once.
func (c *compiler) pathsTo(cl fleet.Cluster, n fleet.Node) []Path {
	id := n.ID()
	paths, ok := c.ways.paths[id]
	if !ok {
		paths = c.paths(cl, n)
		c.ways.paths[id] = paths
	}
	return paths
}

// paths lists the ways to a node: directly, unless its cluster is private; else by relays, which are the gateways of
// its cluster or, when nobody can dial that, our own gateways and then everybody's (the private node keeps itself
// known to all of them over the management slice).
func (c *compiler) paths(cl fleet.Cluster, n fleet.Node) []Path {
	var out []Path
	if cl.Name == c.in.Cluster || !cl.Private {
		for _, ep := range n.Endpoints() {
			out = append(out, Path{Endpoint: ep})
		}
	}
	if cl.Name == c.in.Cluster {
		return out
	}
	type relay struct {
		fleet.Node
		rank string
	}
	var relays []relay
	for _, g := range c.gateways() {
		if g.ID() == n.ID() || g.ID() == c.self.ID() {
			continue
		}
		if !cl.Private && g.Cluster != cl.Name {
			continue
		}
		near := "1"
		if g.Cluster == c.in.Cluster {
			near = "0"
		}
		// Spread the pairs of nodes over the gateways, each pair always in the same order (rendezvous hashing).
		sum := sha256.Sum256([]byte(c.self.ID() + " " + n.ID() + " " + g.ID()))
		relays = append(relays, relay{g, near + hex.EncodeToString(sum[:8])})
	}
	slices.SortFunc(relays, func(a, b relay) int { return strings.Compare(a.rank, b.rank) })
	for _, g := range relays {
		if eps := g.Endpoints(); len(eps) > 0 {
			out = append(out, Path{Endpoint: eps[0], Relay: g.ID()})
		}
	}
	return out
}

// gateways of all clusters that can be dialled, sorted by ID.
func (c *compiler) gateways() []fleet.Node {
	var out []fleet.Node
	for _, cl := range c.in.Clusters {
		if cl.Private {
			continue
		}
		for _, n := range cl.Nodes {
			if n.Gateway {
				out = append(out, n)
			}
		}
	}
	slices.SortFunc(out, func(a, b fleet.Node) int { return strings.Compare(a.ID(), b.ID()) })
	return out
}

// management plans the management slice's device, where the node has anybody to talk to on it: a node that cannot be
// dialled keeps every gateway knowing where it is; a gateway listens to those nodes; carriers of bulletins talk to
// those of other clusters, as far as one of the two can be dialled.
func (c *compiler) management() (Device, Slice, bool) {
	self := fleet.ManagementAddr(c.in.Cluster, c.in.Node)
	d := Device{
		Slice: fleet.ManagementSlice, NetNS: c.netns(fleet.ManagementSlice), Link: TunLink,
		MTU: minimumMTU, Addrs: []netip.Prefix{host(self)},
	}
	add := func(n fleet.Node, paths []Path, keep int) {
		key, ok := n.Keys[fleet.ManagementSlice]
		if !ok || n.ID() == c.self.ID() {
			return
		}
		d.Peers = append(d.Peers, Peer{
			ID: n.ID(), Key: key, Paths: paths, Keepalive: keep,
			Allowed: []netip.Prefix{host(fleet.ManagementAddr(n.Cluster, n.Name))},
		})
	}
	switch {
	case c.private:
		for _, g := range c.gateways() {
			add(g, direct(g), keepalive)
		}
	case c.self.Gateway:
		for _, cl := range c.in.Clusters {
			if cl.Private {
				for _, n := range cl.Nodes {
					add(n, nil, 0)
				}
			}
		}
	}
	for _, cl := range c.in.Clusters {
		if cl.Name == c.in.Cluster || cl.Private || !c.self.Carrier {
			continue // whom nobody can dial are gateways' peers above
		}
		for _, n := range cl.Nodes {
			known := slices.ContainsFunc(d.Peers, func(p Peer) bool { return p.ID == n.ID() })
			if n.Carrier && !known {
				add(n, direct(n), 0)
			}
		}
	}
	if len(d.Peers) == 0 {
		return Device{}, Slice{}, false
	}
	slices.SortFunc(d.Peers, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	ns := Slice{
		Name: d.Slice, NetNS: d.NetNS, MTU: d.MTU, Prefixes: []netip.Prefix{fleet.ManagementPrefix},
		Routes: []Route{{Dst: fleet.ManagementPrefix, Link: TunLink}},
	}
	return d, ns, true
}

func direct(n fleet.Node) []Path {
	var paths []Path
	for _, ep := range n.Endpoints() {
		paths = append(paths, Path{Endpoint: ep})
	}
	return paths
}

// targets are the keys that this node relays for, if it is a gateway: its own cluster's other nodes, and every node
// of clusters that cannot be dialled.
func (c *compiler) targets() []Target {
	if !c.self.Gateway || c.private {
		return nil
	}
	var out []Target
	for _, cl := range c.in.Clusters {
		own := cl.Name == c.in.Cluster
		if !own && !cl.Private {
			continue
		}
		for _, n := range cl.Nodes {
			for slice, key := range n.Keys {
				if n.ID() == c.self.ID() || slice == fleet.ManagementSlice {
					continue
				}
				t := Target{Key: key, ID: n.ID(), Slice: slice}
				if own {
					t.Endpoints = n.Endpoints()
				} else {
					t.Management = n.Keys[fleet.ManagementSlice]
				}
				if len(t.Endpoints) > 0 || !t.Management.IsZero() {
					out = append(out, t)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Target) int { return strings.Compare(a.ID+" "+a.Slice, b.ID+" "+b.Slice) })
	return out
}

// mtu is what fits every path between the slice's nodes, and by a gateway: the smallest underlay less the overhead.
func (c *compiler) mtu(slice string) int {
	m := c.local.MTU
	if m == 0 {
		m = defaultMTU
	}
	most := overhead
	for _, cl := range c.in.Clusters {
		for _, n := range cl.Nodes {
			if !n.On(slice) {
				continue
			}
			if n.MTU > 0 {
				m = min(m, n.MTU)
			}
			if slices.ContainsFunc(n.Addrs, func(a netip.Addr) bool { return a.Is6() }) {
				most = overhead + relayHead
			}
		}
	}
	return max(m-most, minimumMTU)
}

func (c *compiler) netns(slice string) string {
	return path.Join(cmp.Or(c.local.NetNS, NetNSDir), slice)
}

// link names the slice's end of a pod's veth pair: 13 characters of the 15 that Linux allows.
func link(podUID string) string {
	sum := sha256.Sum256([]byte(podUID))
	return "p" + hex.EncodeToString(sum[:6])
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func covered(blocks []fleet.Block, a netip.Addr) bool {
	return slices.ContainsFunc(blocks, func(b fleet.Block) bool { return b.Prefix.Contains(a) })
}

func comparePrefix(a, b netip.Prefix) int {
	if r := a.Addr().Compare(b.Addr()); r != 0 {
		return r
	}
	return a.Bits() - b.Bits()
}

// sorted returns a sorted copy: an intent is shared, and nobody changes a published value.
func sorted[T any](s []T, cmp func(a, b T) int) []T {
	out := slices.Clone(s)
	slices.SortFunc(out, cmp)
	return out
}

// Text prints the plan for people and goldens, a line a fact.
func (n Node) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s/%s port %d\n", n.Cluster, n.Name, n.Tunnel.Port)
	for _, s := range n.Slices {
		fmt.Fprintf(&b, "slice %s mtu %d prefixes %s\n", s.Name, s.MTU, join(s.Prefixes))
		if len(s.Networks) > 0 {
			fmt.Fprintf(&b, "  networks %s\n", join(s.Networks))
		}
		for _, a := range s.Aliases {
			fmt.Fprintf(&b, "  alias %s is %s\n", a.Addr, a.To)
		}
		for _, a := range s.Attachments {
			fmt.Fprintf(&b, "  pod %s/%s link %s addrs %s cni %s\n", a.Namespace, a.Pod, a.Link, join(a.Addrs), join(a.PodIPs))
		}
		for _, r := range s.Routes {
			if r.Link == "" {
				r.Link = "unreachable"
			}
			fmt.Fprintf(&b, "  route %s %s\n", r.Dst, r.Link)
		}
		if s.Hosts != nil {
			fmt.Fprintf(&b, "  hosts %s\n", join(s.Hosts))
		}
		for _, k := range s.Kept {
			fmt.Fprintf(&b, "  kept %s\n", k)
		}
		for _, v := range s.Services {
			fmt.Fprintf(&b, "  service %s %s %s port %d ->", v.Service, v.IP, v.Protocol, v.Port)
			for _, e := range v.Backends {
				fmt.Fprintf(&b, " %s*%d", e.Addr, e.Weight)
			}
			b.WriteByte('\n')
		}
		for _, p := range s.Policies {
			fmt.Fprintf(&b, "  policy %s pods %s ingress %v %v egress %v %v\n", p.Name, join(p.Pods), p.Ingress, p.AllowIn, p.Egress, p.AllowOut)
		}
	}
	for _, d := range n.Tunnel.Devices {
		fmt.Fprintf(&b, "device %s mtu %d addrs %s\n", d.Slice, d.MTU, join(d.Addrs))
		for _, p := range d.Peers {
			fmt.Fprintf(&b, "  peer %s key %.8s… allowed %s keepalive %d\n", p.ID, p.Key, join(p.Allowed), p.Keepalive)
			for _, w := range p.Paths {
				fmt.Fprintf(&b, "    path %s\n", w)
			}
		}
	}
	for _, g := range n.Tunnel.Gateways {
		fmt.Fprintf(&b, "gateway %s %s\n", g.Relay, g.Endpoint)
	}
	for _, nb := range n.Tunnel.Neighbors {
		fmt.Fprintf(&b, "neighbor %s key %.8s… peer %v at %s relays %s\n", nb.ID, nb.Key, nb.Peer, join(nb.Endpoints), cmp.Or(strings.Join(nb.Relays, ","), "-"))
	}
	for _, t := range n.Tunnel.Relay {
		if len(t.Endpoints) > 0 {
			fmt.Fprintf(&b, "relay %s slice %s key %.8s… to %s\n", t.ID, t.Slice, t.Key, join(t.Endpoints))
		} else {
			fmt.Fprintf(&b, "relay %s slice %s key %.8s… to where %.8s… was heard\n", t.ID, t.Slice, t.Key, t.Management)
		}
	}
	return b.String()
}

// String says "direct 10.0.0.1:51871" or "relay c2/g1 10.0.0.9:51871".
func (p Path) String() string {
	if p.Relay == "" {
		return "direct " + p.Endpoint.String()
	}
	return "relay " + p.Relay + " " + p.Endpoint.String()
}

func join[T fmt.Stringer](xs []T) string {
	if len(xs) == 0 {
		return "-"
	}
	var s []string
	for _, x := range xs {
		s = append(s, x.String())
	}
	return strings.Join(s, ",")
}
