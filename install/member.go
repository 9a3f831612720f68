package install

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcs "sigs.k8s.io/mcs-api/config/crd"

	"seaway.dev/seaway/fleet"
)

// Names of the roles on a member.
const (
	ControllerRole = "seaway-controller"
	AgentRole      = "seaway-agent"
	TunnelRole     = "seaway-tunnel"
	DNSService     = "seaway-dns" // the address that the cluster's DNS forwards the slices' zones to
	Settings       = "seaway"     // ConfigMap with the member's settings
	StatusMap      = "seaway-status"
)

// DNSPort is the agents' DNS port on their nodes.
const DNSPort = 5453

// MetricsPort is the TCP port of /metrics on each node, for who has the token of the Secret [MetricsSecret].
const MetricsPort = 9468

// MetricsSecret holds, under the key token, what Prometheus shows the agents. Whoever wants their metrics makes it.
const MetricsSecret = "seaway-metrics"

// MemberOptions are the choices that a member has.
type MemberOptions struct {
	Cluster  string // its name in the fleet
	Image    string // with its tag
	Replicas int32  // of the controller; 0 means 2
	LogLevel string // debug, info, warn, error; "" means info
}

// Member lists the objects of a member, but for its credential and the kinds of the MCS-API.
func Member(o MemberOptions) []client.Object {
	if o.Replicas == 0 {
		o.Replicas = 2
	}
	if o.LogLevel == "" {
		o.LogLevel = "info"
	}
	return objects(
		[]client.Object{
			namespace(ComponentShared, Namespace, true),
			&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
				ObjectMeta: meta(ComponentMember, Namespace, Settings), Data: map[string]string{"cluster": o.Cluster}},
			serviceAccount(ComponentMember, Namespace, ControllerRole, true),
			serviceAccount(ComponentMember, Namespace, AgentRole, false),
			serviceAccount(ComponentMember, Namespace, TunnelRole, false),
		},
		controllerRights(),
		[]client.Object{
			controllerService(), dnsService(),
			tunnel(o), controller(o), controllerBudget(), agent(o),
		},
	)
}

// MCS lists the kinds of the MCS-API, ServiceExport and ServiceImport. They are a standard's and not ours: they are
// brought along where they are missing, and only those are taken away again.
func MCS() []*apiextensionsv1.CustomResourceDefinition {
	var out []*apiextensionsv1.CustomResourceDefinition
	for _, text := range [][]byte{mcs.ServiceExportCRD, mcs.ServiceImportCRD} {
		crd := definition(ComponentMember, text)
		crd.Labels[LabelInstalled] = "true"
		out = append(out, crd)
	}
	return out
}

func controllerService() client.Object {
	selector := podLabels(ControllerRole)
	selector["seaway.dev/leader"] = "true" // the leader sets it on its own pod
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: meta(ComponentMember, Namespace, ControllerRole),
		Spec: corev1.ServiceSpec{Selector: selector, Ports: []corev1.ServicePort{
			{Name: "https", Port: 8443, TargetPort: intstr.FromInt(8443), Protocol: corev1.ProtocolTCP},
		}},
	}
}

func dnsService() client.Object {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: meta(ComponentMember, Namespace, DNSService),
		Spec: corev1.ServiceSpec{Selector: podLabels(AgentRole), Ports: []corev1.ServicePort{
			{Name: "dns", Port: 53, TargetPort: intstr.FromInt(DNSPort), Protocol: corev1.ProtocolUDP},
			{Name: "dns-tcp", Port: 53, TargetPort: intstr.FromInt(DNSPort), Protocol: corev1.ProtocolTCP},
		}},
	}
}

func controller(o MemberOptions) client.Object {
	return deployment(ComponentMember, ControllerRole, o.Replicas, corev1.PodSpec{
		ServiceAccountName: ControllerRole,
		Containers: []corev1.Container{{
			Name: "controller", Image: o.Image,
			Args: []string{"controller", "--cluster", o.Cluster, "--pod", "$(POD_NAME)", "--log-level", o.LogLevel},
			Env:  []corev1.EnvVar{fieldEnv("POD_NAME", "metadata.name")},
			Ports: []corev1.ContainerPort{
				{Name: "https", ContainerPort: 8443, Protocol: corev1.ProtocolTCP},
				{Name: "metrics", ContainerPort: 8080, Protocol: corev1.ProtocolTCP},
				{Name: "health", ContainerPort: 8081, Protocol: corev1.ProtocolTCP},
			},
			LivenessProbe:   &corev1.Probe{ProbeHandler: get("/healthz", 8081), PeriodSeconds: 10, FailureThreshold: 6},
			ReadinessProbe:  &corev1.Probe{ProbeHandler: get("/readyz", 8081), PeriodSeconds: 2},
			Resources:       requests("20m", "64Mi"),
			SecurityContext: confined(),
		}},
	})
}

func controllerBudget() client.Object {
	one := intstr.FromInt(1)
	return &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: meta(ComponentMember, Namespace, ControllerRole),
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: podLabels(ControllerRole)}},
	}
}

func requests(cpu, memory string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}}
}

func fieldEnv(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}

// udpPort is the node's one port, as an argument.
var udpPort = strconv.Itoa(fleet.DefaultPort)
