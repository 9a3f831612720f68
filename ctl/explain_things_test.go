package ctl

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// explained is a member with a slice, as its controller tells it.
func explained() *fleet.Status {
	return &fleet.Status{
		Cluster: "paris", Written: time.Now(),
		Slices: []fleet.SliceState{{Name: "pay", Namespaces: []string{"blue", "shop"}, Pods: 3, Attached: 2, Remote: 4, Services: 1, Leased: 4,
			Blocks: []netip.Prefix{netip.MustParsePrefix("10.77.4.0/22")},
			Rules:  map[string]string{"shop": "named in spec.namespaces.names", "blue": "its labels match spec.namespaces.selector team=blue"}}},
		Nodes: []fleet.NodeState{
			{Name: "n1", Connected: true, Applied: true, Slices: []string{"pay"},
				Pods: []fleet.Attachment{{PodUID: "u0", Namespace: "shop", Pod: "web-0", Slice: "pay", Attached: true, Reason: "Attached", Took: 14},
					{PodUID: "u1", Namespace: "shop", Pod: "web-1", Slice: "pay", Reason: "LinkFailed", Message: "no veth"}},
				Peers: []fleet.PeerState{
					{Slice: "pay", Peer: "tokyo/n1", Path: "direct 192.0.2.1:51871", State: fleet.ReachUp, RTT: 20 * time.Millisecond},
					{Slice: "pay", Peer: "tokyo/n2", Path: "relay tokyo/n1 192.0.2.1:51871", State: fleet.ReachUp, Why: "direct: no answer; tokyo/n1: works"}}},
			{Name: "n2", Applied: true, Slices: []string{"pay"}, Pods: []fleet.Attachment{{PodUID: "u2", Namespace: "blue", Pod: "a", Slice: "pay", Attached: true}}},
		},
		Problems: []fleet.Problem{{Reason: "LinkFailed", Where: "pod shop/web-1", Message: "no veth", Next: "load it"}, {Reason: "Other", Where: "slice bank"}},
	}
}

// has checks that a text shows each of some pieces, in this order.
func has(t *testing.T, text string, pieces ...string) {
	t.Helper()
	rest := text
	for _, p := range pieces {
		i := strings.Index(rest, p)
		if i < 0 {
			t.Errorf("%q is missing (or out of order) in:\n%s", p, text)
			return
		}
		rest = rest[i+len(p):]
	}
}

func TestExplainSlice(t *testing.T) {
	a := SliceAccount{Name: "pay"}
	a.seen(explained())
	has(t, a.Text(), "slice pay in cluster paris", "10.77.4.0/22", "3 here, 2 attached; 4 in other clusters; 1 service",
		"blue", "selector team=blue", "shop", "named in spec", "n1", "connected", "shop/web-1 LinkFailed", "n2", "silent",
		"tokyo/n1", "direct", "20ms", "the nodes reach each other", "tokyo/n2", "relay tokyo/n1", "direct: no answer; tokyo/n1: works", "next: load it")
	if strings.Contains(a.Text(), "bank") {
		t.Errorf("another slice's problem is shown:\n%s", a.Text())
	}
	hub := SliceAccount{Name: "pay", Asked: &v1alpha1.Slice{Spec: v1alpha1.SliceSpec{Prefixes: []v1alpha1.CIDR{"10.77.0.0/16"},
		Namespaces: v1alpha1.Namespaces{Names: []string{"shop"}, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}}},
		Status: v1alpha1.SliceStatus{Clusters: []v1alpha1.SliceCluster{{Name: "paris", Blocks: []string{"10.77.4.0/22"}}},
			Conditions: []metav1.Condition{{Type: v1alpha1.SliceReady, Status: metav1.ConditionFalse, Reason: "Starting", Message: "wait. Next: nothing"}}}}}
	has(t, hub.Text(), "as the hub has it: Ready False, Starting", "all of the fleet", "named: shop", "labels match team=blue", "paris", "10.77.4.0/22", "next: nothing")
	none := SliceAccount{Name: "bank"}
	if none.seen(explained()); none.Here != nil {
		t.Errorf("a slice that is not there: %+v", none)
	}
}

