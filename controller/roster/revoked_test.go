package roster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

// keysTold lists whose keys a cluster's nodes and the other clusters are told, by cluster/node.
func keysTold(f *roster.Facts, nodes ...string) map[string]bool {
	r, out := roster.New(f), map[string]bool{}
	note := func(n fleet.Node) {
		for range n.Keys {
			out[n.ID()] = true
		}
	}
	for _, name := range nodes {
		for _, c := range r.Intent(name).Clusters {
			for _, n := range c.Nodes {
				note(n)
			}
		}
	}
	for _, n := range r.Bulletin().Nodes {
		note(n)
	}
	return out
}

// TestRevokedNode: nobody is told any key of a revoked node, of whatever cluster, nor of its pods; it is told nothing; and
// it is neither gateway nor carrier.
func TestRevokedNode(t *testing.T) {
	all := []string{"n1", "n2", "n3"}
	revoke := func(f *roster.Facts, id string) {
		cluster, node, _ := strings.Cut(id, "/")
		for i := range f.Members {
			if f.Members[i].Name == cluster {
				f.Members[i].Revoked = []string{node}
			}
		}
	}
	for _, id := range []string{"c1/n1", "c1/n2", "c2/n1", "c2/n2", "c3/n1"} {
		f := facts()
		pod(f, "shop/web-1", "n2", "10.77.1.2")
		if !keysTold(f, all...)[id] {
			t.Fatalf("%s: its keys are not told at first: the test cannot fail", id)
		}
		revoke(f, id)
		cluster, node, _ := strings.Cut(id, "/")
		var others []string
		for _, n := range all {
			if cluster != "c1" || n != node {
				others = append(others, n)
			}
		}
		if keysTold(f, others...)[id] {
			t.Errorf("%s: its keys are told", id)
		}
		r := roster.New(f)
		for _, n := range others {
			for _, p := range r.Intent(n).Pods {
				if p.Cluster+"/"+p.Node == id {
					t.Errorf("%s: %s is told of its pod %s", id, n, p.Key())
				}
			}
		}
		if cluster != "c1" {
			continue
		}
		in := r.Intent(node)
		if len(in.Slices)+len(in.Pods) > 0 || in.Carry != nil || len(in.Clusters) != 1 || len(in.Clusters[0].Nodes) != 1 || len(in.Clusters[0].Nodes[0].Keys) > 0 {
			t.Errorf("%s is told %+v", id, in)
		}
		if slices.Contains(r.Gateways(), node) {
			t.Errorf("%s is a gateway: %v", id, r.Gateways())
		}
		if got := fmt.Sprint(r.Problems()); !strings.Contains(got, roster.ReasonNodeRevoked) || !strings.Contains(got, "seaway node readmit "+id) {
			t.Errorf("%s: problems %s", id, got)
		}
		for _, st := range r.PodStates(nil) {
			if on := f.Pods[st.Namespace+"/"+st.Name].Node == node; on != (st.Condition.Reason == roster.ReasonNodeRevoked) {
				t.Errorf("%s: pod %s says %+v", id, st.Name, st.Condition)
			}
		}
	}
}

// TestDeletedCluster: once a Cluster is deleted on the hub, which takes its credential away, the others' nodes are told no
// key of any node of it, though its bulletin is still there: all its nodes are revoked at once.
func TestDeletedCluster(t *testing.T) {
	for _, name := range []string{"c2", "c3"} {
		f := facts()
		f.Members = slices.DeleteFunc(f.Members, func(m roster.Member) bool { return m.Name == name })
		for id := range keysTold(f, "n1", "n2", "n3") {
			if strings.HasPrefix(id, name+"/") {
				t.Errorf("a key of %s is told", id)
			}
		}
	}
}
