package hub

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/record"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// TestRevokedNodesAreShown: a Cluster says which of its nodes are revoked for as long as they are, and events tell of it.
func TestRevokedNodesAreShown(t *testing.T) {
	m := at("c1", 1)
	m.bulletin.Nodes = []fleet.Node{{Name: "n1", Cluster: "c1"}}
	events := record.NewFakeRecorder(10)
	c := clusters{log: slog.New(slog.DiscardHandler), events: events}
	look := func(at time.Duration, revoked ...string) (message string, told string) {
		before := m.cluster.DeepCopy()
		m.cluster.Spec.RevokedNodes = revoked
		m.cluster.Status = m.status(t0.Add(at))
		c.audit(before, m.cluster)
		select {
		case told = <-events.Events:
		default:
		}
		if cond := meta.FindStatusCondition(m.cluster.Status.Conditions, v1alpha1.ClusterNodesRevoked); cond != nil {
			message = cond.Message
		}
		return message, told
	}
	if text, told := look(0); text != "" || told != "" {
		t.Errorf("nobody is revoked: %q %q", text, told)
	}
	text, told := look(1, "n1", "n0")
	if !strings.Contains(text, "no other node speaks with n0, n1; the cluster itself still tells of n1. Next: ") || !strings.Contains(text, "seaway node readmit c1/n0") {
		t.Errorf("two are revoked: %q", text)
	}
	if !strings.Contains(told, "NodesRevoked no other node speaks with n0, n1") {
		t.Errorf("two are revoked: event %q", told)
	}
	m.bulletin.Nodes = nil
	if text, told := look(2, "n1", "n0"); strings.Contains(text, "still") || told != "" {
		t.Errorf("the cluster knows: %q %q", text, told)
	}
	if text, told := look(3); text != "" || !strings.Contains(told, "no node is revoked any more") {
		t.Errorf("nobody is revoked any more: %q %q", text, told)
	}
}
