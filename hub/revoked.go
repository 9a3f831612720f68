package hub

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/kube"
)

// revoked is the condition of a cluster of which nodes are revoked; none if there are none.
func (m member) revoked() []metav1.Condition {
	names := slices.Sorted(slices.Values(m.cluster.Spec.RevokedNodes))
	if len(names) == 0 {
		return nil
	}
	text := "no other node speaks with " + strings.Join(names, ", ")
	if b := m.bulletin; b != nil {
		for _, n := range b.Nodes {
			if slices.Contains(names, n.Name) {
				text += "; the cluster itself still tells of " + n.Name
			}
		}
	}
	return []metav1.Condition{{Type: v1alpha1.ClusterNodesRevoked, Status: metav1.ConditionTrue, Reason: v1alpha1.ClusterNodesRevoked,
		Message: kube.Message(fleet.Problem{Message: text,
			Next: fmt.Sprintf("take the node out of its cluster; once it is made anew or found innocent: seaway node readmit %s/%s", m.cluster.Name, names[0])})}}
}

// audit tells, in the log and as events of the Cluster, when other nodes are revoked than before.
func (c *clusters) audit(before, now *v1alpha1.Cluster) {
	message := func(cl *v1alpha1.Cluster) string {
		cond := meta.FindStatusCondition(cl.Status.Conditions, v1alpha1.ClusterNodesRevoked)
		if cond == nil {
			return ""
		}
		text, _, _ := strings.Cut(cond.Message, ";")
		text, _, _ = strings.Cut(text, ". Next: ")
		return text
	}
	was, is := message(before), message(now)
	if was == is {
		return
	}
	if is == "" {
		is = "no node is revoked any more; before, " + was
	}
	c.log.Info("revoked nodes", "cluster", now.Name, "nodes", now.Spec.RevokedNodes)
	announce(c.events, "Cluster", now, corev1.EventTypeWarning, v1alpha1.ClusterNodesRevoked, is)
}
