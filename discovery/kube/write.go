package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
	"seaway.dev/seaway/fleet"
)

// Marks on what Seaway makes.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	// exportedKeys lists the labels and annotations of an import that exports brought there, so that they go when
	// the exports drop them and what others wrote stays.
	exportedKeys = "seaway.dev/exported"
)

// again turns an error into what the queue is to do. That somebody else was faster or that a namespace is going away
// is no error: the next event says how it ended.
func again(err error) (reconcile.Result, error) {
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return reconcile.Result{RequeueAfter: retryAfter}, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, err
}

// writeConditions sets the conditions of an export, and drops a Conflict that is not said any more.
func (r *Reconciler) writeConditions(ctx context.Context, object *mcs.ServiceExport, conditions []discovery.Condition) error {
	object = object.DeepCopy()
	before := slices.Clone(object.Status.Conditions)
	setConditions(&object.Status.Conditions, object.Generation, conditions)
	if !slices.ContainsFunc(conditions, func(c discovery.Condition) bool { return c.Type == discovery.CondConflict }) {
		meta.RemoveStatusCondition(&object.Status.Conditions, discovery.CondConflict)
	}
	if equality.Semantic.DeepEqual(before, object.Status.Conditions) {
		return nil
	}
	if err := r.client.Status().Update(ctx, object); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the conditions of ServiceExport %s/%s: %w", object.Namespace, object.Name, err)
	}
	return nil
}

func setConditions(to *[]metav1.Condition, generation int64, conditions []discovery.Condition) {
	for _, c := range conditions {
		status := metav1.ConditionFalse
		if c.True {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(to, metav1.Condition{Type: c.Type, Status: status, Reason: c.Reason,
			Message: c.Message, ObservedGeneration: generation})
	}
}

// foreignImport turns the condition Ready of an export whose import somebody else made.
func foreignImport(conditions []discovery.Condition, key types.NamespacedName) []discovery.Condition {
	out := slices.Clone(conditions)
	for i, c := range out {
		if c.Type == discovery.CondReady {
			out[i].True, out[i].Reason = false, discovery.ReasonForeignImport
			out[i].Message = fmt.Sprintf("ServiceImport %s was not made by Seaway (no label %s=%s): delete it, or remove the other implementation of multi-cluster services", key, managedByLabel, ManagedBy)
		}
	}
	return out
}

// writeImport makes the ServiceImport and EndpointSlices of a name what they should be; none if im is nil. It leaves
// alone, and says so, an import that Seaway did not make.
func (r *Reconciler) writeImport(ctx context.Context, key types.NamespacedName, im *discovery.Import) (foreign bool, err error) {
	object := new(mcs.ServiceImport)
	err = r.client.Get(ctx, key, object)
	switch {
	case apierrors.IsNotFound(err):
		object = nil
	case err != nil:
		return false, fmt.Errorf("get ServiceImport %s: %w", key, err)
	case object.Labels[managedByLabel] != ManagedBy:
		return true, r.writeSlices(ctx, key, nil, nil)
	}
	if im == nil {
		if err := r.writeSlices(ctx, key, nil, nil); err != nil || object == nil {
			return false, err
		}
		if err := r.client.Delete(ctx, object, client.Preconditions{UID: &object.UID}); client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("delete ServiceImport %s: %w", key, err)
		}
		return false, nil
	}
	if object, err = r.applyImport(ctx, key, object, im); err != nil {
		return false, err
	}
	if err := r.writeSlices(ctx, key, object, im); err != nil {
		return false, err
	}
	return false, r.writeImportStatus(ctx, object, im)
}

// applyImport creates or updates the ServiceImport, without its status.
func (r *Reconciler) applyImport(ctx context.Context, key types.NamespacedName, object *mcs.ServiceImport, im *discovery.Import) (*mcs.ServiceImport, error) {
	create := object == nil
	if create {
		object = &mcs.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	}
	want := object.DeepCopy()
	want.Spec = importSpec(im)
	mark(want, im)
	switch {
	case create:
		if err := r.client.Create(ctx, want); err != nil {
			return nil, fmt.Errorf("create ServiceImport %s: %w", key, err)
		}
	case !equality.Semantic.DeepEqual(object.Spec, want.Spec) || !maps.Equal(object.Labels, want.Labels) || !maps.Equal(object.Annotations, want.Annotations):
		if err := r.client.Update(ctx, want); err != nil {
			return nil, fmt.Errorf("update ServiceImport %s: %w", key, err)
		}
	}
	return want, nil
}

