// Package pod finds the network namespaces of running pods and keeps hold of them.
//
// A pod's namespace belongs to its sandbox, which the container runtime makes anew when it dies (a reboot, a crashed
// pause container), with the same pod UID. [Finder] asks the runtime (CRI) first; where no runtime answers it looks
// through /proc. Namespaces are held by file descriptor from the first look on: a path can come to mean another one.
package pod

import (
	"net/netip"
	"time"

	"seaway.dev/seaway/datapath/netns"
)

// Ref names a pod to be found.
type Ref struct {
	UID       string
	Namespace string
	Name      string
	IPs       []netip.Addr // that its CNI gave it, as far as known: a check for what /proc shows
}

// Sandbox is a running pod's sandbox.
type Sandbox struct {
	UID  string
	ID   string    // the runtime's name for it; "" if /proc showed it
	NS   *netns.NS // held by the finder: valid until the finder finds that the sandbox is gone
	Born time.Time
}

// Reasons why a pod has no sandbox to attach to. Each has a section in docs/problems.
const (
	ReasonNotFound     = "SandboxNotFound"
	ReasonHostNetwork  = "HostNetwork"
	ReasonNotSupported = "RuntimeNotSupported"
)

// Refusal says why a pod cannot be attached and what to do.
type Refusal struct {
	Reason  string
	Message string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Found is what a finder says of some pods, by UID: each is in one of the two.
type Found struct {
	Sandboxes map[string]*Sandbox
	Refused   map[string]*Refusal
}
