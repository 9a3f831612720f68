package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/kube"
)

var quiet = slog.New(slog.DiscardHandler)

func fakeClient(fns interceptor.Funcs, objects ...client.Object) client.WithWatch {
	return fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).WithStatusSubresource(&corev1.Pod{}).WithInterceptorFuncs(fns).Build()
}

// payFacts are of cluster c1 with slice pay, a block of some addresses, and some pods.
func payFacts(block string, pods ...string) *roster.Facts {
	w := roster.Wish{Names: []string{"shop"}}
	w.Name, w.Prefixes, w.Clusters = "pay", []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}, []string{"c1"}
	if block != "" {
		w.Blocks = []fleet.Block{{Cluster: "c1", Prefix: netip.MustParsePrefix(block)}}
	}
	b := newBoard("c1", "")
	f := &b.facts
	f.Members, f.Slices = []roster.Member{{Name: "c1"}}, []roster.Wish{w}
	f.Namespaces["shop"] = nil
	for _, p := range pods {
		f.Pods["shop/"+p] = &roster.Pod{UID: "uid-" + p, Namespace: "shop", Name: p, Node: "n1"}
	}
	return f
}

// TestAddressesAreWrittenDownFirst: no lease reaches the board before its ledger was saved, and none is lost or changed
// by a new leader.
func TestAddressesAreWrittenDownFirst(t *testing.T) {
	ctx := t.Context()
	down := true
	c := fakeClient(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if down {
			return errors.New("the API server is away")
		}
		return c.Create(ctx, o, opts...)
	}})
	b := newBoard("c1", "")
	l := newLedgers(c, "seaway-system", time.Minute, b, quiet)
	f := payFacts("10.77.1.0/24", "a", "b")
	l.settle(roster.New(f), false, time.Now())
	if err := l.saveOne(ctx, "pay"); err == nil || len(b.facts.Leases) != 0 {
		t.Fatalf("error %v, leases %v: used before written down", err, b.facts.Leases)
	}
	down = false
	if err := l.saveOne(ctx, "pay"); err != nil {
		t.Fatal(err)
	}
	leases := b.facts.Leases["pay"]
	if len(leases) != 2 {
		t.Fatalf("leases %v", leases)
	}

	next := newLedgers(c, "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	if err := next.load(ctx); err != nil {
		t.Fatal(err)
	}
	if got := next.board.facts.Leases["pay"]; fmt.Sprint(got) != fmt.Sprint(leases) {
		t.Errorf("a new leader has %v, want %v", got, leases)
	}
	next.settle(roster.New(payFacts("10.77.1.0/24", "a", "b", "c")), false, time.Now())
	if err := next.saveOne(ctx, "pay"); err != nil {
		t.Fatal(err)
	}

	// The old leader writes once more: it must find out, and stop.
	l.settle(roster.New(payFacts("10.77.1.0/24", "a", "b", "d")), false, time.Now())
	if err := l.saveOne(ctx, "pay"); !errors.Is(err, errFenced) {
		t.Errorf("error %v, want errFenced", err)
	}
	if len(b.facts.Leases["pay"]) != 2 {
		t.Errorf("the old leader handed out %v", b.facts.Leases["pay"])
	}
}

