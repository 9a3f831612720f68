package fleet

import (
	"net/netip"
	"time"
)

// WireVersion is the version of the messages below. A reader refuses a higher one and says so.
//
//	1  2026-11  first
const WireVersion = 1

// Bulletin is what a cluster says of itself to the others: the only thing they know about it. Only that cluster
// originates it; everyone keeps the newest (Epoch, then Rev) of each.
type Bulletin struct {
	Version int    `json:"version"` // WireVersion of the writer
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch"` // rises with each new leader of the cluster's controller (unix nanoseconds)
	Rev     uint64 `json:"rev"`   // rises with each change within an epoch

	Private  bool     `json:"private,omitempty"`
	Region   string   `json:"region,omitempty"`
	Provider string   `json:"provider,omitempty"`
	Nodes    []Node   `json:"nodes,omitempty"`
	Pods     []Pod    `json:"pods,omitempty"` // of all slices; PodIPs and UID left out
	Exports  []Export `json:"exports,omitempty"`

	Software string `json:"software,omitempty"` // version of Seaway that wrote it
	// Demand is how many addresses of each family the cluster needs on a slice: those in use or reserved, those at
	// rest, and those that pods and services wait for. The hub adds blocks by it.
	Demand map[string]int `json:"demand,omitempty"`
	// Signer is the Ed25519 public key with which the cluster signs what it says. The hub, which knows from whom it
	// has this bulletin, publishes it in the Cluster's status; what a bulletin itself says of it proves nothing.
	Signer Key `json:"signer,omitzero"`
	// Networks are those from which the cluster's nodes give pods their addresses, as far as Kubernetes says so, joined
	// where they meet. Only the hub reads them: what others believe of a cluster's networks they have from the hub.
	Networks []netip.Prefix `json:"networks,omitempty"`
	// Needed are addresses that every pod of the cluster must reach by its own network: the API server's and DNS's
	// service addresses. No other cluster's pod network may hold them. Only the hub reads them.
	Needed []netip.Addr `json:"needed,omitempty"`
	// Scaling is what the cluster's autoscaler says of workloads that it divides with others, sorted; MaxScaling at most.
	Scaling []Scaling `json:"scaling,omitempty"`
}

// BulletinDelta is what changed in a bulletin since its Rev was Base. Lists hold what is new or different; the Gone
// lists name what is no more.
type BulletinDelta struct {
	Version int    `json:"version"` // WireVersion of the writer
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch"`
	Rev     uint64 `json:"rev"`
	Base    uint64 `json:"base"` // the Rev, of the same epoch, on which it builds

	Head        *Bulletin     `json:"head,omitempty"` // the bulletin without its lists, if that changed
	Nodes       []Node        `json:"nodes,omitempty"`
	NodesGone   []string      `json:"nodesGone,omitempty"` // names
	Pods        []Pod         `json:"pods,omitempty"`
	PodsGone    []string      `json:"podsGone,omitempty"` // namespace/name
	Exports     []ExportDelta `json:"exports,omitempty"`
	ExportsGone []string      `json:"exportsGone,omitempty"` // namespace/name
}

// ExportDelta is a new or changed export: everything but the endpoints whole, of the endpoints those that are new or
// different.
type ExportDelta struct {
	Export
	Gone []string `json:"gone,omitempty"` // endpoints that are no more, by Endpoint.ID
}

// Newer tells whether b is to replace old.
func (b *Bulletin) Newer(old *Bulletin) bool {
	if old == nil {
		return true
	}
	if b.Epoch != old.Epoch {
		return b.Epoch > old.Epoch
	}
	return b.Rev > old.Rev
}

