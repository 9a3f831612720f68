package delta

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
)

// world makes values that change at random.
type world struct{ r *rand.Rand }

func (w world) addr() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(w.r.IntN(250)), byte(w.r.IntN(250))})
}

func (w world) bulletin(old *fleet.Bulletin) *fleet.Bulletin {
	b := *old
	b.Rev++
	b.Region = fmt.Sprint(w.r.IntN(2))
	b.Scaling = []fleet.Scaling{{Slice: "pay", Namespace: "shop", Name: "web", Wants: w.r.IntN(3)}}
	b.Pods, b.Exports, b.Nodes = slices.Clone(old.Pods), slices.Clone(old.Exports), slices.Clone(old.Nodes)
	for range w.r.IntN(4) {
		name := fmt.Sprintf("p%d", w.r.IntN(12))
		at, had := slices.BinarySearchFunc(b.Pods, fleet.Pod{Cluster: "c1", Namespace: "shop", Name: name}, comparePods)
		switch {
		case had && w.r.IntN(2) == 0:
			b.Pods = slices.Delete(b.Pods, at, at+1)
		case had:
			b.Pods[at].Ready = !b.Pods[at].Ready
		default:
			b.Pods = slices.Insert(b.Pods, at, fleet.Pod{Cluster: "c1", Namespace: "shop", Name: name, Addrs: []netip.Addr{w.addr()}})
		}
	}
	for range w.r.IntN(3) {
		e := fleet.Export{Namespace: "shop", Name: fmt.Sprintf("s%d", w.r.IntN(5)), Created: time.Unix(5, 0).UTC()}
		at, had := slices.BinarySearchFunc(b.Exports, e, exports.order)
		switch {
		case had && w.r.IntN(3) == 0:
			b.Exports = slices.Delete(b.Exports, at, at+1)
		case had:
			b.Exports[at].Endpoints = w.endpoints(b.Exports[at].Endpoints)
		default:
			e.Endpoints = w.endpoints(nil)
			b.Exports = slices.Insert(b.Exports, at, e)
		}
	}
	for range w.r.IntN(2) {
		n := fleet.Node{Cluster: "c1", Name: fmt.Sprintf("n%d", w.r.IntN(4)), Port: 1, Gateway: w.r.IntN(2) == 0}
		at, had := slices.BinarySearchFunc(b.Nodes, n, nodes.order)
		switch {
		case had && w.r.IntN(2) == 0:
			b.Nodes = slices.Delete(b.Nodes, at, at+1)
		case had:
			b.Nodes[at] = n
		default:
			b.Nodes = slices.Insert(b.Nodes, at, n)
		}
	}
	return &b
}

func (w world) endpoints(old []fleet.Endpoint) []fleet.Endpoint {
	out := slices.Clone(old)
	for range w.r.IntN(4) {
		e := fleet.Endpoint{Cluster: "c1", Pod: fmt.Sprintf("p%d", w.r.IntN(6)), Addrs: []netip.Addr{w.addr()}, Ready: w.r.IntN(2) == 0}
		at, had := slices.BinarySearchFunc(out, e, compareEndpoints)
		switch {
		case had && w.r.IntN(2) == 0:
			out = slices.Delete(out, at, at+1)
		case had:
			out[at] = e
		default:
			out = slices.Insert(out, at, e)
		}
	}
	return out
}

