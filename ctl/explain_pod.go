package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/policy"
)

// PodAccount is why a pod is on a slice or not, and who may speak with it there.
type PodAccount struct {
	Pod       string   `json:"pod"` // namespace/name
	Node      string   `json:"node,omitempty"`
	Slice     string   `json:"slice,omitempty"` // of its namespace; empty: none
	Rule      string   `json:"rule"`            // why its namespace is on that slice, or the pod is on none
	Addresses []string `json:"addresses,omitempty"`
	Attached  bool     `json:"attached"`
	Reason    string   `json:"reason,omitempty"`
	Message   string   `json:"message,omitempty"`
	Since     string   `json:"since,omitempty"`
	Took      float64  `json:"tookMs,omitempty"` // from the sandbox's birth to the probe's answer, if its node told
	Policies  []string `json:"policies,omitempty"`
	Names     []string `json:"names,omitempty"` // under which it is offered to the slice's clusters
	Agent     string   `json:"agent,omitempty"` // of its node
}

func (c *cli) explainPodCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pod NAMESPACE/NAME", Short: "Show why a pod is on a slice or not, and who may reach it there", Args: cobra.ExactArgs(1),
		Long: `Show why a pod of this cluster is on a slice or not: by which rule its namespace is, its addresses
there, whether a probe went through its link and if not why, which NetworkPolicies govern it, and under which
names it is offered to the other clusters.`,
		Example: "  seaway explain pod shop/web-0\n  seaway explain pod shop/web-0 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ns, name, ok := strings.Cut(args[0], "/")
			if !ok || ns == "" || name == "" {
				return usage("%q: want NAMESPACE/NAME", args[0]).then("seaway explain pod shop/web-0")
			}
			t, err := c.connect()
			if err != nil {
				return err
			}
			a, err := t.podAccount(cmd.Context(), ns, name)
			if err != nil {
				return err
			}
			return c.show(a, func() error { _, err := io.WriteString(c.Out, a.Text()); return err })
		},
	}
	c.outputFlag(cmd)
	return cmd
}

// podAccount reads what there is to know of a pod.
func (t *target) podAccount(ctx context.Context, ns, name string) (*PodAccount, error) {
	st, err := t.memberStatus(ctx)
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	if err := t.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, &pod); apierrors.IsNotFound(err) {
		return nil, fail(ExitRefused, "there is no pod %s/%s in cluster %s", ns, name, st.Cluster).then("kubectl get pods -n %s", ns)
	} else if err != nil {
		return nil, err
	}
	a := accountOfPod(&pod, st)
	if a.Slice == "" {
		return a, nil
	}
	var policies networkingv1.NetworkPolicyList
	var services corev1.ServiceList
	var exports mcsv1beta1.ServiceExportList
	for _, list := range []client.ObjectList{&policies, &services, &exports} {
		if err := t.List(ctx, list, client.InNamespace(ns)); err != nil && !meta.IsNoMatchError(err) {
			return nil, err
		}
	}
	a.Policies = policiesOn(&pod, policies.Items)
	a.Names = offeredAs(&pod, services.Items, exports.Items)
	return a, nil
}

