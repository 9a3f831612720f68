package roster_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

var t0 = time.Unix(1_800_000_000, 0)

// key is a public key that says whose it is.
func key(parts ...string) (k fleet.Key) {
	copy(k[:], strings.Join(parts, "/"))
	return k
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// facts are of cluster c1 with nodes n1 to n3, beside c2 (public) and c3 (private). Slice pay has namespace shop.
func facts() *roster.Facts {
	f := &roster.Facts{
		Cluster: "c1", Software: "v1",
		Members: []roster.Member{{Name: "c1", Region: "eu"}, {Name: "c2"}, {Name: "c3", Private: true}},
		Slices:  []roster.Wish{wish("pay", 0, "10.77.0.0/16", "shop")},
		Namespaces: map[string]map[string]string{
			"shop": {"team": "a"}, "ops": {"team": "ops"}, "kube-system": {},
		},
		Nodes: map[string]roster.Node{
			"n1": {Ready: true, Schedulable: true}, "n2": {Ready: true, Schedulable: true}, "n3": {Ready: true, Schedulable: true},
		},
		Pods:    map[string]*roster.Pod{},
		Leases:  map[string]map[string][]netip.Addr{"pay": {}},
		Reports: map[string]*fleet.Report{},
		Heard:   map[string]bool{},
		Bulletins: map[string]*fleet.Bulletin{
			"c2": others("c2", 2, "n1", "n2"), "c3": others("c3", 3, "n1"),
		},
	}
	for i, n := range []string{"n1", "n2", "n3"} {
		f.Heard[n] = true
		f.Reports[n] = &fleet.Report{Version: 1, Node: n, Port: 51871, MTU: 1500, Addrs: []netip.Addr{addr(fmt.Sprintf("198.51.1.%d", i+1))},
			Keys: map[string]fleet.Key{fleet.ManagementSlice: key("c1", n, "mgmt"), "pay": key("c1", n, "pay")}}
	}
	pod(f, "shop/web-0", "n1", "10.77.1.1")
	return f
}

func wish(name string, age int, pfx string, namespaces ...string) roster.Wish {
	w := roster.Wish{Created: t0.Add(time.Duration(age) * time.Second), Names: namespaces}
	w.Name, w.Prefixes, w.Clusters = name, []netip.Prefix{prefix(pfx)}, []string{"c1", "c2", "c3"}
	base := w.Prefixes[0].Addr().As4()
	for i, c := range w.Clusters {
		base[2] = byte(i + 1)
		w.Blocks = append(w.Blocks, fleet.Block{Cluster: c, Prefix: netip.PrefixFrom(netip.AddrFrom4(base), 24)})
	}
	return w
}

// others is the bulletin of a cluster with one pod of pay on its first node, which is a gateway.
func others(cluster string, block byte, nodes ...string) *fleet.Bulletin {
	b := &fleet.Bulletin{Version: 1, Cluster: cluster, Epoch: 1, Rev: 1}
	for i, n := range nodes {
		b.Nodes = append(b.Nodes, fleet.Node{Name: n, Cluster: cluster, Port: 51871, Gateway: i == 0, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, block, byte(i + 1)})},
			Keys: map[string]fleet.Key{fleet.ManagementSlice: key(cluster, n, "mgmt"), "pay": key(cluster, n, "pay")}})
	}
	b.Pods = []fleet.Pod{{Namespace: "shop", Name: "remote", Slice: "pay", Cluster: cluster, Node: nodes[0],
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, block, 9})}}}
	return b
}

// pod puts a pod on the board, with an address of slice pay unless that is "".
func pod(f *roster.Facts, name, node, a string) *roster.Pod {
	namespace, short, _ := strings.Cut(name, "/")
	p := &roster.Pod{UID: "uid-" + short, Namespace: namespace, Name: short, Node: node, Ready: true, Labels: map[string]string{"app": "x"}}
	f.Pods[name] = p
	if a != "" {
		f.Leases["pay"][p.Key()] = []netip.Addr{addr(a)}
	}
	return p
}

