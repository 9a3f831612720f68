package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Condition types of a Slice. Ready sums up; the others are there only while they are true, and their reason is their
// name. All are explained in docs/problems.
const (
	SliceReady             = "Ready"
	SlicePrefixExhausted   = "PrefixExhausted"
	SliceNamespaceConflict = "NamespaceConflict"
	SliceUnknownCluster    = "UnknownCluster"
	SlicePodNetworks       = "PodNetworksOverlap"
	SlicePodNetworkUnknown = "PodNetworkUnknown"
	SliceKeysChanging      = "KeysChanging"
)

// Slice is an application's own network across clusters.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=sws;sl,categories=seaway
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Prefixes",type=string,JSONPath=`.spec.prefixes`
// +kubebuilder:printcolumn:name="Clusters",type=integer,JSONPath=`.status.members`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaces.names`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$')",message="a slice's name is 1 to 32 characters: small letters, digits and hyphens, a letter first, no hyphen last"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'seaway'",message="the name seaway is taken by Seaway's own management slice: choose another"
type Slice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec SliceSpec `json:"spec"`
	// +optional
	Status SliceStatus `json:"status,omitempty"`
}

// CIDR is an address prefix such as 10.77.0.0/16 or fd00:77::/48, with no bit set after the prefix.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="not an address prefix: write it like 10.77.0.0/16 or fd00:77::/48"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="the prefix has bits set after its length: write its first address, like 10.77.0.0/16 and not 10.77.1.2/16"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).prefixLength() > 0",message="a prefix of length 0 is every address there is: choose a smaller one, like 10.77.0.0/16"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || !(cidr(self).ip().isLoopback() || cidr(self).ip().isUnspecified() || cidr(self).ip().isLinkLocalMulticast() || cidr(self).ip().isLinkLocalUnicast() || cidr('224.0.0.0/3').containsCIDR(self) || cidr('ff00::/8').containsCIDR(self) || cidr('127.0.0.0/8').containsCIDR(self))",message="loopback, link-local, multicast, reserved and unspecified addresses cannot be a slice's: choose a private prefix, like 10.77.0.0/16 or fd00:77::/48"
type CIDR string

// SliceSpec is what people want of a slice.
type SliceSpec struct {
	// Prefixes are the slice's own addresses: one IPv4 prefix, one IPv6 prefix, or both. Other slices, and the clusters
	// themselves, may use the same ones: a slice's packets never meet theirs. A prefix can be made larger later (a
	// shorter one that contains it), never smaller or other, because pods have addresses from it.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:XValidation:rule="self.size() < 2 || !self.all(p, isCIDR(p)) || cidr(self[0]).ip().family() != cidr(self[1]).ip().family()",message="a slice has at most one IPv4 prefix and one IPv6 prefix"
	// +kubebuilder:validation:XValidation:rule="oldSelf.all(o, !isCIDR(o) || self.exists(n, isCIDR(n) && cidr(n).ip().family() == cidr(o).ip().family() && cidr(n).containsCIDR(o)))",message="a slice's prefix can only grow: the new one must contain the old one, or pods would lose their addresses; for another prefix make another slice"
	Prefixes []CIDR `json:"prefixes"`
	// Clusters are the members of the slice. Empty means every cluster of the fleet, also those that join later.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=32
	Clusters []string `json:"clusters,omitempty"`
	// Addresses says with which addresses of their pods the slice's headless names answer: Slice (which is what empty
	// means) with those on the slice, or Pod with those that the pods have in their own clusters. Either way traffic goes
	// over the slice between clusters; within a cluster, to Pod addresses, it goes as it would without a slice. Pod needs
	// clusters whose pod networks do not overlap; while they do, the slice says PodNetworksOverlap and answers with its
	// own addresses.
	// +optional
	// +kubebuilder:validation:Enum=Slice;Pod
	Addresses string `json:"addresses,omitempty"`
	// Namespaces says whose pods are on the slice.
	// +optional
	Namespaces Namespaces `json:"namespaces,omitempty,omitzero"`
	// KeyRotation is how often the nodes change their keys on the slice, like 24h, 1h30m or 5m: each time up to a tenth of it earlier,
	// so that slices do not all change at once. Empty: only when asked (seaway slice rotate). What traffic is encrypted
	// with is changed every two minutes in any case; this is about the keys by which nodes know each other.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([1-9][0-9]*h)?([1-9][0-9]*m)?$`
	KeyRotation string `json:"keyRotation,omitempty"`
}

// Values of a slice's addresses.
const (
	AddressesSlice = "Slice"
	AddressesPod   = "Pod"
)

// Namespaces chooses namespaces by name, by label, or both (whichever matches). If nothing is given, none is on the
// slice.
type Namespaces struct {
	// Names are namespaces that are on the slice, in each of its clusters that has them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="!self.exists(n, n in ['kube-system', 'kube-public', 'kube-node-lease', 'seaway-system'])",message="the cluster's own namespaces (kube-system, kube-public, kube-node-lease, seaway-system) cannot be on a slice"
	Names []string `json:"names,omitempty"`
	// Selector chooses namespaces by their labels.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// SliceStatus is what the hub knows of a slice.
type SliceStatus struct {
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation of the spec that the status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Clusters has a row for each cluster that is on the slice, sorted by name.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=1024
	Clusters []SliceCluster `json:"clusters,omitempty"`
	// Members counts the clusters that are on the slice.
	// +optional
	Members int32 `json:"members"`
	// Pods counts the slice's pods in all clusters.
	// +optional
	Pods int32 `json:"pods"`
	// Keys tells of the nodes' keys on the slice.
	// +optional
	Keys *SliceKeys `json:"keys,omitempty"`
}

// RotateAnnotation on a Slice asks for its keys to be changed: any new value does. `seaway slice rotate` writes the time.
const RotateAnnotation = "seaway.dev/rotate"

// SliceKeys is the state of a slice's keys: of which generation they are to be, and how far that is done.
type SliceKeys struct {
	// Generation counts the changes.
	// +optional
	Generation int64 `json:"generation"`
	// Since is when the last change began.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Asked is the value of the annotation seaway.dev/rotate that was acted upon last.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Asked string `json:"asked,omitempty"`
	// Nodes counts the nodes on the slice, New those that have a key of the newest generation, and Done those that have
	// no other any more.
	// +optional
	Nodes int32 `json:"nodes"`
	// +optional
	New int32 `json:"new"`
	// +optional
	Done int32 `json:"done"`
}

// SliceCluster is one cluster's part of a slice.
type SliceCluster struct {
	Name string `json:"name"`
	// Blocks are the parts of the slice's prefixes from which this cluster hands out addresses. A block never moves and
	// no two overlap; more are added while the cluster needs them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Blocks []string `json:"blocks,omitempty"`
	// Networks are the cluster's own pod networks, of a slice whose addresses are Pod, as long as no two clusters'
	// overlap.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Networks []string `json:"networks,omitempty"`
	// Nodes counts the cluster's nodes that host the slice.
	// +optional
	Nodes int32 `json:"nodes"`
	// Pods counts the cluster's pods on the slice.
	// +optional
	Pods int32 `json:"pods"`
	// Ready says that the cluster is heard from and has addresses to hand out.
	// +optional
	Ready bool `json:"ready"`
}

// SliceList is a list of slices.
//
// +kubebuilder:object:root=true
type SliceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Slice `json:"items"`
}
