package datapath_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/link"
	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/slice/plan"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestProtocols: every transport and both families between two pods, with the client's slice address as the source.
func TestProtocols(t *testing.T) {
	for _, proto := range []string{"tcp", "udp", "sctp"} {
		for _, c := range []struct{ name, server, client string }{
			{"IPv4", "10.77.0.6:4000", "10.77.0.5"}, {"IPv6", "[fd77::6]:4000", "fd77::5"},
		} {
			t.Run(proto+" "+c.name, func(t *testing.T) {
				r := newRig(t)
				a, b := r.pod("a"), r.pod("b")
				r.apply(r.slice("pay", dual, a, b))
				podtest.Serve(t, b.NS, "b", proto, addrPort(c.server))
				got, err := podtest.Ask(t, a.NS, proto, addrPort(c.server))
				if err != nil || got != "b "+c.client {
					t.Fatalf("answer %q, %v; want %q", got, err, "b "+c.client)
				}
			})
		}
	}
}

// TestDetachLeavesNothing compares everything before with everything after: links, addresses, routes, rules,
// neighbours, nftables and kernel parameters, of the machine, the node and the pods.
func TestDetachLeavesNothing(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	host, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	spaces := map[string]*netns.NS{"node": r.node.NS, "a": a.NS, "b": b.NS}
	before := map[string]string{}
	for name, ns := range spaces {
		before[name] = podtest.Snapshot(t, ns)
	}
	before["host"] = marks(t, host)
	for _, how := range []string{"slice gone", "purge", "purge after a restart"} {
		r.apply(r.slice("pay", dual, a, b))
		if podtest.Snapshot(t, a.NS) == before["a"] {
			t.Fatal("the snapshot does not see an attached pod")
		}
		switch how {
		case "slice gone":
			r.apply()
		case "purge after a restart":
			r.kernel = r.restart()
			fallthrough
		case "purge":
			if err := r.kernel.Purge(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
				t.Errorf("%s: the folder of namespaces is still there: %v", how, err)
			}
		}
		if after := marks(t, host); after != before["host"] {
			t.Errorf("%s: the machine differs after:\n%s", how, difference(before["host"], after))
		}
		for name, ns := range spaces {
			if after := podtest.Snapshot(t, ns); after != before[name] {
				t.Errorf("%s: %s differs after:\n%s", how, name, difference(before[name], after))
			}
		}
	}
}

func difference(a, b string) string {
	var out strings.Builder
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	in := func(ls []string, l string) bool {
		for _, x := range ls {
			if x == l {
				return true
			}
		}
		return false
	}
	for _, l := range as {
		if !in(bs, l) {
			out.WriteString("- " + l + "\n")
		}
	}
	for _, l := range bs {
		if !in(as, l) {
			out.WriteString("+ " + l + "\n")
		}
	}
	return out.String()
}

// marks prints what Seaway could have left in the machine's own namespace, which others change at the same time.
func marks(t *testing.T, ns *netns.NS) string {
	t.Helper()
	var out strings.Builder
	for _, line := range strings.Split(podtest.Snapshot(t, ns), "\n") {
		for _, mark := range []string{"seaway", "proto 77", "lookup 77", "169.254.77.1", "5ea:1", "ip_forward =", "all/forwarding =", "default/"} {
			if strings.Contains(line, mark) {
				out.WriteString(line + "\n")
			}
		}
	}
	return out.String()
}