// shown writes an intent's nodes and keys: "c1/n1*[mgmt pay] …", with a star for gateways.
func shown(in *fleet.Intent) string {
	var out []string
	for _, c := range in.Clusters {
		for _, n := range c.Nodes {
			var keys []string
			for s := range n.Keys {
				keys = append(keys, strings.Replace(s, fleet.ManagementSlice, "mgmt", 1))
			}
			slices.Sort(keys)
			mark := ""
			if n.Gateway {
				mark = "*"
			}
			out = append(out, n.ID()+mark+fmt.Sprint(keys))
		}
	}
	return strings.Join(out, " ")
}

func TestIntentTellsNoMoreThanNeeded(t *testing.T) {
	r := roster.New(facts())
	for node, want := range map[string]string{
		// n1 hosts pay and is a gateway: all keys of its own cluster and of the private one, its peers elsewhere.
		"n1": "c1/n1*[mgmt pay] c1/n2*[mgmt pay] c1/n3[mgmt pay] c2/n1*[mgmt pay] c2/n2[mgmt pay] c3/n1[mgmt pay]",
		// n2 is a gateway only: of public clusters whom to relay for by name, but no slice's key; and no slice of its own.
		"n2": "c1/n1*[mgmt pay] c1/n2*[mgmt pay] c1/n3[mgmt pay] c2/n1*[mgmt] c2/n2[mgmt] c3/n1[mgmt pay]",
		// n3 is neither: itself.
		"n3": "c1/n3[mgmt pay]",
	} {
		in := r.Intent(node)
		if got := shown(in); got != want {
			t.Errorf("%s is told\n%s\nwant\n%s", node, got, want)
		}
		if fmt.Sprint(in.Prefixes) != "[10.77.0.0/16]" {
			t.Errorf("%s is told of the prefixes %v", node, in.Prefixes)
		}
		if hosts := node == "n1"; (len(in.Slices) == 1) != hosts || (len(in.Pods) == 3) != hosts {
			t.Errorf("%s: %d slices, %d pods", node, len(in.Slices), len(in.Pods))
		}
	}
	in := r.Intent("n1")
	if got := in.Pods[0].Key() + " " + in.Pods[0].UID; got != "shop/web-0 uid-web-0" {
		t.Errorf("first pod %s", got)
	}
	if in.Pods[1].UID != "" {
		t.Error("another cluster's pod has a UID")
	}
}

// TestIntentProperties makes fleets at random and checks every key in every intent against the rule that lets it in.
func TestIntentProperties(t *testing.T) {
	var before *roster.Roster
	for range 200 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 1))
		f := facts()
		f.Slices = append(f.Slices, wish("ops", 5, "10.77.0.0/16", "ops"))
		f.Leases["ops"] = map[string][]netip.Addr{}
		for i := range 12 {
			ns := []string{"shop", "ops"}[rng.IntN(2)]
			p := pod(f, fmt.Sprintf("%s/p%d", ns, i), fmt.Sprintf("n%d", 1+rng.IntN(3)), "")
			slice := map[string]string{"shop": "pay", "ops": "ops"}[ns]
			if rng.IntN(5) > 0 {
				f.Leases[slice][p.Key()] = []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 1, byte(10 + i)})}
			}
			p.HostNetwork = rng.IntN(6) == 0
		}
		f.Members[0].Private = rng.IntN(3) == 0
		f.Members[2].Private = rng.IntN(2) == 0
		for n := range f.Nodes {
			f.Reports[n].Keys["ops"] = key("c1", n, "ops")
			if rng.IntN(4) == 0 {
				f.Nodes[n] = roster.Node{Labels: map[string]string{roster.GatewayLabel: "true"}}
			}
		}
		private := map[string]bool{"c1": f.Members[0].Private, "c3": f.Members[2].Private}
		r := roster.New(f)
		for node := range f.Nodes {
			in := r.Intent(node)
			gateway := slices.Contains(r.Gateways(), node)
			hosts := r.Hosts(node)
			for _, s := range in.Slices {
				if !slices.Contains(hosts, s.Name) {
					t.Fatalf("seed %d: %s is told of slice %s that it does not host", seed, node, s.Name)
				}
			}
			for _, c := range in.Clusters {
				for _, n := range c.Nodes {
					for s := range n.Keys {
						self := c.Name == "c1" && n.Name == node
						peer := slices.Contains(hosts, s)
						whereabouts := s == fleet.ManagementSlice && (gateway || n.Gateway && !private[c.Name] && len(hosts) > 0 ||
							slices.ContainsFunc(hosts, func(h string) bool { _, both := n.Keys[h]; return both }))
						carries := s == fleet.ManagementSlice && in.Carry != nil && (n.Carrier || n.Gateway && !private[c.Name])
						relay := gateway && (c.Name == "c1" || private[c.Name])
						if !self && !peer && !whereabouts && !carries && !relay {
							t.Fatalf("seed %d: %s is told the key of %s on %s", seed, node, n.ID(), s)
						}
					}
				}
			}
			if gateway && private["c1"] {
				t.Fatalf("seed %d: a private cluster has gateway %s", seed, node)
			}
			if again := roster.New(f).Intent(node); !reflect.DeepEqual(in, again) {
				t.Fatalf("seed %d: equal facts gave different intents", seed)
			}
			if with := roster.Next(f, before).Intent(node); !reflect.DeepEqual(in, with) {
				t.Fatalf("seed %d: with an earlier roster's help %s is told something else", seed, node)
			}
		}
		before = r
		for _, n := range r.Bulletin().Nodes {
			for s := range n.Keys {
				if s != fleet.ManagementSlice && !slices.Contains(r.Hosts(n.Name), s) {
					t.Fatalf("seed %d: the bulletin has %s's key of %s, which it does not host", seed, n.Name, s)
				}
			}
		}
	}
}

