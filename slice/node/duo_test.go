package node

import (
	"net/netip"
	"slices"
	"testing"

	"seaway.dev/seaway/fleet"
)

// duo is two nodes of two clusters on the slice "pay", and what their controllers tell them.
type duo struct {
	one, two *site
	slice    fleet.Slice
	pods     []fleet.Pod
	services []fleet.Service
	rev      uint64
}

// newDuo makes a duo whose slice has these prefixes; pods of the first have addresses from 10.77.0.1 on, those of the
// second from 10.77.16.1.
func newDuo(t *testing.T, prefixes ...string) *duo {
	t.Helper()
	d := &duo{one: newSite(t, "c1", "n1"), two: newSite(t, "c2", "n2"), slice: fleet.Slice{Name: "pay", Blocks: []fleet.Block{
		{Cluster: "c1", Prefix: netip.MustParsePrefix("10.77.0.0/20")}, {Cluster: "c2", Prefix: netip.MustParsePrefix("10.77.16.0/20")},
	}}}
	for _, p := range prefixes {
		d.slice.Prefixes = append(d.slice.Prefixes, netip.MustParsePrefix(p))
	}
	return d
}

// pod runs a pod at a site, of which both are told.
func (d *duo) pod(t *testing.T, at *site, uid, addrs string) fleet.Pod {
	t.Helper()
	p := at.pod(t, uid, addrs)
	d.pods = append(d.pods, p)
	return p
}

// intent is what a site is to be told, of a fleet of these nodes.
func (d *duo) intent(t *testing.T, to *site, nodes ...*site) fleet.Intent {
	t.Helper()
	in := fleet.Intent{Version: fleet.WireVersion, Epoch: 1, Rev: d.rev, Cluster: to.cluster, Node: to.name,
		Slices: []fleet.Slice{d.slice}, Pods: d.pods, Services: d.services}
	for _, n := range nodes {
		in.Clusters = append(in.Clusters, fleet.Cluster{Name: n.cluster, Nodes: []fleet.Node{n.node(t)}})
	}
	return in
}

// tell tells both all there is.
func (d *duo) tell(t *testing.T) {
	t.Helper()
	d.rev++
	for _, s := range []*site{d.one, d.two} {
		s.controller.tell(t, d.intent(t, s, d.one, d.two))
	}
}

// both waits until both say so.
func (d *duo) both(t *testing.T, what string, ok func(fleet.Report) bool) {
	t.Helper()
	for _, s := range []*site{d.one, d.two} {
		s.until(t, what, ok)
	}
}

// listen waits until both hear their controllers.
func (d *duo) listen(t *testing.T) {
	t.Helper()
	for _, s := range []*site{d.one, d.two} {
		s.until(t, "a stream", func(fleet.Report) bool { return s.controller.heard() })
	}
}

// begin has both make their keys and hear of each other's, and waits until all pods are attached.
func (d *duo) begin(t *testing.T) {
	t.Helper()
	d.listen(t)
	d.tell(t)
	d.both(t, "the slice's key", func(r fleet.Report) bool { return !r.Keys["pay"].IsZero() })
	d.tell(t)
	d.attached(t)
}

// attached waits until all pods are, by what was told last.
func (d *duo) attached(t *testing.T) {
	t.Helper()
	for _, s := range []*site{d.one, d.two} {
		own := len(slices.DeleteFunc(slices.Clone(d.pods), func(p fleet.Pod) bool { return p.Cluster != s.cluster }))
		s.until(t, "its pods attached", func(r fleet.Report) bool { return r.IntentRev == d.rev && allAttached(own)(r) })
	}
}
