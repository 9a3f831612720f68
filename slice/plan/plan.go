// Package plan compiles what a fleet wants into what one node should be.
//
// [Compile] is a pure function from a [fleet.Intent] to a [Node]: the tunnel's devices, peers and paths, each slice's
// namespace with its pods, routes and services, and the directory of keys that a gateway relays for. Nothing here
// reads a clock, a socket, the kernel or Kubernetes. The doers (packages tunnel and datapath) compare a Node with the
// world and apply the difference; explain, diff and the drawings print the same value.
//
//	intent ──Compile──▶ Node ──┬─ Tunnel ──▶ tunnel: WireGuard devices, relay
//	                           └─ Slices ──▶ datapath: namespaces, veths, routes, nftables
package plan

import (
	"net/netip"

	"seaway.dev/seaway/fleet"
)

// Paths on the node. They lie in directories that the agent and the tunnel share with the host.
const (
	RunDir   = "/run/seaway"     // gone with a reboot: namespaces, sockets
	StateDir = "/var/lib/seaway" // kept: private keys, the last intent
	NetNSDir = RunDir + "/netns" // one mount per slice
	TunLink  = "wg0"             // the WireGuard device in a slice's namespace
	PodLink  = "slice0"          // a pod's end of its link
)

// The pod's next hop: the other end of its link, in the slice's namespace. The addresses are link-local, so they
// can be the same on every link.
var (
	Gateway4 = netip.MustParseAddr("169.254.77.1")
	Gateway6 = netip.MustParseAddr("fe80::5ea:1")
)

// Node is what one node should be.
type Node struct {
	Cluster string  `json:"cluster"`
	Name    string  `json:"name"`
	Tunnel  Tunnel  `json:"tunnel"`
	Slices  []Slice `json:"slices,omitempty"` // sorted by name; the management slice is only in Tunnel
}

// Tunnel is what the tunnel process of a node should be.
type Tunnel struct {
	Port    uint16   `json:"port"`
	Devices []Device `json:"devices,omitempty"` // sorted by slice and generation
	Relay   []Target `json:"relay,omitempty"`   // sorted by node, then slice; empty unless the node is a gateway
	// Gateways are all that may turn up as the far end of a path, because a peer chose them: known by name, then, a
	// session that came in by one is seen to be relayed.
	Gateways []Path `json:"gateways,omitempty"`
	// Neighbors are the nodes that are probed, answered and, on a gateway, relayed for by name. Sorted by ID.
	Neighbors []Neighbor `json:"neighbors,omitempty"`
	Cluster   string     `json:"cluster,omitempty"` // of this node
	Gateway   bool       `json:"gateway,omitempty"` // relay for neighbors by name
}

// Neighbor is another node as the probes see it: by its key on the management slice, whatever slices it is on.
type Neighbor struct {
	ID        string           `json:"id"`                  // cluster/node
	Key       fleet.Key        `json:"key"`                 // on the management slice
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"` // where it can be dialled; none: it must dial us
	// Relays are the IDs of gateways, neighbors themselves, by which it may be reached too, the preferred one first.
	Relays []string `json:"relays,omitempty"`
	Peer   bool     `json:"peer,omitempty"` // it shares a slice with this node: watched closely
}

// Device is one WireGuard device: the node's end of one slice.
type Device struct {
	Slice string `json:"slice"`
	// Generation is that of the device's key, and of its peers' keys. Devices of one slice share the link: each packet
	// goes by the newest one that has a session with its peer.
	Generation uint64 `json:"generation,omitempty"`

	NetNS string         `json:"netns"` // path of the namespace that holds the device
	Link  string         `json:"link"`
	MTU   int            `json:"mtu"`             // inner, bytes
	Addrs []netip.Prefix `json:"addrs,omitempty"` // on the device itself: the management slice only
	Peers []Peer         `json:"peers,omitempty"` // sorted by ID
}

// Name tells devices apart, and is the name of the device's key.
func (d Device) Name() string { return fleet.KeyName(d.Slice, d.Generation) }