func TestNamespacesJoinTheOldestSlice(t *testing.T) {
	f := facts()
	young := wish("young", 10, "10.9.0.0/16", "shop", "ops")
	all := wish("all", 20, "10.9.0.0/16")
	all.All = true
	label := wish("label", 5, "10.9.0.0/16")
	label.Selector = "team in (ops)"
	elsewhere := wish("elsewhere", -9, "10.9.0.0/16", "shop")
	elsewhere.Clusters = []string{"c2"}
	f.Slices = append(f.Slices, all, young, label, elsewhere)
	r := roster.New(f)
	for ns, want := range map[string]string{"shop": "pay", "ops": "label", "kube-system": "", "nosuch": ""} {
		if got, _ := r.SliceOf(ns); got != want {
			t.Errorf("%s is on %q, want %q", ns, got, want)
		}
	}
	var taken []string
	for _, p := range r.Problems() {
		taken = append(taken, p.Reason+" "+p.Where+": "+p.Message)
	}
	want := "NamespaceTaken namespace shop: slices pay and young both want it; the older one, pay, has it"
	if !slices.Contains(taken, want) || len(taken) != 4 {
		t.Errorf("problems:\n%s", strings.Join(taken, "\n"))
	}
}

func TestWhoGetsAnAddress(t *testing.T) {
	f := facts()
	pod(f, "shop/waiting", "n2", "")
	pod(f, "shop/unscheduled", "", "")
	pod(f, "shop/finished", "n2", "").Finished = true
	pod(f, "shop/host", "n2", "").HostNetwork = true
	pod(f, "shop/excluded", "n2", "").Labels[roster.ExcludeLabel] = "true"
	pod(f, "ops/other", "n2", "")
	pod(f, "shop/db-0", "n2", "").StatefulSet = true
	r := roster.New(f)
	if got := fmt.Sprint(r.Keys("pay")); got != "[shop/db-0 uid-waiting uid-web-0]" {
		t.Errorf("keys %s", got)
	}
	for key, want := range map[string]bool{"shop/db-0": true, "shop/db-7": true, "ops/x-0": false, "uid-web-0": true, "uid-gone": false, "svc/shop/web": false} {
		if got := r.Keeps("pay", key); got != want {
			t.Errorf("keeps %s: %v, want %v", key, got, want)
		}
	}
}

