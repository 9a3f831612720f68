package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition types of an Autoscaler. Reasons are listed in docs/problems.
const (
	AutoscalerReady = "Ready" // it sees its target and its metrics, and acts as its mode says
)

// AutoscalerMode is how much an autoscaler is trusted with.
//
// +kubebuilder:validation:Enum=Off;Observe;Shadow;Floor;Full
type AutoscalerMode string

// The modes, each including what those before it do.
const (
	ModeOff     AutoscalerMode = "Off"     // hands over to the HPA, which is made if there is none
	ModeObserve AutoscalerMode = "Observe" // learns, says nothing
	ModeShadow  AutoscalerMode = "Shadow"  // says what it would do, and what would have come of it
	ModeFloor   AutoscalerMode = "Floor"   // moves minReplicas of the HPA, which stays in charge above it
	ModeFull    AutoscalerMode = "Full"    // sets the replicas
)

// AutoscalerAcross says with whom an autoscaler divides its pods.
//
// +kubebuilder:validation:Enum=Slice
type AutoscalerAcross string

// AcrossSlice is with the Autoscalers of the same namespace and name in the other clusters of the namespace's slice.
const AcrossSlice AutoscalerAcross = "Slice"

// Autoscaler scales one workload: ahead of its load, within its SLO, for as little money as that takes.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=swa,categories=seaway
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.target.name`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.status.mode`
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.replicas`
// +kubebuilder:printcolumn:name="Wants",type=integer,JSONPath=`.status.wants`
// +kubebuilder:printcolumn:name="HPA",type=integer,JSONPath=`.status.hpa`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.why`,priority=1
// +kubebuilder:printcolumn:name="Place",type=string,JSONPath=`.status.place`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 52",message="an Autoscaler's name has 52 characters at most, for its own objects are named after it"
type Autoscaler struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec AutoscalerSpec `json:"spec"`
	// +optional
	Status AutoscalerStatus `json:"status,omitempty"`
}

// AutoscalerSpec is what people want of an autoscaler.
//
// +kubebuilder:validation:XValidation:rule="!has(self.min) || self.min <= self.max",message="min is larger than max"
// +kubebuilder:validation:XValidation:rule="!has(self.pin) || self.pin <= self.max",message="pin is larger than max"
type AutoscalerSpec struct {
	// Target is the workload to scale, in the same namespace.
	// +required
	Target ScaleTarget `json:"target"`
	// Min and Max bound the replicas.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	Min int32 `json:"min,omitempty"`
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Max int32 `json:"max"`
	// Objective is what counts as good service.
	// +optional
	Objective Objective `json:"objective,omitempty,omitzero"`
	// Price says what capacity costs. The default counts pods.
	// +optional
	Price Price `json:"price,omitempty,omitzero"`
	// Metrics says where the load is measured.
	// +required
	Metrics MetricSource `json:"metrics"`
	// Mode is the most that the autoscaler may do. It begins with Observe and is promoted step by step on evidence,
	// unless Trusted; it is demoted by itself when it does worse than the HPA that it is compared with. Off hands over
	// to an HPA at once.
	// +optional
	// +kubebuilder:default=Full
	Mode AutoscalerMode `json:"mode,omitempty"`
	// Trusted begins with Mode at once: no days of evidence are waited for. The guard rails hold all the same.
	// +optional
	Trusted bool `json:"trusted,omitempty"`
	// Pin holds that many replicas, whatever the load.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Pin *int32 `json:"pin,omitempty"`
	// Across divides the pods with the Autoscalers of the same namespace and name in the other clusters of the namespace's
	// slice that say so, too: the next pod is put where it is ready soonest or, when there is no hurry, where it is cheapest.
	// It needs mode Full, and a service whose clients are spread over the slice. Min and Max bound this cluster's pods, and
	// what it asks of the others. Empty: each cluster covers its own load.
	// +optional
	Across AutoscalerAcross `json:"across,omitempty"`
	// HPATarget is the CPU utilisation, in percent, of the HPA that is the yardstick and the fallback. 0 means 70.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	HPATarget int32 `json:"hpaTarget,omitempty"`
	// Events are loads that people expect.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Events []LoadEvent `json:"events,omitempty"`
}