// Intent is what a controller tells one of its nodes: everything the node needs to compile what it should be, and
// no more. Slices are those whose pods the node hosts; on a gateway, Clusters has the keys of all slices of its own
// cluster's nodes as well, because it relays for them.
type Intent struct {
	Version  int       `json:"version"`
	Epoch    uint64    `json:"epoch"`
	Rev      uint64    `json:"rev"`
	Cluster  string    `json:"cluster"`
	Node     string    `json:"node"`
	Clusters []Cluster `json:"clusters,omitempty"` // sorted by name; this cluster included
	Slices   []Slice   `json:"slices,omitempty"`   // that this node hosts, sorted by name
	Pods     []Pod     `json:"pods,omitempty"`     // on those slices, in all clusters
	Services []Service `json:"services,omitempty"` // on all slices that this cluster is in: the names to answer
	Policies []Policy  `json:"policies,omitempty"` // that select pods on this node
	// Sights is what other nodes of this cluster have measured of nodes with pods on slices that this node does not host,
	// so that it does not measure them itself, sorted. Names are answered by it.
	Sights []Sight `json:"sights,omitempty"`
	// Prefixes are those of all slices that this cluster is on, whether the node hosts them or not, sorted: in them no
	// addresses have names but those of Services.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	// Unsure says that the services are not all known yet: a name that is not among them may exist.
	Unsure bool   `json:"unsure,omitempty"`
	Purge  bool   `json:"purge,omitempty"` // leave: remove every trace from the node and report it
	Carry  *Carry `json:"carry,omitempty"` // set on nodes that carry bulletins to other clusters
}

// Carry is what a node needs to know to carry bulletins: with whom to exchange them over the management slice, and
// whose signatures to believe.
type Carry struct {
	Signers map[string]Key `json:"signers,omitempty"` // cluster → the public key it signs with
	Peers   []CarryPeer    `json:"peers,omitempty"`   // carriers of other clusters, sorted by ID
}

// CarryPeer is a carrier of another cluster. Of each two, one dials.
type CarryPeer struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Dial    bool   `json:"dial,omitempty"`  // this node dials it
	Spare   int    `json:"spare,omitempty"` // 0: dialled always; others of its cluster, in this order, if that fails
}

// ID names the carrier in the whole fleet: "cluster/node".
func (p CarryPeer) ID() string { return p.Cluster + "/" + p.Node }

// IntentDelta is what changed in a node's intent since its Rev was Base. Lists hold what is new or different; the Gone
// lists name what is no more.
type IntentDelta struct {
	Version int    `json:"version"`
	Epoch   uint64 `json:"epoch"`
	Rev     uint64 `json:"rev"`
	Base    uint64 `json:"base"` // the Rev, of the same epoch, on which it builds; never 0
	Node    string `json:"node"`

	Head         *Intent        `json:"head,omitempty"` // the intent without its pods and services, if that changed
	Pods         []Pod          `json:"pods,omitempty"`
	PodsGone     []Pod          `json:"podsGone,omitempty"` // their names alone
	Services     []ServiceDelta `json:"services,omitempty"`
	ServicesGone []string       `json:"servicesGone,omitempty"` // namespace/name
}

// ServiceDelta is a new or changed service: everything but the endpoints whole, of the endpoints those that are new or
// different.
type ServiceDelta struct {
	Service
	Gone []string `json:"gone,omitempty"` // endpoints that are no more, by Endpoint.ID
}

// Policy says who may reach some pods of a node over a slice. It is made by the controller from SlicePolicies and
// from the Kubernetes NetworkPolicies that already select those pods, so that a slice never opens what the cluster
// closed. Several policies on one pod add up, as NetworkPolicies do; a pod that none selects is open.
type Policy struct {
	Name     string       `json:"name"`
	Slice    string       `json:"slice"`
	Pods     []netip.Addr `json:"pods"`               // the selected pods' slice addresses, on this node
	Ingress  bool         `json:"ingress"`            // governs what comes in
	Egress   bool         `json:"egress"`             // governs what goes out
	AllowIn  []PolicyRule `json:"allowIn,omitempty"`  // if Ingress
	AllowOut []PolicyRule `json:"allowOut,omitempty"` // if Egress
}

