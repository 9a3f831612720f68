package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Condition types of a Cluster. Reasons are listed in docs/problems.
const (
	ClusterJoined = "Joined" // it claimed its token and has a credential
	ClusterReady  = "Ready"  // it is heard from
	// ClusterNodesRevoked says that nodes of it are refused by all others.
	ClusterNodesRevoked = "NodesRevoked"
)

// Cluster is a member of the fleet. The hub makes it when the cluster joins; deleting it takes the cluster out of the
// fleet and its credential away.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=swc,categories=seaway
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Gateways",type=integer,JSONPath=`.status.gateways`
// +kubebuilder:printcolumn:name="Private",type=boolean,JSONPath=`.spec.private`
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.region`
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.spec.provider`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$')",message="a cluster's name is 1 to 32 characters: small letters, digits and hyphens, a letter first, no hyphen last"
// +kubebuilder:validation:XValidation:rule="!(self.metadata.name in ['seaway', 'system', 'members', 'renewal', 'joins'])",message="the names seaway, system, members, renewal and joins are Seaway's own: choose another"
type Cluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec ClusterSpec `json:"spec,omitempty"`
	// +optional
	Status ClusterStatus `json:"status,omitempty"`
}

// ClusterSpec is what people want of a member.
type ClusterSpec struct {
	// Private says that the cluster's nodes can dial out but cannot be dialled from other clusters. Others reach them
	// through the gateways of clusters that can be dialled.
	// +optional
	Private bool `json:"private,omitempty"`
	// Region is where the cluster runs, as its provider names it. Used to prefer near endpoints.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="a region is letters, digits, '-', '_' and '.', and begins and ends with a letter or digit"
	Region string `json:"region,omitempty"`
	// Provider is who runs the machines: aws, gcp, azure, onprem, ...
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="a provider is letters, digits, '-', '_' and '.', and begins and ends with a letter or digit"
	Provider string `json:"provider,omitempty"`
	// PodNetworks are those from which the cluster's pods have their own addresses. Needed only for slices whose addresses
	// are Pod, and only if the cluster's nodes do not say it in spec.podCIDRs, or say something else than its network does.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	PodNetworks []CIDR `json:"podNetworks,omitempty"`
	// Gateways says which nodes relay for the others.
	// +optional
	Gateways Gateways `json:"gateways,omitempty,omitzero"`
	// RevokedNodes are nodes of the cluster that no other node speaks with any more, whatever keys they have or make: no
	// slice, no relaying, not the management slice. Their pods are off their slices. Written by seaway node revoke and
	// taken away by seaway node readmit, and by nobody else: it stays when a node is deleted and comes back by its name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	RevokedNodes []string `json:"revokedNodes,omitempty"`
}

// Gateways says how many nodes of a cluster relay for it, and which may.
type Gateways struct {
	// Count is how many nodes relay; they are chosen by name among the ready ones. 0 means 2.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16
	Count int32 `json:"count,omitempty"`
	// Selector limits the choice to nodes with these labels.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Selector map[string]string `json:"selector,omitempty"`
}

// ClusterStatus is what the hub knows of a member.
type ClusterStatus struct {
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Nodes counts the nodes that take part: those that host a slice's pods, and the gateways.
	// +optional
	Nodes int32 `json:"nodes"`
	// Gateways counts the nodes that relay.
	// +optional
	Gateways int32 `json:"gateways"`
	// Version is the version of Seaway that runs on the cluster.
	// +optional
	Version string `json:"version,omitempty"`
	// Signer is the Ed25519 public key, in base64, with which the cluster signs what it tells the other clusters. The
	// hub has it from the cluster's own mailbox.
	// +optional
	// +kubebuilder:validation:MaxLength=44
	Signer string `json:"signer,omitempty"`
	// LastSeen is when the hub last heard from the cluster, to the minute.
	// +optional
	LastSeen *metav1.Time `json:"lastSeen,omitempty"`
}

// ClusterList is a list of clusters.
//
// +kubebuilder:object:root=true
type ClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Cluster `json:"items"`
}