func TestPodStates(t *testing.T) {
	f := facts()
	f.Reports["n1"].Attachments = []fleet.Attachment{{PodUID: "uid-web-0", Attached: true, Reason: "Attached"}}
	pod(f, "shop/failed", "n1", "10.77.1.2")
	f.Reports["n1"].Attachments = append(f.Reports["n1"].Attachments, fleet.Attachment{PodUID: "uid-failed", Reason: "ProbeFailed", Message: "m"})
	pod(f, "shop/fresh", "n1", "10.77.1.3")
	pod(f, "shop/waiting", "n1", "")
	pod(f, "shop/host", "n1", "").HostNetwork = true
	pod(f, "shop/left", "n1", "10.77.1.4").Labels[roster.ExcludeLabel] = "true"
	f.Pods["shop/left"].Condition = roster.Condition{Status: "True", Reason: "Attached"}
	pod(f, "shop/silent", "n4", "10.77.1.5")
	pod(f, "shop/early", "n4", "10.77.1.6").Condition = roster.Condition{Status: "True", Reason: "Attached"}
	show := func(exhausted bool) string {
		var out []string
		for _, s := range roster.New(f).PodStates(map[string]bool{"pay": exhausted}) {
			line := s.Name + " " + s.Condition.Status + " " + s.Condition.Reason + " " + s.Annotation
			if s.Passing {
				line += " (passing)"
			}
			out = append(out, strings.TrimSpace(line))
		}
		return strings.Join(out, "\n")
	}
	want := `early True Attached 10.77.1.6
failed False ProbeFailed 10.77.1.2
fresh False Attaching 10.77.1.3 (passing)
host False HostNetwork
left
silent False NodeSilent 10.77.1.5 (passing)
waiting False AddressPending  (passing)
web-0 True Attached 10.77.1.1`
	if got := show(false); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = strings.Replace(want, "AddressPending  (passing)", "AddressesExhausted", 1)
	if got := show(true); got != want {
		t.Errorf("exhausted: got\n%s\nwant\n%s", got, want)
	}
}