// TestOnePodLeaves: the others stay as they are, and what it had goes.
func TestOnePodLeaves(t *testing.T) {
	r := newRig(t)
	a, b, c := r.pod("a"), r.pod("b"), r.pod("c")
	before := podtest.Snapshot(t, c.NS)
	r.apply(r.slice("pay", dual, a, b, c))
	podtest.Serve(t, b.NS, "b", "tcp", addrPort("10.77.0.6:80"))
	conn, err := podtest.Dial(a.NS, addrPort("10.77.0.6:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	two := r.slice("pay", dual, a, b)
	r.apply(two)
	if after := podtest.Snapshot(t, c.NS); after != before {
		t.Errorf("the pod that left differs:\n%s", difference(before, after))
	}
	if got, err := conn.Ask(); err != nil || got != "b 10.77.0.5" {
		t.Errorf("a connection between the others: %q, %v", got, err)
	}
	if silent := r.silent(a.NS, "10.77.0.7", 300*time.Millisecond); len(silent) == 0 {
		t.Error("the pod that left still answers")
	}
	r.settled(two)
}

// TestMovesToAnotherSlice: detached from one and attached to the other in one go.
func TestMovesToAnotherSlice(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	r.apply(r.slice("zoo", "10.88.0.0/16", a), r.slice("pay", "10.77.0.0/16", b))
	both := r.slice("pay", "10.77.0.0/16", a, b)
	empty := r.slice("zoo", "10.88.0.0/16")
	r.apply(empty, both)
	r.pings(b.NS, "10.77.0.5")
	r.settled(empty, both)
}

// TestSandboxRecreated: the same pod with another namespace is attached again without being asked.
func TestSandboxRecreated(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", dual, a, b)
	first := find(t, r.apply(s), "b")
	again := r.node.Pod(t, "b")
	r.boxes.Set("b", again.NS)
	second := find(t, r.apply(s), "b")
	if second.NetNS == first.NetNS || !second.Since.After(first.Since) {
		t.Errorf("after: %+v, before: %+v: want another namespace and a later time", second, first)
	}
	r.pings(a.NS, "10.77.0.6 fd77::6")
	r.pings(again.NS, "10.77.0.5 fd77::5")
	r.settled(s)
}

// TestMeddling: whatever somebody removes or changes is put right, by the difference and not by doing all again.
func TestMeddling(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", dual, a, b)
	s.Services = []plan.Balance{balance("10.77.1.1", 80, "10.77.0.6:8080")}
	r.apply(s)
	slice := r.open(s)
	near := s.Attachments[0].Link
	for _, c := range []struct {
		what string
		ns   *netns.NS
		cmd  string
		ops  int // at most
	}{
		{"pod's link removed", a.NS, "ip link del slice0", 40},
		{"slice's end removed", slice, "ip link del " + near, 40},
		{"pod's link down", a.NS, "ip link set slice0 down", 20},
		{"pod's address removed", a.NS, "ip addr del 10.77.0.5/32 dev slice0", 5},
		{"pod's IPv6 address removed", a.NS, "ip addr del fd77::5/128 dev slice0", 5},
		{"foreign address added", a.NS, "ip addr add 10.9.9.9/32 dev slice0", 1},
		{"routes flushed", a.NS, "ip route flush table 77", 4},
		{"rule removed", a.NS, "ip rule del pref 7703", 1},
		{"rule added", a.NS, "ip rule add pref 7000 protocol 77 from 10.0.0.1 lookup 77", 1},
		{"neighbour removed", a.NS, "ip neigh del 169.254.77.1 dev slice0", 1},
		{"MTU changed", a.NS, "ip link set slice0 mtu 1300", 1},
		{"slice's route removed", slice, "ip route del 10.77.0.6/32", 1},
		{"forwarding off", slice, "sh -c echo>/proc/sys/net/ipv4/ip_forward", 0},
		{"table removed", slice, "nft delete table inet seaway", 200},
		{"chain flushed", slice, "nft flush chain inet seaway pass", 20},
		{"map flushed", slice, "nft flush map inet seaway service4", 1},
		{"set element added", slice, "nft add element inet seaway vip4 { 10.1.1.1 }", 1},
	} {
		f := strings.Fields(c.cmd)
		if f[0] == "nft" {
			f = append(f[:1], strings.Join(f[1:], " "))
		}
		if strings.HasPrefix(c.cmd, "sh") {
			f, c.ops = []string{"sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"}, 1
		}
		if out, err := podtest.Run(c.ns, f[0], f[1:]...); err != nil {
			t.Fatalf("%s: %v\n%s", c.what, err, out)
		}
		res := r.apply(s)
		if res.Ops == 0 || res.Ops > c.ops {
			t.Errorf("%s: %d changes, want between 1 and %d", c.what, res.Ops, c.ops)
		}
		r.pings(a.NS, "10.77.0.6 fd77::6")
		r.settled(s)
	}
}

func (r *rig) open(s plan.Slice) *netns.NS {
	r.Helper()
	ns, err := netns.Open(s.NetNS)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = ns.Close() })
	return ns
}

// TestPrefixIsThePodNetwork: the slice has the very prefix of the cluster's pods. A probe from the node to the pod's
// own address still gets its answer the way it came; without the rule for it, it does not.
func TestPrefixIsThePodNetwork(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", "10.244.0.0/16 fd00:244::/64", a, b)
	for i := range s.Attachments { // .5 and .6 are no pod's on this bridge
		if s.Attachments[i].Addrs[0] == a.IPs[0] {
			t.Fatal("test is wrong: slice and CNI addresses are the same")
		}
	}
	r.apply(s)
	for _, ip := range a.IPs {
		at := netip.AddrPortFrom(ip, 8080)
		podtest.Serve(t, a.NS, "a", "tcp", at)
		if got, err := podtest.Ask(t, r.node.NS, "tcp", at); err != nil {
			t.Errorf("kubelet's probe to %s: %q, %v", at, got, err)
		}
	}
	r.pings(a.NS, "10.244.0.6 fd00:244::6") // over the slice
	r.pings(r.node.NS, a.IPs[0].String()+" "+a.IPs[1].String())
	r.settled(s)

	r.run(a.NS, "ip rule del pref 7702")
	if _, err := podtest.Ask(t, r.node.NS, "tcp", netip.AddrPortFrom(a.IPs[0], 8080)); err == nil {
		t.Error("control: without the rule for the CNI's address the probe should fail")
	}
}

