package datapath_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// rig is one node with a Kernel at work on it.
type rig struct {
	*testing.T
	node   *podtest.Node
	boxes  *podtest.Sandboxes
	dir    string
	kernel *datapath.Kernel
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, node: podtest.NewNode(t), boxes: &podtest.Sandboxes{}, dir: t.TempDir()}
	r.kernel = r.restart()
	t.Cleanup(func() {
		if _, err := r.kernel.Apply(context.Background(), nil, datapath.Thorough); err != nil {
			t.Error(err)
		}
	})
	return r
}

// restart gives a Kernel that knows nothing, as after a restart of the agent.
func (r *rig) restart() *datapath.Kernel {
	return datapath.New(datapath.Config{NetNSDir: r.dir, Sandboxes: r.boxes, Log: slog.New(slog.DiscardHandler)})
}

func (r *rig) pod(uid string) *podtest.Pod {
	p := r.node.Pod(r.T, uid)
	r.boxes.Set(uid, p.NS)
	return p
}

// slice plans a slice with a prefix per family and these pods; pod i of it gets address 5+i of each prefix.
func (r *rig) slice(name string, prefixes string, pods ...*podtest.Pod) plan.Slice {
	s := plan.Slice{Name: name, NetNS: filepath.Join(r.dir, name), MTU: 1420}
	for _, p := range strings.Fields(prefixes) {
		s.Prefixes = append(s.Prefixes, netip.MustParsePrefix(p))
		s.Routes = append(s.Routes, plan.Route{Dst: netip.MustParsePrefix(p)})
	}
	for i, p := range pods {
		sum := sha256.Sum256([]byte(p.UID))
		at := plan.Attachment{
			PodUID: p.UID, Namespace: "shop", Pod: p.UID, PodIPs: p.IPs, Prefixes: s.Prefixes,
			Link: "p" + hex.EncodeToString(sum[:6]),
		}
		for _, pre := range s.Prefixes {
			a := nth(pre, 5+i)
			at.Addrs = append(at.Addrs, a)
			s.Routes = append(s.Routes, plan.Route{Dst: netip.PrefixFrom(a, a.BitLen()), Link: at.Link})
		}
		s.Attachments = append(s.Attachments, at)
	}
	return s
}

func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// apply applies and wants every pod attached.
func (r *rig) apply(want ...plan.Slice) datapath.Result {
	r.Helper()
	res, err := r.kernel.Apply(context.Background(), want, datapath.Thorough)
	if err != nil {
		r.Fatal(err)
	}
	for _, a := range res.Attachments {
		if !a.Attached {
			r.Fatalf("pod %s is not attached: %s: %s", a.Pod, a.Reason, a.Message)
		}
	}
	if len(res.Problems) > 0 {
		r.Fatalf("problems: %+v", res.Problems)
	}
	return res
}

// settled applies again and wants nothing done.
func (r *rig) settled(want ...plan.Slice) {
	r.Helper()
	if res := r.apply(want...); res.Ops != 0 {
		r.Fatalf("applying the same again made %d changes, want 0", res.Ops)
	}
	r.kernel = r.restart()
	if res := r.apply(want...); res.Ops != 0 {
		r.Fatalf("applying the same again after a restart made %d changes, want 0", res.Ops)
	}
}

func (r *rig) run(ns *netns.NS, cmd string) string {
	r.Helper()
	f := strings.Fields(cmd)
	out, err := podtest.Run(ns, f[0], f[1:]...)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func find(t *testing.T, res datapath.Result, uid string) fleet.Attachment {
	t.Helper()
	for _, a := range res.Attachments {
		if a.PodUID == uid {
			return a
		}
	}
	t.Fatalf("no attachment of %s in %+v", uid, res.Attachments)
	return fleet.Attachment{}
}

// pings wants an ICMP echo from inside a namespace answered by every address.
func (r *rig) pings(ns *netns.NS, addrs string) {
	r.Helper()
	if silent := r.silent(ns, addrs, 3*time.Second); len(silent) > 0 {
		r.Fatalf("no answer to ICMP echo from %v", silent)
	}
}

// silent lists who does not answer in time.
func (r *rig) silent(ns *netns.NS, addrs string, wait time.Duration) map[netip.Addr]bool {
	r.Helper()
	targets := map[netip.Addr]time.Duration{}
	for _, a := range strings.Fields(addrs) {
		targets[netip.MustParseAddr(a)] = wait
	}
	silent, err := datapath.Probe(context.Background(), ns, targets)
	if err != nil {
		r.Fatal(err)
	}
	return silent
}

const dual = "10.77.0.0/16 fd77::/64"

// TestTwoPods is the thin line through everything: two pods attached, a ping between them, nothing to do again.
func TestTwoPods(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", dual, a, b)
	res := r.apply(s)
	t.Logf("%d changes; took %.1f ms and %.1f ms", res.Ops, res.Attachments[0].Took, res.Attachments[1].Took)
	r.pings(a.NS, "10.77.0.6 fd77::6")
	r.pings(b.NS, "10.77.0.5 fd77::5")
	r.settled(s)
}