func TestGateways(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*roster.Facts)
		want string
	}{
		{"the first two by name", func(*roster.Facts) {}, "[n1 n2]"},
		{"as many as wanted", func(f *roster.Facts) { f.Members[0].GatewayCount = 1 }, "[n1]"},
		{"not one that is not ready", func(f *roster.Facts) { f.Nodes["n1"] = roster.Node{Schedulable: true} }, "[n2 n3]"},
		{"not one that is cordoned", func(f *roster.Facts) { f.Nodes["n2"] = roster.Node{Ready: true} }, "[n1 n3]"},
		{"not one that never reported", func(f *roster.Facts) { delete(f.Reports, "n1") }, "[n2 n3]"},
		{"those that are labelled", func(f *roster.Facts) {
			f.Nodes["n3"] = roster.Node{Labels: map[string]string{roster.GatewayLabel: "true"}}
		}, "[n3]"},
		{"those that the cluster's selector chooses", func(f *roster.Facts) {
			f.Members[0].GatewayLabels = map[string]string{"edge": "yes"}
			f.Nodes["n2"] = roster.Node{Ready: true, Schedulable: true, Labels: map[string]string{"edge": "yes"}}
		}, "[n2]"},
		{"none in a private cluster", func(f *roster.Facts) { f.Members[0].Private = true }, "[]"},
		{"none when leaving", func(f *roster.Facts) { f.Leaving = true }, "[]"},
	} {
		f := facts()
		tc.edit(f)
		if got := fmt.Sprint(roster.New(f).Gateways()); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestLiesAreLeftOut(t *testing.T) {
	f := facts()
	f.Bulletins["c2"].Pods[0].Addrs[0] = addr("10.77.1.1") // c1's
	f.Bulletins["c3"].Nodes[0].Keys["pay"] = key("c1", "n1", "pay")
	r := roster.New(f)
	in := r.Intent("n1")
	if len(in.Pods) != 2 {
		t.Errorf("pods %+v", in.Pods)
	}
	if got := shown(in); strings.Contains(got, "c3/n1[mgmt pay]") || !strings.Contains(got, "c3/n1[mgmt]") {
		t.Errorf("a stolen key is told: %s", got)
	}
	_, lies := r.Others()
	if lies["c2"].Count != 1 || lies["c3"].Count != 1 || len(r.Problems()) != 2 {
		t.Errorf("lies %+v, problems %+v", lies, r.Problems())
	}
	f.Bulletins["c2"].Cluster = "c9"
	r = roster.New(f)
	if got := shown(r.Intent("n1")); strings.Contains(got, "c2/") {
		t.Errorf("a bulletin in another's mailbox is believed: %s", got)
	}
}

func TestLeavingTakesEverythingBack(t *testing.T) {
	f := facts()
	f.Leaving = true
	f.Pods["shop/web-0"].Condition = roster.Condition{Status: "True"}
	done := pod(f, "shop/done", "n1", "")
	done.Finished, done.Annotation = true, "10.77.1.7"
	f.Exports = []fleet.Export{{Name: "web"}}
	r := roster.New(f)
	if in := r.Intent("n1"); !reflect.DeepEqual(in, &fleet.Intent{Version: 1, Cluster: "c1", Node: "n1", Purge: true}) {
		t.Errorf("intent %+v", in)
	}
	if b := r.Bulletin(); len(b.Nodes)+len(b.Pods)+len(b.Exports) > 0 {
		t.Errorf("bulletin %+v", b)
	}
	if st := r.PodStates(nil); len(st) != 2 || st[0].Annotation != "" || st[1].Condition.Status != "" {
		t.Errorf("states %+v", st)
	}
}

func TestBulletinCarriesFewLabels(t *testing.T) {
	f := facts()
	labels := f.Pods["shop/web-0"].Labels
	labels["pod-template-hash"] = "x"
	for i := range 40 {
		labels[fmt.Sprintf("z%02d", i)] = "v"
	}
	got := roster.New(f).Bulletin().Pods[0].Labels
	if _, ok := got["pod-template-hash"]; ok || len(got) != 16 || got["app"] != "x" {
		t.Errorf("labels %v", got)
	}
}

func TestFootprintShowsWhatDiscoveryNeeds(t *testing.T) {
	f := facts()
	before := roster.New(f).Footprint()
	f.Leases = map[string]map[string][]netip.Addr{"pay": {"uid-web-0": f.Leases["pay"]["uid-web-0"], "svc/shop/web": {addr("10.77.1.50")}}}
	if after := roster.New(f).Footprint(); reflect.DeepEqual(before, after) || len(after) != 1 {
		t.Errorf("a service's address does not show: %v", after)
	}
}

// A slice's headless names answer with pods' own addresses where the hub has found their networks apart: discovery hears
// that, and the hub hears of networks and of what everybody needs, in few words.
func TestNetworks(t *testing.T) {
	f := facts()
	for i, n := range []string{"n1", "n2", "n3"} {
		node := f.Nodes[n]
		node.PodCIDRs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24)}
		f.Nodes[n] = node
	}
	f.Needed = map[string][]netip.Addr{"kube-system/dns": {addr("10.96.0.10")}, "default/kubernetes": {addr("10.96.0.1")}}
	before := roster.New(f)
	b := before.Bulletin()
	if fmt.Sprint(b.Networks, b.Needed) != "[10.1.0.0/23 10.1.2.0/24] [10.96.0.1 10.96.0.10]" {
		t.Errorf("the hub hears %v, %v", b.Networks, b.Needed)
	}
	if got := before.Networks("pay"); got != nil {
		t.Errorf("networks of a slice that has none: %v", got)
	}
	f.Slices[0].Networks = []fleet.Block{{Cluster: "c1", Prefix: prefix("10.1.0.0/16")}, {Cluster: "c2", Prefix: prefix("10.2.0.0/16")}}
	after := roster.New(f)
	if got := after.Networks("pay"); fmt.Sprint(got) != "[10.1.0.0/16]" {
		t.Errorf("own networks: %v", got)
	}
	if reflect.DeepEqual(before.Footprint(), after.Footprint()) {
		t.Error("discovery does not hear that the slice's names answer with other addresses now")
	}
	if in := after.Intent("n1"); len(in.Slices) != 1 || len(in.Slices[0].Networks) != 2 {
		t.Errorf("the node hears of slices %+v", in.Slices)
	}
}