// TestSliceAddressNeverLeavesByTheCNI: a pod that binds to its slice address cannot send from it elsewhere.
func TestSliceAddressNeverLeavesByTheCNI(t *testing.T) {
	r := newRig(t)
	a := r.pod("a")
	r.apply(r.slice("pay", "10.77.0.0/16", a))
	if out, err := podtest.Run(a.NS, "ip", "route", "get", "192.0.2.1", "from", "10.77.0.5"); err == nil {
		t.Errorf("there is a way out for the slice address: %s", out)
	}
	if out, err := podtest.Run(a.NS, "ip", "route", "get", "192.0.2.1"); err != nil || !strings.Contains(out, "eth0") {
		t.Errorf("the pod's own way out is gone: %s %v", out, err)
	}
}

// TestTwoSlicesOnePrefix: the same addresses twice; nothing passes between them.
func TestTwoSlicesOnePrefix(t *testing.T) {
	r := newRig(t)
	a, b, x, y := r.pod("a"), r.pod("b"), r.pod("x"), r.pod("y")
	one, two := r.slice("pay", dual, a, b), r.slice("zoo", dual, x, y)
	r.apply(one, two)
	at := addrPort("10.77.0.6:80")
	podtest.Serve(t, b.NS, "b", "tcp", at)
	podtest.Serve(t, y.NS, "y", "tcp", at)
	for _, c := range []struct {
		from *podtest.Pod
		want string
	}{{a, "b 10.77.0.5"}, {x, "y 10.77.0.5"}} {
		if got, err := podtest.Ask(t, c.from.NS, "tcp", at); err != nil || got != c.want {
			t.Errorf("%s asks %s: %q, %v; want %q", c.from.UID, at, got, err, c.want)
		}
	}
	r.settled(one, two)
}

// TestFailuresStayAlone: each pod that cannot be attached says why, and the others are.
func TestFailuresStayAlone(t *testing.T) {
	r := newRig(t)
	good, alien, twin := r.pod("good"), r.pod("alien"), r.pod("twin")
	r.run(alien.NS, "ip link add slice0 type bridge")
	r.boxes.Refuse("host", &pod.Refusal{Reason: pod.ReasonHostNetwork, Message: "no"})
	s := r.slice("pay", "10.77.0.0/16", good, alien, twin, &podtest.Pod{UID: "host"}, &podtest.Pod{UID: "absent"})
	s.Attachments[2].Addrs[0] = twin.IPs[0]
	res, err := r.kernel.Apply(context.Background(), []plan.Slice{s}, datapath.Thorough)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"good": "Attached", "alien": "LinkFailed", "twin": "AddressConflict",
		"host": pod.ReasonHostNetwork, "absent": pod.ReasonNotFound}
	for uid, reason := range want {
		if a := find(t, res, uid); a.Reason != reason || a.Attached != (uid == "good") || a.Message == "" && uid != "good" {
			t.Errorf("%s: %+v, want reason %s and a message", uid, a, reason)
		}
	}
	if again, _ := r.kernel.Apply(context.Background(), []plan.Slice{s}, datapath.Thorough); again.Ops != 0 {
		t.Errorf("trying again made %d changes", again.Ops)
	}
}

// TestProbeFails: a pod whose link is there but does not carry is not attached.
func TestProbeFails(t *testing.T) {
	r := newRig(t)
	a := r.pod("a")
	r.run(a.NS, "sysctl -qw net.ipv4.icmp_echo_ignore_all=1")
	res, err := r.kernel.Apply(context.Background(), []plan.Slice{r.slice("pay", "10.77.0.0/16", a)}, datapath.Thorough)
	if err != nil {
		t.Fatal(err)
	}
	if got := find(t, res, "a"); got.Attached || got.Reason != "ProbeFailed" {
		t.Errorf("%+v, want ProbeFailed", got)
	}
}

