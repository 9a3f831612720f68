package install

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/deploy/crds"
)

// AutoscalerRole is the name of the autoscaler's Deployment, account and roles.
const AutoscalerRole = "seaway-autoscaler"

// ComponentAutoscaler is what its objects are labelled with.
const ComponentAutoscaler = "autoscaler"

// kedaPort is where KEDA finds the external push scaler.
const kedaPort = 9100

// AutoscalerOptions are the choices that an installation of the autoscaler has.
type AutoscalerOptions struct {
	Image      string // with its tag
	Prometheus string // URL; empty: each Autoscaler names its own
}

// Autoscaler lists the objects of the autoscaler. It needs a cluster, and nothing else of Seaway.
func Autoscaler(o AutoscalerOptions) []client.Object {
	args := []string{"autoscaler", "--metrics", ":8080", "--health", ":8081", "--keda", ":9100"}
	if o.Prometheus != "" {
		args = append(args, "--prometheus", o.Prometheus)
	}
	return objects(
		[]client.Object{
			namespace(ComponentShared, Namespace, true),
			definition(ComponentAutoscaler, crds.Autoscalers),
			serviceAccount(ComponentAutoscaler, Namespace, AutoscalerRole, true),
		},
		autoscalerRights(),
		[]client.Object{
			&corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta(ComponentAutoscaler, Namespace, AutoscalerRole),
				Spec: corev1.ServiceSpec{Selector: podLabels(AutoscalerRole), Ports: []corev1.ServicePort{{Name: "keda", Port: kedaPort, TargetPort: intstr.FromInt(kedaPort), Protocol: corev1.ProtocolTCP}}}},
			deployment(ComponentAutoscaler, AutoscalerRole, 2, corev1.PodSpec{
				ServiceAccountName: AutoscalerRole,
				Containers: []corev1.Container{{
					Name: "autoscaler", Image: o.Image, Args: args,
					Ports: []corev1.ContainerPort{
						{Name: "metrics", ContainerPort: 8080, Protocol: corev1.ProtocolTCP},
						{Name: "health", ContainerPort: 8081, Protocol: corev1.ProtocolTCP},
						{Name: "keda", ContainerPort: kedaPort, Protocol: corev1.ProtocolTCP},
					},
					LivenessProbe:   &corev1.Probe{ProbeHandler: get("/healthz", 8081), PeriodSeconds: 10, FailureThreshold: 6},
					ReadinessProbe:  &corev1.Probe{ProbeHandler: get("/readyz", 8081), PeriodSeconds: 2},
					Resources:       corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("48Mi")}},
					SecurityContext: confined(),
				}},
			}),
		},
	)
}

// autoscalerRights: it reads pods, nodes and workloads, writes the scale of any workload and HPAs, and keeps what it
// learns in its own namespace.
func autoscalerRights() []client.Object {
	read := []string{"get", "list", "watch"}
	everywhere := []rbacv1.PolicyRule{
		{APIGroups: []string{"seaway.dev"}, Resources: []string{"autoscalers"}, Verbs: read},
		{APIGroups: []string{"seaway.dev"}, Resources: []string{"autoscalers/status"}, Verbs: []string{"get", "update", "patch"}},
		{APIGroups: []string{""}, Resources: []string{"pods", "nodes"}, Verbs: read},
		{APIGroups: []string{"apps"}, Resources: []string{"deployments", "statefulsets", "replicasets"}, Verbs: read},
		{APIGroups: []string{"*"}, Resources: []string{"*/scale"}, Verbs: []string{"get", "update", "patch"}}, // as the HPA's controller
		{APIGroups: []string{"autoscaling"}, Resources: []string{"horizontalpodautoscalers"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
	here := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
	}
	me := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: Namespace, Name: AutoscalerRole}
	return []client.Object{
		clusterRole(ComponentAutoscaler, AutoscalerRole, everywhere), clusterRoleBinding(ComponentAutoscaler, AutoscalerRole, me),
		role(ComponentAutoscaler, Namespace, AutoscalerRole, here), roleBinding(ComponentAutoscaler, Namespace, AutoscalerRole, me),
	}
}
