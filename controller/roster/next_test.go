package roster_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

// hearing changes at random what other clusters say, or something here, as a controller's board does: values that were
// shown are replaced, not changed.
type hearing struct {
	r *rand.Rand
	f *roster.Facts
}

// step makes the next facts; what differs here is counted.
func (h *hearing) step() {
	f := *h.f
	f.Bulletins = maps.Clone(f.Bulletins)
	h.f = &f
	switch h.r.IntN(12) {
	case 0: // a pod comes, goes, or gets ready
		f.Here++
		f.Pods, f.Leases = maps.Clone(f.Pods), map[string]map[string][]netip.Addr{"pay": maps.Clone(f.Leases["pay"])}
		name := fmt.Sprintf("shop/p%d", h.r.IntN(3))
		if old := f.Pods[name]; old != nil && h.r.IntN(2) == 0 {
			delete(f.Pods, name)
		} else {
			pod(&f, name, fmt.Sprintf("n%d", 1+h.r.IntN(3)), fmt.Sprintf("10.77.1.%d", 20+h.r.IntN(5))).Ready = h.r.IntN(2) == 0
		}
	case 1: // a cluster becomes private, or leaves
		f.Here++
		f.Members = slices.Clone(f.Members)
		f.Members[h.r.IntN(3)].Private = h.r.IntN(2) == 0
		f.Members[h.r.IntN(3)].Revoked = [][]string{nil, {"n1"}, {"n2", "n3"}}[h.r.IntN(3)]
		f.Members = f.Members[:2+h.r.IntN(2)]
		if len(f.Members) == 2 {
			f.Members = append(f.Members, roster.Member{Name: "c3"})
		}
	case 2: // the slices change
		f.Here++
		f.Slices = slices.Clone(f.Slices)
		f.Slices = f.Slices[:1]
		if h.r.IntN(2) == 0 {
			f.Slices = append(f.Slices, wish("ops", 5, "10.78.0.0/16", "ops"))
		}
		f.Slices[0].KeyGeneration = uint64(h.r.IntN(3))
	default:
		name := []string{"c2", "c3"}[h.r.IntN(2)]
		f.Bulletins[name] = h.change(f.Bulletins[name])
	}
	if h.r.IntN(4) == 0 {
		f.Scaling = []fleet.Scaling{{Namespace: []string{"shop", "elsewhere"}[h.r.IntN(2)], Name: "web", Wants: h.r.IntN(3)}}
	}
	if h.r.IntN(4) == 0 {
		f.Services = append(slices.Clone(f.Services), fleet.Service{Namespace: "shop", Name: fmt.Sprint("s", h.r.IntN(99))})
	}
}

