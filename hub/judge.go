package hub

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/kube"
	"seaway.dev/seaway/slice/addr"
)

// sliceConditions are the condition types that judge decides on.
var sliceConditions = []string{v1alpha1.SliceReady, v1alpha1.SlicePrefixExhausted, v1alpha1.SliceNamespaceConflict, v1alpha1.SliceUnknownCluster,
	v1alpha1.SlicePodNetworks, v1alpha1.SlicePodNetworkUnknown, v1alpha1.SliceKeysChanging}

// judge is the status that a slice should have: its blocks, a row per cluster, and its conditions. It is a pure
// function. An error means that the status as it is contradicts itself, and nothing is to be written.
func judge(sl *v1alpha1.Slice, all []v1alpha1.Slice, members []member, now time.Time) (v1alpha1.SliceStatus, error) {
	status := *sl.Status.DeepCopy()
	status.ObservedGeneration = sl.Generation
	on, unknown := participants(sl, members)
	blocks, problems, err := carve(sl, on)
	if err != nil {
		return status, err
	}
	own, apart := networks(sl, on)
	problems = append(problems, apart...)
	status.Clusters, status.Pods = rows(sl.Name, on, blocks, own, now)
	status.Members = int32(len(status.Clusters))
	if len(unknown) > 0 {
		problems = append(problems, fleet.Problem{Reason: v1alpha1.SliceUnknownCluster,
			Message: "no cluster has joined as " + strings.Join(unknown, ", "),
			Next:    fmt.Sprintf("`seaway token create %s` and join it, or take the name out of spec.clusters", unknown[0])})
	}
	if p := conflict(sl, all); p != nil {
		problems = append(problems, *p)
	}
	conditions := []metav1.Condition{readiness(sl, status.Clusters, problems)}
	var behind []string
	status.Keys, behind = rotate(sl, on, now)
	if p := changing(status.Keys, behind); p != nil {
		problems = append(problems, *p) // no reason not to be ready
	}
	for _, p := range problems {
		conditions = append(conditions, metav1.Condition{Type: p.Reason, Status: metav1.ConditionTrue, Reason: p.Reason, Message: kube.Message(p)})
	}
	for i := range conditions {
		conditions[i].ObservedGeneration = sl.Generation
		conditions[i].LastTransitionTime = metav1.NewTime(now)
	}
	kube.Want(&status.Conditions, sliceConditions, conditions...)
	return status, nil
}

// participants are the members on the slice, sorted by name, and the names it lists that no member has. A cluster that
// was taken off the slice stays while it still says that it has pods there, so that its addresses are not handed out
// twice.
func participants(sl *v1alpha1.Slice, members []member) (on []member, unknown []string) {
	known := map[string]bool{}
	for _, m := range members {
		name := m.cluster.Name
		if !m.joined() {
			continue
		}
		known[name] = true
		listed := len(sl.Spec.Clusters) == 0 || slices.Contains(sl.Spec.Clusters, name)
		if listed || holds(sl, name) && usage(m.bulletin, sl.Name) > 0 {
			on = append(on, m)
		}
	}
	for _, name := range sl.Spec.Clusters {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	sort.Strings(unknown)
	slices.SortFunc(on, func(a, b member) int { return strings.Compare(a.cluster.Name, b.cluster.Name) })
	return on, unknown
}

// holds tells whether the cluster has blocks of the slice.
func holds(sl *v1alpha1.Slice, cluster string) bool {
	return slices.ContainsFunc(sl.Status.Clusters, func(c v1alpha1.SliceCluster) bool { return c.Name == cluster && len(c.Blocks) > 0 })
}

// usage is how many addresses of each family a cluster needs on a slice, as it says itself.
func usage(b *fleet.Bulletin, slice string) int {
	if b == nil {
		return 0
	}
	pods := 0
	for _, p := range b.Pods {
		if p.Slice == slice {
			pods++
		}
	}
	return max(pods, b.Demand[slice])
}

// carve keeps the blocks that the clusters have and adds what they need.
func carve(sl *v1alpha1.Slice, on []member) ([]fleet.Block, []fleet.Problem, error) {
	var have []fleet.Block
	for _, row := range sl.Status.Clusters {
		for _, text := range row.Blocks {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, nil, fmt.Errorf("block %q of cluster %s in the status: %w", text, row.Name, err)
			}
			have = append(have, fleet.Block{Cluster: row.Name, Prefix: p})
		}
	}
	demand := map[string]int{}
	for _, m := range on {
		demand[m.cluster.Name] = usage(m.bulletin, sl.Name)
	}
	var out []fleet.Block
	var problems []fleet.Problem
	for _, text := range sl.Spec.Prefixes {
		prefix, err := netip.ParsePrefix(string(text))
		if err != nil {
			return nil, nil, fmt.Errorf("prefix %q: %w", text, err) // the API server has checked it
		}
		got, err := addr.Carve(prefix, within(prefix, have), demand)
		var ex *addr.Exhausted
		switch {
		case errors.As(err, &ex):
			problems = append(problems, fleet.Problem{Reason: v1alpha1.SlicePrefixExhausted,
				Message: fmt.Sprintf("prefix %s has no addresses left for %s", prefix, strings.Join(ex.Clusters, ", ")),
				Next: fmt.Sprintf("make the prefix larger, e.g. write %s in its place with kubectl edit slice %s; running pods keep their addresses",
					netip.PrefixFrom(prefix.Addr(), max(prefix.Bits()-4, 1)).Masked(), sl.Name)})
		case err != nil:
			return nil, nil, err
		}
		out = append(out, got...)
	}
	return out, merge(problems), nil
}

