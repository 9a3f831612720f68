package fleet

import (
	"net/netip"
	"time"
)

// Status is what a cluster's controller knows of the state of its own cluster, for people: the CLI and the console
// read it. It lies as JSON under the key "status" in ConfigMap seaway-system/seaway-status. It is bounded: lists that
// would be too long are cut, and Truncated says so.
type Status struct {
	Version   int           `json:"version"` // WireVersion of the writer
	Cluster   string        `json:"cluster"`
	Leader    string        `json:"leader"`            // pod of the controller that wrote it
	Written   time.Time     `json:"written"`           // when
	Hub       HubState      `json:"hub"`               // the link to the hub
	Nodes     []NodeState   `json:"nodes,omitempty"`   // sorted by name
	Slices    []SliceState  `json:"slices,omitempty"`  // that this cluster is in, sorted by name
	Members   []MemberState `json:"members,omitempty"` // the other clusters, as this one hears them
	Problems  []Problem     `json:"problems,omitempty"`
	Purged    string        `json:"purged,omitempty"` // while leaving: "n/m" nodes have no trace left
	Truncated bool          `json:"truncated,omitempty"`
}

// HubState is the state of a controller's link to the hub.
type HubState struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"` // of this state
	Error     string    `json:"error,omitempty"`
}

// NodeState is one node as its agent reports it.
type NodeState struct {
	Name      string       `json:"name"`
	Connected bool         `json:"connected"`         // the agent's stream is open
	Heard     time.Time    `json:"heard,omitzero"`    // last report
	Applied   bool         `json:"applied,omitempty"` // the newest intent is fully applied
	Gateway   bool         `json:"gateway,omitempty"` // relays for this cluster
	Driver    string       `json:"driver,omitempty"`  // of its tunnels: kernel or userspace
	Addrs     []netip.Addr `json:"addrs,omitempty"`   // underlay
	Port      uint16       `json:"port,omitempty"`    // UDP
	MTU       int          `json:"mtu,omitempty"`     // of the underlay, bytes
	Slices    []string     `json:"slices,omitempty"`  // that it hosts pods of
	Pods      []Attachment `json:"pods,omitempty"`    // sorted by namespace and pod
	Peers     []PeerState  `json:"peers,omitempty"`   // sorted by slice and peer
	Purged    bool         `json:"purged,omitempty"`  // while leaving
}

// SliceState is one slice as this cluster sees it.
type SliceState struct {
	Name       string         `json:"name"`
	Prefixes   []netip.Prefix `json:"prefixes,omitempty"`
	Blocks     []netip.Prefix `json:"blocks,omitempty"`     // from which this cluster hands out addresses
	Namespaces []string       `json:"namespaces,omitempty"` // of this cluster
	// Rules says for each of them by which rule of the slice it is on it.
	Rules    map[string]string `json:"rules,omitempty"`
	Pods     int               `json:"pods"`              // of this cluster, with an address
	Attached int               `json:"attached"`          // of those, with a probed link
	Remote   int               `json:"remote"`            // pods of other clusters
	Services int               `json:"services"`          // imported or exported
	Leased   int               `json:"leased"`            // addresses in use or reserved, of the fuller family
	Resting  int               `json:"resting,omitempty"` // addresses released and not yet free
}

// MemberState is another cluster as its bulletin tells.
type MemberState struct {
	Name    string    `json:"name"`
	Private bool      `json:"private,omitempty"`
	Epoch   uint64    `json:"epoch,omitempty"`
	Rev     uint64    `json:"rev,omitempty"`
	Heard   time.Time `json:"heard,omitzero"` // when its bulletin last changed
	Nodes   int       `json:"nodes"`
	Pods    int       `json:"pods"`
	Exports int       `json:"exports"`
	Refused int       `json:"refused,omitempty"` // entries of its bulletin that were not true to what it was given
	// Way is how its bulletin came last: by "carriers" over the management slice, its own ones or a third cluster's if
	// Direct is 0, or by the "hub" through its mailbox there.
	Way string `json:"way,omitempty"`
	// Direct counts the nodes of this cluster that exchange bulletins with one of its now.
	Direct int `json:"direct"`
	// Refusals are what its carriers sent and was not taken, by reason (see bulletin.Reason), since the carriers here
	// started. A cluster that behaves has none.
	Refusals map[string]int `json:"refusals,omitempty"`
}
