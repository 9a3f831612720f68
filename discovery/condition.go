package discovery

import (
	"fmt"
	"strings"
)

// Condition is a condition of a ServiceExport or ServiceImport, without the times that Kubernetes' form adds.
type Condition struct {
	Type    string // CondValid, CondReady or CondConflict
	True    bool
	Reason  string
	Message string // for people: what is so, and what to do next
}

// Condition types of the standard.
const (
	CondValid    = "Valid"
	CondReady    = "Ready"
	CondConflict = "Conflict"
)

// MaxPorts is how many ports a Service may have to be exported: each of its endpoints carries them to every node of the
// slice. The other clusters refuse more (package bulletin).
const MaxPorts = 250

// Reasons of the conditions Valid and Ready. The last three are ours; the rest is the standard's (mcs-api v1beta1).
const (
	ReasonValid              = "Valid"
	ReasonNoService          = "NoService"
	ReasonInvalidServiceType = "InvalidServiceType"
	ReasonReady              = "Ready"
	ReasonExported           = "Exported"
	ReasonPending            = "Pending"

	ReasonNamespaceNotOnSlice = "NamespaceNotOnSlice" // the namespace is on no slice here
	ReasonTooManyPorts        = "TooManyPorts"        // the Service has more than MaxPorts
	ReasonForeignImport       = "ForeignImport"       // a ServiceImport of that name exists that Seaway did not make
)

// Invalid returns the conditions of an export that exports nothing, for one of the reasons ReasonNoService,
// ReasonInvalidServiceType, ReasonNamespaceNotOnSlice and ReasonTooManyPorts. It has no condition Conflict: what is not exported is in
// nobody's way.
func Invalid(reason, namespace, name string) []Condition {
	var message string
	switch reason {
	case ReasonNoService:
		message = fmt.Sprintf("there is no Service %s/%s: create it, or delete this ServiceExport", namespace, name)
	case ReasonInvalidServiceType:
		message = "a Service of type ExternalName has no pods that a slice could reach: create the same ExternalName Service in the other clusters instead, and delete this ServiceExport"
	case ReasonTooManyPorts:
		message = fmt.Sprintf("the Service has more than %d ports, and each of them would have to be told to every node of the slice: split it into several Services and export those", MaxPorts)
	case ReasonNamespaceNotOnSlice:
		message = fmt.Sprintf("namespace %s is on no slice in this cluster: add it to a Slice (spec.namespaces on the hub, by name or label)", namespace)
	}
	return []Condition{
		{Type: CondValid, Reason: reason, Message: message},
		{Type: CondReady, Reason: ReasonPending, Message: "nothing is exported until the export is valid: " + message},
	}
}

// Exported returns the conditions of a valid export that became part of an import.
func Exported(im Import) []Condition {
	conflict := Condition{Type: CondConflict, Reason: ReasonNoConflicts,
		Message: "exported alike by " + strings.Join(im.Clusters, ", ")}
	if len(im.Conflicts) > 0 {
		conflict.True = true
		conflict.Reason, conflict.Message = conflictText(im)
	}
	return []Condition{
		{Type: CondValid, True: true, Reason: ReasonValid, Message: "the Service can be exported"},
		{Type: CondReady, True: true, Reason: ReasonExported,
			Message: fmt.Sprintf("exported to slice %s as %s.%s.svc.clusterset.local", im.Slice, im.Name, im.Namespace)},
		conflict,
	}
}

// Imported returns the conditions of an import.
func Imported(im Import) []Condition {
	if im.Headless || len(im.IPs) > 0 {
		return []Condition{{Type: CondReady, True: true, Reason: ReasonReady,
			Message: fmt.Sprintf("%s.%s.svc.clusterset.local is answered on slice %s", im.Name, im.Namespace, im.Slice)}}
	}
	return []Condition{{Type: CondReady, Reason: ReasonPending, Message: fmt.Sprintf(
		"no service address on slice %s yet; if this stays, the slice's prefix is used up: see `seaway slice show %s` on the hub",
		im.Slice, im.Slice)}}
}