// accountOfPod says what the pod itself and the controller's status tell.
func accountOfPod(pod *corev1.Pod, st *fleet.Status) *PodAccount {
	a := &PodAccount{Pod: pod.Namespace + "/" + pod.Name, Node: pod.Spec.NodeName}
	for _, s := range st.Slices {
		if slices.Contains(s.Namespaces, pod.Namespace) {
			a.Slice, a.Rule = s.Name, "namespace "+pod.Namespace+" is on slice "+s.Name
			if why := s.Rules[pod.Namespace]; why != "" {
				a.Rule += ": " + why
			}
		}
	}
	switch {
	case a.Slice == "":
		a.Rule = "namespace " + pod.Namespace + " is on no slice that this cluster is on"
	case pod.Labels[roster.ExcludeLabel] == "true":
		a.Slice, a.Rule = "", "its label "+roster.ExcludeLabel+"=true keeps it off slice "+a.Slice
	case pod.Spec.NodeName == "":
		a.Message = "no node has taken it yet: see its condition PodScheduled"
	}
	if ips := pod.Annotations[roster.AddressAnnotation]; ips != "" {
		a.Addresses = strings.Split(ips, ",")
	}
	for _, cond := range pod.Status.Conditions {
		if string(cond.Type) == roster.ConditionType {
			a.Attached, a.Reason, a.Message = cond.Status == corev1.ConditionTrue, cond.Reason, cond.Message
			a.Since = cond.LastTransitionTime.Local().Format(time.DateTime)
		}
	}
	for _, n := range st.Nodes {
		if n.Name != a.Node {
			continue
		}
		a.Agent = map[bool]string{true: "connected", false: "silent"}[n.Connected]
		if !n.Applied {
			a.Agent += ", not up to date with what it was told"
		}
		for _, p := range n.Pods {
			if p.PodUID == string(pod.UID) {
				a.Took = p.Took
			}
		}
	}
	return a
}

// policiesOn names the NetworkPolicies that select a pod, and what each governs.
func policiesOn(pod *corev1.Pod, all []networkingv1.NetworkPolicy) []string {
	var out []string
	for _, p := range all {
		sel, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil || !sel.Matches(labels.Set(pod.Labels)) {
			continue
		}
		var ways []string
		ingress, egress := policy.Directions(&p)
		if ingress {
			ways = append(ways, "ingress")
		}
		if egress {
			ways = append(ways, "egress")
		}
		out = append(out, fmt.Sprintf("NetworkPolicy %s governs its %s", p.Name, strings.Join(ways, " and ")))
	}
	return out
}

// offeredAs lists the names under which a pod's services are exported.
func offeredAs(pod *corev1.Pod, services []corev1.Service, exports []mcsv1beta1.ServiceExport) []string {
	var out []string
	for _, s := range services {
		exported := slices.ContainsFunc(exports, func(e mcsv1beta1.ServiceExport) bool { return e.Name == s.Name })
		if exported && len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			out = append(out, s.Name+"."+s.Namespace+".svc.clusterset.local")
		}
	}
	return out
}

// Text prints the account for people.
func (a *PodAccount) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	if a.Slice == "" {
		fmt.Fprintf(w, "pod %s is on no slice\nwhy\t%s\n", a.Pod, a.Rule)
		if a.Reason != "" { // it was on one, and its mark is about to go
			fmt.Fprintf(w, "condition\t%s since %s\n", a.Reason, a.Since)
		}
		_ = w.Flush()
		return b.String()
	}
	state := "NOT ATTACHED"
	if a.Attached {
		state = "attached"
	}
	fmt.Fprintf(w, "pod %s on slice %s: %s\nwhy\t%s\n", a.Pod, a.Slice, state, a.Rule)
	fmt.Fprintf(w, "addresses\t%s\n", dash(strings.Join(a.Addresses, ", ")))
	link := dash(a.Reason)
	if a.Since != "" {
		link += " since " + a.Since
	}
	if a.Took > 0 {
		link += fmt.Sprintf(", a probe went through %.0f ms after its sandbox began", a.Took)
	}
	fmt.Fprintf(w, "link\t%s\n", link)
	if a.Message != "" {
		fmt.Fprintf(w, "\t%s\n", a.Message)
	}
	fmt.Fprintf(w, "node\t%s, its agent %s\n", dash(a.Node), dash(a.Agent))
	if len(a.Policies) == 0 && len(a.Addresses) > 0 {
		fmt.Fprintln(w, "policy\tno NetworkPolicy selects it: every pod of the slice may speak with it")
	}
	for _, p := range a.Policies {
		fmt.Fprintf(w, "policy\t%s, on the slice, too\n", p)
	}
	for _, n := range a.Names {
		fmt.Fprintf(w, "offered as\t%s\n", n)
	}
	_ = w.Flush()
	return b.String()
}