// PolicyRule allows some peers on some ports.
type PolicyRule struct {
	Peers []netip.Prefix `json:"peers,omitempty"` // slice addresses; none means everyone
	Ports []PolicyPort   `json:"ports,omitempty"` // none means all
}

// PolicyPort is a port range of one transport.
type PolicyPort struct {
	Protocol Protocol `json:"protocol"`
	First    uint16   `json:"first,omitempty"` // 0 means all ports of the protocol
	Last     uint16   `json:"last,omitempty"`
}

// Report is what a node tells its controller, whenever something in it changes and every few minutes besides.
type Report struct {
	Version     int            `json:"version"`
	Node        string         `json:"node"`
	IntentRev   uint64         `json:"intentRev"` // of the newest intent that is fully applied
	Addrs       []netip.Addr   `json:"addrs,omitempty"`
	Port        uint16         `json:"port,omitempty"`
	MTU         int            `json:"mtu,omitempty"`
	Keys        map[string]Key `json:"keys,omitempty"` // KeyName → public key
	Driver      string         `json:"driver,omitempty"`
	Attachments []Attachment   `json:"attachments,omitempty"`
	Peers       []PeerState    `json:"peers,omitempty"`
	Problems    []Problem      `json:"problems,omitempty"`
	Sights      []Sight        `json:"sights,omitempty"`   // what it holds of the nodes that it measures, sorted
	Purged      bool           `json:"purged,omitempty"`   // nothing of Seaway is left on the node
	Carrying    []CarryState   `json:"carrying,omitempty"` // on a node that carries bulletins: how that goes, sorted by peer
}

// CarryState is how a carrier of bulletins gets on with another one.
type CarryState struct {
	Peer    string         `json:"peer"` // cluster/node
	Up      bool           `json:"up"`   // they exchange bulletins now
	Since   time.Time      `json:"since,omitzero"`
	Error   string         `json:"error,omitempty"`   // why not
	Refused map[string]int `json:"refused,omitempty"` // what was not taken from it, by reason: see bulletin.Reason
}

// Attachment is the state of one pod's link to its slice.
type Attachment struct {
	PodUID    string    `json:"podUID"`
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Slice     string    `json:"slice"`
	Attached  bool      `json:"attached"`          // the link is there and a probe went through it
	Reason    string    `json:"reason"`            // Attached, or why not: see docs/problems
	Message   string    `json:"message,omitempty"` // what to do next
	Since     time.Time `json:"since,omitzero"`    // of this state
	Took      float64   `json:"tookMs,omitempty"`  // milliseconds from the sandbox's birth to the probe's answer
	NetNS     uint64    `json:"netns,omitempty"`   // inode of the pod's network namespace
}

// PeerState is how one node reaches another on one slice.
type PeerState struct {
	Slice     string    `json:"slice"`
	Peer      string    `json:"peer"` // cluster/node
	Path      string    `json:"path"` // "direct 10.0.0.1:51871", "relay c2/g1 10.0.0.9:51871", "none"
	Handshake time.Time `json:"handshake,omitzero"`
	RxBytes   uint64    `json:"rxBytes"`
	TxBytes   uint64    `json:"txBytes"`
	// What probes measured of the node, whatever the slice: see [Reach]. Empty if it is not probed.
	State ReachState    `json:"state,omitempty"`
	RTT   time.Duration `json:"rtt,omitempty"`
	Loss  float64       `json:"loss,omitempty"`
	Why   string        `json:"why,omitempty"` // what State and Path were concluded from, if there is something to say
}

// Problem is something that a person must act on: what, where, since when, what to do. The same value is shown by
// conditions, the CLI, events and metrics.
type Problem struct {
	Reason  string    `json:"reason"` // CamelCase; has a page section in docs/problems
	Where   string    `json:"where"`  // "slice pay", "pod shop/web-0", ...
	Message string    `json:"message"`
	Next    string    `json:"next"` // what to do
	Since   time.Time `json:"since,omitzero"`
}
