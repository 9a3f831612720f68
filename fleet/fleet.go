// Package fleet holds the nouns that every part of Seaway shares: clusters, nodes, slices, pods, services, and the
// messages about them. It decides nothing and imports nothing but the standard library. Kubernetes objects and wire
// forms are translated to and from these nouns at the edges (packages kube, controller and hub).
//
// The words, once:
//
//   - hub: the cluster whose API server stores what people want.
//   - member: a cluster that joined the fleet. It dials out to the hub and never the other way round.
//   - node: a machine of a member. Private keys are made on it and never leave it.
//   - slice: an application's own network across clusters.
//   - management slice: the built-in slice over which nodes and gateways know each other's whereabouts.
//   - gateway: a node that relays for its cluster what it cannot read.
//   - private cluster: one whose nodes can dial out but cannot be dialled.
//   - bulletin: what a cluster says of itself to the others.
//   - intent: what a controller tells one of its nodes.
//   - report: what a node tells its controller.
//
// All values are plain data: comparable by reflect.DeepEqual, sorted by the functions that make them, safe to share
// once published because nobody changes a published value.
package fleet

import (
	"net/netip"
	"time"
)

// ManagementSlice is the name of the built-in slice that nodes and gateways share. No user's slice can be called so.
const ManagementSlice = "seaway"

// DrillMark is the annotation of a node that a drill has cordoned: for how long that may count, as Go writes a duration.
const DrillMark = "seaway.dev/drill-cordoned"

// ManagementPrefix is where the nodes' addresses in the management slice lie: a unique local prefix (RFC 4193) drawn
// once at random for Seaway. A node's address is derived from its name, so nobody has to hand it out.
var ManagementPrefix = netip.MustParsePrefix("fd5e:a3a9:91c4:5e1f::/64")

// DefaultPort is the one UDP port of a node (or gateway), for all slices.
const DefaultPort = 51871

// Cluster is a member of the fleet as the others see it.
type Cluster struct {
	Name     string `json:"name"`
	Private  bool   `json:"private,omitempty"` // its nodes cannot be dialled from outside
	Region   string `json:"region,omitempty"`
	Provider string `json:"provider,omitempty"`
	Nodes    []Node `json:"nodes,omitempty"` // those that host a slice's pods, and the gateways
}

// Node is a machine of a member cluster.
type Node struct {
	Name    string         `json:"name"`
	Cluster string         `json:"cluster"`
	Addrs   []netip.Addr   `json:"addrs,omitempty"` // underlay addresses, the preferred one first
	Port    uint16         `json:"port,omitempty"`  // the node's one UDP port
	Gateway bool           `json:"gateway,omitempty"`
	Carrier bool           `json:"carrier,omitempty"` // carries bulletins to other clusters over the management slice
	MTU     int            `json:"mtu,omitempty"`     // of its underlay link, bytes
	Keys    map[string]Key `json:"keys,omitempty"`    // KeyName (a slice's name, for the first generation) → public key
}

// ID names a node in the whole fleet: "cluster/node".
func (n Node) ID() string { return n.Cluster + "/" + n.Name }

// Endpoints lists the node's dialable UDP endpoints, the preferred one first.
func (n Node) Endpoints() []netip.AddrPort {
	eps := make([]netip.AddrPort, 0, len(n.Addrs))
	for _, a := range n.Addrs {
		eps = append(eps, netip.AddrPortFrom(a, n.Port))
	}
	return eps
}

// Slice is an application's own network across clusters.
type Slice struct {
	Name       string         `json:"name"`
	Prefixes   []netip.Prefix `json:"prefixes"`             // at most one per family
	Clusters   []string       `json:"clusters,omitempty"`   // members of the slice, sorted
	Namespaces []string       `json:"namespaces,omitempty"` // Kubernetes namespaces of this cluster that are on it, sorted
	Blocks     []Block        `json:"blocks,omitempty"`     // which cluster hands out which addresses
	// Networks are the clusters' own pod networks, of a slice on which headless names answer with the pods' own
	// addresses. No two clusters' overlap. None on other slices, and on one whose clusters' networks are not apart.
	Networks []Block `json:"networks,omitempty"`
	// KeyGeneration is what generation of keys the nodes are to have: it rises with each change of the slice's keys.
	KeyGeneration uint64 `json:"keyGeneration,omitempty"`
}

// Block is a part of a slice's prefix from which one cluster hands out addresses.
type Block struct {
	Cluster string       `json:"cluster"`
	Prefix  netip.Prefix `json:"prefix"`
}

