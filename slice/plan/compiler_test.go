package plan_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/slice/share"
)

// telling makes the intents that a node is told one after the other, as values that share what did not change.
type telling struct {
	r     *rand.Rand
	in    fleet.Intent
	local plan.Local
}

func (x *telling) service(name string) fleet.Service {
	s := fleet.Service{Namespace: "shop", Name: name, Slice: []string{"pay", "pay", "ops"}[x.r.IntN(3)], Headless: x.r.IntN(6) == 0, Affinity: x.r.IntN(4) == 0}
	for range x.r.IntN(3) {
		s.IPs = append(s.IPs, netip.AddrFrom4([4]byte{10, 9, 255, byte(x.r.IntN(12))}))
	}
	for _, p := range []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}, {Name: "dns", Protocol: fleet.UDP, Port: 53}, {Name: "alt", Protocol: fleet.TCP, Port: 80}} {
		if x.r.IntN(2) == 0 {
			s.Ports = append(s.Ports, p)
		}
	}
	s.Endpoints = x.endpoints(nil)
	return s
}

func (x *telling) endpoints(old []fleet.Endpoint) []fleet.Endpoint {
	out := slices.Clone(old)
	for i := range out {
		if x.r.IntN(3) == 0 {
			out[i].Ready = !out[i].Ready
		}
	}
	if len(out) == 0 || x.r.IntN(3) == 0 {
		c, n := x.r.IntN(4), x.r.IntN(2)
		out = append(out, fleet.Endpoint{Cluster: fmt.Sprint("c", c), Node: fmt.Sprint("n", n), Pod: fmt.Sprint("p", len(out)), Ready: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, byte(c), byte(x.r.IntN(200))})}, Ports: map[string]uint16{"http": 8080, "dns": 53}})
	}
	return out
}

func (x *telling) step() {
	in := &x.in
	in.Rev++
	switch x.r.IntN(17) {
	case 0:
		in.Services = append(slices.Clone(in.Services), x.service(fmt.Sprint("s", x.r.IntN(40))))
		if x.r.IntN(3) > 0 {
			slices.SortStableFunc(in.Services, func(a, b fleet.Service) int {
				if a.Name < b.Name {
					return -1
				}
				return 1
			})
		}
	case 1:
		if n := len(in.Services); n > 0 {
			in.Services = slices.Delete(slices.Clone(in.Services), n/2, n/2+1)
		}
	case 2:
		in.Services = slices.Clone(in.Services)
		x.r.Shuffle(len(in.Services), func(i, j int) { in.Services[i], in.Services[j] = in.Services[j], in.Services[i] })
	case 3:
		in.Pods = append(slices.Clone(in.Pods), fleet.Pod{UID: fmt.Sprint(in.Rev), Namespace: "shop", Name: fmt.Sprint("x", in.Rev), Slice: "pay",
			Cluster: in.Cluster, Node: in.Node, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, byte(x.r.IntN(30))})}})
	case 4:
		if n := len(in.Pods); n > 1 {
			in.Pods = slices.Delete(slices.Clone(in.Pods), n-1, n)
		}
	case 5:
		nodes := map[string]share.Sight{}
		for i := range 4 {
			nodes[fmt.Sprintf("c%d/n%d", i, x.r.IntN(2))] = share.Sight{Down: x.r.IntN(2) == 0, Distance: x.r.IntN(4)}
		}
		x.local.Nodes = nodes
	case 6:
		in.Clusters = slices.Clone(in.Clusters)
		in.Clusters[x.r.IntN(len(in.Clusters))].Private = x.r.IntN(2) == 0
	case 7:
		in.Policies = []fleet.Policy{{Name: fmt.Sprint("p", x.r.IntN(3)), Slice: "pay"}}
	case 8:
		in.Purge = x.r.IntN(8) == 0
	case 9, 10, 11:
		x.rekey()
	default: // a service changes
		if len(in.Services) == 0 {
			return
		}
		in.Services = slices.Clone(in.Services)
		for range 1 + x.r.IntN(2) {
			s := &in.Services[x.r.IntN(len(in.Services))]
			if x.r.IntN(5) == 0 {
				*s = x.service(s.Name)
			} else {
				s.Endpoints = x.endpoints(s.Endpoints)
			}
		}
	}
}

