package kube

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/fleet"
)

// Message is how a problem reads in a condition: what is wrong, and what to do.
func Message(p fleet.Problem) string {
	if p.Next == "" {
		return p.Message
	}
	return strings.TrimRight(p.Message, ".") + ". Next: " + p.Next
}

// Set puts a condition into a list; its transition time changes only if its status does. It tells whether anything
// changed. A zero c.LastTransitionTime means now.
func Set(conditions *[]metav1.Condition, c metav1.Condition) bool {
	return meta.SetStatusCondition(conditions, c)
}

// Want makes conditions of the given types be exactly these: others of those types are removed, those of foreign
// types stay. It tells whether anything changed.
func Want(conditions *[]metav1.Condition, ours []string, want ...metav1.Condition) bool {
	changed := false
	keep := map[string]bool{}
	for _, c := range want {
		keep[c.Type] = true
		changed = Set(conditions, c) || changed
	}
	for _, t := range ours {
		if !keep[t] {
			changed = meta.RemoveStatusCondition(conditions, t) || changed
		}
	}
	return changed
}
