package field

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// cluster is one whose pods run at once, and whose nodes have an agent.
func cluster() *fake.Clientset {
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "seaway-agent"}}
	ds.Spec.Template.Spec.Containers = []corev1.Container{{Name: "agent", Image: "seaway:7", ImagePullPolicy: corev1.PullNever}}
	k := fake.NewClientset(ds)
	made := 0
	k.PrependReactor("create", "pods", func(a ktesting.Action) (bool, runtime.Object, error) {
		p := a.(ktesting.CreateAction).GetObject().(*corev1.Pod)
		if p.Name == "" {
			made++
			p.Name = fmt.Sprintf("%s%d", p.GenerateName, made)
		}
		p.Status.Phase = corev1.PodRunning
		return false, nil, nil
	})
	return k
}

// TestTheClientIsSeawaysOwnAndGoes: it runs the agent's image with no right at all, and is gone in the end, although it
// never had an answer (the fake's logs say nothing that is a note).
func TestTheClientIsSeawaysOwnAndGoes(t *testing.T) {
	k := cluster()
	f := &Field{Kube: k, Namespace: "shop", Service: "web", Port: 80, Drill: "nothing", Hold: 10 * time.Second}
	if err := f.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a client that ends without an answer: %v", err)
	}
	pods, err := k.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods %v", len(pods.Items), err)
	}
	p := pods.Items[0]
	c := p.Spec.Containers[0]
	if c.Image != "seaway:7" || c.ImagePullPolicy != corev1.PullNever || !*c.SecurityContext.RunAsNonRoot || p.Spec.ActiveDeadlineSeconds == nil || p.Labels[Label] == "" {
		t.Errorf("%+v", p)
	}
	if args := strings.Join(c.Args, " "); args != "drill-client --to web.shop.svc.clusterset.local.:80 --for 3m10s" {
		t.Errorf("it runs %s", args)
	}
	for range 2 {
		if err := f.End(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if pods, _ = k.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{}); len(pods.Items) != 0 {
		t.Errorf("%d pods are left", len(pods.Items))
	}
}

// TestHolesAreClosedBySomebodyElse: a hole on each node that speaks directly with the peer, with one right; another
// process that knows nothing of it removes them, and leaves the client alone.
func TestHolesAreClosedBySomebodyElse(t *testing.T) {
	k := cluster()
	f := &Field{Kube: k, Namespace: "shop", Service: "web", Port: 80, Drill: "blackhole-peer", Peer: "c2/b", Hold: 10 * time.Second, Status: status("a", "b")}
	_ = f.Start(t.Context())
	did, err := f.Inject(t.Context())
	if err != nil || strings.Count(did, "drops packets to and from c2/b (10.0.0.9:51871)") != 2 {
		t.Fatalf("%q %v", did, err)
	}
	holes := func() (n int) {
		pods, err := k.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods.Items {
			c := p.Spec.Containers[0].SecurityContext.Capabilities
			if p.Labels[Label] == "hole" {
				n++
				if !p.Spec.HostNetwork || p.Spec.NodeName == "" || len(c.Add) != 1 || c.Add[0] != "NET_ADMIN" || *p.Spec.ActiveDeadlineSeconds > 60 {
					t.Errorf("%+v", p.Spec)
				}
			}
		}
		return n
	}
	if holes() != 2 {
		t.Fatalf("%d holes", holes())
	}
	if _, err := (&Field{Kube: k}).Undo(t.Context()); err != nil || holes() != 0 {
		t.Errorf("%d holes are left (%v)", holes(), err)
	}
	if pods, _ := k.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{}); len(pods.Items) != 1 {
		t.Error("undoing the fault removed the client that measures it")
	}
}
