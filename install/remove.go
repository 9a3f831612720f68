package install

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/hub/place"
)

// kinds are all kinds of which Seaway makes objects, in the order of removal: what runs first, then rights, then the
// rest; definitions and namespaces are not here because they are removed with more care.
var kinds = []schema.GroupVersionKind{
	{Group: "apps", Version: "v1", Kind: "Deployment"},
	{Group: "apps", Version: "v1", Kind: "DaemonSet"},
	{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"},
	{Version: "v1", Kind: "Service"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRoleBinding"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "Role"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicyBinding"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicy"},
	{Version: "v1", Kind: "ConfigMap"},
	{Version: "v1", Kind: "Secret"},
	{Version: "v1", Kind: "ServiceAccount"},
	{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"},
}

// Ours selects the objects of a component, by the labels that all of them carry.
func Ours(component string) labels.Selector {
	return labels.SelectorFromSet(labels.Set{place.LabelPartOf: "seaway", place.LabelComponent: component})
}

// ofMember selects everything of Seaway that is not the hub's, nor kept by the hub for its members, nor the autoscaler's,
// which needs no fleet: also what the controller made without saying for whom.
func ofMember() labels.Selector {
	s := labels.SelectorFromSet(labels.Set{place.LabelPartOf: "seaway"})
	other, err := labels.NewRequirement(place.LabelComponent, selection.NotIn, []string{ComponentHub, ComponentShared, ComponentAutoscaler, "join"})
	if err != nil {
		panic(err) // constants
	}
	// Where the hub is a member, too: what it keeps for its members names the cluster. Taking that would lock them all out.
	unnamed, err := labels.NewRequirement(place.LabelCluster, selection.DoesNotExist, nil)
	if err != nil {
		panic(err) // constants
	}
	return s.Add(*other, *unnamed)
}

// RemoveMember removes all objects of a member but definitions and namespaces. Told is called for each.
func RemoveMember(ctx context.Context, c client.Client, told func(string)) error {
	return remove(ctx, c, ofMember(), told)
}

// RemoveHub removes all objects of a hub but definitions and namespaces. Told is called for each.
func RemoveHub(ctx context.Context, c client.Client, told func(string)) error {
	if err := remove(ctx, c, Ours("join"), told); err != nil {
		return err
	}
	return remove(ctx, c, Ours(ComponentHub), told)
}

// RemoveAutoscaler removes all objects of the autoscaler but definitions and namespaces. Told is called for each.
func RemoveAutoscaler(ctx context.Context, c client.Client, told func(string)) error {
	return remove(ctx, c, Ours(ComponentAutoscaler), told)
}

func remove(ctx context.Context, c client.Client, s labels.Selector, told func(string)) error {
	for _, gvk := range kinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk)
		err := c.List(ctx, list, client.MatchingLabelsSelector{Selector: s})
		if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			continue // an older API server without that kind
		}
		if err != nil {
			return fmt.Errorf("list %s objects: %w", gvk.Kind, err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if err := removeOne(ctx, c, o, told); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeOne(ctx context.Context, c client.Client, o client.Object, told func(string)) error {
	err := c.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove %s: %w", nameOf(o), err)
	}
	if told != nil && err == nil {
		told(nameOf(o))
	}
	return nil
}

// RemoveNamespaces removes namespaces that are Seaway's own and waits until they are gone.
func RemoveNamespaces(ctx context.Context, c client.Client, told func(string), names ...string) error {
	var going []client.Object
	for _, n := range names {
		ns := &unstructured.Unstructured{}
		ns.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
		err := c.Get(ctx, client.ObjectKey{Name: n}, ns)
		if apierrors.IsNotFound(err) || err == nil && ns.GetLabels()[place.LabelPartOf] != "seaway" {
			continue
		}
		if err == nil {
			err = removeOne(ctx, c, ns, told)
		}
		if err != nil {
			return err
		}
		going = append(going, ns)
	}
	for _, ns := range going { // they empty themselves side by side
		if err := Gone(ctx, c, ns); err != nil {
			return err
		}
	}
	return nil
}

// Gone waits until an object is gone.
func Gone(ctx context.Context, c client.Client, o client.Object) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		probe := &unstructured.Unstructured{}
		probe.SetGroupVersionKind(o.GetObjectKind().GroupVersionKind())
		err := c.Get(ctx, client.ObjectKeyFromObject(o), probe)
		if apierrors.IsNotFound(err) || apimeta.IsNoMatchError(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is gone: %w; see what holds it with kubectl get -o yaml", nameOf(o), ctx.Err())
		case <-tick.C:
		}
	}
}
