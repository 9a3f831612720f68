package autoscale

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/e2e/stage"
)

// Leave fills the cluster's nodes with pods that do nothing, as far as room for so many more pods of the service is left:
// the scheduler and the autoscaler both reckon with what pods request.
func (s *Site) Leave(ctx context.Context, pods int) error {
	var nodes corev1.NodeList
	var all corev1.PodList
	if err := errors.Join(s.Client.List(ctx, &nodes), s.Client.List(ctx, &all)); err != nil {
		return err
	}
	fill, err := fills(freeMillis(nodes.Items, all.Items), pods)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Cluster, err)
	}
	var fillers strings.Builder
	for _, node := range slices.Sorted(maps.Keys(fill)) {
		fmt.Fprintf(&fillers, fillerOf, node, s.image, fill[node])
	}
	if fillers.Len() == 0 {
		return nil
	}
	if _, err := s.stage.Apply(ctx, s.Cluster, fillers.String()); err != nil {
		return err
	}
	return stage.Await(ctx, 30*time.Second, func() error { return s.filled(ctx) })
}

// fills is how much is to be requested of each node for room for so many pods to be left, on the first ones.
func fills(free map[string]int64, pods int) (map[string]int64, error) {
	out, left := map[string]int64{}, pods
	for _, node := range slices.Sorted(maps.Keys(free)) {
		n := min(left, max(0, int(free[node]/podMillis)))
		left -= n
		// Half a pod's worth stays free as well, so that no rounding decides.
		if fill := free[node] - int64(n)*podMillis - podMillis/2; fill > 0 {
			out[node] = fill
		}
	}
	if left > 0 {
		return nil, fmt.Errorf("there is room for %d pods only. Next: leave room for fewer than %d", pods-left, pods)
	}
	return out, nil
}

// podMillis is what a pod of the service requests.
const podMillis = int64(PodCores * 1000)

// fillerOf is a pod of a node, with the image and what it requests. It needs no network, so no slice gives it one.
const fillerOf = `---
apiVersion: v1
kind: Pod
metadata: {name: filler-%[1]s, namespace: shop, labels: {app: filler}}
spec: {hostNetwork: true, nodeName: %[1]s, terminationGracePeriodSeconds: 1, containers: [
  {name: filler, image: %[2]q, imagePullPolicy: Never, command: [/bin/sleep, "86400"], resources: {requests: {cpu: %[3]dm}}}]}
`

// filled waits for the fillers: a node that does not take one would have room all the same.
func (s *Site) filled(ctx context.Context) error {
	var list corev1.PodList
	if err := s.Client.List(ctx, &list, client.InNamespace(Namespace), client.MatchingLabels{"app": "filler"}); err != nil {
		return err
	}
	for _, p := range list.Items {
		if p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%s on %s is %s %s %s", p.Name, s.Cluster, p.Status.Phase, p.Status.Reason, p.Status.Message)
		}
	}
	return nil
}

// freeMillis is what is not requested of each node, in thousandths of a core.
func freeMillis(nodes []corev1.Node, pods []corev1.Pod) map[string]int64 {
	free := map[string]int64{}
	for _, n := range nodes {
		free[n.Name] = n.Status.Allocatable.Cpu().MilliValue()
	}
	for _, p := range pods {
		if _, known := free[p.Spec.NodeName]; !known || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range p.Spec.Containers {
			free[p.Spec.NodeName] -= c.Resources.Requests.Cpu().MilliValue()
		}
	}
	return free
}
