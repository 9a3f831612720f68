package share

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
)

// ends makes endpoints from "c1/n1", "c2/n1!" (not ready), "c3/n1*5" (weight 5), "c3/n2-" (without the port).
func ends(spec string) (out []fleet.Endpoint) {
	for i, f := range strings.Fields(spec) {
		e := fleet.Endpoint{Ready: true, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}, Ports: map[string]uint16{"http": 80}}
		if strings.HasSuffix(f, "!") {
			e.Ready = false
		}
		if strings.HasSuffix(f, "-") {
			e.Ports = nil
		}
		f = strings.TrimRight(f, "!-")
		if at, w, ok := strings.Cut(f, "*"); ok {
			f = at
			_, _ = fmt.Sscan(w, &e.Weight)
		}
		e.Cluster, e.Node, _ = strings.Cut(f, "/")
		out = append(out, e)
	}
	return out
}

func far(rtt time.Duration) Sight { return Sight{Distance: class(rtt, 0)} }

func TestOf(t *testing.T) {
	port := "http"
	down, back := Sight{Down: true, Distance: 3}, Sight{Down: true, Back: true}
	for _, c := range []struct {
		name, ends, want   string
		policy, distribute string
		nodes              map[string]Sight
		kept               bool
	}{
		{name: "own cluster first", ends: "c1/n1 c1/n2 c2/n1", want: "1 1 0"},
		{name: "spill over when none of one's own is ready", ends: "c1/n1! c1/n2! c2/n1 c3/n1", want: "0 0 1 1"},
		{name: "one's own do not count for a port that they do not have", ends: "c1/n1- c2/n1", want: "0 1"},
		{name: "all others by distance: 20 ms and 40 ms", ends: "c2/n1 c3/n1", want: "2 1",
			nodes: map[string]Sight{"c2/n1": far(20 * time.Millisecond), "c3/n1": far(40 * time.Millisecond)}},
		{name: "never less than a 64th", ends: "c2/n1 c3/n1", want: "64 1",
			nodes: map[string]Sight{"c2/n1": far(time.Millisecond), "c3/n1": far(4 * time.Second)}},
		{name: "who is not measured counts like the farthest", ends: "c2/n1 c3/n1 c4/n1", want: "2 1 1",
			nodes: map[string]Sight{"c2/n1": far(20 * time.Millisecond), "c3/n1": far(40 * time.Millisecond)}},
		{name: "gray counts as further away", ends: "c2/n1 c3/n1", want: "1 8",
			nodes: map[string]Sight{"c2/n1": {Distance: 4, Gray: true}, "c3/n1": {Distance: 4}}},
		{name: "weights", ends: "c2/n1*5 c3/n1*1 c3/n2", want: "5 1 1"},
		{name: "down leaves", ends: "c2/n1 c3/n1", want: "0 1", nodes: map[string]Sight{"c2/n1": down}},
		{name: "back is watched first", ends: "c2/n1 c3/n1", want: "0 1", nodes: map[string]Sight{"c2/n1": back}},
		{name: "one's own cluster's node down: the next ring", ends: "c1/n2 c2/n1", want: "0 1", nodes: map[string]Sight{"c1/n2": down}},
		{name: "nobody can be reached: the last answer", ends: "c2/n1 c3/n1 c3/n2!", want: "1 1 0", kept: true,
			nodes: map[string]Sight{"c2/n1": down, "c3/n1": down, "c3/n2": down}},
		{name: "just back, and nobody else", ends: "c2/n1 c3/n1", want: "1 0", nodes: map[string]Sight{"c2/n1": back, "c3/n1": down}},
		{name: "nobody ready is nobody", ends: "c2/n1!", want: "0", nodes: map[string]Sight{"c2/n1": down}},
		{name: "this node is never down", ends: "c1/n1 c2/n1", want: "1 0", nodes: map[string]Sight{"c1/n1": down}},
		{name: "PreferClose: the nearest alone", distribute: "PreferClose", ends: "c2/n1 c3/n1", want: "1 0",
			nodes: map[string]Sight{"c2/n1": far(20 * time.Millisecond), "c3/n1": far(40 * time.Millisecond)}},
		{name: "PreferClose: the own cluster, whichever node", distribute: "PreferClose", ends: "c1/n1 c1/n2 c2/n1", want: "1 1 0"},
		{name: "PreferSameNode", distribute: "PreferSameNode", ends: "c1/n1 c1/n2 c2/n1", want: "1 0 0"},
		{name: "PreferSameNode: then the cluster", distribute: "PreferSameNode", ends: "c1/n1! c1/n2 c2/n1", want: "0 1 0"},
		{name: "Local: this node or nobody", policy: "Local", ends: "c1/n2 c2/n1", want: "0 0"},
		{name: "Local", policy: "Local", ends: "c1/n1 c1/n2 c2/n1", want: "1 0 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fleet.Service{Endpoints: ends(c.ends), InternalTrafficPolicy: c.policy, TrafficDistribution: c.distribute}
			r := Of(&s, View{Cluster: "c1", Node: "n1", Nodes: c.nodes}, Ask{Port: &port})
			weights, sum := map[netip.Addr]int{}, 0.0
			common := 0
			for _, st := range r.Standings {
				weights[st.Endpoint.Addrs[0]] = st.Weight
				common = gcd(st.Weight, common)
				sum += st.Share
				if st.Why == "" {
					t.Errorf("%v has no reason", st)
				}
			}
			var got []string
			for _, e := range s.Endpoints {
				got = append(got, fmt.Sprint(weights[e.Addrs[0]]/max(common, 1)))
			}
			if strings.Join(got, " ") != c.want || r.Kept != c.kept {
				t.Errorf("weights %v, kept %v; want %s, %v\n%v", got, r.Kept, c.want, c.kept, r)
			}
			if any := strings.Trim(c.want, "0 ") != ""; any && (sum < 0.999 || sum > 1.001) {
				t.Errorf("the shares sum up to %v", sum)
			}
		})
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// TestNeverEmpty: whatever is down, a service with somebody ready has an answer, unless its policy is Local.
func TestNeverEmpty(t *testing.T) {
	port := "http"
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 5))
		s, v := fleet.Service{}, View{Cluster: "c0", Node: "n0", Nodes: map[string]Sight{}}
		s.TrafficDistribution = []string{"", "PreferClose", "PreferSameZone", "PreferSameNode", "Whatever"}[r.IntN(5)]
		ready := false
		for i := range 1 + r.IntN(9) {
			e := fleet.Endpoint{Cluster: fmt.Sprint("c", r.IntN(3)), Node: fmt.Sprint("n", r.IntN(3)), Ready: r.IntN(3) > 0,
				Ports: map[string]uint16{"http": 1}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}
			ready = ready || e.Ready
			s.Endpoints = append(s.Endpoints, e)
			v.Nodes[e.Cluster+"/"+e.Node] = Sight{Down: r.IntN(2) == 0, Back: r.IntN(4) == 0, Distance: r.IntN(8), Gray: r.IntN(5) == 0}
		}
		got := false
		for _, st := range Of(&s, v, Ask{Port: &port, Family: 4}).Standings {
			got = got || st.Weight > 0
			if st.Weight > 0 && !st.Endpoint.Ready {
				t.Fatalf("seed %d: traffic to one that is not ready: %v", seed, st)
			}
		}
		if got != ready {
			t.Fatalf("seed %d: somebody ready: %v, somebody chosen: %v\n%+v", seed, ready, got, s.Endpoints)
		}
	}
}

