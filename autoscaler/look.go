package autoscaler

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/scale"
)

// world is what the cluster says of a target now.
type world struct {
	replicas, ready, nodes int
	placed                 int     // pods that have a node
	lost                   int     // pods that were ready, and whose node is not any more
	memory                 float64 // bytes that one pod requests, 0: none
	rollout                bool
	starts                 []scale.Start
	version                string
	object                 client.Object
}

// look reads the scale, the pods and the nodes.
func (t *target) look(ctx context.Context, now time.Time) (*world, error) {
	obj, sub, err := t.readScale(ctx)
	if err != nil {
		return nil, err
	}
	w := &world{replicas: int(sub.Spec.Replicas), version: sub.ResourceVersion, object: obj}
	if d, ok := obj.(*appsv1.Deployment); ok {
		w.rollout = d.Status.ObservedGeneration < d.Generation && d.Generation > 1 && d.Status.UpdatedReplicas < d.Status.Replicas ||
			d.Status.UpdatedReplicas > 0 && d.Status.UpdatedReplicas < d.Status.Replicas
	}
	selector, err := labels.Parse(sub.Status.Selector)
	if d, ok := obj.(*appsv1.Deployment); ok {
		selector, err = metav1.LabelSelectorAsSelector(d.Spec.Selector)
	}
	if err != nil || selector.Empty() {
		return nil, complain("TargetUnscalable", "%s %s does not say which pods are its own. Next: choose a target with a scale subresource that has a selector", t.spec.Target.Kind, t.spec.Target.Name)
	}
	var pods corev1.PodList
	if err := t.loop.client.List(ctx, &pods, client.InNamespace(t.key.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", t.spec.Target.Name, err)
	}
	var nodes corev1.NodeList
	if err := t.loop.client.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list the nodes: %w", err)
	}
	byName := map[string]*corev1.Node{}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		byName[n.Name] = n
		if usable(n) {
			w.nodes++
		}
	}
	t.count(now, w, pods.Items, byName)
	return w, nil
}

// count tells ready pods, and starts that have ended since the last look.
func (t *target) count(now time.Time, w *world, pods []corev1.Pod, nodes map[string]*corev1.Node) {
	first := t.seen == nil
	if len(pods) > 0 {
		for _, c := range pods[0].Spec.Containers {
			w.memory += c.Resources.Requests.Memory().AsApproximateFloat64()
		}
	}
	seen := make(map[types.UID]bool, len(pods))
	for i := range pods {
		p := &pods[i]
		s, ok := startOf(p, nodes[p.Spec.NodeName])
		if ok && p.DeletionTimestamp == nil {
			w.ready++
		}
		if p.DeletionTimestamp == nil && p.Spec.NodeName != "" {
			w.placed++
		}
		if !ok && !t.seen[p.UID] {
			continue
		}
		seen[p.UID] = true
		if n := nodes[p.Spec.NodeName]; n != nil && !ok && p.DeletionTimestamp == nil && !lives(n) {
			w.lost++
		}
		// Those that were there at the first look have started at some time, under whatever conditions: only fresh
		// ones speak of now.
		if ok && !t.seen[p.UID] && (!first || now.Sub(s.Ready) < time.Hour) {
			w.starts = append(w.starts, s)
		}
	}
	t.seen = seen
}

// startOf reads a pod's way to readiness from its conditions.
func startOf(p *corev1.Pod, n *corev1.Node) (s scale.Start, ready bool) {
	s = scale.Start{Name: p.Name, Created: p.CreationTimestamp.Time}
	for _, c := range p.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case corev1.PodScheduled:
			s.Scheduled = c.LastTransitionTime.Time
		case corev1.PodReady:
			s.Ready, ready = c.LastTransitionTime.Time, true
		}
	}
	if len(p.Spec.Containers) > 0 {
		s.Image = p.Spec.Containers[0].Image
	}
	if n != nil {
		s.Pool = pool(n)
		s.Provider = provider(n)
		s.NewNode = n.CreationTimestamp.After(p.CreationTimestamp.Time)
	}
	return s, ready
}

