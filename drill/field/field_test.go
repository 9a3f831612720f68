package field

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"seaway.dev/seaway/fleet"
)

func node(name string, cordoned bool, labels map[string]string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: corev1.NodeSpec{Unschedulable: cordoned}}
}

func status(gateways ...string) fleet.Status {
	var st fleet.Status
	for _, g := range gateways {
		st.Nodes = append(st.Nodes, fleet.NodeState{Name: g, Gateway: true, Peers: []fleet.PeerState{
			{Peer: "c2/b", Path: "direct 10.0.0.9:51871"}, {Peer: "c2/c", Path: "relay c2/b 10.0.0.9:51871"}, {Peer: "c2/d", Path: "none"},
		}})
	}
	return st
}

func TestAGatewayIsCordonedAndSweptFree(t *testing.T) {
	k := fake.NewClientset(node("a", false, nil), node("b", false, nil), node("people-did", true, nil))
	f := &Field{Kube: k, Drill: "cordon-gateway", Hold: 10 * time.Second, Status: status("a", "b")}
	if did, err := f.Inject(t.Context()); err != nil || did != "cordoned gateway a" {
		t.Fatalf("%q %v", did, err)
	}
	a, _ := k.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
	if !a.Spec.Unschedulable || a.Annotations[Cordoned] != "40s" {
		t.Fatalf("%+v", a)
	}
	// Another process, that knows nothing of the first, undoes it, and leaves alone what people did.
	other := &Field{Kube: k}
	for range 2 {
		if _, err := other.Sweep(t.Context(), func(corev1.Pod) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	a, _ = k.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
	p, _ := k.CoreV1().Nodes().Get(t.Context(), "people-did", metav1.GetOptions{})
	if a.Spec.Unschedulable || a.Annotations[Cordoned] != "" || !p.Spec.Unschedulable {
		t.Errorf("a: %+v %+v, people's: %+v", a.Spec, a.Annotations, p.Spec)
	}
}

func TestNoGatewayIsTakenThatNobodyReplaces(t *testing.T) {
	for name, f := range map[string]*Field{
		"only one":         {Kube: fake.NewClientset(node("a", false, nil)), Status: status("a")},
		"cordoned already": {Kube: fake.NewClientset(node("a", true, nil), node("b", false, nil)), Status: status("a", "b")},
		"by its label":     {Kube: fake.NewClientset(node("a", false, map[string]string{"seaway.dev/gateway": "true"})), Status: status("a", "b")},
	} {
		f.Drill = "cordon-gateway"
		if did, err := f.Inject(t.Context()); err == nil {
			t.Errorf("%s: %s", name, did)
		}
	}
}

func TestOnlyPodsThatAreMadeAgainAreDeleted(t *testing.T) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}}
	pod := func(name string, owned bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "web"}}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		if owned {
			p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "rs"}}, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		}
		return p
	}
	f := &Field{Kube: fake.NewClientset(svc, pod("alone", false)), Namespace: "shop", Service: "web", Drill: "delete-pod"}
	if did, err := f.Inject(t.Context()); err == nil {
		t.Errorf("%s, and nothing makes it again", did)
	}
	f.Kube = fake.NewClientset(svc, pod("alone", false), pod("owned", true))
	if did, err := f.Inject(t.Context()); err != nil || did != "deleted pod owned" {
		t.Errorf("%q %v", did, err)
	}
}

func TestWhoSpeaksDirectlyWithAPeer(t *testing.T) {
	if got := directPeers(status("a", "b"), "c2/b"); len(got) != 2 || got[0].addr.String() != "10.0.0.9:51871" {
		t.Errorf("%v", got)
	}
	for _, peer := range []string{"c2/c", "c2/d", "", "nobody"} {
		if got := directPeers(status("a"), peer); got != nil {
			t.Errorf("%s: %v", peer, got)
		}
	}
	f := &Field{Kube: fake.NewClientset(), Drill: "blackhole-peer", Peer: "c2/c", Status: status("a"), Hold: time.Second}
	if did, err := f.Inject(t.Context()); err == nil {
		t.Errorf("%s", did)
	}
}