func TestExhaustionAsksForMoreAndRecovers(t *testing.T) {
	l := newLedgers(fakeClient(interceptor.Funcs{}), "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	now := time.Now()
	f := payFacts("10.77.1.0/31", "a", "b", "c")
	l.settle(roster.New(f), false, now)
	exhausted, demand, problems := l.state()
	if !exhausted["pay"] || demand["pay"] != 3 || len(problems) != 1 {
		t.Errorf("exhausted %v, demand %v, problems %v", exhausted, demand, problems)
	}
	delete(f.Pods, "shop/a")
	if again := l.settle(roster.New(f), false, now); !again.Equal(now.Add(time.Minute)) {
		t.Errorf("look again at %v, want when the rest is over, %v", again, now.Add(time.Minute))
	}
	if _, demand, _ = l.state(); demand["pay"] != 3 {
		t.Errorf("demand %v: a resting address is still needed", demand)
	}
	l.settle(roster.New(payFacts("10.77.1.0/30", "b", "c")), false, now)
	if exhausted, _, _ := l.state(); exhausted["pay"] {
		t.Error("still exhausted with a larger block")
	}
	// Of a slice that is gone nothing rests and nobody waits: a new one of its name may be small.
	f = payFacts("10.77.1.0/30", "b")
	l.settle(roster.New(f), false, now)
	if _, demand, _ = l.state(); demand["pay"] != 3 { // c rests, and a still does
		t.Errorf("demand %v, want 3", demand)
	}
	f.Slices = nil
	l.settle(roster.New(f), false, now)
	if _, demand, problems = l.state(); demand["pay"] != 1 || len(problems) != 0 {
		t.Errorf("demand %v and problems %v of a slice that is gone, want 1 and none", demand, problems)
	}
	l.settle(roster.New(payFacts("10.77.1.0/30", "b", "c")), false, now)
	// A hub that lost its status takes nothing away.
	held, _ := l.usage("pay")
	l.settle(roster.New(payFacts("", "b", "c")), false, now)
	if got, _ := l.usage("pay"); got != held {
		t.Errorf("%d addresses held without blocks, want %d", got, held)
	}
}

func TestLedgerOutlivesItsSliceForARest(t *testing.T) {
	c := fakeClient(interceptor.Funcs{})
	l := newLedgers(c, "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	now := time.Now()
	l.settle(roster.New(payFacts("10.77.1.0/24", "a")), false, now)
	_ = l.saveOne(t.Context(), "pay")
	before := fmt.Sprint(l.board.facts.Leases)
	nothing := payFacts("10.77.1.0/24", "a")
	nothing.Slices = nil
	l.settle(roster.New(nothing), false, now)
	if len(l.unsaved()) != 0 {
		t.Fatal("the ledger goes at once")
	}
	l.settle(roster.New(payFacts("10.77.1.0/24", "a")), false, now.Add(30*time.Second))
	if got := fmt.Sprint(l.board.facts.Leases); got != before {
		t.Errorf("the slice came back with %s, want %s", got, before)
	}
	l.settle(roster.New(nothing), false, now)
	l.settle(roster.New(nothing), false, now.Add(time.Minute))
	if err := l.saveOne(t.Context(), "pay"); err != nil {
		t.Fatal(err)
	}
	err := c.Get(t.Context(), client.ObjectKey{Namespace: "seaway-system", Name: "seaway-addresses-pay"}, &corev1.ConfigMap{})
	if !apierrors.IsNotFound(err) || len(l.board.facts.Leases) != 0 {
		t.Errorf("after the rest: %v, %v", err, l.board.facts.Leases)
	}
}

func TestServiceAddresses(t *testing.T) {
	l := newLedgers(fakeClient(interceptor.Funcs{}), "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	f := payFacts("10.77.1.0/24")
	if got := l.ask("pay", "shop", "web", nil); got != nil {
		t.Errorf("addresses %v before any are written down", got)
	}
	now := time.Now()
	l.settle(roster.New(f), false, now)
	_ = l.saveOne(t.Context(), "pay")
	got := l.ask("pay", "shop", "web", l.board.facts.Leases)
	if len(got) != 1 {
		t.Fatalf("addresses %v", got)
	}
	// Asked for, and then in use: kept. Neither: released after a while.
	l.use([]fleet.Service{{Namespace: "shop", Name: "web", Slice: "pay"}})
	l.settle(roster.New(f), false, now.Add(time.Hour))
	if held, _ := l.usage("pay"); held != 1 {
		t.Errorf("%d addresses held while the service stands", held)
	}
	l.use(nil)
	l.settle(roster.New(f), false, now.Add(time.Hour))
	if held, resting := l.usage("pay"); held != 0 || resting != 1 {
		t.Errorf("%d held, %d resting after the service went", held, resting)
	}
}

// TestDamagedLedgerStopsTheLeader: with the ledger unknown nobody may be told of other addresses, or of none.
func TestDamagedLedgerStopsTheLeader(t *testing.T) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-system", Name: "seaway-addresses-pay",
		Labels: map[string]string{ledgerLabel: "true", sliceLabel: "pay"}}, BinaryData: map[string][]byte{ledgerKey: []byte("junk")}}
	l := newLedgers(fakeClient(interceptor.Funcs{}, cm), "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	if err := l.load(t.Context()); err == nil || !strings.Contains(err.Error(), "seaway-addresses-pay") || !strings.Contains(err.Error(), "backup") {
		t.Errorf("loading junk: %v, want an error that names the ConfigMap and the mend", err)
	}
}