// TestDeltasTellTheSame: whatever changes, the older value and the delta, over the wire, give the newer value.
func TestDeltasTellTheSame(t *testing.T) {
	for seed := range uint64(300) {
		w := world{rand.New(rand.NewPCG(seed, 1))}
		told := &fleet.Bulletin{Version: 1, Cluster: "c1", Epoch: 7, Rev: 1}
		heard := roundtrip(t, told)
		in := &fleet.Intent{Version: 1, Cluster: "c1", Node: "n1", Epoch: 7, Rev: 1}
		heardIn := roundtrip(t, in)
		for range 30 {
			now := w.bulletin(told)
			d := Bulletin(told, now)
			if d == nil {
				t.Fatalf("seed %d: no delta", seed)
			}
			var err error
			if heard, err = ApplyBulletin(heard, roundtrip(t, d)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if a, b := text(t, now), text(t, heard); a != b {
				t.Fatalf("seed %d:\ntold  %s\nheard %s", seed, a, b)
			}
			next := *in
			next.Rev++
			next.Pods = now.Pods
			next.Clusters = []fleet.Cluster{{Name: "c1", Region: now.Region, Nodes: now.Nodes}}
			next.Services = nil
			for _, e := range now.Exports {
				next.Services = append(next.Services, fleet.Service{Namespace: e.Namespace, Name: e.Name, Endpoints: e.Endpoints})
			}
			di, changed := Intent(in, &next)
			if di == nil {
				t.Fatalf("seed %d: no delta", seed)
			}
			if !changed {
				next.Rev--
				if !reflect.DeepEqual(text(t, &next), text(t, in)) {
					t.Fatalf("seed %d: a change was not seen", seed)
				}
			} else if heardIn, err = ApplyIntent(heardIn, roundtrip(t, di)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if a, b := text(t, &next), text(t, heardIn); a != b {
				t.Fatalf("seed %d:\ntold  %s\nheard %s", seed, a, b)
			}
			told, in = now, &next
		}
	}
}

func TestWhatCannotBeToldByChange(t *testing.T) {
	old := &fleet.Bulletin{Cluster: "c1", Epoch: 1, Rev: 1}
	twice := &fleet.Bulletin{Cluster: "c1", Epoch: 1, Rev: 2, Pods: []fleet.Pod{{Name: "b"}, {Name: "a"}}}
	if Bulletin(old, twice) != nil {
		t.Error("an unsorted list was told by change")
	}
	if Bulletin(old, &fleet.Bulletin{Cluster: "c1", Epoch: 2, Rev: 2}) != nil {
		t.Error("another epoch was told by change")
	}
	d := Bulletin(old, &fleet.Bulletin{Cluster: "c1", Epoch: 1, Rev: 2, Region: "x"})
	for _, on := range []*fleet.Bulletin{nil, {Cluster: "c2", Epoch: 1, Rev: 1}, {Cluster: "c1", Epoch: 2, Rev: 1}, {Cluster: "c1", Epoch: 1, Rev: 2}} {
		if _, err := ApplyBulletin(on, d); err == nil {
			t.Errorf("a delta was applied to %+v", on)
		}
	}
	if d, _ := Intent(&fleet.Intent{Node: "n", Epoch: 1, Rev: 1}, &fleet.Intent{Node: "n", Epoch: 1, Rev: 2, Purge: true}); d != nil {
		t.Error("leaving was told by change")
	}
}

// TestNoFieldIsForgotten sets each field of what is compared field by field and wants the difference seen.
func TestNoFieldIsForgotten(t *testing.T) {
	check(t, equalPods)
	check(t, equalEndpoints)
	check(t, equalNodes)
	check(t, equalClusters)
	check(t, exports.equal)
	check(t, services.equal)
}

func check[T any](t *testing.T, equal func(a, b T) bool) {
	t.Helper()
	var zero T
	if !equal(zero, zero) {
		t.Errorf("%T is not equal to itself", zero)
	}
	for i := range reflect.TypeOf(zero).NumField() {
		var other T
		f := reflect.ValueOf(&other).Elem().Field(i)
		fill(f)
		if equal(zero, other) {
			t.Errorf("%T: field %s is not compared", zero, reflect.TypeOf(zero).Field(i).Name)
		}
	}
}

func fill(f reflect.Value) {
	switch f.Kind() {
	case reflect.String:
		f.SetString("x")
	case reflect.Bool:
		f.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		f.SetInt(1)
	case reflect.Uint16, reflect.Uint64:
		f.SetUint(1)
	case reflect.Slice:
		f.Set(reflect.MakeSlice(f.Type(), 1, 1))
	case reflect.Map:
		f.Set(reflect.MakeMap(f.Type()))
		key := reflect.New(f.Type().Key()).Elem()
		f.SetMapIndex(key, reflect.New(f.Type().Elem()).Elem())
	case reflect.Struct:
		f.Set(reflect.ValueOf(time.Unix(9, 0)))
	default:
		panic(f.Kind())
	}
}

func roundtrip[T any](t *testing.T, v *T) *T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := new(T)
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func BenchmarkIntentWithoutChange(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in := &fleet.Intent{Node: "n", Epoch: 1, Rev: 1}
			for i := range n {
				in.Pods = append(in.Pods, fleet.Pod{Cluster: "c1", Namespace: "shop", Name: fmt.Sprintf("p%05d", i), Addrs: []netip.Addr{{}}})
			}
			now := *in
			now.Pods = slices.Clone(in.Pods)
			for b.Loop() {
				if _, changed := Intent(in, &now); changed {
					b.Fatal("changed")
				}
			}
		})
	}
}