// Peer is another node on the same slice.
type Peer struct {
	ID        string         `json:"id"` // cluster/node
	Key       fleet.Key      `json:"key"`
	Allowed   []netip.Prefix `json:"allowed,omitempty"`   // its pods' addresses: what it may send from and is sent
	Paths     []Path         `json:"paths,omitempty"`     // ways to it, the preferred one first; none: it must dial us
	Keepalive int            `json:"keepalive,omitempty"` // seconds; set by the side that must keep a NAT open
}

// Path is one way to a peer.
type Path struct {
	Endpoint netip.AddrPort `json:"endpoint"`
	Relay    string         `json:"relay,omitempty"` // the gateway's ID; "" means direct
}

// Target is a key for which a gateway forwards handshake initiations, and where to.
type Target struct {
	Key       fleet.Key        `json:"key"`
	ID        string           `json:"id"` // cluster/node
	Slice     string           `json:"slice"`
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"` // of a node that can be dialled
	// Management is set instead of Endpoints for a node that cannot be dialled: the relay forwards to wherever the
	// management device last heard the peer with this key.
	Management fleet.Key `json:"management,omitzero"`
}

// Slice is one slice's namespace on a node.
type Slice struct {
	Name        string         `json:"name"`
	NetNS       string         `json:"netns"`
	MTU         int            `json:"mtu"`
	Prefixes    []netip.Prefix `json:"prefixes"`
	Attachments []Attachment   `json:"attachments,omitempty"` // sorted by pod
	Routes      []Route        `json:"routes,omitempty"`      // in the slice's namespace, sorted
	// Hosts are the addresses of all pods on the slice that are there and can be reached, sorted. Anything else in the
	// slice's prefixes is refused at once, and connections to what was among them and is no more are ended. Nil: the
	// slice does not know its hosts (the management slice) and refuses nothing.
	Hosts []netip.Addr `json:"hosts,omitempty"`
	// Networks are the other clusters' pod networks where pods are reached at their own addresses too: this node's pods
	// route them into the slice, and Aliases says who is where. Sorted; mostly none.
	Networks []netip.Prefix `json:"networks,omitempty"`
	Aliases  []Alias        `json:"aliases,omitempty"` // sorted by address
	// Kept names the services (namespace/name) none of whose endpoints can be reached: their last answer stands.
	Kept []string `json:"kept,omitempty"`
	// Seq orders the plans of one agent's life: the data path never goes back to an older one. 0: not ordered.
	Seq      uint64         `json:"-"`
	Services []Balance      `json:"services,omitempty"` // sorted by address and port
	Policies []fleet.Policy `json:"policies,omitempty"`
}

// Attachment links one pod of this node with the slice.
type Attachment struct {
	PodUID    string         `json:"podUID"`
	Namespace string         `json:"namespace"`
	Pod       string         `json:"pod"`
	Addrs     []netip.Addr   `json:"addrs"`
	PodIPs    []netip.Addr   `json:"podIPs,omitempty"` // the CNI's: replies from them keep leaving by the CNI
	Link      string         `json:"link"`             // the slice's end of the veth pair
	Prefixes  []netip.Prefix `json:"prefixes"`         // what the pod routes into the link: the slice's and its Networks, never a default
}

// Alias is the address that a pod of another cluster has in that cluster's network. What is sent to it goes to the pod's
// address on the slice.
type Alias struct {
	Addr netip.Addr `json:"addr"`
	To   netip.Addr `json:"to"` // of the same family
}

// Route is a route in a slice's namespace.
type Route struct {
	Dst  netip.Prefix `json:"dst"`
	Link string       `json:"link"` // "" means unreachable
}

// Balance is a service address and those who answer for it, chosen at random by weight.
type Balance struct {
	Service  string         `json:"service"` // namespace/name
	IP       netip.Addr     `json:"ip"`
	Protocol fleet.Protocol `json:"protocol"`
	Port     uint16         `json:"port"`
	Backends []Backend      `json:"backends,omitempty"` // none: new connections are refused
	Affinity int32          `json:"affinity,omitempty"` // seconds a client stays with its backend, 0 = no affinity
}

// Backend is one endpoint of a service port.
type Backend struct {
	Addr   netip.AddrPort `json:"addr"`
	Weight int            `json:"weight"` // relative, at least 1
}
