package fleet

import "time"

// ReachState is what a node holds of another after measuring it.
type ReachState string

// The states of another node, as the measuring node sees it. Only ReachDown takes endpoints away.
const (
	ReachUnknown ReachState = "unknown" // nothing measured yet: treated as up
	ReachUp      ReachState = "up"
	ReachGray    ReachState = "gray" // it answers, with loss or delay beyond what the path usually has
	ReachDown    ReachState = "down" // no path reaches it: it is dead, or cut off from here
)

// Reach is what a node has measured of another node: whether it can be reached at all, by which path, and how far it
// is. It is made by the tunnel process, which sends the packets, and decides locally what is used.
type Reach struct {
	Node  string     `json:"node"` // cluster/node
	State ReachState `json:"state"`
	Path  string     `json:"path,omitempty"` // as in PeerState.Path
	// RTT is the smoothed round trip on the path in use, 0 if none was measured.
	RTT time.Duration `json:"rtt,omitempty"`
	// Loss is the share of probes lost lately on the path in use, 0 to 1.
	Loss  float64   `json:"loss,omitempty"`
	Since time.Time `json:"since,omitzero"` // of this state
	// Why tells a person what the state was concluded from: "no answer on 3 paths for 180ms; witness c3/n1 does not reach it".
	Why string `json:"why,omitempty"`
}

// Sight is what a node holds of another, as far as it is of use to those who do not measure it: steady, and few words.
type Sight struct {
	Node     string `json:"node"` // cluster/node
	Down     bool   `json:"down,omitempty"`
	Gray     bool   `json:"gray,omitempty"`
	Distance int    `json:"distance,omitempty"` // class of the round trip, 0 if not measured: see slice/share
}
