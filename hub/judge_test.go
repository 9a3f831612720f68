package hub

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/place"
)

var t0 = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// at makes a member that was heard from at t0 and has some pods on slice pay.
func at(name string, pods int) member {
	b := &fleet.Bulletin{Cluster: name, Nodes: []fleet.Node{{Name: "n1", Gateway: true, Keys: map[string]fleet.Key{"pay": {1}}}, {Name: "n2"}}}
	for i := range pods {
		b.Pods = append(b.Pods, fleet.Pod{Slice: "pay", Name: fmt.Sprint(i)})
	}
	return member{cluster: &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{place.AnnotationUID: "u"}}},
		bulletin: b, renewed: t0}
}

func pay(prefixes ...v1alpha1.CIDR) *v1alpha1.Slice {
	return &v1alpha1.Slice{ObjectMeta: metav1.ObjectMeta{Name: "pay", UID: "pay", Generation: 3, CreationTimestamp: metav1.NewTime(t0)},
		Spec: v1alpha1.SliceSpec{Prefixes: prefixes, Namespaces: v1alpha1.Namespaces{Names: []string{"pay"}}}}
}

// brief prints a status as one line a row: the golden form of the tables below.
func brief(s v1alpha1.SliceStatus) string {
	var b strings.Builder
	for _, c := range s.Conditions {
		fmt.Fprintf(&b, "%s=%s %s\n", c.Type, c.Status, c.Reason)
	}
	for _, r := range s.Clusters {
		fmt.Fprintf(&b, "%s ready=%v nodes=%d pods=%d %s", r.Name, r.Ready, r.Nodes, r.Pods, strings.Join(r.Blocks, " "))
		if len(r.Networks) > 0 {
			fmt.Fprintf(&b, " networks %s", strings.Join(r.Networks, " "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestJudge(t *testing.T) {
	silent := at("c2", 1)
	silent.renewed = t0.Add(-time.Minute)
	byHand := at("c9", 0)
	byHand.cluster.Annotations = nil
	for _, c := range []struct {
		name    string
		slice   *v1alpha1.Slice
		change  func(*v1alpha1.Slice)
		others  []v1alpha1.Slice
		members []member
		want    string
	}{
		{name: "all clusters", slice: pay("10.77.0.0/16"), members: []member{at("c2", 0), at("c1", 3), byHand}, want: `
Ready=True Ready
c1 ready=true nodes=1 pods=3 10.77.0.0/24
c2 ready=true nodes=1 pods=0 10.77.1.0/24
`},
		{name: "dual stack", slice: pay("10.77.0.0/16", "fd00:77::/48"), members: []member{at("c1", 0)}, want: `
Ready=True Ready
c1 ready=true nodes=1 pods=0 10.77.0.0/24 fd00:77::/64
`},
		{name: "nobody yet", slice: pay("10.77.0.0/16"), want: `
Ready=False NoClusters
`},
		{name: "one is silent: it keeps its block", slice: pay("10.77.0.0/16"), members: []member{at("c1", 0), silent}, want: `
Ready=False ClusterNotReady
c1 ready=true nodes=1 pods=0 10.77.0.0/24
c2 ready=false nodes=1 pods=1 10.77.1.0/24
`},
		{name: "an unknown cluster", slice: pay("10.77.0.0/16"), change: func(s *v1alpha1.Slice) { s.Spec.Clusters = []string{"c1", "c7"} },
			members: []member{at("c1", 0), at("c2", 0)}, want: `
Ready=False UnknownCluster
UnknownCluster=True UnknownCluster
c1 ready=true nodes=1 pods=0 10.77.0.0/24
`},
		{name: "a full prefix", slice: pay("10.77.0.0/30"), members: []member{at("c1", 1), at("c2", 0)}, want: `
Ready=False PrefixExhausted
PrefixExhausted=True PrefixExhausted
c1 ready=true nodes=1 pods=1 10.77.0.0/30
c2 ready=false nodes=1 pods=0 
`},
		{name: "more pods, more blocks", slice: pay("10.77.0.0/16"), change: func(s *v1alpha1.Slice) {
			s.Status.Clusters = []v1alpha1.SliceCluster{{Name: "c1", Blocks: []string{"10.77.0.0/24"}}, {Name: "c2", Blocks: []string{"10.77.1.0/24"}}}
		}, members: []member{at("c1", 200), at("c2", 1)}, want: `
Ready=True Ready
c1 ready=true nodes=1 pods=200 10.77.0.0/24 10.77.2.0/24
c2 ready=true nodes=1 pods=1 10.77.1.0/24
`},
		{name: "taken off the slice with pods still there", slice: pay("10.77.0.0/16"), change: func(s *v1alpha1.Slice) {
			s.Spec.Clusters = []string{"c1"}
			s.Status.Clusters = []v1alpha1.SliceCluster{{Name: "c1", Blocks: []string{"10.77.0.0/24"}}, {Name: "c2", Blocks: []string{"10.77.1.0/24"}}}
		}, members: []member{at("c1", 0), at("c2", 1)}, want: `
Ready=True Ready
c1 ready=true nodes=1 pods=0 10.77.0.0/24
c2 ready=true nodes=1 pods=1 10.77.1.0/24
`},
		{name: "taken off, pods gone", slice: pay("10.77.0.0/16"), change: func(s *v1alpha1.Slice) {
			s.Spec.Clusters = []string{"c1"}
			s.Status.Clusters = []v1alpha1.SliceCluster{{Name: "c1", Blocks: []string{"10.77.0.0/24"}}, {Name: "c2", Blocks: []string{"10.77.1.0/24"}}}
		}, members: []member{at("c1", 0), at("c2", 0)}, want: `
Ready=True Ready
c1 ready=true nodes=1 pods=0 10.77.0.0/24
`},
		{name: "an older slice has the namespace", slice: pay("10.77.0.0/16"), members: []member{at("c1", 0)},
			others: []v1alpha1.Slice{other("shop", -time.Hour, nil, "pay", "shop")}, want: `
Ready=False NamespaceConflict
NamespaceConflict=True NamespaceConflict
c1 ready=true nodes=1 pods=0 10.77.0.0/24
`},
		{name: "a younger slice wants the namespace", slice: pay("10.77.0.0/16"), members: []member{at("c1", 0)},
			others: []v1alpha1.Slice{other("shop", time.Hour, nil, "pay")}, want: `
Ready=True Ready
c1 ready=true nodes=1 pods=0 10.77.0.0/24
`},
		{name: "the same namespace in other clusters", slice: pay("10.77.0.0/16"), change: func(s *v1alpha1.Slice) { s.Spec.Clusters = []string{"c1"} },
			members: []member{at("c1", 0)}, others: []v1alpha1.Slice{other("shop", -time.Hour, []string{"c2"}, "pay")}, want: `
Ready=True Ready
c1 ready=true nodes=1 pods=0 10.77.0.0/24
`},
		{name: "no namespaces", slice: pay("10.77.0.0/16"), change: func(s *v1alpha1.Slice) { s.Spec.Namespaces.Names = nil },
			members: []member{at("c1", 0)}, want: `
Ready=True NoNamespaces
c1 ready=true nodes=1 pods=0 10.77.0.0/24
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.change != nil {
				c.change(c.slice)
			}
			got, err := judge(c.slice, append(c.others, *c.slice), c.members, t0.Add(10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if brief(got) != c.want[1:] {
				t.Errorf("got\n%swant\n%s", brief(got), c.want[1:])
			}
			for _, cond := range got.Conditions {
				if cond.ObservedGeneration != 3 {
					t.Errorf("%s speaks of generation %d", cond.Type, cond.ObservedGeneration)
				}
				if (cond.Status == "False" || cond.Reason == cond.Type && cond.Type != "Ready") && !strings.Contains(cond.Message, "Next: ") {
					t.Errorf("%s does not say what to do: %q", cond.Type, cond.Message)
				}
			}
			// Judging again, an hour later and on its own outcome, changes nothing but what the hour changed.
			c.slice.Status = got
			again, err := judge(c.slice, append(c.others, *c.slice), c.members, t0.Add(11*time.Second))
			if err != nil || brief(again) != brief(got) {
				t.Errorf("again: %v\n%s", err, brief(again))
			}
		})
	}
}

func other(name string, age time.Duration, clusters []string, namespaces ...string) v1alpha1.Slice {
	return v1alpha1.Slice{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(t0.Add(age))},
		Spec: v1alpha1.SliceSpec{Clusters: clusters, Namespaces: v1alpha1.Namespaces{Names: namespaces}}}
}

func TestDamagedStatusIsNotOverwritten(t *testing.T) {
	s := pay("10.77.0.0/16")
	s.Status.Clusters = []v1alpha1.SliceCluster{{Name: "c1", Blocks: []string{"10.77.0.0/24"}}, {Name: "c2", Blocks: []string{"10.77.0.0/25"}}}
	if _, err := judge(s, nil, []member{at("c1", 0), at("c2", 0)}, t0); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("got %v", err)
	}
	s.Status.Clusters = []v1alpha1.SliceCluster{{Name: "c1", Blocks: []string{"garbage"}}}
	if _, err := judge(s, nil, []member{at("c1", 0)}, t0); err == nil {
		t.Error("garbage was taken")
	}
}

func TestLifeOfAMember(t *testing.T) {
	r := newRig(t, pay("10.77.0.0/16"))
	r.join("c1")
	r.look()
	c := r.cluster("c1")
	r.expect(c.Status.Conditions, "Joined", "True", "Joined", "")
	r.expect(c.Status.Conditions, "Ready", "False", "Joining", "Next: ")
	if got := r.slice("pay").Status.Clusters; len(got) != 1 || got[0].Blocks[0] != "10.77.0.0/24" || got[0].Ready {
		t.Errorf("slice: %+v", got)
	}

	r.beat("c1")
	r.say("c1", fleet.Bulletin{Epoch: 1, Rev: 1, Software: "v1", Nodes: []fleet.Node{{Name: "n1", Cluster: "c1", Gateway: true}},
		Pods: []fleet.Pod{{Namespace: "pay", Name: "a", Slice: "pay", Cluster: "c1", Node: "n1", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.1")}}}})
	r.look()
	c = r.cluster("c1")
	r.expect(c.Status.Conditions, "Ready", "True", "Ready", "")
	if c.Status.Nodes != 1 || c.Status.Gateways != 1 || c.Status.Version != "v1" || c.Status.LastSeen == nil {
		t.Errorf("status: %+v", c.Status)
	}
	s := r.slice("pay")
	r.expect(s.Status.Conditions, "Ready", "True", "Ready", "")
	if s.Status.Pods != 1 {
		t.Errorf("%d pods", s.Status.Pods)
	}

	r.turn(silence + time.Second)
	r.look()
	r.expect(r.cluster("c1").Status.Conditions, "Ready", "False", "NotHeardFrom", "its traffic is not affected")
	r.expect(r.slice("pay").Status.Conditions, "Ready", "False", "ClusterNotReady", "c1")

	r.beat("c1")
	r.look()
	r.expect(r.cluster("c1").Status.Conditions, "Ready", "True", "Ready", "")

	// It asks to leave: the Cluster, the mailbox, the accounts and the block go.
	l := leaseOf(t.Context(), t, r.Client, "c1")
	l.Annotations = map[string]string{place.AnnotationLeaving: "now"}
	r.must(r.Update(t.Context(), l))
	r.look()
	r.absent(t.Context(), &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: "c1"}})
	for _, o := range place.ForMember("c1") {
		if o.GetNamespace() != place.Mailbox("c1") { // those go with the namespace, which a fake does not do
			r.absent(t.Context(), o)
		}
	}
	r.look()
	if got := r.slice("pay").Status.Clusters; len(got) != 0 {
		t.Errorf("the slice still has %+v", got)
	}
}

// TestClocksOfMembers: whether a member is alive is told by its changes, as the hub's own clock sees them; what the
// member's clock says does not matter.
func TestClocksOfMembers(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, -time.Minute, 0, time.Minute, time.Hour} {
		r := newRig(t)
		r.join("c1")
		r.say("c1", fleet.Bulletin{Epoch: 1, Rev: 1, Nodes: []fleet.Node{{Name: "n1", Cluster: "c1"}}})
		beat := func() {
			l := leaseOf(t.Context(), t, r.Client, "c1")
			at := metav1.NewMicroTime(r.clock().Add(ahead))
			l.Spec.RenewTime = &at
			r.must(r.Update(t.Context(), l))
			r.look()
		}
		for range 3 {
			beat()
			r.expect(r.cluster("c1").Status.Conditions, "Ready", "True", "Ready", "")
			r.turn(silence - time.Second)
			r.look()
			r.expect(r.cluster("c1").Status.Conditions, "Ready", "True", "Ready", "")
		}
		r.turn(2 * time.Second)
		r.look()
		r.expect(r.cluster("c1").Status.Conditions, "Ready", "False", "NotHeardFrom", "")
		ahead = -ahead // it is stepped back, or on
		beat()
		r.expect(r.cluster("c1").Status.Conditions, "Ready", "True", "Ready", "")
	}
}

func TestMailboxHeals(t *testing.T) {
	r := newRig(t)
	r.join("c1")
	r.must(r.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: place.Mailbox("c1"), Name: place.Bulletin}}))
	r.look()
	var cm corev1.ConfigMap
	cm.Namespace, cm.Name = place.Mailbox("c1"), place.Bulletin
	if err := r.Get(t.Context(), types.NamespacedName{Namespace: cm.Namespace, Name: cm.Name}, &cm); err != nil {
		t.Error(err)
	}
}

func TestLiesAndGarbageInABulletin(t *testing.T) {
	r := newRig(t, pay("10.77.0.0/16"))
	r.join("c1")
	r.join("c2")
	r.beat("c1")
	r.beat("c2")
	r.say("c1", fleet.Bulletin{Rev: 1})
	r.say("c2", fleet.Bulletin{Rev: 1})
	r.look()
	r.expect(r.cluster("c1").Status.Conditions, "Ready", "True", "Ready", "")

	var cm corev1.ConfigMap
	r.must(r.Get(t.Context(), types.NamespacedName{Namespace: place.Mailbox("c2"), Name: place.Bulletin}, &cm))
	liar := cm.BinaryData[place.BulletinKey]
	r.must(r.Get(t.Context(), types.NamespacedName{Namespace: place.Mailbox("c1"), Name: place.Bulletin}, &cm))
	cm.BinaryData[place.BulletinKey] = liar
	r.must(r.Update(t.Context(), &cm))
	r.look()
	r.expect(r.cluster("c1").Status.Conditions, "Ready", "False", "BulletinInvalid", `speaks for cluster "c2"`)

	r.must(r.Get(t.Context(), types.NamespacedName{Namespace: place.Mailbox("c1"), Name: place.Bulletin}, &cm))
	cm.BinaryData[place.BulletinKey] = []byte("garbage")
	r.must(r.Update(t.Context(), &cm))
	r.look()
	r.expect(r.cluster("c1").Status.Conditions, "Ready", "False", "BulletinInvalid", "bulletin of c1")
	if rows := r.slice("pay").Status.Clusters; len(rows) != 2 || len(rows[0].Blocks) != 1 {
		t.Errorf("blocks after garbage: %+v", rows)
	}
}
