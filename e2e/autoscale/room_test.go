package autoscale

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFills: once a cluster is filled, exactly as many pods of the service fit as were asked for.
func TestFills(t *testing.T) {
	requests := func(cpu string) corev1.PodSpec {
		return corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}}
	}
	node := func(name, cpu string) corev1.Node {
		return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}
	}
	done, waits := corev1.Pod{Spec: requests("1"), Status: corev1.PodStatus{Phase: corev1.PodFailed}}, corev1.Pod{Spec: requests("1")}
	waits.Spec.NodeName = ""
	free := freeMillis([]corev1.Node{node("n1", "0.3"), node("n2", "2"), node("n3", "0.01")}, []corev1.Pod{{Spec: requests("100m")}, done, waits})
	if free["n1"] != 200 || free["n2"] != 2000 {
		t.Fatalf("free: %v", free)
	}
	for _, pods := range []int{0, 2, 5, 6, 55} {
		fill, err := fills(free, pods)
		if err != nil {
			t.Fatal(err)
		}
		fit := 0
		for node, f := range free {
			fit += int((f - fill[node]) / podMillis)
		}
		if fit != pods {
			t.Errorf("room for %d pods, want %d: %v of %v", fit, pods, fill, free)
		}
	}
	if _, err := fills(free, 56); err == nil {
		t.Error("there is no room for 56 pods, and nobody said so")
	}
}
