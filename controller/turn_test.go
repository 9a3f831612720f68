package controller

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"seaway.dev/seaway/controller/roster"
	discoverykube "seaway.dev/seaway/discovery/kube"
	"seaway.dev/seaway/fleet"
)

// bigFleet is a leader of c2 in a fleet of 100 clusters, with so many endpoints in services of ten.
type bigFleet struct {
	t    testing.TB
	l    *leader
	said map[string]*fleet.Bulletin
	told *fleet.Intent // to node n1
	n    int
}

const bigClusters = 100

func bigBlock(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i/16), byte(i % 16 * 16), 0}), 20)
}

func newBigFleet(t testing.TB, endpoints int) *bigFleet {
	l := assemble(Config{Cluster: "c2", Namespace: "seaway-system", Rest: time.Minute, Log: quiet}, fakeClient(interceptor.Funcs{}), record.NewFakeRecorder(1000))
	l.discover = discoverykube.New(l.client, discoverykube.Config{
		Cluster: "c2", SliceOf: l.sliceOf, Families: l.families, Pod: l.pod, Expected: l.expected, IPs: l.serviceIPs,
		Remote: l.remoteExports, Changed: l.discovered, Log: quiet,
	})
	l.epoch = 7
	l.known.Store(true)
	l.carry.sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	w := roster.Wish{Names: []string{"shop"}}
	w.Name, w.Prefixes = "pay", []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10")}
	f := &l.board.facts
	for i := 1; i <= bigClusters; i++ {
		name := fmt.Sprintf("c%d", i)
		f.Members = append(f.Members, roster.Member{Name: name, Signer: fleet.Key{byte(i)}})
		w.Clusters = append(w.Clusters, name)
		w.Blocks = append(w.Blocks, fleet.Block{Cluster: name, Prefix: bigBlock(i)})
	}
	f.Slices, f.Named = []roster.Wish{w}, true
	f.Namespaces["shop"] = nil
	for i := range 3 {
		node := fmt.Sprintf("n%d", i+1)
		f.Nodes[node] = roster.Node{Ready: true, Schedulable: true}
		f.Reports[node] = &fleet.Report{Version: 1, Node: node, Port: 51871, MTU: 1500, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(20 + i)})},
			Keys: map[string]fleet.Key{"seaway": {2, byte(i)}, "pay": {3, byte(i)}}}
		f.Heard[node] = true
		f.Pods["shop/"+node] = &roster.Pod{UID: "uid-" + node, Namespace: "shop", Name: node, Node: node, Ready: true}
	}
	b := &bigFleet{t: t, l: l, said: map[string]*fleet.Bulletin{}}
	per := max(endpoints/bigClusters, 1)
	for rev := range uint64(2) { // said again, the services have addresses by then
		for i := 1; i <= bigClusters; i++ {
			if i != 2 {
				b.put(bigBulletin(i, per, rev+1))
			}
		}
		b.settle()
	}
	b.tell()
	if len(b.told.Services) != len(b.said)*((per+9)/10) || len(b.told.Services[0].IPs) == 0 || len(b.told.Pods) != len(b.said)*per+3 {
		t.Fatalf("%d services, %d pods: %+v", len(b.told.Services), len(b.told.Pods), b.told.Services[0])
	}
	return b
}

