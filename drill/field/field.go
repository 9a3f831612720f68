// Package field is the hands of a drill on a Kubernetes cluster. It needs no more than Kubernetes gives an
// administrator: pods are deleted, a node is cordoned, and packets to a peer are dropped by a pod of Seaway's own image
// whose rules the kernel itself forgets in time. What it makes carries [Label], so that [Field.Sweep] finds what a drill
// left that was killed.
package field

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"seaway.dev/seaway/drill/sight"
	"seaway.dev/seaway/fleet"
)

const (
	// Label is on every pod that a drill makes, Cordoned on a node that it cordoned, with for how long that may count.
	Label    = "seaway.dev/drill"
	Cordoned = fleet.DrillMark

	system    = "seaway-system"
	begin     = 60 * time.Second // for the client's pod to ask its first question
	afterwork = 3 * time.Minute  // that the client goes on at most after the longest fault
	grace     = 30 * time.Second // for a drill to undo itself, before others do
)

// Field is one cluster and what is rehearsed there.
type Field struct {
	Kube      kubernetes.Interface
	Cluster   string
	Namespace string // of the service and of the client
	Service   string
	Port      int32
	Drill     string
	Peer      string // CLUSTER/NODE, for blackhole-peer
	Hold      time.Duration
	Status    fleet.Status // of this cluster

	agent   corev1.Container // its image is everything's
	cleanup []func(context.Context) error

	mu    sync.Mutex
	notes []sight.Note
	ended error
}

// Start runs the client and returns when it has asked its first question.
func (f *Field) Start(ctx context.Context) error {
	ds, err := f.Kube.AppsV1().DaemonSets(system).Get(ctx, "seaway-agent", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("the agent of this cluster: %w", err)
	}
	if f.agent, err = image(ds); err != nil {
		return err
	}
	// With the dot at its end the name is asked for as it is, and not with every search domain first.
	addr := fmt.Sprintf("%s.%s.svc.clusterset.local.:%d", f.Service, f.Namespace, f.Port)
	life := int64((f.Hold + afterwork).Seconds())
	no, yes, nobody := false, true, int64(65534)
	pod := f.pod("seaway-drill-client-", f.Namespace, life, "drill-client", "--to", addr, "--for", (f.Hold + afterwork).String())
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, RunAsNonRoot: &yes, RunAsUser: &nobody,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	made, err := f.make(ctx, pod)
	if err != nil {
		return fmt.Errorf("the drill's client: %w", err)
	}
	if err := f.awaitPod(ctx, made, corev1.PodRunning); err != nil {
		return fmt.Errorf("the drill's client: %w", err)
	}
	logs, err := f.Kube.CoreV1().Pods(f.Namespace).GetLogs(made.Name, &corev1.PodLogOptions{Follow: true}).Stream(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("what the drill's client notes: %w", err)
	}
	f.cleanup = append(f.cleanup, func(context.Context) error { return logs.Close() })
	go f.follow(logs)
	return f.await(ctx, "the drill's client has no good answer from "+addr, func() (bool, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.ContainsFunc(f.notes, func(n sight.Note) bool { return n.Outcome == "ok" }), f.ended
	})
}

func image(ds *appsv1.DaemonSet) (corev1.Container, error) {
	if cs := ds.Spec.Template.Spec.Containers; len(cs) > 0 {
		return corev1.Container{Image: cs[0].Image, ImagePullPolicy: cs[0].ImagePullPolicy, Command: cs[0].Command}, nil
	}
	return corev1.Container{}, errors.New("the agent's DaemonSet has no container")
}

// follow reads the client's notes until its log ends.
func (f *Field) follow(logs io.Reader) {
	in := bufio.NewScanner(logs)
	for in.Scan() {
		n, err := sight.Parse(in.Text())
		if err != nil {
			continue // what a runtime or the program itself says besides
		}
		f.mu.Lock()
		f.notes = append(f.notes, n)
		f.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = fmt.Errorf("the drill's client ended (%v)", in.Err())
}

// Notes implements drill.Hands.
func (f *Field) Notes() ([]sight.Note, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.notes
	f.notes = nil
	return out, f.ended
}

// Inject implements drill.Hands.
func (f *Field) Inject(ctx context.Context) (string, error) {
	switch f.Drill {
	case "delete-pod":
		return f.deletePod(ctx)
	case "cordon-gateway":
		return f.cordon(ctx)
	case "blackhole-peer":
		return f.hole(ctx)
	}
	return "did nothing", nil
}

// Undo implements drill.Hands.
func (f *Field) Undo(ctx context.Context) (string, error) {
	did, err := f.Sweep(ctx, func(p corev1.Pod) bool { return p.Labels[Label] == "hole" })
	return strings.Join(did, "; "), err
}

// deletePod deletes one ready pod behind the service in this cluster.
func (f *Field) deletePod(ctx context.Context) (string, error) {
	svc, err := f.Kube.CoreV1().Services(f.Namespace).Get(ctx, f.Service, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("no pod of service %s/%s is in this cluster: %w", f.Namespace, f.Service, err)
	}
	if len(svc.Spec.Selector) == 0 {
		return "", fmt.Errorf("service %s/%s selects no pods", f.Namespace, f.Service)
	}
	pods, err := f.Kube.CoreV1().Pods(f.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: svc.Spec.Selector})})
	if err != nil {
		return "", err
	}
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning {
			continue
		}
		if metav1.GetControllerOf(&p) == nil {
			continue // nothing would make it again
		}
		return "deleted pod " + p.Name, f.Kube.CoreV1().Pods(f.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{})
	}
	return "", fmt.Errorf("service %s/%s has no running pod in this cluster that would be made again", f.Namespace, f.Service)
}

