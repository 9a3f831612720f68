package fleet

import "time"

// ConfigMaps in a member's own seaway-system by which its autoscaler and its controller speak; see [Heard].
const (
	ScalingSaid  = "seaway-scaling-said"  // the autoscaler's: []Scaling as JSON
	ScalingHeard = "seaway-scaling-heard" // the controller's: Heard as JSON
	ScalingKey   = "scaling"              // in the data of both
)

// MaxScaling is of how many workloads a bulletin speaks at most.
const MaxScaling = 100

// Scaling is what a cluster's autoscaler says of one workload that it divides with the other clusters of a slice.
type Scaling struct {
	Slice     string `json:"slice"` // that the namespace is on
	Namespace string `json:"namespace"`
	Name      string `json:"name"` // of the Autoscaler

	Wants int     `json:"wants"`          // pods for the load that the cluster's own pods see, before any are kept for later
	Needs int     `json:"needs"`          // of these, what the load of this moment needs
	Floor int     `json:"floor"`          // the most of Needs in the last minutes
	Load  float64 `json:"load,omitempty"` // of this moment, in cores; 0: unknown
	Kept  int     `json:"kept"`           // the most that was wanted in all clusters in the last minutes
	Pods  int     `json:"pods"`           // ordered
	Ready int     `json:"ready"`
	Lost  int     `json:"lost,omitempty"` // of Pods, those whose node died: they come back with it, or are made anew in minutes
	Min   int     `json:"min"`            // bounds of Pods
	Max   int     `json:"max"`
	Room  int     `json:"room"` // for how many more pods there is room on the nodes there are

	// Soon is how long a pod takes to be ready where there is room, Late with a new node, Starts how many starts these
	// were learnt from.
	Soon   time.Duration `json:"soon"`
	Late   time.Duration `json:"late"`
	Starts float64       `json:"starts,omitempty"`
	Price  float64       `json:"price,omitempty"` // of a pod, an hour; 0: unknown

	Calm   bool   `json:"calm,omitempty"`   // Kept has not risen in the last minutes
	Moving bool   `json:"moving,omitempty"` // pods have lately been ordered in a cheaper cluster for those of another
	Stuck  bool   `json:"stuck,omitempty"`  // pods that are ordered do not get ready
	Alone  bool   `json:"alone,omitempty"`  // its load does not go to other clusters' pods: it covers itself
	Beat   uint64 `json:"beat"`             // changes while somebody speaks
}

// Key names the workload.
func (s *Scaling) Key() string { return s.Namespace + "/" + s.Name }

// Heard is what other clusters' autoscalers say, as a member's controller hands it to its own.
type Heard struct {
	Cluster string               `json:"cluster"` // this one
	Words   map[string][]Scaling `json:"words"`   // the others', by cluster
}