func BenchmarkRoster(b *testing.B) {
	f := facts()
	for i := range 2000 {
		pod(f, fmt.Sprintf("shop/p%d", i), "n1", "")
		f.Leases["pay"][fmt.Sprintf("uid-p%d", i)] = []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 1, byte(i)})}
	}
	for b.Loop() {
		r := roster.New(f)
		r.Intent("n1")
		r.Bulletin()
		r.PodStates(nil)
		r.Footprint()
	}
}

// A StatefulSet's pods have addresses before they are there, and keep them while they are away.
func TestStatefulSetsPodsAreExpected(t *testing.T) {
	f := facts()
	f.Sets = map[string]roster.Set{
		"shop/db":   {Namespace: "shop", Name: "db", Service: "dbs", First: 1, Count: 2},
		"shop/host": {Namespace: "shop", Name: "host", Service: "dbs", Count: 2, Excluded: true},
		"ops/other": {Namespace: "ops", Name: "other", Service: "dbs", Count: 2},
	}
	f.Leases["pay"]["shop/db-1"] = []netip.Addr{addr("10.77.1.9")}
	r := roster.New(f)
	if got := fmt.Sprint(r.Keys("pay")); got != "[shop/db-1 shop/db-2 uid-web-0]" {
		t.Errorf("keys %s", got)
	}
	if got := fmt.Sprint(r.Expected("shop", "dbs"), r.PodAddrs("shop", "db-1"), r.Attached("shop", "db-1"), r.Expected("ops", "dbs")); got != "[db-1 db-2] [10.77.1.9] false []" {
		t.Errorf("expected %s", got)
	}
	before := r.Footprint()
	pod(f, "shop/db-1", "n1", "10.77.1.9").StatefulSet = true
	r = roster.New(f)
	if got := fmt.Sprint(r.PodAddrs("shop", "db-1")); got != "[10.77.1.9]" {
		t.Errorf("the pod that came has %s", got)
	}
	f.Sets["shop/db"] = roster.Set{Namespace: "shop", Name: "db", Service: "dbs", First: 1, Count: 1}
	r = roster.New(f)
	if r.Wants("pay", "shop/db-2") || !r.Keeps("pay", "shop/db-2") {
		t.Error("an ordinal that was scaled away is wanted no more, and kept for a while")
	}
	if reflect.DeepEqual(before, r.Footprint()) {
		t.Error("discovery is not told that fewer pods are expected")
	}
}

// Until all services are known once, nodes are told that a missing name may exist.
func TestDoubtIsTold(t *testing.T) {
	f := facts()
	if !roster.New(f).Intent("n1").Unsure {
		t.Error("nodes are not told that services may be missing")
	}
	f.Named = true
	if roster.New(f).Intent("n1").Unsure {
		t.Error("nodes are told of doubt although all services are known")
	}
}

// A node hears what others of its cluster hold of nodes that it has nothing to do with itself, and of no others; what a
// node told an earlier leader counts for nothing.
func TestSightsAreForThoseWhoMeasureNothing(t *testing.T) {
	f := facts()
	f.Reports["n1"].Sights = []fleet.Sight{{Node: "c2/n2", Down: true}, {Node: "c2/n1", Distance: 4}, {Node: "c9/n1", Down: true}}
	for _, heard := range []bool{true, false} {
		f.Heard["n1"] = heard
		r := roster.New(f)
		pods := 0
		for _, p := range r.Intent("n1").Pods {
			if p.Cluster == "c2" {
				pods++
			}
		}
		if pods == 0 {
			t.Fatal("c2 has no pod on the slice: the test says nothing")
		}
		if got := r.Intent("n1").Sights; len(got) != 0 {
			t.Errorf("n1, which measures, hears of %v", got)
		}
		got := r.Intent("n3").Sights
		if (len(got) > 0) != heard {
			t.Errorf("n3 hears of %v, with n1 heard %v", got, heard)
		}
		for _, s := range got {
			if !strings.HasPrefix(s.Node, "c2/") {
				t.Errorf("n3 hears of %v, which has nothing on the slice", s)
			}
		}
	}
}