// importSpec translates an import.
func importSpec(im *discovery.Import) mcs.ServiceImportSpec {
	spec := mcs.ServiceImportSpec{Type: mcs.ClusterSetIP, Ports: []mcs.ServicePort{}, SessionAffinity: corev1.ServiceAffinityNone}
	for _, p := range im.Ports {
		port := mcs.ServicePort{Name: p.Name, Protocol: corev1.Protocol(p.Protocol), Port: int32(p.Port)}
		if p.AppProtocol != "" {
			port.AppProtocol = &p.AppProtocol
		}
		spec.Ports = append(spec.Ports, port)
	}
	for _, f := range im.Families {
		spec.IPFamilies = append(spec.IPFamilies, corev1.IPFamily(f))
	}
	if im.TrafficDistribution != "" {
		spec.TrafficDistribution = &im.TrafficDistribution
	}
	if im.Headless {
		spec.Type = mcs.Headless
		return spec
	}
	for _, ip := range im.IPs {
		spec.IPs = append(spec.IPs, ip.String())
	}
	if im.Affinity {
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		timeout := im.Timeout
		if timeout <= 0 {
			timeout = corev1.DefaultClientIPServiceAffinitySeconds
		}
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
	}
	if im.InternalTrafficPolicy != "" {
		p := corev1.ServiceInternalTrafficPolicy(im.InternalTrafficPolicy)
		spec.InternalTrafficPolicy = &p
	}
	return spec
}

// mark gives an import our label and the exported labels and annotations, and takes away those that were exported
// before. Others' labels and annotations stay.
func mark(object *mcs.ServiceImport, im *discovery.Import) {
	type keys struct {
		Labels      []string `json:"labels,omitempty"`
		Annotations []string `json:"annotations,omitempty"`
	}
	var old keys
	_ = json.Unmarshal([]byte(object.Annotations[exportedKeys]), &old) // empty or damaged: nothing to take away
	labels, annotations := maps.Clone(object.Labels), maps.Clone(object.Annotations)
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	for _, k := range old.Labels {
		delete(labels, k)
	}
	for _, k := range old.Annotations {
		delete(annotations, k)
	}
	delete(annotations, exportedKeys)
	maps.Copy(labels, im.Labels)
	maps.Copy(annotations, im.Annotations)
	labels[managedByLabel] = ManagedBy
	now := keys{slices.Sorted(maps.Keys(im.Labels)), slices.Sorted(maps.Keys(im.Annotations))}
	if len(now.Labels)+len(now.Annotations) > 0 {
		b, _ := json.Marshal(now) // two lists of strings can be marshalled
		annotations[exportedKeys] = string(b)
	}
	if len(annotations) == 0 && object.Annotations == nil {
		annotations = nil
	}
	object.Labels, object.Annotations = labels, annotations
}

// writeImportStatus sets the exporting clusters, the conditions, and that there are EndpointSlices.
func (r *Reconciler) writeImportStatus(ctx context.Context, object *mcs.ServiceImport, im *discovery.Import) error {
	want := object.DeepCopy()
	want.Status.EndpointSliceObjects = mcs.EndpointSliceObjectsPresent
	want.Status.Clusters = nil
	for _, c := range im.Clusters {
		want.Status.Clusters = append(want.Status.Clusters, mcs.ClusterStatus{Cluster: c})
	}
	setConditions(&want.Status.Conditions, want.Generation, discovery.Imported(*im))
	if equality.Semantic.DeepEqual(object.Status, want.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, want); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the status of ServiceImport %s/%s: %w", want.Namespace, want.Name, err)
	}
	return nil
}

// byCluster groups an import's endpoints by the cluster that exports them.
func byCluster(endpoints []fleet.Endpoint) map[string][]fleet.Endpoint {
	out := map[string][]fleet.Endpoint{}
	for _, e := range endpoints {
		out[e.Cluster] = append(out[e.Cluster], e)
	}
	return out
}