func TestArrange(t *testing.T) {
	s := fleet.Service{Headless: true, Endpoints: ends("c3/n1 c2/n1 c1/n1 c2/n2!")}
	v := View{Cluster: "c1", Node: "n1", Nodes: map[string]Sight{"c2/n1": far(5 * time.Millisecond), "c3/n1": far(50 * time.Millisecond)}}
	text := func() (out string) {
		got, kept := Arrange(s, v)
		for _, e := range got.Endpoints {
			out += fmt.Sprintf("%s/%s %v %d\n", e.Cluster, e.Node, e.Ready, e.Rank)
		}
		return fmt.Sprintf("%skept %v", out, kept)
	}
	if got, want := text(), "c1/n1 true 1\nc2/n1 true 4\nc3/n1 true 7\nc2/n2 false 65\nkept false"; got != want {
		t.Errorf("nearest first:\n%s\nwant\n%s", got, want)
	}
	v.Nodes["c2/n1"] = Sight{Down: true, Distance: 2}
	if got, want := text(), "c1/n1 true 1\nc2/n1 false 3\nc3/n1 true 7\nc2/n2 false 65\nkept false"; got != want {
		t.Errorf("one down:\n%s\nwant\n%s", got, want)
	}
	s.Endpoints = ends("c2/n1")
	if got, want := text(), "c2/n1 true 3\nkept true"; got != want {
		t.Errorf("all down:\n%s\nwant\n%s", got, want)
	}
}