// bigBulletin is what cluster i says: so many pods, ten behind each service.
func bigBulletin(i, per int, rev uint64) *fleet.Bulletin {
	name := fmt.Sprintf("c%d", i)
	out := &fleet.Bulletin{Version: 1, Cluster: name, Epoch: 1, Rev: rev}
	out.Nodes = []fleet.Node{{Name: "n1", Cluster: name, Port: 51871, Gateway: true, Carrier: true, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 101, byte(i)})},
		Keys: map[string]fleet.Key{"seaway": {4, byte(i)}, "pay": {5, byte(i)}}}}
	a := bigBlock(i).Addr()
	for e := range per {
		a = a.Next()
		p := fleet.Pod{Namespace: "shop", Name: fmt.Sprintf("%s-p%04d", name, e), Slice: "pay", Cluster: name, Node: "n1", Addrs: []netip.Addr{a}, Ready: true}
		out.Pods = append(out.Pods, p)
		if e%10 == 0 {
			out.Exports = append(out.Exports, fleet.Export{Namespace: "shop", Name: fmt.Sprintf("%s-s%04d", name, e/10), Slice: "pay", Created: time.Unix(1e9+int64(rev), 0).UTC(),
				Families: []string{"IPv4"}, Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}})
		}
		x := &out.Exports[len(out.Exports)-1]
		x.Endpoints = append(x.Endpoints, fleet.Endpoint{Cluster: name, Node: "n1", Pod: p.Name, Addrs: p.Addrs, Ready: true, Ports: map[string]uint16{"http": 8080}})
	}
	return out
}

func (b *bigFleet) put(now *fleet.Bulletin) {
	b.said[now.Cluster] = now
	b.l.carry.put(now, "test")
}

// change flips the readiness of an endpoint and, if that is asked for, of its pod as well.
func (b *bigFleet) change(pods bool) {
	b.n++
	name := fmt.Sprintf("c%d", 3+b.n%(bigClusters-2))
	old := b.said[name]
	now := *old
	now.Rev++
	now.Exports = slices.Clone(old.Exports)
	x := &now.Exports[b.n%len(now.Exports)]
	x.Endpoints = slices.Clone(x.Endpoints)
	e := &x.Endpoints[b.n%len(x.Endpoints)]
	e.Ready = !e.Ready
	if pods {
		now.Pods = slices.Clone(old.Pods)
		p := &now.Pods[b.n%len(now.Pods)]
		p.Ready = !p.Ready
	}
	b.put(&now)
}

// settle turns until nothing is to be done, and returns how often.
func (b *bigFleet) settle() (turns int) {
	for {
		select {
		case <-b.l.board.dirty:
		default:
			return turns
		}
		b.l.turn(time.Now())
		turns++
		if turns == 1 && b.told == nil {
			if _, err := b.l.discover.Reconcile(b.t.Context(), reconcile.Request{}); err != nil {
				b.t.Fatal(err)
			}
		}
		for _, slice := range b.l.ledgers.unsaved() {
			if err := b.l.ledgers.saveOne(b.t.Context(), slice); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// tell does for each node what its stream does, and returns the bytes for n1.
func (b *bigFleet) tell() int {
	size := 0
	for _, node := range []string{"n1", "n2", "n3"} {
		b.l.streams.mu.Lock()
		last := b.l.streams.node(node).told
		b.l.streams.mu.Unlock()
		in, d, _ := b.l.streams.next(node, last, true)
		if in == nil {
			continue
		}
		say := any(in)
		if d != nil {
			say = d
		}
		line, err := json.Marshal(say)
		if err != nil {
			b.t.Fatal(err)
		}
		if node == "n1" {
			b.told, size = in, len(line)
		}
	}
	return size
}

// BenchmarkTurn is what one change in one of 100 clusters costs a controller with three nodes, from the board to the
// streams: as processor time, since a busy machine makes the rest say nothing.
func BenchmarkTurn(b *testing.B) {
	for _, what := range []string{"endpoint", "pod"} {
		for _, n := range []int{100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", what, n), func(b *testing.B) {
				f := newBigFleet(b, n)
				runtime.GC()
				b.ReportAllocs()
				b.ResetTimer()
				began, turns, size := cpuTime(), 0, 0
				for b.Loop() {
					f.change(what == "pod")
					turns += f.settle()
					if size = f.tell(); size == 0 {
						b.Fatal("nothing was told")
					}
				}
				b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/1e6, "cpu-ms/op")
				b.ReportMetric(float64(turns)/float64(b.N), "turns/op")
				b.ReportMetric(float64(size), "told-B")
			})
		}
	}
}

// cpuTime is the processor time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
