package pod_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/datapath/podtest"
)

func finder(t *testing.T, rt *podtest.Runtime, cfg pod.Config) *pod.Finder {
	t.Helper()
	cfg.Root, cfg.Log = rt.Root, slog.New(slog.DiscardHandler)
	f, err := pod.NewFinder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func refs(uids ...string) (out []pod.Ref) {
	for _, u := range uids {
		out = append(out, pod.Ref{UID: u})
	}
	return out
}

// TestFind: a sandbox is found by its pod's UID and held; one made anew replaces it; one that is gone is let go.
func TestFind(t *testing.T) {
	rt := podtest.NewRuntime(t)
	f := finder(t, rt, pod.Config{})
	ctx := t.Context()
	first, second := podtest.NewNS(t), podtest.NewNS(t)

	if got := f.Find(ctx, refs("a")); got.Refused["a"] == nil || got.Refused["a"].Reason != pod.ReasonNotFound {
		t.Fatalf("before it runs: %+v", got)
	}
	rt.Start("a", "s1", first)
	sb := f.Find(ctx, refs("a")).Sandboxes["a"]
	if sb == nil || !sb.NS.Same(first) || sb.ID != "s1" || time.Since(sb.Born) > time.Minute {
		t.Fatalf("found %+v, want the first namespace", sb)
	}
	calls := rt.Calls()
	if again := f.Find(ctx, refs("a")).Sandboxes["a"]; again != sb || rt.Calls() != calls+1 {
		t.Errorf("looking again cost %d calls, want one list", rt.Calls()-calls)
	}

	rt.SetDown(true)
	if got := f.Find(ctx, refs("a", "b")); got.Sandboxes["a"] != sb || got.Refused["b"] == nil {
		t.Errorf("while the runtime restarts: %+v, want what was held", got)
	}
	rt.SetDown(false)

	rt.Start("a", "s2", second) // the old one still listed: the youngest counts
	if sb := f.Find(ctx, refs("a")).Sandboxes["a"]; sb == nil || !sb.NS.Same(second) {
		t.Fatalf("made anew: %+v, want the second namespace", sb)
	}
	rt.Stop("s1")
	rt.Stop("s2")
	if got := f.Find(ctx, refs("a")); got.Sandboxes["a"] != nil || got.Refused["a"] == nil {
		t.Errorf("stopped: %+v", got)
	}
}

// TestLetsGo: no namespace is held longer than its pod is asked for.
func TestLetsGo(t *testing.T) {
	rt := podtest.NewRuntime(t)
	f := finder(t, rt, pod.Config{})
	for i := range 5 {
		rt.Start(fmt.Sprint("p", i), fmt.Sprint("s", i), podtest.NewNS(t))
	}
	f.Find(t.Context(), refs("p0")) // connections and what else stays open
	before := descriptors(t)
	f.Find(t.Context(), refs("p0", "p1", "p2", "p3", "p4"))
	if n := descriptors(t); n != before+4 {
		t.Errorf("%d descriptors more for 4 pods more", n-before)
	}
	f.Find(t.Context(), refs("p0"))
	all, err := f.All(t.Context())
	if err != nil || len(all) != 5 {
		t.Errorf("all: %d, %v", len(all), err)
	}
	for _, sb := range all {
		_ = sb.NS.Close()
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors stayed open", n-before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestRefusals: each kind of pod that cannot be attached says why and what to do.
func TestRefusals(t *testing.T) {
	rt := podtest.NewRuntime(t)
	f := finder(t, rt, pod.Config{})
	host, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	set := func(k string, v any) func(*cri.PodSandbox, map[string]any) {
		return func(_ *cri.PodSandbox, info map[string]any) { info[k] = v }
	}
	ns := podtest.NewNS(t)
	rt.Start("says-host", "s1", ns, set("hostNetwork", true))
	rt.Start("is-host", "s2", host)
	rt.Start("kata", "s3", ns, set("runtimeType", "io.containerd.kata.v2"))
	rt.Start("gvisor", "s4", ns, set("runtimeHandler", "runsc"))
	rt.Start("closed", "s5", ns, set("netNamespaceClosed", true))
	rt.Start("odd", "s6", ns, set("runtimeSpec", "?"))
	rt.Start("nowhere", "s7", ns, set("runtimeSpec", nil))
	rt.Start("elsewhere", "s8", ns, set("runtimeSpec", map[string]any{"linux": map[string]any{"namespaces": []any{
		map[string]any{"type": "network", "path": "/run/../../../../../../etc/passwd"}}}}))
	want := map[string]string{
		"says-host": pod.ReasonHostNetwork, "is-host": pod.ReasonHostNetwork, "kata": pod.ReasonNotSupported,
		"gvisor": pod.ReasonNotSupported, "closed": pod.ReasonNotFound, "odd": pod.ReasonNotFound,
		"nowhere": pod.ReasonNotFound, "elsewhere": pod.ReasonNotFound,
	}
	var uids []string
	for uid := range want {
		uids = append(uids, uid)
	}
	got := f.Find(t.Context(), refs(uids...))
	for uid, reason := range want {
		if why := got.Refused[uid]; why == nil || why.Reason != reason || why.Message == "" {
			t.Errorf("%s: %+v, want %s with a message", uid, why, reason)
		}
	}
}

// TestProcess: with no runtime to ask, a pod is found by its processes' cgroup, and only if the namespace has one of
// the pod's addresses.
func TestProcess(t *testing.T) {
	node := podtest.NewNode(t)
	p := node.Pod(t, "x")
	const uid = "5d0f0bd2-1111-4222-8333-444455556666"
	cmd := sleeper(t, p.NS)
	proc := fakeProc(t, cmd.Process.Pid, "/kubepods.slice/kubepods-pod"+strings.ReplaceAll(uid, "-", "_")+".slice/cri-1.scope")
	f, err := pod.NewFinder(pod.Config{Root: t.TempDir(), Proc: proc, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	find := func(ips ...netip.Addr) *pod.Sandbox {
		return f.Find(t.Context(), []pod.Ref{{UID: uid, IPs: ips}}).Sandboxes[uid]
	}
	if sb := find(); sb != nil {
		t.Error("found without knowing an address")
	}
	if sb := find(netip.MustParseAddr("10.244.9.9")); sb != nil {
		t.Error("found although the namespace has another address")
	}
	if sb := find(p.IPs...); sb == nil || !sb.NS.Same(p.NS) {
		t.Errorf("not found: %+v", sb)
	}
}

// sleeper runs a process inside a namespace until the test ends.
func sleeper(t *testing.T, ns *netns.NS) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// fakeProc is a /proc with one process, in a cgroup of our choice.
func fakeProc(t *testing.T, pid int, cgroup string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range []int{1, pid} {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(p), "ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(fmt.Sprintf("/proc/%d/ns/net", p), filepath.Join(dir, fmt.Sprint(p), "ns/net")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(pid), "cgroup"), []byte("0::"+cgroup+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWatch: a new sandbox is noticed by its file, also where the folder itself is new.
func TestWatch(t *testing.T) {
	rt := podtest.NewRuntime(t)
	dir := filepath.Join(rt.Root, "run/netns")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	f := finder(t, rt, pod.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- f.Watch(ctx, func() { seen <- struct{}{} }) }()
	wait := func(what string) {
		t.Helper()
		select {
		case <-seen:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s was not noticed", what)
		}
	}
	// The watch begins some time after its goroutine does: make the folder until it is seen.
	for begun := false; !begun; {
		_ = os.Remove(dir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		select {
		case <-seen:
			begun = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	rt.Start("a", "s1", podtest.NewNS(t))
	wait("a new sandbox")
	for len(seen) > 0 {
		<-seen
	}
	rt.Stop("s1")
	wait("the end of a sandbox")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
