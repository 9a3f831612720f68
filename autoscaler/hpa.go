package autoscaler

import (
	"context"
	"fmt"
	"strconv"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/hub/place"
)

// ownHPA is the HPA that the autoscaler leaves behind, or moves the floor of: named like the Autoscaler.
func (t *target) ownHPA(floor int32) *autoscalingv2.HorizontalPodAutoscaler {
	util := t.spec.HPATarget
	if util == 0 {
		util = 70
	}
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	h.Namespace, h.Name = t.key.Namespace, t.key.Name
	h.Labels = map[string]string{place.LabelManagedBy: Name}
	h.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: t.spec.Target.APIVersion, Kind: t.spec.Target.Kind, Name: t.spec.Target.Name},
		MinReplicas:    &floor, MaxReplicas: t.spec.Max,
		Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &util}}}},
	}
	return h
}

// foreignHPA is another's HPA on the same target, nil if there is none.
func (t *target) foreignHPA(ctx context.Context) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := t.loop.client.List(ctx, &list, client.InNamespace(t.key.Namespace)); err != nil {
		return nil, fmt.Errorf("list HPAs: %w", err)
	}
	for i := range list.Items {
		h := &list.Items[i]
		if r := h.Spec.ScaleTargetRef; r.Kind == t.spec.Target.Kind && r.Name == t.spec.Target.Name && h.Labels[place.LabelManagedBy] != Name {
			return h, nil
		}
	}
	return nil, nil
}

// ensureHPA makes the HPA be there with a floor. One of somebody else's serves as well: its floor is moved and nothing
// else of it touched.
func (t *target) ensureHPA(ctx context.Context, floor int32) error {
	h, err := t.foreignHPA(ctx)
	if err != nil {
		return err
	}
	if h == nil {
		h = &autoscalingv2.HorizontalPodAutoscaler{}
		err := t.loop.client.Get(ctx, t.key, h)
		if apierrors.IsNotFound(err) {
			if err := t.loop.client.Create(ctx, t.ownHPA(floor)); err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("make the HPA %s: %w", t.key.Name, err)
			}
			return nil
		} else if err != nil {
			return fmt.Errorf("read the HPA %s: %w", t.key.Name, err)
		}
	}
	before := h.DeepCopy()
	if h.Labels[place.LabelManagedBy] != Name {
		if _, kept := h.Annotations[annotationFloor]; !kept {
			metav1.SetMetaDataAnnotation(&h.ObjectMeta, annotationFloor, strconv.Itoa(int(floorOf(h))))
		}
		floor = max(floor, theirs(h))
	} else { // what the spec says may have changed; what people have added to it stays
		want := t.ownHPA(floor).Spec
		h.Spec.MaxReplicas, h.Spec.ScaleTargetRef = want.MaxReplicas, want.ScaleTargetRef
		if m := h.Spec.Metrics; len(m) == 1 && m[0].Resource != nil && m[0].Resource.Name == corev1.ResourceCPU {
			m[0].Resource.Target.AverageUtilization = want.Metrics[0].Resource.Target.AverageUtilization
		}
	}
	floor = min(floor, h.Spec.MaxReplicas)
	h.Spec.MinReplicas = &floor
	return t.patchHPA(ctx, h, before)
}

// annotationFloor keeps the minReplicas that somebody else's HPA had before its floor was moved.
const annotationFloor = "seaway.dev/floor-before"

func floorOf(h *autoscalingv2.HorizontalPodAutoscaler) int32 {
	if h.Spec.MinReplicas == nil {
		return 1
	}
	return *h.Spec.MinReplicas
}

// theirs is the floor that the HPA's owner gave it.
func theirs(h *autoscalingv2.HorizontalPodAutoscaler) int32 {
	if n, err := strconv.ParseInt(h.Annotations[annotationFloor], 10, 32); err == nil && n >= 1 {
		return int32(n)
	}
	return floorOf(h)
}

func (t *target) patchHPA(ctx context.Context, h, before *autoscalingv2.HorizontalPodAutoscaler) error {
	if equality.Semantic.DeepEqual(h, before) {
		return nil
	}
	if err := t.loop.client.Patch(ctx, h, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("move the floor of the HPA %s: %w", h.Name, err)
	}
	return nil
}

// handBack leaves an HPA in charge: our own with the Autoscaler's bounds, or somebody else's as its owner made it.
func (t *target) handBack(ctx context.Context) error {
	h, err := t.foreignHPA(ctx)
	if err != nil {
		return err
	}
	if h == nil {
		return t.ensureHPA(ctx, max(t.spec.Min, 1))
	}
	return t.giveBack(ctx, h)
}

// giveBack gives somebody else's HPA the floor that it had.
func (t *target) giveBack(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) error {
	if _, moved := h.Annotations[annotationFloor]; !moved {
		return nil
	}
	before, floor := h.DeepCopy(), theirs(h)
	h.Spec.MinReplicas = &floor
	delete(h.Annotations, annotationFloor)
	return t.patchHPA(ctx, h, before)
}

// parkHPA takes our own HPA away, for two controllers of one number fight; another's is not ours to remove.
func (t *target) parkHPA(ctx context.Context) error {
	h, err := t.foreignHPA(ctx)
	if err != nil {
		return err
	}
	if h != nil {
		if err := t.giveBack(ctx, h); err != nil {
			return err
		}
		return complain("HPAInTheWay", "the HPA %s scales the same target, so the replicas are left to it. Next: delete it, or set mode Floor, which moves its minReplicas", h.Name)
	}
	own := &autoscalingv2.HorizontalPodAutoscaler{}
	if err := t.loop.client.Get(ctx, t.key, own); apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read the HPA %s: %w", t.key.Name, err)
	}
	if err := t.loop.client.Delete(ctx, own); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("take the HPA %s away: %w", t.key.Name, err)
	}
	return nil
}

// handOver leaves an HPA in charge: the Autoscaler is gone.
func (t *target) handOver(ctx context.Context) {
	if t.spec.Target.Name == "" {
		return
	}
	if err := t.handBack(ctx); err != nil {
		t.log.Warn("could not leave an HPA behind", "err", err)
		return
	}
	cm := &corev1.ConfigMap{}
	cm.Namespace, cm.Name = place.System, memoryName(t.key)
	if err := t.loop.client.Delete(ctx, cm); err != nil && !apierrors.IsNotFound(err) {
		t.log.Warn("could not remove what was learnt", "err", err)
	}
	t.log.Info("the Autoscaler is gone: an HPA is in charge", "target", t.spec.Target.Name)
}