// ScaleTarget names a workload that has a scale subresource.
type ScaleTarget struct {
	// +optional
	// +kubebuilder:default="apps/v1"
	// +kubebuilder:validation:MaxLength=128
	APIVersion string `json:"apiVersion,omitempty"`
	// +optional
	// +kubebuilder:default=Deployment
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Objective is a service level objective.
type Objective struct {
	// Good is the share of requests, in percent, that must be good, such as "99.9" (the default).
	// +optional
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]{1,2}([.][0-9]+)?$') && double(self) >= 50.0",message="a share in percent of at least 50 and below 100, such as 99.9"
	Good string `json:"good,omitempty"`
	// Latency is the time within which a request is good. It is told to people only: what is bad is what the query
	// metrics.bad counts.
	// +optional
	Latency *metav1.Duration `json:"latency,omitempty"`
}

// Price says what pods and nodes cost an hour, in any one currency.
//
// +kubebuilder:validation:XValidation:rule="!has(self.nodeHour) || has(self.podsPerNode)",message="a price of nodes needs podsPerNode: how many of these pods a node takes"
type Price struct {
	// +optional
	PodHour *resource.Quantity `json:"podHour,omitempty"`
	// +optional
	NodeHour *resource.Quantity `json:"nodeHour,omitempty"`
	// PodsPerNode is how many of these pods a node takes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	PodsPerNode int32 `json:"podsPerNode,omitempty"`
}

// MetricSource says where the load is measured: queries in PromQL, each with one value.
type MetricSource struct {
	// Prometheus is the URL of a Prometheus, such as http://prometheus.monitoring:9090. Empty means the one that the
	// autoscaler was started with.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^https?://.+')",message="want a URL, like http://prometheus.monitoring:9090"
	Prometheus string `json:"prometheus,omitempty"`
	// Rate is the requests that arrive, per second: sum(rate(http_requests_total{app="web"}[30s])).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Rate string `json:"rate"`
	// Busy is the cores in use by the ready pods: sum(rate(container_cpu_usage_seconds_total{pod=~"web-.*"}[30s])).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Busy string `json:"busy"`
	// Bad is the requests, per second, that were too slow, failed or were refused. Without it nothing is learned
	// about capacity, and HPA's answer stands.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Bad string `json:"bad,omitempty"`
	// InFlight is the requests that are being served or wait.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	InFlight string `json:"inFlight,omitempty"`
}

// LoadEvent is a load that people expect: a sale, a campaign, a batch.
//
// +kubebuilder:validation:XValidation:rule="self.from < self.to",message="an event ends after it begins"
type LoadEvent struct {
	// +required
	From metav1.Time `json:"from"`
	// +required
	To metav1.Time `json:"to"`
	// Percent is the load compared with usual: 300 is three times as much.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Percent int32 `json:"percent"`
}

// AutoscalerStatus is what the autoscaler knows and does.
type AutoscalerStatus struct {
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation of the spec that the status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Mode is what it does now; ModeWhy is why no more.
	// +optional
	Mode AutoscalerMode `json:"mode,omitempty"`
	// +optional
	ModeWhy string `json:"modeWhy,omitempty"`
	// Replicas is how many the target has been told to have.
	// +optional
	Replicas int32 `json:"replicas"`
	// Wants is how many it should have by the autoscaler's mind.
	// +optional
	Wants int32 `json:"wants"`
	// HPA is how many the HPA that it is compared with would have.
	// +optional
	HPA int32 `json:"hpa"`
	// Why is what decided the count.
	// +optional
	Why string `json:"why,omitempty"`
	// Place is how the pods are divided between the clusters of the slice, and why; empty if they are not.
	// +optional
	Place string `json:"place,omitempty"`
	// Records explain the newest actions, the newest first, as JSON.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Records []string `json:"records,omitempty"`
}

// AutoscalerList is a list of autoscalers.
//
// +kubebuilder:object:root=true
type AutoscalerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Autoscaler `json:"items"`
}
