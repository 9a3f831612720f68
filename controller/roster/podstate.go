package roster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Where a pod shows its state.
const (
	// ConditionType is the type of the pod condition: True once a probe went through the pod's own link.
	ConditionType = "seaway.dev/attached"
	// AddressAnnotation lists the pod's slice addresses, with commas.
	AddressAnnotation = "seaway.dev/slice-ips"
)

// Reasons of a pod's condition that the controller gives; the node's agent gives the others. All are explained in
// docs/problems.
const (
	ReasonHostNetwork        = "HostNetwork"
	ReasonAddressPending     = "AddressPending"
	ReasonAddressesExhausted = "AddressesExhausted"
	ReasonNodeSilent         = "NodeSilent"
	ReasonNodeRevoked        = "NodeRevoked"
	ReasonAttaching          = "Attaching"
)

// PodState is what a pod's condition and annotation are to say.
type PodState struct {
	Namespace, Name, UID string
	Slice                string
	Condition            Condition // zero: the pod is on no slice and shows nothing
	Annotation           string
	// Passing says that the state will end by itself in a moment: not worth a write unless it lasts.
	Passing bool
}

// PodStates says what each pod that is on a slice, or was, is to show; sorted by namespace and name. Exhausted tells
// which slices have no address left.
func (r *Roster) PodStates(exhausted map[string]bool) []PodState {
	var out []PodState
	for _, key := range slices.Sorted(maps.Keys(r.f.Pods)) {
		p := r.f.Pods[key]
		slice, on := r.sliceOf[p.Namespace]
		st := PodState{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Slice: slice}
		switch {
		case p.Finished && on:
			continue // it has no network any more: what it showed last stays true of its time
		case !on || p.Labels[ExcludeLabel] == "true":
			if p.Condition.Status == "" && p.Annotation == "" {
				continue
			}
		case p.Node == "":
			continue
		default:
			st.Condition, st.Passing = r.condition(p, key, slice, exhausted)
			st.Annotation = join(r.PodAddrs(p.Namespace, p.Name))
		}
		out = append(out, st)
	}
	return out
}

func (r *Roster) condition(p *Pod, key, slice string, exhausted map[string]bool) (Condition, bool) {
	no := func(reason, message string) Condition {
		return Condition{Status: "False", Reason: reason, Message: message}
	}
	switch r.refused[key] {
	case ReasonHostNetwork:
		return no(ReasonHostNetwork, "a pod with hostNetwork: true has no network of its own to attach; take that out of its spec, or label it "+
			ExcludeLabel+"=true to say that it needs no slice"), false
	case ReasonNodeRevoked:
		return no(ReasonNodeRevoked, fmt.Sprintf("node %s is revoked: no other node speaks with it; move the pod, or on the hub: seaway node readmit %s/%s",
			p.Node, r.f.Cluster, p.Node)), false
	case ReasonAddressPending:
		if exhausted[slice] {
			return no(ReasonAddressesExhausted, fmt.Sprintf("slice %s has no free address in this cluster; "+
				"the hub adds blocks by itself while its prefix has room: see `kubectl describe slice %s` there", slice, slice)), false
		}
		return no(ReasonAddressPending, "an address of slice "+slice+" is being written down"), true
	}
	a, ok := r.attached[p.Node+" "+p.UID]
	switch {
	case ok && a.Attached:
		return Condition{Status: "True", Reason: a.Reason, Message: a.Message}, false
	case ok:
		return no(a.Reason, a.Message), false
	case !r.f.Heard[p.Node] && p.Condition.Status != "":
		return p.Condition, false // the controller is new and knows no better
	case !r.f.Heard[p.Node]:
		return no(ReasonNodeSilent, "nothing was heard from node "+p.Node+"'s agent; see `kubectl -n seaway-system get pods -o wide`"), true
	default:
		return no(ReasonAttaching, "node "+p.Node+" is about to attach the pod"), true
	}
}

// Attached tells whether a pod's link to its slice works, by its node's report or, until the node reports, by what the
// pod's condition has said.
func (r *Roster) Attached(namespace, name string) bool {
	p := r.f.Pods[namespace+"/"+name]
	if p == nil || p.Finished || len(r.PodAddrs(namespace, name)) == 0 {
		return false
	}
	if !r.f.Heard[p.Node] {
		return p.Condition.Status == "True"
	}
	return r.attached[p.Node+" "+p.UID].Attached
}

func join(addrs []netip.Addr) string {
	ss := make([]string, len(addrs))
	for i, a := range addrs {
		ss[i] = a.String()
	}
	return strings.Join(ss, ",")
}