// TestPodWithoutIPv6: runtimes switch IPv6 off where the cluster has none; the slice's link has it all the same.
func TestPodWithoutIPv6(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	r.run(a.NS, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
	s := r.slice("pay", dual, a, b)
	r.apply(s)
	r.pings(b.NS, "fd77::5")
	r.settled(s)
}

// TestLeftovers: what an earlier life left in a pod that is on no slice any more goes with the first Apply.
func TestLeftovers(t *testing.T) {
	r := newRig(t)
	a := r.pod("a")
	before := podtest.Snapshot(t, a.NS)
	s := r.slice("pay", dual, a)
	r.apply(s)
	if err := netns.Remove(s.NetNS); err != nil { // behind our back
		t.Fatal(err)
	}
	sp, err := link.Read(a.NS)
	if err != nil {
		t.Fatal(err)
	}
	sp.Close()
	r.kernel = r.restart()
	r.apply()
	if after := podtest.Snapshot(t, a.NS); after != before {
		t.Errorf("left over:\n%s", difference(before, after))
	}
}

// TestTunnelDevice: routes over the tunnel come when its device does; until then the slice says what is missing.
func TestTunnelDevice(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", "10.77.0.0/16", a, b)
	s.Routes = append(s.Routes, plan.Route{Dst: netip.MustParsePrefix("10.77.128.0/17"), Link: plan.TunLink})
	res, err := r.kernel.Apply(context.Background(), []plan.Slice{s}, datapath.Thorough)
	if err != nil || len(res.Problems) != 1 || res.Problems[0].Reason != "TunnelMissing" {
		t.Fatalf("without the device: %+v, %v; want the problem TunnelMissing", res.Problems, err)
	}
	r.pings(a.NS, "10.77.0.6")
	ns := r.open(s)
	podtest.Tun(t, ns, plan.TunLink)
	r.apply(s)
	if out := r.run(ns, "ip route get 10.77.200.1"); !strings.Contains(out, "dev wg0") {
		t.Errorf("route after the device came: %s", out)
	}
	r.settled(s)
	r.run(ns, "ip link del wg0")
	podtest.Tun(t, ns, plan.TunLink)
	r.apply(s)
	r.settled(s)
}

// TestWatch: the tunnel's device is noticed coming and going, and what watches lets go of a slice that is removed.
func TestWatch(t *testing.T) {
	r := newRig(t)
	s := r.slice("pay", "10.77.0.0/16")
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- r.kernel.Watch(ctx, func() { seen <- struct{}{} }) }()
	wait := func(what string) {
		t.Helper()
		select {
		case <-seen:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s was not noticed", what)
		}
	}
	r.apply(s)
	ns := r.open(s)
	for n := 0; len(seen) == 0; n++ { // the watch begins some time after its goroutine does
		r.apply(s)
		podtest.Tun(t, ns, plan.TunLink)
		r.run(ns, "ip link del wg0")
		if n > 1000 {
			t.Fatal("the device was never noticed")
		}
	}
	for len(seen) > 0 {
		<-seen
	}
	podtest.Tun(t, ns, plan.TunLink)
	wait("the device's coming")
	r.apply()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestQuick: a quick look costs nothing where nothing changed, sees what changes outside the pods, new pods, new
// sandboxes and links that lost their other end; what happens inside a pod it leaves to a thorough one.
func TestQuick(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", dual, a)
	r.apply(s)
	quick := func(what string, s plan.Slice, changes bool) {
		t.Helper()
		res, err := r.kernel.Apply(t.Context(), []plan.Slice{s}, datapath.Quick)
		if err != nil || len(res.Problems) > 0 || (res.Ops > 0) != changes {
			t.Errorf("%s: %d changes, %v, %v; want changes=%v", what, res.Ops, res.Problems, err, changes)
		}
		for _, at := range res.Attachments {
			if !at.Attached {
				t.Errorf("%s: %+v", what, at)
			}
		}
	}
	quick("nothing", s, false)
	s = r.slice("pay", dual, a, b)
	quick("another pod", s, true)
	r.pings(a.NS, "10.77.0.6 fd77::6")
	r.run(a.NS, "ip link set slice0 down")
	quick("a pod's end down", s, true)
	r.run(a.NS, "ip link del slice0")
	quick("a pod's end gone", s, true)
	again := r.node.Pod(t, "b")
	r.boxes.Set("b", again.NS)
	quick("another sandbox", s, true)
	r.pings(a.NS, "10.77.0.6 fd77::6")
	r.run(a.NS, "ip rule del pref 7703")
	quick("inside a pod", s, false)
	if res := r.apply(s); res.Ops != 1 {
		t.Errorf("a thorough look made %d changes, want 1", res.Ops)
	}
	r.settled(s)
}
