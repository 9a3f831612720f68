package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/install"
)

// mayInstall asks the API server whether this account may do what an installation does, before anything is done.
func (t *target) mayInstall(ctx context.Context) (string, error) {
	for _, need := range []authorizationv1.ResourceAttributes{
		{Verb: "create", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
		{Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
		{Verb: "create", Group: "apps", Resource: "daemonsets", Namespace: install.Namespace},
		{Verb: "create", Resource: "namespaces"},
	} {
		r, err := t.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &need}}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		if !r.Status.Allowed {
			return "", fail(ExitRefused, "your account may not %s %s on %s", need.Verb, need.Resource, t.rest.Host).
				then("use an account with cluster-admin, or choose another --context")
		}
	}
	return "", nil
}

// uid is what makes this cluster this cluster: the UID of its kube-system namespace.
func (t *target) uid(ctx context.Context) (string, error) {
	ns, err := t.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read namespace kube-system: %w", err)
	}
	return string(ns.UID), nil
}

// rollout waits until a workload runs everywhere it should, and tells what it waits for.
func (t *target) rollout(ctx context.Context, wait time.Duration, say func(string), kind client.Object, name string) (string, error) {
	last := ""
	err := poll(ctx, wait, 300*time.Millisecond, func() (bool, error) {
		if err := t.Get(ctx, client.ObjectKey{Namespace: install.Namespace, Name: name}, kind); err != nil {
			return false, err
		}
		have, want, current := ready(kind)
		last = fmt.Sprintf("%d of %d pods", have, want)
		say(last)
		return current && have >= want, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return last, fail(ExitFailed, "%s does not run after %s (%s)%s", name, wait, last, t.why(ctx, name)).
			then("kubectl -n %s describe pods -l app.kubernetes.io/name=%s", install.Namespace, name)
	}
	return last, err
}

func ready(o client.Object) (have, want int32, current bool) {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return min(o.Status.AvailableReplicas, o.Status.UpdatedReplicas), *o.Spec.Replicas, o.Status.ObservedGeneration >= o.Generation
	case *appsv1.DaemonSet: // not NumberAvailable: that waits minReadySeconds more, which is the rollout's pace, and not the pods' state
		return o.Status.NumberReady, o.Status.DesiredNumberScheduled, o.Status.ObservedGeneration >= o.Generation
	}
	return 0, 1, false
}

// why says what the pods of a workload that does not run complain about, in a few words.
func (t *target) why(ctx context.Context, name string) string {
	var pods corev1.PodList
	if err := t.List(ctx, &pods, client.InNamespace(install.Namespace), client.MatchingLabels{"app.kubernetes.io/name": name}); err != nil {
		return ""
	}
	seen := map[string]bool{}
	var out []string
	note := func(s string) {
		if s = strings.TrimSpace(s); s != "" && !seen[s] && len(out) < 3 {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil {
				note(w.Reason + " " + w.Message)
			} else if x := c.LastTerminationState.Terminated; x != nil && !c.Ready {
				note(fmt.Sprintf("%s ended with exit code %d: %s", c.Name, x.ExitCode, x.Message))
			}
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				note(c.Message)
			}
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ": " + strings.Join(out, "; ")
}