// rekey changes of which generations keys are: the node's own, those to be had, or another node's.
func (x *telling) rekey() {
	in, slice := &x.in, []string{"pay", "ops"}[x.r.IntN(2)]
	switch x.r.IntN(3) {
	case 0:
		gens := maps.Clone(x.local.Generations)
		if gens == nil {
			gens = map[string][]uint64{}
		}
		first := uint64(x.r.IntN(3))
		gens[slice] = [][]uint64{nil, {first}, {first, first + 1}}[x.r.IntN(3)]
		x.local.Generations = gens
	case 1:
		in.Slices = slices.Clone(in.Slices)
		in.Slices[x.r.IntN(len(in.Slices))].KeyGeneration = uint64(x.r.IntN(4))
	case 2:
		in.Clusters = slices.Clone(in.Clusters)
		c := &in.Clusters[x.r.IntN(len(in.Clusters))]
		c.Nodes = slices.Clone(c.Nodes)
		n := &c.Nodes[x.r.IntN(len(c.Nodes))]
		n.Keys = maps.Clone(n.Keys)
		if g := uint64(x.r.IntN(4)); x.r.IntN(3) == 0 {
			delete(n.Keys, fleet.KeyName(slice, g))
		} else {
			n.Keys[fleet.KeyName(slice, g)] = fleet.Key{9, byte(x.r.IntN(200))}
		}
	}
}

// TestCompilerIsCompile: whatever intents come one after the other, a Compiler's answers are those of Compile.
func TestCompilerIsCompile(t *testing.T) {
	for seed := range uint64(200) {
		x := &telling{r: rand.New(rand.NewPCG(seed, 3)), in: intent(t, "testdata/gateway.yaml"), local: plan.Local{Port: 1, MTU: 1500}}
		for i, name := range []string{"ops", "pay"} {
			if !slices.ContainsFunc(x.in.Slices, func(s fleet.Slice) bool { return s.Name == name }) {
				x.in.Slices = append(x.in.Slices, fleet.Slice{Name: name, Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(10 - i), 0, 0}), 16)}})
			}
		}
		var k plan.Compiler
		for step := range 60 {
			x.step()
			got, problems := k.Compile(x.in, x.local)
			want, wantProblems := plan.Compile(x.in, x.local)
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(problems, wantProblems) {
				t.Fatalf("seed %d, step %d: the plan is\n%s%v\nwant\n%s%v", seed, step, got.Text(), problems, want.Text(), wantProblems)
			}
		}
	}
}

// crowded is an intent of 100 clusters with so many endpoints, ten behind a service.
func crowded(endpoints int) *fleet.Intent {
	in := &fleet.Intent{Version: 1, Cluster: "c002", Node: "n1", Epoch: 1, Rev: 1}
	s := fleet.Slice{Name: "pay", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10")}}
	per := endpoints / 100
	for i := range 100 {
		name := fmt.Sprintf("c%03d", i)
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i/16), byte(i % 16 * 16), 0}), 20)
		s.Blocks = append(s.Blocks, fleet.Block{Cluster: name, Prefix: block})
		in.Clusters = append(in.Clusters, fleet.Cluster{Name: name, Nodes: []fleet.Node{{Name: "n1", Cluster: name, Port: 1, Gateway: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})}, Keys: map[string]fleet.Key{"seaway": {1, byte(i)}, "pay": {2, byte(i)}}}}})
		a := block.Addr()
		for e := range per {
			a = a.Next()
			p := fleet.Pod{UID: fmt.Sprint(i, e), Namespace: "shop", Name: fmt.Sprintf("p%04d", e), Slice: "pay", Cluster: name, Node: "n1", Addrs: []netip.Addr{a}}
			in.Pods = append(in.Pods, p)
			if e%10 == 0 {
				in.Services = append(in.Services, fleet.Service{Namespace: "shop", Name: fmt.Sprintf("%s-s%04d", name, e/10), Slice: "pay", Clusters: []string{name},
					IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 64, byte(16 + i), byte(e / 10)})}, Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}})
			}
			v := &in.Services[len(in.Services)-1]
			v.Endpoints = append(v.Endpoints, fleet.Endpoint{Cluster: name, Node: "n1", Pod: p.Name, Addrs: p.Addrs, Ready: true, Ports: map[string]uint16{"http": 80}})
		}
	}
	in.Slices = []fleet.Slice{s}
	return in
}

