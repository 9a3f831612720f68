package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/policy"
)

// The cluster of the tests: namespaces shop and ops here, shop and bank elsewhere.
var pods = []policy.Pod{
	{Namespace: "shop", Node: "n1", Labels: set("app=web"), Addrs: addrs("10.1.0.1"), Ports: named("http", 8080)},
	{Namespace: "shop", Node: "n2", Labels: set("app=web", "ver=2"), Addrs: addrs("10.1.0.2"), Ports: named("http", 9090)},
	{Namespace: "shop", Node: "n1", Labels: set("app=db"), Addrs: addrs("10.1.0.3", "fd00::3"), Ports: named("sql", 5432)},
	{Namespace: "ops", Node: "n1", Labels: set("app=prom"), Addrs: addrs("10.1.0.4")},
	{Namespace: "shop", Remote: true, Labels: set("app=web"), Addrs: addrs("10.1.9.1")},
	{Namespace: "bank", Remote: true, Labels: set("app=web"), Addrs: addrs("10.1.9.2")},
}

var namespaces = map[string]map[string]string{
	"shop": {"kubernetes.io/metadata.name": "shop", "team": "a"},
	"ops":  {"kubernetes.io/metadata.name": "ops", "team": "ops"},
}

func set(kv ...string) map[string]string {
	m := map[string]string{}
	for _, s := range kv {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func named(name string, n uint16) []policy.NamedPort {
	return []policy.NamedPort{{Name: name, Protocol: fleet.TCP, Port: n}}
}

// show writes rules in one line each: node, pods, directions, then what is let in (<) and out (>).
func show(byNode map[string][]fleet.Policy) string {
	var lines []string
	for node, ps := range byNode {
		for _, p := range ps {
			l := fmt.Sprintf("%s %s %v", node, p.Name, p.Pods)
			rules := func(mark string, on bool, rs []fleet.PolicyRule) {
				if !on {
					return
				}
				l += " " + mark
				for _, r := range rs {
					l += fmt.Sprintf(" %v", r.Peers)
					for _, pp := range r.Ports {
						l += fmt.Sprintf(" %s:%d-%d", pp.Protocol, pp.First, pp.Last)
					}
					l += ";"
				}
			}
			rules("<", p.Ingress, p.AllowIn)
			rules(">", p.Egress, p.AllowOut)
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestCompile(t *testing.T) {
	for _, tc := range []struct{ name, spec, want string }{
		{"deny all in", `podSelector: {}`, `
n1 shop/p [10.1.0.1 10.1.0.3 fd00::3] <
n2 shop/p [10.1.0.2] <`},
		{"deny all", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress]}`, `
n1 shop/p [10.1.0.3 fd00::3] < >`},
		{"egress only", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{}]}`, `
n1 shop/p [10.1.0.3 fd00::3] > [];`},
		{"types by rules", `{podSelector: {matchLabels: {app: db}}, egress: [{ports: [{port: 53, protocol: UDP}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] < > [] UDP:53-53;`},
		{"from own namespace, here and elsewhere", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] < [10.1.0.1/32 10.1.0.2/32 10.1.9.1/32];`},
		{"from namespaces by label", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] < [10.1.0.4/32];`},
		{"from a namespace that is only elsewhere", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bank}}, podSelector: {matchLabels: {app: web}}}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] < [10.1.9.2/32];`},
		{"a peer that nobody is lets nobody in", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] <`},
		{"a port name that nobody has opens nothing", `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: nosuch}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] <`},
		{"named ports differ from pod to pod", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}`, `
n1 shop/p [10.1.0.1] < [] TCP:8080-8080;
n2 shop/p#2 [10.1.0.2] < [] TCP:9090-9090;`},
		{"port range and all of a protocol", `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 100, endPort: 200}, {protocol: SCTP}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] < [] TCP:100-200 SCTP:0-0;`},
		{"egress by name", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}, {port: 53, protocol: UDP}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] > [10.1.0.1/32 10.1.0.2/32 10.1.9.1/32] UDP:53-53; [10.1.0.1/32] TCP:8080-8080; [10.1.0.2/32] TCP:9090-9090;`},
		{"egress to nobody", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: none}}}], ports: [{port: 1}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] >`},
		{"block with exceptions, and a pod in it", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.1.0.0/29, except: [10.1.0.2/31]}}, {podSelector: {matchLabels: {app: web}}}]}]}`, `
n1 shop/p [10.1.0.3 fd00::3] < [10.1.0.0/31 10.1.0.2/32 10.1.0.4/30 10.1.9.1/32];`},
		{"nobody selected", `{podSelector: {matchLabels: {app: none}}}`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			np := &networkingv1.NetworkPolicy{}
			np.Namespace, np.Name = "shop", "p"
			if err := yaml.UnmarshalStrict([]byte(tc.spec), &np.Spec); err != nil {
				t.Fatal(err)
			}
			got, _ := policy.Compile(policy.Input{Slice: "pay", Policies: []*networkingv1.NetworkPolicy{np}, Pods: pods, Namespaces: namespaces})
			if show(got) != strings.TrimSpace(tc.want) {
				t.Errorf("got\n%s\nwant\n%s", show(got), strings.TrimSpace(tc.want))
			}
		})
	}
}

func TestNamedEgressPortElsewhereIsAProblem(t *testing.T) {
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name = "shop", "p"
	_ = yaml.Unmarshal([]byte(`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`), &np.Spec)
	_, problems := policy.Compile(policy.Input{Slice: "pay", Policies: []*networkingv1.NetworkPolicy{np}, Pods: pods})
	if len(problems) != 1 || problems[0].Reason != "NamedPortUnknown" {
		t.Errorf("problems %v", problems)
	}
}

// TestBlockExceptions checks the subtraction of prefixes address by address.
func TestBlockExceptions(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	prefix := func() netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(256))})
		return netip.PrefixFrom(a, 24+rng.IntN(9)).Masked()
	}
	for range 300 {
		block := networkingv1.IPBlock{CIDR: prefix().String()}
		var except []netip.Prefix
		for range rng.IntN(4) {
			e := prefix()
			except = append(except, e)
			block.Except = append(block.Except, e.String())
		}
		np := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &block}}}},
		}}
		np.Namespace, np.Name = "shop", "p"
		got, _ := policy.Compile(policy.Input{Policies: []*networkingv1.NetworkPolicy{np}, Pods: pods[:1]})
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			in := func(p netip.Prefix) bool { return p.Contains(a) }
			want := netip.MustParsePrefix(block.CIDR).Contains(a) && !slices.ContainsFunc(except, in)
			have := slices.ContainsFunc(got["n1"][0].AllowIn, func(r fleet.PolicyRule) bool { return slices.ContainsFunc(r.Peers, in) })
			if have != want {
				t.Fatalf("seed %d: %v less %v: %v is let in: %v", seed, block.CIDR, except, a, have)
			}
		}
	}
}
