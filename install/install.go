// Package install knows which objects Seaway consists of in a cluster, as values: [Hub] and [Member] are pure
// functions from options to a list of objects in the order of making. [Apply] makes them true in a cluster and undoes
// what it made when something fails; [Remove] takes them away.
package install

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/hub/place"
)

// Namespace is where Seaway's own pods live, on the hub and on members.
const Namespace = place.System

// The components that objects are labelled with.
const (
	ComponentHub    = "hub"
	ComponentMember = "member"
	ComponentShared = "shared" // needed by both: the namespace
)

// DefaultImage is the image of all roles, without a tag.
const DefaultImage = "ghcr.io/seaway-dev/seaway"

// LabelInstalled marks a CustomResourceDefinition of others that Seaway brought along, so that it takes away no more
// than that.
const LabelInstalled = "seaway.dev/installed"

func meta(component, namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: place.Labels(component, "")}
}

// namespace makes a namespace whose pods may be privileged (the agent must be) or not.
func namespace(component, name string, privileged bool) *corev1.Namespace {
	ns := &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: meta(component, "", name)}
	level := "restricted"
	if privileged {
		level = "privileged"
	}
	ns.Labels["pod-security.kubernetes.io/enforce"] = level
	return ns
}

func serviceAccount(component, ns, name string, automount bool) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta: meta(component, ns, name), AutomountServiceAccountToken: &automount}
}

// definition reads an embedded CRD.
func definition(component string, text []byte) *apiextensionsv1.CustomResourceDefinition {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, crd); err != nil {
		panic(fmt.Sprintf("embedded CRD: %v", err)) // a test reads them all
	}
	if crd.Labels == nil {
		crd.Labels = map[string]string{}
	}
	for k, v := range place.Labels(component, "") {
		crd.Labels[k] = v
	}
	return crd
}

// pod labels select a role's pods. They are few and never change, because selectors cannot.
func podLabels(role string) map[string]string {
	return map[string]string{place.LabelPartOf: "seaway", "app.kubernetes.io/name": role}
}

// spread keeps the replicas of a role on different nodes where there are several.
func spread(role string) *corev1.Affinity {
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{
				TopologyKey: "kubernetes.io/hostname", LabelSelector: &metav1.LabelSelector{MatchLabels: podLabels(role)}},
		}},
	}}
}

// confined is the security of a container that needs nothing.
func confined() *corev1.SecurityContext {
	no, yes, uid := false, true, int64(65532)
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes, RunAsUser: &uid,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func get(path string, port int) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(port)}}
}

// deployment is a replicated role with leader election.
func deployment(component, role string, replicas int32, pod corev1.PodSpec) *appsv1.Deployment {
	pod.Affinity = spread(role)
	surge, gone := intstr.FromInt(1), intstr.FromInt(0)
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: meta(component, Namespace, role),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: podLabels(role)},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &gone}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: podLabels(role)}, Spec: pod},
		},
	}
}

func objects(lists ...[]client.Object) (all []client.Object) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
