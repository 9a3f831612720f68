package install

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The two pods that run on each node. The agent decides nothing and can be replaced at any time; the tunnel holds the
// WireGuard sessions, so its successor is started beside it, waits for the node's lock, and takes over within a blink.

func agent(o MemberOptions) client.Object {
	both := corev1.MountPropagationBidirectional
	hour := int64(3600)
	pod := nodePod(AgentRole)
	pod.HostPID = true
	pod.DNSPolicy = corev1.DNSClusterFirstWithHostNet
	pod.Containers = []corev1.Container{{
		Name: "agent", Image: o.Image,
		Args: []string{"agent", "--node", "$(NODE_NAME)", "--node-ip", "$(NODE_IPS)", "--controller", "https://" + ControllerRole + "." + Namespace + ".svc:8443",
			// Kubernetes fills this in, because the Service is older than the pod; if it is not, it stays as it is.
			"--controller-address", "$(SEAWAY_CONTROLLER_SERVICE_HOST)",
			"--ca", "/etc/seaway/ca/ca.crt", "--token", "/var/run/secrets/seaway/token",
			"--metrics-port", strconv.Itoa(MetricsPort), "--metrics-token", "/etc/seaway/metrics/token", "--log-level", o.LogLevel},
		Env:             []corev1.EnvVar{fieldEnv("NODE_NAME", "spec.nodeName"), fieldEnv("NODE_IPS", "status.hostIPs")},
		SecurityContext: privileged(),
		Resources:       requests("50m", "32Mi"),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "run", MountPath: "/run/seaway", MountPropagation: &both},
			{Name: "state", MountPath: "/var/lib/seaway"},
			{Name: "ca", MountPath: "/etc/seaway/ca", ReadOnly: true},
			{Name: "token", MountPath: "/var/run/secrets/seaway", ReadOnly: true},
			{Name: "metrics", MountPath: "/etc/seaway/metrics", ReadOnly: true},
		},
	}}
	pod.Volumes = []corev1.Volume{
		hostDir("run", "/run/seaway"), hostDir("state", "/var/lib/seaway"), // the rest of the host it sees in /proc/1/root
		{Name: "ca", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "seaway-controller-ca"}}}},
		{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "seaway-controller", ExpirationSeconds: &hour, Path: "token"}}}}}},
	}
	optional := true
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "metrics", VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: MetricsSecret, Optional: &optional}}})
	third := intstr.FromString("33%")
	return daemonSet(AgentRole, pod, appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &third}})
}

func tunnel(o MemberOptions) client.Object {
	in := corev1.MountPropagationHostToContainer
	pod := nodePod(TunnelRole)
	pod.DNSPolicy = corev1.DNSDefault
	pod.Containers = []corev1.Container{{
		Name: "tunnel", Image: o.Image,
		Args: []string{"tunnel", "--port", udpPort, "--log-level", o.LogLevel},
		// No GOMEMLIMIT: wireguard-go holds 384 buffers of 64 KiB for each slice, of which a page or two are ever touched, but
		// the collector counts them whole. With thirteen slices and a limit of 192 MiB it took a third of all the time.
		SecurityContext: privileged(),
		// On a full node the request is the weight by which it gets time: who answers probes late is taken for dead.
		Resources: requests("100m", "48Mi"),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "run", MountPath: "/run/seaway", MountPropagation: &in},
			{Name: "state", MountPath: "/var/lib/seaway"},
			{Name: "tun", MountPath: "/dev/net/tun"},
		},
	}}
	char := corev1.HostPathCharDev
	pod.Volumes = []corev1.Volume{hostDir("run", "/run/seaway"), hostDir("state", "/var/lib/seaway"),
		{Name: "tun", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/dev/net/tun", Type: &char}}}}
	none, one := intstr.FromInt32(0), intstr.FromInt32(1)
	set := daemonSet(TunnelRole, pod, appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &none, MaxSurge: &one}})
	set.Spec.MinReadySeconds = 3 // whose successor dies young is not replaced on the next node
	return set
}

// nodePod is a pod in the node's own network that runs on every node and is evicted last.
func nodePod(role string) corev1.PodSpec {
	no, grace := false, int64(10)
	return corev1.PodSpec{
		ServiceAccountName: role, AutomountServiceAccountToken: &no,
		HostNetwork: true, PriorityClassName: "system-node-critical",
		Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		TerminationGracePeriodSeconds: &grace,
	}
}

// privileged is what it takes to move links between the namespaces of others and to mount for the whole node.
func privileged() *corev1.SecurityContext {
	yes, root := true, int64(0)
	return &corev1.SecurityContext{Privileged: &yes, RunAsUser: &root, ReadOnlyRootFilesystem: &yes}
}

func hostDir(name, path string) corev1.Volume {
	make := corev1.HostPathDirectoryOrCreate
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &make}}}
}

func daemonSet(role string, pod corev1.PodSpec, update appsv1.DaemonSetUpdateStrategy) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		ObjectMeta: meta(ComponentMember, Namespace, role),
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: podLabels(role)}, UpdateStrategy: update,
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: podLabels(role)}, Spec: pod}},
	}
}
