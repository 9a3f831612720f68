package roster

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
)

// testimony is what a cluster says, checked against what it was given.
type testimony struct {
	raw    *fleet.Bulletin
	member Member
	b      *fleet.Bulletin // nil if err is not
	lies   bulletin.Refusals
	err    error
}

// hear checks what the other clusters say. A key belongs to whoever showed it first in the order of own nodes, then
// clusters by name: one key cannot be on two nodes. A bulletin that is the very same as in an earlier roster is not
// checked again unless the slices changed.
func (r *Roster) hear() {
	r.others, r.lies, r.checked = map[string]*fleet.Bulletin{}, map[string]bulletin.Refusals{}, map[string]*testimony{}
	var known map[string]*testimony
	here := r.SameHere(r.before)
	if here || r.before != nil && reflect.DeepEqual(r.before.f.Slices, r.f.Slices) {
		known = r.before.checked
	}
	all := make([]fleet.Slice, len(r.f.Slices))
	for i := range r.f.Slices {
		all[i] = r.f.Slices[i].Slice
	}
	holder := map[fleet.Key]string{}
	for _, n := range r.own.Nodes {
		for _, k := range n.Keys {
			holder[k] = n.Cluster
		}
	}
	members := slices.Clone(r.f.Members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range members {
		raw := r.f.Bulletins[m.Name]
		if raw == nil || m.Name == r.f.Cluster {
			continue
		}
		t := known[m.Name]
		switch {
		case t == nil || !here && !reflect.DeepEqual(t.member, m):
			t = examine(raw, m, all, nil)
		case t.raw != raw:
			t = examine(raw, m, all, t)
		}
		r.checked[m.Name] = t
		if t.err != nil {
			r.problem("BulletinRefused", "cluster "+m.Name, t.err.Error(),
				"look at the controller's log in cluster "+m.Name+", and who may write to its mailbox on the hub")
			continue
		}
		b, lies := unique(t, holder)
		if lies.Count > 0 {
			r.lies[m.Name] = lies
			r.problem("BulletinUntrue", "cluster "+m.Name,
				fmt.Sprintf("%d entries were left out: %s", lies.Count, strings.Join(lies.Named[:min(3, len(lies.Named))], "; ")),
				"if it lasts, look at the controller's log in cluster "+m.Name+": it claims what the hub did not give it")
		}
		r.others[m.Name] = b
	}
}

// examine checks a bulletin. What is the very same as in an earlier one, if that is given, is not checked again.
func examine(raw *fleet.Bulletin, m Member, all []fleet.Slice, before *testimony) *testimony {
	t := &testimony{raw: raw, member: m}
	if before != nil && before.err == nil && before.lies.Count == 0 {
		t.b, t.lies, t.err = bulletin.Recheck(raw, m.Name, all, before.raw, before.b)
	} else {
		t.b, t.lies, t.err = bulletin.Check(raw, m.Name, all)
	}
	if t.err != nil {
		return t
	}
	withoutRevoked(t.b, m)
	if before != nil && t.err == nil && len(raw.Nodes) > 0 && fleet.SameList(raw.Nodes, before.raw.Nodes) && before.err == nil {
		t.b.Private, t.b.Region, t.b.Provider = m.Private, m.Region, m.Provider
		t.b.Nodes = before.b.Nodes // the slices and the member are the same, too
		return t
	}
	t.b.Private, t.b.Region, t.b.Provider = m.Private, m.Region, m.Provider
	t.b.Nodes = slices.DeleteFunc(t.b.Nodes, func(n fleet.Node) bool { return m.revoked(n.Name) })
	for i := range t.b.Nodes { // Check made the list anew
		n := &t.b.Nodes[i]
		n.Gateway = n.Gateway && !m.Private
		n.Carrier = n.Carrier && (n.Gateway || m.Private)
	}
	return t
}

// unique takes out of a bulletin the keys that somebody else holds, and notes the rest as the cluster's. The checked
// bulletin itself is not changed: the next roster may want it as it is.
func unique(t *testimony, holder map[fleet.Key]string) (*fleet.Bulletin, bulletin.Refusals) {
	b, lies := t.b, t.lies
	for i := range t.b.Nodes {
		stolen := false
		for _, k := range t.b.Nodes[i].Keys {
			who, taken := holder[k]
			stolen = stolen || taken && who != t.member.Name
			if !taken {
				holder[k] = t.member.Name
			}
		}
		if !stolen {
			continue
		}
		if b == t.b {
			whole := *t.b
			whole.Nodes = slices.Clone(whole.Nodes)
			b, lies.Named = &whole, slices.Clone(lies.Named)
		}
		n := &b.Nodes[i]
		n.Keys = maps.Clone(n.Keys)
		maps.DeleteFunc(n.Keys, func(_ string, k fleet.Key) bool {
			if who := holder[k]; who != t.member.Name {
				lies.Count++
				lies.Named = append(lies.Named, fmt.Sprintf("node %s: its key is one of cluster %s", n.Name, who))
				return true
			}
			return false
		})
	}
	return b, lies
}

// parts are one slice's pods by cluster, each list sorted.
type parts map[string][]fleet.Pod

// mingle lists the pods of all clusters, by slice, as nodes are told of them. What a cluster has not changed is taken
// over, and so is the whole list of a slice that nobody has changed.
//
// Whether a pod is ready is left out: a node is told that of endpoints, and needs it of nothing else.
func (r *Roster) mingle() {
	r.pods, r.parts = map[string][]fleet.Pod{}, map[string]parts{}
	same := r.before != nil && r.sameSlices()
	for slice := range r.slices {
		r.parts[slice] = parts{}
	}
	r.samePods = same && len(r.others) == len(r.before.others)
	if same && r.SameHere(r.before) {
		r.keep(r.f.Cluster)
	} else {
		r.enrol(r.f.Cluster, r.local)
	}
	for name, b := range r.others {
		if old := r.earlier(name); same && old != nil && fleet.SameList(old.Pods, b.Pods) {
			r.keep(name)
			continue
		}
		r.samePods = false
		r.enrol(name, b.Pods)
	}
	for slice, ps := range r.parts {
		r.pods[slice] = r.joined(slice, ps)
	}
}

// earlier is what a cluster said for the earlier roster; nil if it said nothing.
func (r *Roster) earlier(name string) *fleet.Bulletin {
	if r.before == nil {
		return nil
	}
	return r.before.others[name]
}

// keep takes over a cluster's pods from the earlier roster.
func (r *Roster) keep(cluster string) {
	for slice, ps := range r.parts {
		if old := r.before.parts[slice][cluster]; len(old) > 0 {
			ps[cluster] = old
		}
	}
}

// enrol lists a cluster's pods; if they are told as before, the earlier list is taken.
func (r *Roster) enrol(cluster string, pods []fleet.Pod) {
	for _, p := range pods {
		if ps := r.parts[p.Slice]; ps != nil {
			p.Labels, p.Ready = nil, false
			ps[cluster] = append(ps[cluster], p)
		}
	}
	for slice, ps := range r.parts {
		slices.SortFunc(ps[cluster], comparePods)
		if r.before == nil {
			continue
		}
		if old := r.before.parts[slice][cluster]; len(old) > 0 && slices.EqualFunc(old, ps[cluster], toldAlike) {
			ps[cluster] = old
		}
	}
}

// toldAlike tells whether two pods look the same to nodes.
func toldAlike(a, b fleet.Pod) bool {
	return a.UID == b.UID && a.Namespace == b.Namespace && a.Name == b.Name && a.Slice == b.Slice && a.Cluster == b.Cluster &&
		a.Node == b.Node && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.PodIPs, b.PodIPs)
}

// sameSlices tells whether the earlier roster was of the same slices.
func (r *Roster) sameSlices() bool {
	for slice := range r.slices {
		if r.before.parts[slice] == nil {
			return false
		}
	}
	return len(r.slices) == len(r.before.parts)
}

// joined makes one sorted list of the clusters' lists.
func (r *Roster) joined(slice string, ps parts) []fleet.Pod {
	if r.before != nil {
		if old := r.before.parts[slice]; old != nil && maps.EqualFunc(old, ps, fleet.SameList) {
			return r.before.pods[slice]
		}
	}
	n := 0
	for _, pods := range ps {
		n += len(pods)
	}
	if n == 0 {
		return nil
	}
	out := make([]fleet.Pod, 0, n)
	for _, name := range slices.Sorted(maps.Keys(ps)) {
		out = append(out, ps[name]...)
	}
	return out
}

func comparePods(a, b fleet.Pod) int {
	return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name), strings.Compare(a.UID, b.UID))
}
