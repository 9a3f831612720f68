package autoscaler

import (
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	floor = min(floor, h.Spec.MaxReplicas)
	if h.Spec.MinReplicas != nil && *h.Spec.MinReplicas == floor {
		return nil
	}
	before := h.DeepCopy()
	h.Spec.MinReplicas = &floor
	if err := t.loop.client.Patch(ctx, h, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("move the floor of the HPA %s: %w", h.Name, err)
	}
	return nil
}

// parkHPA takes our own HPA away, for two controllers of one number fight; another's is not ours to remove.
func (t *target) parkHPA(ctx context.Context) error {
	h, err := t.foreignHPA(ctx)
	if err != nil {
		return err
	}
	if h != nil {
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
	if err := t.ensureHPA(ctx, max(t.spec.Min, 1)); err != nil {
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
