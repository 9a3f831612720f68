// Package policy translates Kubernetes NetworkPolicies into rules at slice addresses, so that a slice never opens
// what the cluster closed.
//
// A NetworkPolicy speaks of pods by labels and is enforced by the cluster's network on the cluster's addresses. A
// pod's slice link goes past that. So every policy that selects a pod of a slice is compiled once more, with the
// slice addresses of the pods that its peers select, in this cluster and in the others. Namespaces of one name are
// the same namespace everywhere (the "sameness" of the Multi-Cluster Services API), so this cluster's labels of a
// namespace count for the pods of all clusters; a namespace that this cluster does not have has only its name.
//
// What cannot be known is not allowed. In particular an egress rule by a port's name reaches only pods of this
// cluster, because the others do not tell the names of their pods' ports; a Problem says so.
//
// The semantics are those of networking.k8s.io/v1: policies add up; a pod that none selects is open; an empty list of
// peers or ports means all, and a list that matches nothing means none.
package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"seaway.dev/seaway/fleet"
)

// namespaceName is the label that the API server itself puts on every namespace.
const namespaceName = "kubernetes.io/metadata.name"

// Input is all that the rules of one slice depend on.
type Input struct {
	Slice      string
	Policies   []*networkingv1.NetworkPolicy
	Pods       []Pod                        // of the slice, in all clusters
	Namespaces map[string]map[string]string // of this cluster: name → labels
}

// Pod is a pod of the slice.
type Pod struct {
	Namespace string
	Labels    map[string]string
	Addrs     []netip.Addr // on the slice
	Node      string       // of this cluster
	Remote    bool         // of another cluster: policies here protect it not, but may name it as a peer
	Ports     []NamedPort
}

// NamedPort is a container's port that has a name.
type NamedPort struct {
	Name     string
	Protocol fleet.Protocol
	Port     uint16
}

// Compile returns the rules of one slice for each node that hosts a selected pod. Equal inputs give equal rules.
func Compile(in Input) (map[string][]fleet.Policy, []fleet.Problem) {
	c := compiler{in: in, out: map[string][]fleet.Policy{}}
	policies := slices.Clone(in.Policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for _, np := range policies {
		c.policy(np)
	}
	return c.out, c.problems
}

type compiler struct {
	in       Input
	out      map[string][]fleet.Policy
	problems []fleet.Problem
}

// policy compiles one NetworkPolicy: one rule set for all pods, or several where a port's name means different
// numbers on different pods.
func (c *compiler) policy(np *networkingv1.NetworkPolicy) {
	sel := selector(&np.Spec.PodSelector)
	type group struct {
		policy fleet.Policy
		byNode map[string][]netip.Addr
	}
	groups := map[string]*group{}
	for _, p := range c.in.Pods {
		if p.Remote || p.Namespace != np.Namespace || !sel.Matches(labels.Set(p.Labels)) {
			continue
		}
		id := namedPorts(np, p)
		g := groups[id]
		if g == nil {
			g = &group{policy: c.rules(np, p), byNode: map[string][]netip.Addr{}}
			groups[id] = g
		}
		g.byNode[p.Node] = append(g.byNode[p.Node], p.Addrs...)
	}
	for i, id := range slices.Sorted(maps.Keys(groups)) {
		g := groups[id]
		for node, addrs := range g.byNode {
			pol := g.policy
			if i > 0 {
				pol.Name = fmt.Sprintf("%s#%d", pol.Name, i+1)
			}
			slices.SortFunc(addrs, netip.Addr.Compare)
			pol.Pods = addrs
			c.out[node] = append(c.out[node], pol)
		}
	}
}

// namedPorts says what the ingress ports that a policy names mean on a pod: the pods on which they mean the same share
// their rules.
func namedPorts(np *networkingv1.NetworkPolicy, p Pod) string {
	var id strings.Builder
	for _, rule := range np.Spec.Ingress {
		for _, port := range rule.Ports {
			if port.Port != nil && port.Port.StrVal != "" {
				fmt.Fprintf(&id, "%s=%v ", port.Port.StrVal, numbers(p, port))
			}
		}
	}
	return id.String()
}

// rules compiles a policy for a pod that it selects (and for all on which named ports mean the same).
func (c *compiler) rules(np *networkingv1.NetworkPolicy, p Pod) fleet.Policy {
	out := fleet.Policy{Name: np.Namespace + "/" + np.Name, Slice: c.in.Slice}
	out.Ingress, out.Egress = Directions(np)
	if out.Ingress {
		for _, r := range np.Spec.Ingress {
			if rule, ok := c.ingress(np, r, p); ok {
				out.AllowIn = append(out.AllowIn, rule)
			}
		}
	}
	if out.Egress {
		for _, r := range np.Spec.Egress {
			out.AllowOut = append(out.AllowOut, c.egress(np, r)...)
		}
	}
	return out
}

// Directions says what a policy governs. Without policyTypes it is ingress, and egress if there is a rule for it.
func Directions(np *networkingv1.NetworkPolicy) (ingress, egress bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		return true, len(np.Spec.Egress) > 0
	}
	return slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress),
		slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// ingress compiles one rule; false means that it allows nothing.
func (c *compiler) ingress(np *networkingv1.NetworkPolicy, r networkingv1.NetworkPolicyIngressRule, p Pod) (fleet.PolicyRule, bool) {
	var rule fleet.PolicyRule
	if len(r.From) > 0 {
		pods, blocks := c.peers(np, r.From)
		if rule.Peers = merge(pods, blocks); len(rule.Peers) == 0 {
			return rule, false
		}
	}
	for _, port := range r.Ports {
		if port.Port == nil || port.Port.StrVal == "" {
			rule.Ports = append(rule.Ports, numbered(port))
			continue
		}
		for _, n := range numbers(p, port) {
			rule.Ports = append(rule.Ports, fleet.PolicyPort{Protocol: protocol(port), First: n, Last: n})
		}
	}
	return rule, len(r.Ports) == 0 || len(rule.Ports) > 0
}

