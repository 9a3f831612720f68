package stage

import (
	"context"
	"fmt"
	"strings"
)

// App is a Deployment of the probe and its Service, or a single pod of it.
type App struct {
	Namespace, Name string
	Cluster         string
	Replicas        int
	Single          bool   // a bare pod, no Deployment and no Service
	Node            string // where; "" lets the scheduler choose
	HostNetwork     bool
	Stateful        bool // a StatefulSet with a headless Service
}

// Namespace makes a namespace that [Stage.Clean] will remove.
func (s *Stage) Namespace(ctx context.Context, cluster, name string) error {
	_, err := s.Apply(ctx, cluster, fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,"labels":{%q:"yes"}}}`, name, StoryLabel))
	return err
}

// Run makes an app and waits until its pods are Ready.
func (s *Stage) Run(ctx context.Context, a App) error {
	if _, err := s.Apply(ctx, a.Cluster, a.manifest(s.Probe)); err != nil {
		return err
	}
	var err error
	switch {
	case a.Single:
		_, err = s.Kubectl(ctx, a.Cluster, "wait", "--for=condition=Ready", "pod/"+a.Name, "-n", a.Namespace, "--timeout="+rollout)
	case a.Stateful:
		_, err = s.Kubectl(ctx, a.Cluster, "rollout", "status", "statefulset/"+a.Name, "-n", a.Namespace, "--timeout="+rollout)
	default:
		_, err = s.Kubectl(ctx, a.Cluster, "rollout", "status", "deployment/"+a.Name, "-n", a.Namespace, "--timeout="+rollout)
	}
	if err != nil {
		return fmt.Errorf("%s/%s in %s is not ready: %w", a.Namespace, a.Name, a.Cluster, err)
	}
	return nil
}

func (a App) manifest(image string) string {
	meta := fmt.Sprintf("metadata: {name: %s, namespace: %s, labels: {app: %s}}", a.Name, a.Namespace, a.Name)
	if a.Single {
		return "apiVersion: v1\nkind: Pod\n" + meta + "\nspec:\n" + indent(a.podSpec(image), 2)
	}
	kind, extra, headless := "Deployment", "", ""
	if a.Stateful {
		kind, extra, headless = "StatefulSet", "  serviceName: "+a.Name+"\n  podManagementPolicy: Parallel\n", "  clusterIP: None\n"
	}
	workload := fmt.Sprintf(`apiVersion: apps/v1
kind: %s
%s
spec:
  replicas: %d
%s  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: %s}}
    spec:
%s`, kind, meta, max(a.Replicas, 1), extra, a.Name, a.Name, indent(a.podSpec(image), 6))
	service := fmt.Sprintf(`---
apiVersion: v1
kind: Service
%s
spec:
  ipFamilyPolicy: PreferDualStack
%s  selector: {app: %s}
  ports:
  - {name: http, port: 8080}
  - {name: tcp, port: 7001}
  - {name: udp, port: 7001, protocol: UDP}
`, meta, headless, a.Name)
	return workload + service
}

// ProbeCPU is what pods of a story request, and DatabaseCPU what a database's do. Without any they get next to no time on a
// busy machine, and what is then measured is their own waiting.
const (
	ProbeCPU    = "50m"
	DatabaseCPU = "200m"
)

func (a App) podSpec(image string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `terminationGracePeriodSeconds: 2
containers:
- name: probe
  image: %s
  imagePullPolicy: Never
  args: [serve]
  resources: {requests: {cpu: %s}}
  env:
  - {name: CLUSTER, value: %s}
  - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
`, image, ProbeCPU, a.Cluster)
	if a.Node != "" {
		fmt.Fprintf(&b, "nodeSelector: {kubernetes.io/hostname: %s}\n", a.Node)
	}
	if a.HostNetwork {
		b.WriteString("hostNetwork: true\n")
	}
	return b.String()
}

func indent(s string, n int) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n"+pad) + "\n"
}