// Pod is a pod on a slice.
type Pod struct {
	UID       string       `json:"uid,omitempty"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Slice     string       `json:"slice"`
	Cluster   string       `json:"cluster"`
	Node      string       `json:"node"`            // without the cluster's name
	Addrs     []netip.Addr `json:"addrs,omitempty"` // on the slice, at most one per family
	PodIPs    []netip.Addr `json:"podIPs,omitempty"`
	Ready     bool         `json:"ready,omitempty"`
	// Labels lets other clusters match the pod with their policies' selectors. Only in bulletins, few and short.
	Labels map[string]string `json:"labels,omitempty"`
}

// Key returns "namespace/name".
func (p Pod) Key() string { return p.Namespace + "/" + p.Name }

// Protocol is a transport as Kubernetes writes it: TCP, UDP or SCTP.
type Protocol string

// The transports a service port can have.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// Port is a port of a service.
type Port struct {
	Name        string   `json:"name,omitempty"`
	Protocol    Protocol `json:"protocol"`
	Port        uint16   `json:"port"`
	AppProtocol string   `json:"appProtocol,omitempty"`
}

// Endpoint is one pod behind an exported service, at its slice address.
type Endpoint struct {
	Cluster  string       `json:"cluster"`
	Node     string       `json:"node,omitempty"`
	Pod      string       `json:"pod,omitempty"`
	Hostname string       `json:"hostname,omitempty"` // its label in per-pod records: a StatefulSet pod's name
	Addrs    []netip.Addr `json:"addrs"`
	// PodAddrs are the pod's addresses in its own cluster's network, at most one per family, if the slice's headless
	// names answer with those; see [Endpoint.Named].
	PodAddrs []netip.Addr      `json:"podAddrs,omitempty"`
	Ready    bool              `json:"ready,omitempty"`
	Ports    map[string]uint16 `json:"ports,omitempty"` // service port's name → the pod's port number
	// Weight is what share of the traffic the endpoint's cluster wants it to have, relative to others; 0 counts as 1.
	Weight int `json:"weight,omitempty"`
	// Rank orders a service's endpoints by their distance from the node that answers, nearest lowest. Never on the wire.
	Rank int `json:"-"`
}

// ID names an endpoint among those of one service.
func (e Endpoint) ID() string { return e.Cluster + "/" + e.Pod + "/" + e.Hostname }

// Named is what headless names and EndpointSlices say of the endpoint: its slice addresses, each replaced by its pod's
// own address of that family if there is one.
func (e Endpoint) Named() []netip.Addr {
	if len(e.PodAddrs) == 0 {
		return e.Addrs
	}
	out := make([]netip.Addr, len(e.Addrs))
	for i, a := range e.Addrs {
		out[i] = a
		for _, own := range e.PodAddrs {
			if own.Is4() == a.Is4() {
				out[i] = own
			}
		}
	}
	return out
}

// Export is a service that a cluster offers to the slice of its namespace (an MCS ServiceExport and its Service).
type Export struct {
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	Slice     string     `json:"slice"`
	Created   time.Time  `json:"created"` // of the ServiceExport: the oldest wins conflicts (KEP-1645)
	Headless  bool       `json:"headless,omitempty"`
	Ports     []Port     `json:"ports,omitempty"`
	Affinity  bool       `json:"affinity,omitempty"`        // sessionAffinity: ClientIP
	Timeout   int32      `json:"affinityTimeout,omitempty"` // seconds, 0 = Kubernetes' default (10800)
	Families  []string   `json:"ipFamilies,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`

	InternalTrafficPolicy string            `json:"internalTrafficPolicy,omitempty"`
	TrafficDistribution   string            `json:"trafficDistribution,omitempty"`
	Labels                map[string]string `json:"labels,omitempty"`      // spec.exportedLabels
	Annotations           map[string]string `json:"annotations,omitempty"` // spec.exportedAnnotations
}

// Key returns "namespace/name".
func (e Export) Key() string { return e.Namespace + "/" + e.Name }

// Service is an import as one cluster sees it: the exports of one name merged by MCS's rules, with the addresses
// handed out here.
type Service struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Slice     string       `json:"slice"`
	IPs       []netip.Addr `json:"ips,omitempty"` // ClusterSetIPs, local to this cluster; none if headless
	Headless  bool         `json:"headless,omitempty"`
	Ports     []Port       `json:"ports,omitempty"`
	Affinity  bool         `json:"affinity,omitempty"`
	Timeout   int32        `json:"affinityTimeout,omitempty"`
	Clusters  []string     `json:"clusters,omitempty"` // that export it
	Endpoints []Endpoint   `json:"endpoints,omitempty"`

	InternalTrafficPolicy string `json:"internalTrafficPolicy,omitempty"` // Cluster or Local
	TrafficDistribution   string `json:"trafficDistribution,omitempty"`   // PreferClose and its like, "" for none
}

// Key returns "namespace/name".
func (s Service) Key() string { return s.Namespace + "/" + s.Name }