// flipped is the change of one endpoint's readiness.
func flipped(in *fleet.Intent, n int) *fleet.IntentDelta {
	s := in.Services[n*7%len(in.Services)]
	e := s.Endpoints[n%len(s.Endpoints)]
	e.Ready = !e.Ready
	s.Endpoints = []fleet.Endpoint{e}
	return &fleet.IntentDelta{Version: 1, Epoch: in.Epoch, Rev: in.Rev + 1, Base: in.Rev, Node: in.Node, Services: []fleet.ServiceDelta{{Service: s}}}
}

// TestAChangeCompilesWhatItChanges: of a thousand services the one that changed is compiled, and nothing else.
func TestAChangeCompilesWhatItChanges(t *testing.T) {
	in := crowded(10000)
	var k plan.Compiler
	k.Compile(*in, plan.Local{})
	if k.Work != (plan.Work{Frames: 1, Services: 1000}) {
		t.Fatalf("at first compiled %+v", k.Work)
	}
	for n := range 5 {
		before := k.Work
		now, err := delta.ApplyIntent(in, flipped(in, n))
		if err != nil {
			t.Fatal(err)
		}
		k.Compile(*now, plan.Local{})
		if k.Work.Frames != before.Frames || k.Work.Services != before.Services+1 {
			t.Fatalf("one endpoint changed: compiled %+v after %+v", k.Work, before)
		}
		in = now
	}
}

// TestAChangeOfKeysCompilesNoService: when the generations of a node's keys change, its devices and pods are planned
// again; services and the ways to other nodes are not.
func TestAChangeOfKeysCompilesNoService(t *testing.T) {
	in := crowded(1000)
	var k plan.Compiler
	before, _ := k.Compile(*in, plan.Local{})
	work := k.Work
	both := plan.Local{Generations: map[string][]uint64{"pay": {0, 1}}}
	n, _ := k.Compile(*in, both)
	if k.Work.Services != work.Services || k.Work.Frames != work.Frames+1 {
		t.Fatalf("compiled %+v after %+v", k.Work, work)
	}
	if got := len(n.Tunnel.Devices); got != len(before.Tunnel.Devices)+1 {
		t.Fatalf("%d devices, want one more than %d", got, len(before.Tunnel.Devices))
	}
	if a, b := before.Tunnel.Neighbors, n.Tunnel.Neighbors; len(a) == 0 || &a[0] != &b[0] {
		t.Fatal("the ways to other nodes were worked out again")
	}
	work = k.Work
	both.Generations = map[string][]uint64{"pay": {0, 1}} // another map, of the same
	if k.Compile(*in, both); k.Work != work {
		t.Fatalf("the same generations were compiled again: %+v after %+v", k.Work, work)
	}
}

// BenchmarkChange is what one change costs a node until its plan is made, as processor time.
func BenchmarkChange(b *testing.B) {
	for _, what := range []string{"endpoint", "pod"} {
		for _, n := range []int{100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", what, n), func(b *testing.B) {
				in := crowded(n)
				var k plan.Compiler
				k.Compile(*in, plan.Local{})
				runtime.GC()
				b.ReportAllocs()
				b.ResetTimer()
				began := cpuTime()
				for i := 0; b.Loop(); i++ {
					d := flipped(in, i)
					if what == "pod" {
						d.Services = nil
						p := in.Pods[len(in.Pods)/2]
						p.Name = "other"
						if i%2 == 0 {
							d.Pods = []fleet.Pod{p}
						} else {
							d.PodsGone = []fleet.Pod{p}
						}
					}
					now, err := delta.ApplyIntent(in, d)
					if err != nil {
						b.Fatal(err)
					}
					in = now
					k.Compile(*in, plan.Local{})
				}
				b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/1e6, "cpu-ms/op")
			})
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