func TestExplainPath(t *testing.T) {
	for _, c := range []struct {
		from, to string
		shows    []string
		fails    string
	}{
		{"n1", "tokyo/n1", []string{"paris/n1 > tokyo/n1", "pay", "direct 192.0.2.1:51871", "up", "20ms", "0%", "the nodes reach each other"}, ""},
		{"paris/n1", "tokyo/n2", []string{"relay tokyo/n1", "direct: no answer"}, ""},
		{"shop/web-0", "tokyo/n1", []string{"paris/n1 > tokyo/n1"}, ""},
		{"shop/web-0", "shop/web-1", []string{"paris/n1 > paris/n1", "local", "slice's own namespace"}, ""},
		{"n2", "tokyo/n1", nil, "needs none"},
		{"n9", "tokyo/n1", nil, `"n9"`},
		{"tokyo/n1", "n1", nil, `"tokyo/n1"`},
		{"n1", "n9", nil, `"n9"`},
	} {
		list, err := pathsBetween(explained(), c.from, c.to)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s > %s: %v, %v", c.from, c.to, list, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s > %s: %v", c.from, c.to, err)
			continue
		}
		has(t, pathsText(list), c.shows...)
	}
	if a := accountOf("a/b", fleet.PeerState{Path: "none", State: fleet.ReachUp}); !strings.Contains(a.Why, "nothing was sent yet") {
		t.Error(a.Why)
	}
	for path, why := range map[string]string{"direct x": "reach each other", "relay c/g x": "relays", "none": "no way"} {
		if a := accountOf("a/b", fleet.PeerState{Path: path}); !strings.Contains(a.Why, why) {
			t.Errorf("%s: %s", path, a.Why)
		}
	}
}

func TestExplainPod(t *testing.T) {
	pod := func(edit func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "u0", Labels: map[string]string{"app": "web"},
			Annotations: map[string]string{"seaway.dev/slice-ips": "10.77.4.1,fd77::1"}}, Spec: corev1.PodSpec{NodeName: "n1"},
			Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: "seaway.dev/attached", Status: "True", Reason: "Attached", LastTransitionTime: metav1.Now()}}}}
		if edit != nil {
			edit(p)
		}
		return p
	}
	a := accountOfPod(pod(nil), explained())
	a.Policies = policiesOn(pod(nil), []networkingv1.NetworkPolicy{
		{ObjectMeta: metav1.ObjectMeta{Name: "web-only"}, Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Egress: []networkingv1.NetworkPolicyEgressRule{{}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "db-only"}, Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}}})
	service := func(name, app string) corev1.Service {
		return corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": app}}}
	}
	a.Names = offeredAs(pod(nil), []corev1.Service{service("web", "web"), service("private", "web"), service("db", "db")},
		[]mcsv1beta1.ServiceExport{{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, {ObjectMeta: metav1.ObjectMeta{Name: "db"}}})
	has(t, a.Text(), "pod shop/web-0 on slice pay: attached", "named in spec.namespaces.names", "10.77.4.1, fd77::1", "Attached since", "14 ms",
		"n1, its agent connected", "NetworkPolicy web-only governs its ingress and egress", "web.shop.svc.clusterset.local")
	for _, no := range []string{"db-only", "private", "db.shop"} {
		if strings.Contains(a.Text(), no) {
			t.Errorf("%s is shown:\n%s", no, a.Text())
		}
	}
	has(t, accountOfPod(pod(func(p *corev1.Pod) { p.Namespace = "else" }), explained()).Text(), "is on no slice", "namespace else is on no slice")
	has(t, accountOfPod(pod(func(p *corev1.Pod) { p.Labels["seaway.dev/exclude"] = "true" }), explained()).Text(), "is on no slice", "seaway.dev/exclude=true keeps it off slice pay")
	has(t, accountOfPod(pod(func(p *corev1.Pod) {
		p.Status.Conditions[0].Status, p.Status.Conditions[0].Reason, p.Status.Conditions[0].Message = "False", "HostNetwork", "no network of its own"
	}), explained()).Text(), "NOT ATTACHED", "HostNetwork since", "no network of its own", "no NetworkPolicy selects it")
	has(t, accountOfPod(pod(func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Conditions = "", nil }), explained()).Text(), "NOT ATTACHED", "PodScheduled")
}
