package autoscaler

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/place"
)

const (
	beatEvery = 10 * time.Second // how often words are said that have not changed: a third of their life
	roomEvery = 2 * time.Second  // between two looks at the room on nodes
)

// hearWords reads what the other clusters' autoscalers say, and how much room the nodes have, if any Autoscaler divides its
// pods.
func (l *loop) hearWords(ctx context.Context, now time.Time, list []v1alpha1.Autoscaler) {
	if !slices.ContainsFunc(list, func(as v1alpha1.Autoscaler) bool { return as.Spec.Across == v1alpha1.AcrossSlice }) {
		l.heard, l.heardAs, l.room = fleet.Heard{}, "", nil
		return
	}
	cm := &corev1.ConfigMap{}
	err := l.client.Get(ctx, client.ObjectKey{Namespace: place.System, Name: fleet.ScalingHeard}, cm)
	switch {
	case apierrors.IsNotFound(err):
		l.heard, l.heardAs = fleet.Heard{}, ""
	case err != nil:
		l.log.Warn("cannot read what other clusters' autoscalers say", "err", err)
	case cm.ResourceVersion != l.heardAs:
		var h fleet.Heard
		if err := json.Unmarshal([]byte(cm.Data[fleet.ScalingKey]), &h); err != nil {
			l.log.Warn("what other clusters' autoscalers say makes no sense", "configmap", cm.Name, "err", err)
		}
		l.heard, l.heardAs = h, cm.ResourceVersion
	}
	if now.Sub(l.roomAt) >= roomEvery || now.Before(l.roomAt) || l.room == nil {
		if room, err := l.look(ctx); err == nil {
			l.room, l.roomAt = room, now
		} else {
			l.log.Warn("cannot tell the room on nodes", "err", err)
		}
	}
}

// say writes down what this cluster's targets have to say, when it is news and now and then besides.
func (l *loop) say(ctx context.Context, now time.Time) {
	words := []fleet.Scaling{}
	for _, t := range l.targets {
		if t.across.word != nil {
			words = append(words, *t.across.word)
		}
	}
	slices.SortFunc(words, func(a, b fleet.Scaling) int { return strings.Compare(a.Key(), b.Key()) })
	words = words[:min(len(words), fleet.MaxScaling)]
	due := len(words) > 0 && (now.Sub(l.saidAt) >= beatEvery || now.Before(l.saidAt))
	if !due && slices.EqualFunc(words, l.said, alike) {
		return
	}
	told := slices.Clone(words)
	for i := range told {
		told[i].Beat = uint64(now.UnixNano())
	}
	text, err := json.Marshal(told)
	if err != nil {
		l.log.Error("cannot say what is wanted", "err", err)
		return
	}
	cm := &corev1.ConfigMap{}
	cm.Namespace, cm.Name = place.System, fleet.ScalingSaid
	cm.Labels = map[string]string{place.LabelPartOf: "seaway", place.LabelComponent: "autoscaler", place.LabelManagedBy: Name}
	cm.Data = map[string]string{fleet.ScalingKey: string(text)}
	if err := l.keep(ctx, cm); err != nil {
		l.log.Warn("cannot say what is wanted", "err", err)
		return
	}
	l.said, l.saidAt = words, now
}

// alike tells whether two words differ in nothing that others wait for.
func alike(a, b fleet.Scaling) bool {
	for _, s := range []*fleet.Scaling{&a, &b} {
		s.Room = min(s.Room, 1) // that there is none is waited for
		s.Floor, s.Kept, s.Load, s.Soon, s.Late, s.Starts, s.Beat = 0, 0, 0, 0, 0, 0, 0
	}
	return a == b
}

// room is what is free on each node: of what pods request, not of what they use.
type room []space

type space struct {
	cores, memory float64
	pods          int
}

// look reckons the room on the nodes that take pods. Taints, affinities and quotas are not looked at.
func (l *loop) look(ctx context.Context) (room, error) {
	var nodes corev1.NodeList
	var pods corev1.PodList
	if err := l.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	if err := l.client.List(ctx, &pods, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	free := map[string]*space{}
	for i := range nodes.Items {
		if n := &nodes.Items[i]; usable(n) {
			a := n.Status.Allocatable
			free[n.Name] = &space{a.Cpu().AsApproximateFloat64(), a.Memory().AsApproximateFloat64(), int(a.Pods().Value())}
		}
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		s := free[p.Spec.NodeName]
		if s == nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		s.pods--
		for _, c := range p.Spec.Containers {
			s.cores -= c.Resources.Requests.Cpu().AsApproximateFloat64()
			s.memory -= c.Resources.Requests.Memory().AsApproximateFloat64()
		}
	}
	out := room{}
	for _, s := range free {
		out = append(out, *s)
	}
	return out, nil
}

// pods is for how many pods there is room that request so much each, once those that wait for a node have theirs.
func (r room) pods(cores, memory float64, waiting int) int {
	n := 0
	for _, s := range r {
		fit := float64(s.pods)
		if cores > 0 {
			fit = math.Min(fit, s.cores/cores+1e-9)
		}
		if memory > 0 {
			fit = math.Min(fit, s.memory/memory+1e-9)
		}
		n += int(math.Max(0, fit))
	}
	return max(0, n-max(0, waiting))
}
