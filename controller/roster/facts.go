// Package roster works out, from everything that a cluster's controller knows, who is on which slice, and what its
// nodes and the other clusters are told. [New] turns one snapshot of [Facts] into a [Roster], which answers:
//
//	Facts ──New──▶ Roster ──┬─ SliceOf(namespace)   which slice a namespace is on
//	                        ├─ Keys(slice)          whose addresses are to be leased
//	                        ├─ Bulletin()           what the other clusters hear
//	                        ├─ Intent(node)         what a node hears
//	                        ├─ PodStates()          what each pod's condition says
//	                        └─ Problems()           what a person must act on
//
// It does no I/O and reads no clock. Equal facts give equal answers.
package roster

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/policy"
)

// Labels that people set.
const (
	// ExcludeLabel on a pod, with value "true", keeps it off its namespace's slice.
	ExcludeLabel = "seaway.dev/exclude"
	// GatewayLabel on a node, with value "true", makes it a gateway.
	GatewayLabel = "seaway.dev/gateway"
)

// DefaultGateways is how many nodes of a cluster relay if nobody says otherwise: one can fail or be upgraded.
const DefaultGateways = 2

// Facts is everything a controller knows at one moment. New only reads it; the answers share parts of it.
type Facts struct {
	Cluster  string // this one
	Software string // version of Seaway

	// From the hub, or as last known.
	Members []Member
	Slices  []Wish

	// Of this cluster.
	Namespaces map[string]map[string]string // name → labels
	Nodes      map[string]Node
	Pods       map[string]*Pod         // by namespace/name
	Sets       map[string]Set          // StatefulSets, by namespace/name
	Needed     map[string][]netip.Addr // service addresses that every pod needs, by the Service's namespace/name
	Policies   []*networkingv1.NetworkPolicy
	Exports    []fleet.Export
	Services   []fleet.Service
	Named      bool                               // Services are known: worked out once, or remembered
	Leases     map[string]map[string][]netip.Addr // slice → key → addresses, as far as they are written down
	Leaving    bool
	Scaling    []fleet.Scaling // what this cluster's autoscaler says, without slices

	Reports   map[string]*fleet.Report   // by node; seeded with what was last known
	Heard     map[string]bool            // nodes whose report is their own and not a seed
	Bulletins map[string]*fleet.Bulletin // of the other clusters, as received

	// Here counts the changes of everything but Bulletins, Exports, Services, Named and Scaling: what these are changed by is what
	// happens all the time in a large fleet. 0: nobody counts.
	Here uint64
}

// Member is a cluster of the fleet, as the hub has it.
type Member struct {
	Name          string            `json:"name"`
	Private       bool              `json:"private,omitempty"`
	Region        string            `json:"region,omitempty"`
	Provider      string            `json:"provider,omitempty"`
	GatewayCount  int               `json:"gatewayCount,omitempty"` // 0 means DefaultGateways
	GatewayLabels map[string]string `json:"gatewayLabels,omitempty"`
	Signer        fleet.Key         `json:"signer,omitzero"`   // with which it signs what it says; zero while not known
	Revoked       []string          `json:"revoked,omitempty"` // nodes of it that nobody is to speak with
}

// Wish is a slice as people want it. Its Clusters are resolved: none is left out because "all" was meant.
type Wish struct {
	fleet.Slice
	Created  time.Time       `json:"created"`            // the oldest slice wins a namespace
	Names    []string        `json:"names,omitempty"`    // namespaces by name
	Selector string          `json:"selector,omitempty"` // namespaces by label, as labels.Parse reads it; "" is none
	All      bool            `json:"all,omitempty"`      // an empty selector was given, which selects every namespace
	parsed   labels.Selector // of Selector
}

// Node is a node of this cluster, as its API server has it.
type Node struct {
	Labels      map[string]string
	Ready       bool
	Schedulable bool
	Addrs       []netip.Addr   // its own
	PodCIDRs    []netip.Prefix // from which its pods get their cluster addresses, if the cluster says so
}

// Pod is a pod of this cluster, as its API server has it.
type Pod struct {
	UID         string
	Namespace   string
	Name        string
	Node        string
	Labels      map[string]string
	StatefulSet bool // it is one's, so its name comes back
	HostNetwork bool
	Finished    bool
	Ready       bool
	PodIPs      []netip.Addr
	Ports       []policy.NamedPort

	Condition  Condition // seaway.dev/attached as it stands; zero if there is none
	Annotation string    // seaway.dev/slice-ips as it stands
}

// Set is a StatefulSet of this cluster: its pods have names, and so addresses, before they are there.
type Set struct {
	Namespace string
	Name      string
	Service   string // spec.serviceName, under which its pods have their names
	First     int    // the first ordinal
	Count     int    // how many pods it is to have
	Excluded  bool   // its pods are on no slice: on the host's network, or people say so by label
}

// Pods lists the names of a set's pods, in the order of their ordinals.
func (s Set) Pods() []string {
	out := make([]string, s.Count)
	for i := range out {
		out[i] = s.Name + "-" + strconv.Itoa(s.First+i)
	}
	return out
}

// Condition is a pod's seaway.dev/attached.
type Condition struct {
	Status  string // True, False; "" means none
	Reason  string
	Message string
}

// Key names the pod in the ledger of addresses: for a StatefulSet's pod its name, which comes back, else its UID,
// which never does.
func (p *Pod) Key() string {
	if p.StatefulSet {
		return p.Namespace + "/" + p.Name
	}
	return p.UID
}

// never are the namespaces that are on no slice, whatever a selector says: the cluster's own.
var never = []string{"kube-system", "kube-public", "kube-node-lease", "seaway-system"}

// Rules says of each of the namespaces that a slice has got by which of its rules it wants them.
func (w *Wish) Rules(namespaces []string) map[string]string {
	out := map[string]string{}
	for _, ns := range namespaces {
		switch {
		case w.All:
			out[ns] = "the slice takes every namespace"
		case slices.Contains(w.Names, ns):
			out[ns] = "named in spec.namespaces.names"
		default:
			out[ns] = "its labels match spec.namespaces.selector " + w.Selector
		}
	}
	return out
}

// selects tells whether a slice wants a namespace.
func (w *Wish) selects(namespace string, set map[string]string) bool {
	if slices.Contains(never, namespace) {
		return false
	}
	if w.All || slices.Contains(w.Names, namespace) {
		return true
	}
	if w.Selector == "" {
		return false
	}
	if w.parsed == nil {
		parsed, err := labels.Parse(w.Selector)
		if err != nil {
			parsed = labels.Nothing()
		}
		w.parsed = parsed
	}
	return w.parsed.Matches(labels.Set(set))
}
