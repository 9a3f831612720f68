package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// label points the agents' Service at this replica: it labels its own pod and takes the label from all others, then
// returns when ctx ends.
func (l *leader) label(ctx context.Context) error {
	for {
		err := l.point(ctx)
		if err == nil {
			<-ctx.Done()
			return nil
		}
		if ctx.Err() == nil {
			l.log.Warn("agents are not pointed at this replica yet; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (l *leader) point(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var pods corev1.PodList
	if err := l.client.List(ctx, &pods, client.InNamespace(l.cfg.Namespace), client.MatchingLabels{LeaderLabel: "true"}); err != nil {
		return fmt.Errorf("find pods labelled %s: %w", LeaderLabel, err)
	}
	var errs []error
	mine := false
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Name == l.cfg.Pod {
			mine = true
		} else {
			errs = append(errs, client.IgnoreNotFound(l.setLabel(ctx, p.Name, nil)))
		}
	}
	if !mine {
		errs = append(errs, l.setLabel(ctx, l.cfg.Pod, "true"))
	}
	return errors.Join(errs...)
}

func (l *leader) setLabel(ctx context.Context, pod string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{LeaderLabel: value}}})
	if err != nil {
		return fmt.Errorf("label pod %s: %w", pod, err)
	}
	p := &corev1.Pod{}
	p.Namespace, p.Name = l.cfg.Namespace, pod
	if err := l.client.Patch(ctx, p, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("label pod %s: %w", pod, err)
	}
	return nil
}