func TestMailboxNumbersAndRepairs(t *testing.T) {
	m := newMailbox("c1")
	m.offer(&fleet.Bulletin{Version: 1, Cluster: "c1"})
	later := uint64(time.Now().Add(time.Hour).UnixNano()) // as written by a replica whose clock was ahead
	m.begin(&fleet.Bulletin{Cluster: "c1", Epoch: later})
	first := m.take()
	b, err := bulletin.Decode(first.Body)
	if err != nil || b.Epoch != later+1 || b.Rev != 1 {
		t.Fatalf("first %+v, %v", b, err)
	}
	m.done(first)
	m.offer(&fleet.Bulletin{Version: 1, Cluster: "c1"})
	if m.take() != nil {
		t.Error("an equal bulletin is sent again")
	}
	m.offer(&fleet.Bulletin{Version: 1, Cluster: "c1", Region: "eu"})
	second := m.take()
	if b, _ := bulletin.Decode(second.Body); b.Rev != 2 {
		t.Errorf("second has revision %d", b.Rev)
	}
	m.offer(&fleet.Bulletin{Version: 1, Cluster: "c1", Region: "us"}) // while the second is under way
	m.done(second)
	third := m.take()
	if b, _ := bulletin.Decode(third.Body); b == nil || b.Region != "us" || b.Rev != 3 {
		t.Errorf("third %+v", b)
	}
	m.done(third)
	m.observe(third.Body)
	if m.take() != nil {
		t.Error("sent again although the mailbox holds it")
	}
	m.observe(nil)
	if m.take() == nil {
		t.Error("not sent again although somebody emptied the mailbox")
	}
}

// TestMarks: a passing state is not written unless it lasts, a state is written once, a new one replaces it, and
// foreign conditions stay.
func TestMarks(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a", UID: "u"},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	patches := 0
	c := fakeClient(interceptor.Funcs{SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
		patches++
		if sub != "status" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("only status"))
		}
		return c.SubResource(sub).Patch(ctx, o, p, opts...)
	}}, pod)
	synctest.Test(t, func(t *testing.T) {
		m := newMarks(c, record.NewFakeRecorder(100), quiet, newMeters().marks)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.run(ctx) }()
		fact := &roster.Pod{UID: "u", Namespace: "shop", Name: "a"}
		offer := func(status, reason, ips string, passing bool) {
			m.offer([]roster.PodState{{Namespace: "shop", Name: "a", UID: "u", Condition: roster.Condition{Status: status, Reason: reason}, Annotation: ips, Passing: passing}},
				map[string]*roster.Pod{"shop/a": fact})
			synctest.Wait()
		}
		offer("False", "Attaching", "10.1.0.1", true)
		time.Sleep(passing / 2)
		offer("False", "Attaching", "10.1.0.1", true)
		if patches != 0 {
			t.Errorf("%d patches for a state that passes", patches)
		}
		offer("True", "Attached", "10.1.0.1", false)
		offer("True", "Attached", "10.1.0.1", false)
		if patches != 1 {
			t.Errorf("%d patches, want 1", patches)
		}
		fact = &roster.Pod{UID: "u", Namespace: "shop", Name: "a", Condition: roster.Condition{Status: "True", Reason: "Attached"}, Annotation: "10.1.0.1"}
		offer("False", "Attaching", "10.1.0.1", true)
		time.Sleep(passing + time.Second)
		synctest.Wait()
		if patches != 2 {
			t.Errorf("%d patches: a state that lasts is not shown", patches)
		}
		cancel()
		<-done
		m.queue.ShutDown()
	})
	got := &corev1.Pod{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(pod), got); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == roster.ConditionType })
	if len(got.Status.Conditions) != 2 || i < 0 || got.Status.Conditions[i].Reason != "Attaching" {
		t.Errorf("conditions %+v", got.Status.Conditions)
	}
}

