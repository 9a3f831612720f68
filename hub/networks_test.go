package hub

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/api/v1alpha1"
)

// with makes a member whose nodes say where its pods' addresses are from.
func with(name string, networks ...string) member {
	m := at(name, 1)
	for _, n := range networks {
		m.bulletin.Networks = append(m.bulletin.Networks, netip.MustParsePrefix(n))
	}
	m.bulletin.Needed = []netip.Addr{netip.MustParseAddr("10.96.0.1")}
	m.bulletin.Nodes[0].Addrs = []netip.Addr{netip.MustParseAddr("172.30.1.11")}
	return m
}

// TestNetworks: pods are reached at their own addresses only where nobody's network is mistaken for anything else.
func TestNetworks(t *testing.T) {
	said := func(m member, networks ...v1alpha1.CIDR) member {
		m.cluster.Spec.PodNetworks = networks
		return m
	}
	mute := at("c2", 1)
	mute.bulletin = nil
	many := with("c2")
	for i := range 300 {
		many.bulletin.Networks = append(many.bulletin.Networks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 128), byte(2 * i), 0}), 24))
	}
	const (
		both    = "c1: 10.1.0.0/16; c2: 10.2.0.0/16"
		none    = "c1: ; c2: "
		overlap = v1alpha1.SlicePodNetworks
		unknown = v1alpha1.SlicePodNetworkUnknown
	)
	for _, c := range []struct {
		name    string
		mode    string
		members []member
		want    string // networks by cluster
		reason  string // of Ready
		says    string
	}{
		{"not asked for", "", []member{with("c1", "10.1.0.0/16"), with("c2", "10.2.0.0/16")}, none, "Ready", ""},
		{"asked not to", "Slice", []member{with("c1", "10.1.0.0/16"), with("c2", "10.2.0.0/16")}, none, "Ready", ""},
		{"apart", "Pod", []member{with("c1", "10.1.0.0/16"), with("c2", "10.2.0.0/16")}, both, "Ready", ""},
		{"the same", "Pod", []member{with("c1", "10.244.0.0/16"), with("c2", "10.244.0.0/16")}, none, overlap, "c1's pod network 10.244.0.0/16 overlaps c2's 10.244.0.0/16"},
		{"one in the other", "Pod", []member{with("c1", "10.0.0.0/10"), with("c2", "10.2.0.0/16")}, none, overlap, "overlaps c2's 10.2.0.0/16"},
		{"people know better", "Pod", []member{said(with("c1", "10.244.0.0/16"), "10.1.0.0/16"), said(with("c2", "10.244.0.0/16"), "10.2.0.0/16")}, both, "Ready", ""},
		{"overlaps the slice", "Pod", []member{with("c1", "10.77.1.0/24"), with("c2", "10.2.0.0/16")}, none, overlap, "overlaps the slice's prefix 10.77.0.0/16"},
		{"holds the others' API", "Pod", []member{with("c1", "10.96.0.0/16"), with("c2", "10.2.0.0/16")}, none, overlap, "holds 10.96.0.1, a service address that every pod needs of c2"},
		{"holds the others' node", "Pod", []member{with("c1", "172.30.0.0/16"), with("c2", "10.2.0.0/16")}, none, overlap, "holds 172.30.1.11, node n1 of c2"},
		{"one does not say", "Pod", []member{with("c1", "10.1.0.0/16"), with("c2")}, "c1: 10.1.0.0/16; c2: ", unknown, "the nodes of c2 do not say"},
		{"one calls the internet its own", "Pod", []member{with("c1", "10.1.0.0/16"), with("c2", "8.0.0.0/8")}, "c1: 10.1.0.0/16; c2: ", unknown, "private network"},
		{"people may", "Pod", []member{with("c1", "10.1.0.0/16"), said(with("c2"), "198.51.100.0/24")}, "c1: 10.1.0.0/16; c2: 198.51.100.0/24", "Ready", ""},
		{"more than can be told", "Pod", []member{with("c1", "10.200.0.0/16"), many}, "c1: 10.200.0.0/16; c2: ", unknown, "do not say"},
		{"not heard of yet", "Pod", []member{with("c1", "10.1.0.0/16"), mute}, "c1: 10.1.0.0/16; c2: ", "Ready", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := pay("10.77.0.0/16")
			s.Spec.Addresses = c.mode
			got, err := judge(s, []v1alpha1.Slice{*s}, c.members, t0.Add(10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			var rows []string
			for _, r := range got.Clusters {
				rows = append(rows, r.Name+": "+strings.Join(r.Networks, " "))
			}
			if joined := strings.Join(rows, "; "); joined != c.want {
				t.Errorf("networks %s, want %s", joined, c.want)
			}
			ready := got.Conditions[0]
			if ready.Reason != c.reason || !strings.Contains(ready.Message, c.says) || c.says != "" && !strings.Contains(ready.Message, "Next: ") {
				t.Errorf("%s %s: %s; want %s with %q and what to do", ready.Type, ready.Reason, ready.Message, c.reason, c.says)
			}
		})
	}
	// What was known stays while a member is silent.
	s := pay("10.77.0.0/16")
	s.Spec.Addresses = v1alpha1.AddressesPod
	s.Status.Clusters = []v1alpha1.SliceCluster{{Name: "c2", Networks: []string{"10.2.0.0/16"}}}
	if out, problems := networks(s, []member{mute}); len(problems) > 0 || len(out["c2"]) != 1 {
		t.Errorf("of a silent member: %v, %v", out, problems)
	}
}
