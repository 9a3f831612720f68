package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

func newNS(t testing.TB) *netns.NS {
	t.Helper()
	netnstest.NeedRoot(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// TestKnownAndUnknownAgree: a table that was changed step by step, each step compared with the plan before alone, is what
// the last plan says: reading the kernel finds nothing to do, whatever the steps were.
func TestKnownAndUnknownAgree(t *testing.T) {
	for seed := range uint64(5) {
		ns := newNS(t)
		r := rand.New(rand.NewPCG(seed, 7))
		memo := Memo{}
		var s plan.Slice
		for step := range 12 {
			s = randomPlan(r, step%4 == 3)
			if step > 0 && memo.have == nil {
				t.Fatalf("seed %d step %d: nothing is known after a step: the steps would not be tested", seed, step)
			}
			if _, err := Apply(ns, s, &memo); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			known := memo.have
			if again, err := Apply(ns, s, &memo); err != nil || again.Ops != 0 {
				t.Fatalf("seed %d step %d: again: %d changes, %v", seed, step, again.Ops, err)
			}
			fresh := Memo{}
			if read, err := Apply(ns, s, &fresh); err != nil || read.Ops != 0 || len(read.Gone) != 0 {
				t.Fatalf("seed %d step %d: the kernel has something else than is known: %d changes, %v", seed, step, read.Ops, err)
			}
			if !reflect.DeepEqual(known, fresh.have) {
				t.Fatalf("seed %d step %d: what is known differs from what is so:\n%+v\n%+v", seed, step, known, fresh.have)
			}
		}
	}
}

// randomPlan draws a plan out of few services and hosts, so that steps meet again.
func randomPlan(r *rand.Rand, other bool) plan.Slice {
	s := example()
	if other { // another frame
		s.MTU = 1300 + r.IntN(100)
		s.Policies = s.Policies[:r.IntN(2)]
	}
	s.Services, s.Hosts = nil, []netip.Addr{}
	for i := range 8 {
		b := plan.Balance{Service: "shop/x", IP: netip.AddrFrom4([4]byte{10, 77, 1, byte(1 + i/2)}), Port: uint16(80 + i%2)}
		if i > 5 {
			b.IP = netip.MustParseAddr(fmt.Sprintf("fd77::1:%d", i))
		}
		b.Protocol = []fleet.Protocol{fleet.TCP, fleet.UDP}[i%2]
		b.Affinity = []int32{0, 0, 600}[r.IntN(3)]
		for j := range 6 {
			if r.IntN(2) == 0 {
				a := netip.AddrFrom4([4]byte{10, 77, 0, byte(j)})
				if b.IP.Is6() {
					a = netip.MustParseAddr(fmt.Sprintf("fd77::%d", j))
				}
				b.Backends = append(b.Backends, plan.Backend{Addr: netip.AddrPortFrom(a, 8080), Weight: 1 + r.IntN(2)})
			}
		}
		if r.IntN(3) > 0 {
			s.Services = append(s.Services, b)
		}
	}
	if r.IntN(2) == 0 {
		s.Networks = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd01::/64")}
		for i := range r.IntN(6) {
			s.Aliases = append(s.Aliases, plan.Alias{
				Addr: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), To: netip.AddrFrom4([4]byte{10, 77, 0, byte(r.IntN(20))})})
		}
	}
	for i := range 20 {
		if r.IntN(2) == 0 {
			s.Hosts = append(s.Hosts, netip.AddrFrom4([4]byte{10, 77, 0, byte(i)}))
		}
	}
	return s
}

// TestSlotsStay: a backend that leaves changes its own slots and at most as many others.
func TestSlotsStay(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 8))
		var bs []plan.Backend
		for i := range 2 + r.IntN(40) {
			bs = append(bs, plan.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1), Weight: 1})
		}
		had := Slots(bs, true, nil)
		gone := r.IntN(len(bs))
		now := Slots(append(bs[:gone:gone], bs[gone+1:]...), true, had)
		changed := 0
		for i := range had {
			if i >= len(now) || had[i] != now[i] {
				changed++
			}
		}
		if changed > 2 {
			t.Errorf("seed %d: one of %d left, %d slots changed", seed, len(bs), changed)
		}
	}
}

// many is a slice with so many endpoints, ten a service.
func many(endpoints int) plan.Slice {
	s := example()
	s.Services, s.Hosts = nil, []netip.Addr{}
	for i := range endpoints {
		s.Hosts = append(s.Hosts, netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}))
	}
	for i := range endpoints / 10 {
		b := plan.Balance{Service: fmt.Sprint("shop/s", i), IP: netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), Protocol: fleet.TCP, Port: 80}
		for j := range 10 {
			b.Backends = append(b.Backends, plan.Backend{Addr: netip.AddrPortFrom(s.Hosts[10*i+j], 8080), Weight: 1})
		}
		s.Services = append(s.Services, b)
	}
	return s
}

// without is the slice with one endpoint less, sharing what does not change.
func without(s plan.Slice, service int) plan.Slice {
	out := s
	out.Services = append([]plan.Balance(nil), s.Services...)
	out.Services[service].Backends = append([]plan.Backend(nil), s.Services[service].Backends[1:]...)
	gone := s.Services[service].Backends[0].Addr.Addr()
	out.Hosts = make([]netip.Addr, 0, len(s.Hosts))
	for _, a := range s.Hosts {
		if a != gone {
			out.Hosts = append(out.Hosts, a)
		}
	}
	return out
}

// TestCostOfAChange: one endpoint more or less makes as many changes with 10,000 endpoints as with 100.
func TestCostOfAChange(t *testing.T) {
	ops := map[int]int{}
	for _, n := range []int{100, 1000, 10000} {
		ns, memo := newNS(t), Memo{}
		all := many(n)
		started := time.Now()
		if _, err := Apply(ns, all, &memo); err != nil {
			t.Fatal(err)
		}
		whole := time.Since(started)
		less := without(all, n/20)
		best := time.Hour
		for range 9 {
			for i, s := range []plan.Slice{less, all} {
				started = time.Now()
				done, err := Apply(ns, s, &memo)
				if err != nil {
					t.Fatal(err)
				}
				best = min(best, time.Since(started))
				if i == 0 {
					ops[n] = done.Ops
					if len(done.Gone) != 1 {
						t.Fatalf("%v left, want one", done.Gone)
					}
				}
			}
		}
		t.Logf("%5d endpoints: from nothing %v, one less or more %v, %d changes", n, whole, best, ops[n])
	}
	if ops[100] != ops[10000] || ops[100] > 12 {
		t.Errorf("changes by number of endpoints: %v, want the same few", ops)
	}
}

// BenchmarkEndpoint times one endpoint leaving and coming back among so many.
func BenchmarkEndpoint(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ns, memo := newNS(b), Memo{}
			all := many(n)
			less := without(all, n/20)
			if _, err := Apply(ns, all, &memo); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for i := range b.N {
				s := less
				if i%2 == 1 {
					s = all
				}
				if done, err := Apply(ns, s, &memo); err != nil || done.Ops == 0 {
					b.Fatal(done, err)
				}
			}
		})
	}
}