// merge makes one problem of those with one reason: a condition type can be there once.
func merge(in []fleet.Problem) []fleet.Problem {
	var out []fleet.Problem
	for _, p := range in {
		if n := len(out); n > 0 && out[n-1].Reason == p.Reason {
			out[n-1].Message += "; " + p.Message
			continue
		}
		out = append(out, p)
	}
	return out
}

func within(prefix netip.Prefix, blocks []fleet.Block) []fleet.Block {
	var out []fleet.Block
	for _, b := range blocks {
		if prefix.Overlaps(b.Prefix) {
			out = append(out, b)
		}
	}
	return out
}

// rows says what each cluster has of the slice.
func rows(slice string, on []member, blocks []fleet.Block, networks map[string][]netip.Prefix, now time.Time) ([]v1alpha1.SliceCluster, int32) {
	var out []v1alpha1.SliceCluster
	var total int32
	for _, m := range on {
		row := v1alpha1.SliceCluster{Name: m.cluster.Name}
		for _, b := range blocks {
			if b.Cluster == row.Name {
				row.Blocks = append(row.Blocks, b.Prefix.String())
			}
		}
		for _, p := range networks[row.Name] {
			row.Networks = append(row.Networks, p.String())
		}
		if m.bulletin != nil {
			for _, p := range m.bulletin.Pods {
				if p.Slice == slice {
					row.Pods++
				}
			}
			for _, n := range m.bulletin.Nodes {
				if n.On(slice) {
					row.Nodes++
				}
			}
		}
		row.Ready = len(row.Blocks) > 0 && m.alive(now)
		total += row.Pods
		out = append(out, row)
	}
	return out, total
}

// conflict tells whether an older slice has a namespace of this one in a cluster that both are on. The older slice
// keeps it. Namespaces chosen by label are known to the members only, which decide by the same rule.
func conflict(sl *v1alpha1.Slice, all []v1alpha1.Slice) *fleet.Problem {
	var found []string
	for i := range all {
		o := &all[i]
		if o.UID == sl.UID || !older(o, sl) || !meet(o, sl) {
			continue
		}
		for _, ns := range sl.Spec.Namespaces.Names {
			if slices.Contains(o.Spec.Namespaces.Names, ns) {
				found = append(found, fmt.Sprintf("%s (slice %s)", ns, o.Name))
			}
		}
	}
	if found == nil {
		return nil
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) > 10 {
		found = append(found[:10], "…")
	}
	return &fleet.Problem{Reason: v1alpha1.SliceNamespaceConflict,
		Message: "a namespace can be on one slice only, and an older slice has " + strings.Join(found, ", "),
		Next:    "take the namespace out of one of the slices; until then it stays on the older one"}
}

// older orders slices by age, then by name.
func older(a, b *v1alpha1.Slice) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Name < b.Name
}

// meet tells whether two slices have a cluster in common.
func meet(a, b *v1alpha1.Slice) bool {
	if len(a.Spec.Clusters) == 0 || len(b.Spec.Clusters) == 0 {
		return true
	}
	return slices.ContainsFunc(a.Spec.Clusters, func(c string) bool { return slices.Contains(b.Spec.Clusters, c) })
}

// readiness sums up: the first problem, or the clusters that are not ready.
func readiness(sl *v1alpha1.Slice, rows []v1alpha1.SliceCluster, problems []fleet.Problem) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SliceReady, Status: metav1.ConditionFalse}
	var waiting []string
	for _, r := range rows {
		if !r.Ready {
			waiting = append(waiting, r.Name)
		}
	}
	switch {
	case len(problems) > 0:
		c.Reason, c.Message = problems[0].Reason, kube.Message(problems[0])
	case len(rows) == 0:
		c.Reason, c.Message = "NoClusters", kube.Message(fleet.Problem{Message: "no cluster has joined the fleet",
			Next: "`seaway token create NAME` here, then `seaway join --token …` on the cluster"})
	case waiting != nil:
		c.Reason, c.Message = "ClusterNotReady", kube.Message(fleet.Problem{
			Message: fmt.Sprintf("%s not heard from; the others go on", strings.Join(waiting, ", ")),
			Next:    fmt.Sprintf("kubectl describe clusters.seaway.dev %s", waiting[0])})
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, "Ready", fleet.Count(len(rows), "cluster")+" with addresses, heard from"
	}
	if c.Status == metav1.ConditionTrue && len(sl.Spec.Namespaces.Names) == 0 && sl.Spec.Namespaces.Selector == nil {
		c.Reason, c.Message = "NoNamespaces", kube.Message(fleet.Problem{Message: "the slice is ready and no namespace is on it",
			Next: "name some in spec.namespaces, or give a label selector"})
	}
	return c
}