func (h *hearing) change(old *fleet.Bulletin) *fleet.Bulletin {
	b := *old
	b.Rev++
	block := b.Pods[0].Addrs[0].As4()[2]
	for range 1 + h.r.IntN(2) {
		switch h.r.IntN(8) {
		case 0:
			b.Pods = slices.Clone(b.Pods)
			b.Pods[h.r.IntN(len(b.Pods))].Ready = h.r.IntN(2) == 0
		case 1: // a new pod, or one with an address that is not the cluster's
			b.Pods = append(slices.Clone(b.Pods), fleet.Pod{Namespace: "shop", Name: fmt.Sprint("q", b.Rev), Slice: []string{"pay", "pay", "ops"}[h.r.IntN(3)],
				Cluster: b.Cluster, Node: "n1", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, block + byte(h.r.IntN(8)/7), byte(b.Rev)})}})
		case 2:
			b.Pods = b.Pods[:1]
		case 3:
			b.Pods = slices.Clone(b.Pods)
			b.Pods[0].Labels = map[string]string{"app": fmt.Sprint(h.r.IntN(2))}
		case 4:
			b.Nodes = slices.Clone(b.Nodes)
			b.Nodes[0].Gateway, b.Nodes[0].Carrier = h.r.IntN(2) == 0, h.r.IntN(2) == 0
			b.Nodes[0].Keys = maps.Clone(b.Nodes[0].Keys)
			if g := uint64(h.r.IntN(4)); g > 1 { // its keys are changed
				b.Nodes[0].Keys[fleet.KeyName("pay", g)] = key(b.Cluster, "n1", fmt.Sprint("pay", g))
				delete(b.Nodes[0].Keys, fleet.KeyName("pay", g-1))
			}
			if h.r.IntN(3) == 0 { // another's
				b.Nodes[0].Keys["pay"] = key([]string{"c1", "c2", "c3"}[h.r.IntN(3)], "n1", "pay")
			}
		case 5:
			b.Exports = append(slices.Clone(b.Exports), fleet.Export{Namespace: "shop", Name: fmt.Sprint("e", h.r.IntN(4)), Slice: "pay"})
		case 7:
			b.Scaling = []fleet.Scaling{{Slice: []string{"pay", "ops"}[h.r.IntN(2)], Namespace: "shop", Name: "web", Wants: h.r.IntN(4) - 1}}
		case 6:
			if len(b.Exports) == 0 {
				continue
			}
			b.Exports = slices.Clone(b.Exports)
			e := &b.Exports[h.r.IntN(len(b.Exports))]
			e.Endpoints = []fleet.Endpoint{{Cluster: []string{b.Cluster, b.Cluster, "c1"}[h.r.IntN(3)], Node: []string{"", "n1"}[h.r.IntN(2)], Pod: "p", Ready: h.r.IntN(2) == 0,
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, block, 9})}}}
		}
	}
	return &b
}

// TestNextIsNew: whatever happens, and whatever is taken over from the roster before, the answers are those of a roster
// made from nothing; and what changed between two is told as comparing them whole tells it.
func TestNextIsNew(t *testing.T) {
	for seed := range uint64(150) {
		h := &hearing{r: rand.New(rand.NewPCG(seed, 9)), f: facts()}
		h.f.Here = 1
		if seed%3 > 0 {
			h.f.Reports["n1"].Sights = []fleet.Sight{{Node: "c2/n1", Distance: 2}, {Node: "c3/n1", Down: true}}
		}
		if seed%2 == 0 {
			h.f.Policies = []*networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "x"},
				Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
					PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "1"}}}}}}}}}
		}
		var before *roster.Roster
		var memo delta.Memo
		for step := range 40 {
			h.step()
			next, whole := roster.Next(h.f, before), roster.New(h.f)
			next.Share(before)
			for node := range h.f.Nodes {
				got, want := next.Intent(node), whole.Intent(node)
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, step %d: %s is told\n%+v\nwant\n%+v", seed, step, node, got, want)
				}
				if before == nil {
					continue
				}
				old := before.Intent(node)
				old.Rev = 1
				d, changed := memo.Intent(old, got)
				wantD, wantChanged := delta.Intent(old, want)
				if changed != wantChanged || !reflect.DeepEqual(d, wantD) {
					t.Fatalf("seed %d, step %d: of %s's intent changed %v %+v, want %v %+v", seed, step, node, changed, d, wantChanged, wantD)
				}
			}
			others, lies := next.Others()
			wantOthers, wantLies := whole.Others()
			for what, pair := range map[string][2]any{
				"bulletin": {next.Bulletin(), whole.Bulletin()}, "problems": {next.Problems(), whole.Problems()},
				"footprint": {next.Footprint(), whole.Footprint()}, "pods' states": {next.PodStates(nil), whole.PodStates(nil)},
				"others": {others, wantOthers}, "lies": {lies, wantLies}, "slices": {next.Slices(), whole.Slices()},
				"scaling": {next.Scaling(), whole.Scaling()},
			} {
				if !reflect.DeepEqual(pair[0], pair[1]) {
					t.Fatalf("seed %d, step %d: %s\n%+v\nwant\n%+v", seed, step, what, pair[0], pair[1])
				}
			}
			before = next
		}
	}
}