// pool is the node pool's name, by the labels that providers use.
func pool(n *corev1.Node) string {
	for _, k := range []string{"eks.amazonaws.com/nodegroup", "cloud.google.com/gke-nodepool", "kubernetes.azure.com/agentpool", "karpenter.sh/nodepool", "node.kubernetes.io/instance-type"} {
		if v := n.Labels[k]; v != "" {
			return v
		}
	}
	return ""
}

// provider is what a node's provider ID begins with: aws, gce, azure, kind, ...
func provider(n *corev1.Node) string {
	for i, c := range n.Spec.ProviderID {
		if c == ':' {
			return n.Spec.ProviderID[:i]
		}
	}
	return ""
}

func usable(n *corev1.Node) bool {
	if n.Spec.Unschedulable {
		return false
	}
	for _, taint := range n.Spec.Taints {
		if taint.Effect == corev1.TaintEffectNoSchedule && taint.Key == "node-role.kubernetes.io/control-plane" {
			return false
		}
	}
	return lives(n)
}

func lives(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// object is the target as an object to ask for.
func (t *target) object() client.Object {
	s := t.spec.Target
	if s.APIVersion == "apps/v1" && s.Kind == "Deployment" || s.Kind == "" {
		d := &appsv1.Deployment{}
		d.Namespace, d.Name = t.key.Namespace, s.Name
		return d
	}
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(s.APIVersion)
	u.SetKind(s.Kind)
	u.SetNamespace(t.key.Namespace)
	u.SetName(s.Name)
	return u
}

func (t *target) readScale(ctx context.Context) (client.Object, *autoscalingv1.Scale, error) {
	obj, sub := t.object(), &autoscalingv1.Scale{}
	err := t.loop.client.Get(ctx, client.ObjectKeyFromObject(obj), obj)
	if err == nil {
		err = t.loop.client.SubResource("scale").Get(ctx, obj, sub)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil, complain("TargetMissing", "there is no %s %s with a scale subresource in namespace %s. Next: check spec.target", t.spec.Target.Kind, t.spec.Target.Name, t.key.Namespace)
	} else if err != nil {
		return nil, nil, fmt.Errorf("read the scale of %s: %w", t.spec.Target.Name, err)
	}
	return obj, sub, nil
}

func (t *target) writeScale(ctx context.Context, obj client.Object, sub *autoscalingv1.Scale) error {
	return t.loop.client.SubResource("scale").Update(ctx, obj, client.WithSubResourceBody(sub))
}

// podCores is what one of the target's pods requests.
func (t *target) podCores(ctx context.Context, as *v1alpha1.Autoscaler) (float64, error) {
	t.spec = as.Spec
	obj, sub, err := t.readScale(ctx)
	if err != nil {
		return 0, err
	}
	var spec *corev1.PodSpec
	if d, ok := obj.(*appsv1.Deployment); ok {
		spec = &d.Spec.Template.Spec
	} else if selector, err := labels.Parse(sub.Status.Selector); err == nil {
		var pods corev1.PodList
		if err := t.loop.client.List(ctx, &pods, client.InNamespace(t.key.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
			return 0, fmt.Errorf("list the pods of %s: %w", t.spec.Target.Name, err)
		}
		if len(pods.Items) > 0 {
			spec = &pods.Items[0].Spec
		}
	}
	cores := 0.
	if spec != nil {
		for _, c := range spec.Containers {
			cores += c.Resources.Requests.Cpu().AsApproximateFloat64()
		}
	}
	if cores <= 0 {
		return 0, complain("NoRequests", "the pods of %s request no CPU, so nobody can tell how full they are. Next: set resources.requests.cpu in the pod template", t.spec.Target.Name)
	}
	return cores, nil
}