// egress compiles one rule: one for all numbered ports, and one for each number that a named port has on some peers.
func (c *compiler) egress(np *networkingv1.NetworkPolicy, r networkingv1.NetworkPolicyEgressRule) []fleet.PolicyRule {
	pods, blocks := c.peers(np, r.To)
	if len(r.To) == 0 {
		pods = c.in.Pods // for named ports; numbered ones go to everyone
	}
	var plain fleet.PolicyRule
	if len(r.To) > 0 {
		plain.Peers = merge(pods, blocks)
	}
	nobody := len(r.To) > 0 && len(plain.Peers) == 0
	if len(r.Ports) == 0 {
		if nobody {
			return nil
		}
		return []fleet.PolicyRule{plain}
	}
	var out []fleet.PolicyRule
	for _, port := range r.Ports {
		if port.Port == nil || port.Port.StrVal == "" {
			plain.Ports = append(plain.Ports, numbered(port))
			continue
		}
		out = append(out, c.egressNamed(np, port, pods)...)
	}
	if len(plain.Ports) > 0 && !nobody {
		out = append([]fleet.PolicyRule{plain}, out...)
	}
	return out
}

func (c *compiler) egressNamed(np *networkingv1.NetworkPolicy, port networkingv1.NetworkPolicyPort, pods []Pod) []fleet.PolicyRule {
	byNumber := map[uint16][]Pod{}
	for _, p := range pods {
		if p.Remote {
			c.problem(np, port.Port.StrVal)
			continue
		}
		for _, n := range numbers(p, port) {
			byNumber[n] = append(byNumber[n], p)
		}
	}
	var out []fleet.PolicyRule
	for _, n := range slices.Sorted(maps.Keys(byNumber)) {
		out = append(out, fleet.PolicyRule{
			Peers: merge(byNumber[n], nil),
			Ports: []fleet.PolicyPort{{Protocol: protocol(port), First: n, Last: n}},
		})
	}
	return out
}

// problem says once for each policy that a named egress port is not opened to other clusters.
func (c *compiler) problem(np *networkingv1.NetworkPolicy, port string) {
	where := "networkpolicy " + np.Namespace + "/" + np.Name
	if slices.ContainsFunc(c.problems, func(p fleet.Problem) bool { return p.Where == where }) {
		return
	}
	c.problems = append(c.problems, fleet.Problem{
		Reason: "NamedPortUnknown", Where: where,
		Message: fmt.Sprintf("egress port %q is a name, and what it means on pods of other clusters is not known: it stays closed to them on slice %s", port, c.in.Slice),
		Next:    "write the port's number in the policy",
	})
}

// peers lists the pods and address blocks that a list of peers selects.
func (c *compiler) peers(np *networkingv1.NetworkPolicy, peers []networkingv1.NetworkPolicyPeer) (pods []Pod, blocks []netip.Prefix) {
	chosen := make([]bool, len(c.in.Pods))
	for _, peer := range peers {
		if peer.IPBlock != nil {
			blocks = append(blocks, without(peer.IPBlock)...)
			continue
		}
		podSel, nsSel := labels.Everything(), labels.Nothing()
		if peer.PodSelector != nil {
			podSel = selector(peer.PodSelector)
		}
		if peer.NamespaceSelector != nil {
			nsSel = selector(peer.NamespaceSelector)
		}
		for i, p := range c.in.Pods {
			in := p.Namespace == np.Namespace
			if peer.NamespaceSelector != nil {
				in = nsSel.Matches(labels.Set(c.namespace(p.Namespace)))
			}
			chosen[i] = chosen[i] || (in && podSel.Matches(labels.Set(p.Labels)))
		}
	}
	for i, p := range c.in.Pods {
		if chosen[i] {
			pods = append(pods, p)
		}
	}
	return pods, blocks
}

func (c *compiler) namespace(name string) map[string]string {
	if set, ok := c.in.Namespaces[name]; ok {
		return set
	}
	return map[string]string{namespaceName: name}
}

// selector reads a label selector; one that cannot be read selects nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

func protocol(p networkingv1.NetworkPolicyPort) fleet.Protocol {
	if p.Protocol == nil {
		return fleet.TCP
	}
	return fleet.Protocol(*p.Protocol)
}

// numbered translates a port without a name.
func numbered(p networkingv1.NetworkPolicyPort) fleet.PolicyPort {
	out := fleet.PolicyPort{Protocol: protocol(p)}
	if p.Port == nil {
		return out
	}
	out.First = uint16(p.Port.IntVal)
	out.Last = out.First
	if p.EndPort != nil && *p.EndPort >= p.Port.IntVal && *p.EndPort <= 65535 {
		out.Last = uint16(*p.EndPort)
	}
	return out
}

// numbers lists what a named port means on a pod, sorted.
func numbers(p Pod, port networkingv1.NetworkPolicyPort) []uint16 {
	var out []uint16
	for _, np := range p.Ports {
		if np.Name == port.Port.StrVal && np.Protocol == protocol(port) {
			out = append(out, np.Port)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// merge lists the addresses of pods and blocks, sorted, none inside another.
func merge(pods []Pod, blocks []netip.Prefix) []netip.Prefix {
	out := slices.Clone(blocks)
	for _, p := range pods {
		for _, a := range p.Addrs {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.SortFunc(out, comparePrefixes)
	kept := out[:0]
	for _, p := range out { // a prefix sorts right before those inside it
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}