func TestCertificates(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := []net.IP{net.ParseIP("10.96.0.7")}
	first, changed, err := refresh(nil, "seaway-system", at, now)
	if err != nil || !changed {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	same := func(a, b map[string][]byte, key string) bool { return string(a[key]) == string(b[key]) }
	for _, tc := range []struct {
		name         string
		at           []net.IP
		after        time.Duration
		change, root bool
	}{
		{"nothing to do", at, 24 * time.Hour, false, false},
		{"the server's is two thirds over", at, serverLife * 3 / 4, true, false},
		{"the Service has another address", []net.IP{net.ParseIP("10.96.0.8")}, time.Hour, true, false},
		{"the authority's is two thirds over", at, authorityLife * 3 / 4, true, true},
	} {
		got, changed, err := refresh(first, "seaway-system", tc.at, now.Add(tc.after))
		if err != nil || changed != tc.change || same(first, got, serverCert) == tc.change || same(first, got, caCert) == tc.root {
			t.Errorf("%s: changed %v, error %v", tc.name, changed, err)
		}
		if tc.root && len(got[caCert]) < len(first[caCert])*3/2 {
			t.Errorf("%s: the old authority is not trusted any more", tc.name)
		}
	}
	if _, changed, err := refresh(map[string][]byte{caCert: []byte("junk")}, "x", nil, now); err != nil || !changed {
		t.Errorf("junk is not replaced: %v", err)
	}
}

func TestStatusIsCutToFit(t *testing.T) {
	st := fleet.Status{Version: 1}
	for i := range 40 {
		n := fleet.NodeState{Name: fmt.Sprint("n", i)}
		for j := range 1000 {
			n.Peers = append(n.Peers, fleet.PeerState{Slice: "pay", Peer: fmt.Sprintf("c2/node-%d", j), Path: "direct 198.51.100.100:51871"})
		}
		st.Nodes = append(st.Nodes, n)
	}
	text, err := statusText(st)
	if err != nil || len(text) > maxStatus {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	var got fleet.Status
	if err := json.Unmarshal([]byte(text), &got); err != nil || !got.Truncated || len(got.Nodes) != 40 {
		t.Errorf("truncated %v, %d nodes, %v", got.Truncated, len(got.Nodes), err)
	}
	if len(st.Nodes[0].Peers) != 1000 {
		t.Error("the caller's value was changed")
	}
}

// TestPodsDoNotGetTheClustersOwnAddresses: the slice has the prefix of the cluster's pods, its first block is a node's.
func TestPodsDoNotGetTheClustersOwnAddresses(t *testing.T) {
	facts := func(blocks ...string) *roster.Facts {
		f := payFacts("", "a", "b")
		w := &f.Slices[0]
		w.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
		for _, b := range blocks {
			w.Blocks = append(w.Blocks, fleet.Block{Cluster: "c1", Prefix: netip.MustParsePrefix(b)})
		}
		f.Nodes["n1"] = roster.Node{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Addrs: []netip.Addr{netip.MustParseAddr("10.244.3.0")}}
		f.Pods["kube-system/dns"] = &roster.Pod{UID: "d", Namespace: "kube-system", Name: "dns", PodIPs: []netip.Addr{netip.MustParseAddr("10.244.3.1")}}
		return f
	}
	l := newLedgers(fakeClient(interceptor.Funcs{}), "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	now := time.Now()
	if again := l.settle(roster.New(facts("10.244.1.0/24")), false, now); !again.Equal(now.Add(5 * time.Second)) {
		t.Errorf("look again at %v", again)
	}
	// The hub adds a block when more than three quarters of what there is are needed.
	if _, demand, _ := l.state(); demand["pay"] != 2+256 {
		t.Errorf("demand %v", demand)
	}
	l.settle(roster.New(facts("10.244.1.0/24", "10.244.3.0/24")), false, now)
	if err := l.saveOne(t.Context(), "pay"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(l.board.facts.Leases["pay"]); got != "map[uid-a:[10.244.3.2] uid-b:[10.244.3.3]]" {
		t.Errorf("leases %s", got)
	}
}

// An ordinal that was scaled away keeps its address for a day, or a rest if addresses are short; one that is wanted
// keeps it for ever, with or without its pod.
func TestScaledAwayOrdinalsKeepTheirAddressesForADay(t *testing.T) {
	l := newLedgers(fakeClient(interceptor.Funcs{}), "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	now := time.Now()
	scaled := func(block string, count int) *roster.Roster {
		f := payFacts(block)
		f.Sets["shop/db"] = roster.Set{Namespace: "shop", Name: "db", Count: count}
		return roster.New(f)
	}
	held := func() int { n, _ := l.usage("pay"); return n }
	l.settle(scaled("10.77.1.0/24", 3), false, now)
	if held() != 3 {
		t.Fatalf("%d addresses before the pods are there, want 3", held())
	}
	again := l.settle(scaled("10.77.1.0/24", 1), false, now)
	if held() != 3 || !again.Equal(now.Add(retention)) {
		t.Errorf("scaled away: %d held, look again at %v, want 3 at %v", held(), again, now.Add(retention))
	}
	l.settle(scaled("10.77.1.0/24", 3), false, now.Add(retention-time.Second)) // it comes back: the day starts anew
	l.settle(scaled("10.77.1.0/24", 1), false, now.Add(retention))
	if held() != 3 {
		t.Errorf("%d held, the day did not start anew", held())
	}
	l.settle(scaled("10.77.1.0/24", 1), false, now.Add(2*retention+time.Second))
	if held() != 1 {
		t.Errorf("%d held after a day, want the wanted one", held())
	}

	short := newLedgers(fakeClient(interceptor.Funcs{}), "seaway-system", time.Minute, newBoard("c1", ""), quiet)
	short.settle(scaled("10.77.1.0/30", 4), false, now)
	f := payFacts("10.77.1.0/30", "a")
	if again := short.settle(roster.New(f), false, now); !again.Equal(now.Add(time.Minute)) {
		t.Errorf("look again at %v, want after a rest, %v", again, now.Add(time.Minute))
	}
	short.settle(roster.New(f), false, now.Add(61*time.Second))
	if n, _ := short.usage("pay"); n > 1 {
		t.Errorf("%d held a rest later although a pod waits", n)
	}
}