// cordon keeps a gateway from relaying, if another is left.
func (f *Field) cordon(ctx context.Context) (string, error) {
	var gateways []string
	for _, n := range f.Status.Nodes {
		if n.Gateway {
			gateways = append(gateways, n.Name)
		}
	}
	if len(gateways) < 2 {
		return "", fmt.Errorf("this cluster has %d gateways: a drill takes none away that nobody replaces", len(gateways))
	}
	name := gateways[0]
	node, err := f.Kube.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if node.Spec.Unschedulable {
		return "", fmt.Errorf("node %s is cordoned already", name)
	}
	if node.Labels["seaway.dev/gateway"] == "true" {
		return "", fmt.Errorf("node %s is a gateway by its label, whatever happens to it: remove the label seaway.dev/gateway to let Seaway choose", name)
	}
	// The mark in the same change: what has been cordoned by a drill can always be told, and when the drill must be over, the
	// controller lets the gateway relay again, whatever became of this command.
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}},"spec":{"unschedulable":true}}`, Cordoned, (f.Hold + grace).String())
	_, err = f.Kube.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	return "cordoned gateway " + name, err
}

// hole drops packets to the peer on every node that speaks with it directly.
func (f *Field) hole(ctx context.Context) (string, error) {
	where := directPeers(f.Status, f.Peer)
	if len(where) == 0 {
		return "", fmt.Errorf("no node of this cluster speaks directly with %q: `seaway status` shows the peers", f.Peer)
	}
	var did []string
	for _, w := range where {
		root, yes := int64(0), true
		pod := f.pod("seaway-drill-hole-", system, int64((f.Hold + grace).Seconds()), "drill-hole", "--peer", w.addr.String(), "--for", f.Hold.String())
		pod.Labels[Label] = "hole"
		pod.Spec.NodeName, pod.Spec.HostNetwork = w.node, true
		pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &root, ReadOnlyRootFilesystem: &yes,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}}}
		made, err := f.make(ctx, pod)
		if err == nil {
			err = f.awaitPod(ctx, made, corev1.PodRunning)
		}
		if err != nil {
			return strings.Join(did, "; "), fmt.Errorf("hole on %s: %w", w.node, err)
		}
		did = append(did, fmt.Sprintf("node %s drops packets to and from %s (%s) for %s", w.node, f.Peer, w.addr, f.Hold))
	}
	return strings.Join(did, "; "), nil
}

type direct struct {
	node string
	addr netip.AddrPort
}

// directPeers finds the nodes whose path to a peer is direct, and the address that they use.
func directPeers(st fleet.Status, peer string) []direct {
	var out []direct
	for _, n := range st.Nodes {
		for _, p := range n.Peers {
			words := strings.Fields(p.Path)
			if p.Peer != peer || len(words) < 2 || words[0] != "direct" {
				continue
			}
			if a, err := netip.ParseAddrPort(words[1]); err == nil && !slices.Contains(out, direct{n.Name, a}) {
				out = append(out, direct{n.Name, a})
			}
		}
	}
	return out
}

// pod is one of Seaway's own image that ends by itself.
func (f *Field) pod(name, namespace string, life int64, args ...string) *corev1.Pod {
	no, ending := false, int64(5)
	c := f.agent
	c.Name, c.Args = "drill", args
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name, Namespace: namespace, Labels: map[string]string{Label: "client"}},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: &life, TerminationGracePeriodSeconds: &ending,
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no, Containers: []corev1.Container{c}},
	}
}

func (f *Field) make(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	made, err := f.Kube.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	f.cleanup = append(f.cleanup, func(ctx context.Context) error {
		err := f.Kube.CoreV1().Pods(made.Namespace).Delete(ctx, made.Name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	return made, nil
}

func (f *Field) awaitPod(ctx context.Context, p *corev1.Pod, want corev1.PodPhase) error {
	return f.await(ctx, fmt.Sprintf("pod %s/%s is not %s", p.Namespace, p.Name, want), func() (bool, error) {
		now, err := f.Kube.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if now.Status.Phase == corev1.PodFailed {
			return false, fmt.Errorf("it failed: %s", now.Status.Message)
		}
		return now.Status.Phase == want, nil
	})
}

func (f *Field) await(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, begin)
	defer cancel()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s after %s", what, begin)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// End removes everything that the drill made, whatever its outcome.
func (f *Field) End(ctx context.Context) error {
	var errs []error
	for _, c := range slices.Backward(f.cleanup) {
		errs = append(errs, c(ctx))
	}
	f.cleanup = nil
	return errors.Join(errs...)
}

// Sweep undoes what drills did in this cluster, this one's or others': nodes are uncordoned, pods deleted that match.
func (f *Field) Sweep(ctx context.Context, which func(corev1.Pod) bool) ([]string, error) {
	var did []string
	var errs []error
	nodes, err := f.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, n := range nodes.Items {
		if _, ours := n.Annotations[Cordoned]; !ours {
			continue
		}
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:null}},"spec":{"unschedulable":null}}`, Cordoned)
		if _, err := f.Kube.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("uncordon %s: %w", n.Name, err))
			continue
		}
		did = append(did, "uncordoned "+n.Name)
	}
	pods, err := f.Kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: Label})
	if err != nil {
		return did, errors.Join(append(errs, err)...)
	}
	for _, p := range pods.Items {
		if !which(p) || p.DeletionTimestamp != nil {
			continue
		}
		if err := f.Kube.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, err))
			continue
		}
		did = append(did, "removed pod "+p.Name)
	}
	return did, errors.Join(errs...)
}
