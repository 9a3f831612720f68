package controller

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

// TestClocksOfNodes: an agent whose clock is a minute off takes the certificate that its controller has made just now,
// and a replica whose clock is a minute off, having taken over, makes no new one.
func TestClocksOfNodes(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	at := []net.IP{net.ParseIP("10.96.0.7")}
	data, changed, err := refresh(nil, "seaway-system", at, now)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	pair, err := tls.X509KeyPair(data[serverCert], data[serverKey])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data[caCert]) {
		t.Fatal("no authority")
	}
	for _, ahead := range []time.Duration{-10 * time.Minute, -time.Minute, 0, time.Minute} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(ahead), DNSName: "10.96.0.7"})
		if good := ahead >= -time.Minute; (err == nil) != good {
			t.Errorf("an agent whose clock is %s ahead: %v", ahead, err)
		}
		_, changed, err := refresh(data, "seaway-system", at, now.Add(ahead))
		if good := ahead >= -time.Minute; err != nil || changed == good {
			t.Errorf("a replica whose clock is %s ahead makes a new certificate: %v, %v", ahead, changed, err)
		}
	}
}

// TestADrillThatWasKilledEnds: a node that a drill has cordoned counts as cordoned for as long as the drill said and no
// longer, by this replica's own clock; what people have cordoned stays so.
func TestADrillThatWasKilledEnds(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	node := func(mark string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{Unschedulable: true}}
		if mark != "" {
			n.Annotations = map[string]string{fleet.DrillMark: mark, "other": "x"}
		}
		lean, err := leanNode(n)
		if err != nil {
			t.Fatal(err)
		}
		return lean.(*corev1.Node)
	}
	facts := &roster.Facts{Nodes: map[string]roster.Node{}}
	drills := cordons{}
	for i, step := range []struct {
		mark string
		gone bool
		turn time.Duration
		want bool // schedulable
	}{
		{"", false, time.Hour, false}, // people did
		{"40s", false, 0, false},
		{"40s", false, 39 * time.Second, false},
		{"40s", false, time.Second, true},
		{"40s", false, time.Hour, true},
		{"", false, 0, false}, // people did again
		{"40s", false, 0, false},
		{"40s", true, 0, true}, // gone: nothing is known of it
		{"40s", false, time.Minute, false},
		{"nonsense", false, 0, false},
		{"nonsense", false, longestDrill, true},
		{"", false, 0, false},
		{"100h", false, longestDrill, false},
		{"100h", false, longestDrill, true},
	} {
		now = now.Add(step.turn)
		n := node(step.mark)
		applyNode(facts, drills.let(n, step.gone, now), step.gone)
		if got, there := facts.Nodes["n1"]; there && got.Schedulable != step.want || there == step.gone {
			t.Errorf("step %d: %+v, want schedulable %v", i, got, step.want)
		}
		if !n.Spec.Unschedulable {
			t.Errorf("step %d: the cache's own node was changed", i)
		}
	}
}
