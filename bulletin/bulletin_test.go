package bulletin_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
)

func sample() *fleet.Bulletin {
	a := netip.MustParseAddr
	return &fleet.Bulletin{
		Version: 1, Cluster: "c1", Epoch: 7, Rev: 3, Region: "eu",
		Nodes: []fleet.Node{{
			Name: "n1", Cluster: "c1", Addrs: []netip.Addr{a("198.51.100.1")}, Port: 51871, Gateway: true,
			MTU: 1500, Keys: map[string]fleet.Key{"pay": {1}, fleet.ManagementSlice: {2}},
		}},
		Pods: []fleet.Pod{{
			Namespace: "shop", Name: "web-0", Slice: "pay", Cluster: "c1", Node: "n1", Ready: true,
			Addrs: []netip.Addr{a("10.77.1.1"), a("fd77:0:0:1::1")}, Labels: map[string]string{"app": "web"},
		}},
		Exports: []fleet.Export{{
			Namespace: "shop", Name: "web", Slice: "pay", Created: time.Unix(1, 0).UTC(),
			Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}},
			Endpoints: []fleet.Endpoint{{Cluster: "c1", Node: "n1", Pod: "web-0", Ready: true,
				Addrs: []netip.Addr{a("10.77.1.1")}, Ports: map[string]uint16{"http": 8080}}},
		}},
		Scaling: []fleet.Scaling{{Slice: "pay", Namespace: "shop", Name: "web", Wants: 4, Needs: 3, Pods: 4, Ready: 4, Min: 1, Max: 9,
			Room: 5, Soon: 8 * time.Second, Late: 2 * time.Minute, Price: 0.04, Beat: 7}},
	}
}

var pay = fleet.Slice{
	Name: "pay", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/48")},
	Clusters: []string{"c1", "c2"},
	Blocks: []fleet.Block{
		{Cluster: "c1", Prefix: netip.MustParsePrefix("10.77.1.0/24")},
		{Cluster: "c1", Prefix: netip.MustParsePrefix("fd77:0:0:1::/64")},
		{Cluster: "c2", Prefix: netip.MustParsePrefix("10.77.2.0/24")},
	},
}

func TestRoundTrip(t *testing.T) {
	b := sample()
	wire, err := bulletin.Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := bulletin.Encode(b)
	if !bytes.Equal(wire, again) {
		t.Error("equal bulletins gave different bytes")
	}
	got, err := bulletin.Decode(wire)
	if err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("got %+v, %v", got, err)
	}
	clean, refused, err := bulletin.Check(got, "c1", []fleet.Slice{pay})
	if err != nil || refused.Count != 0 || !reflect.DeepEqual(clean, b) {
		t.Errorf("an honest bulletin: refused %v, error %v,\n got %+v\nwant %+v", refused, err, clean, b)
	}
}

func TestDecodeRefuses(t *testing.T) {
	pack := func(s string) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		z.Write([]byte(s))
		z.Close()
		return out.Bytes()
	}
	bomb := pack(`{"version":1,"cluster":"` + strings.Repeat("a", bulletin.MaxPlain) + `"}`)
	for name, tc := range map[string]struct {
		wire []byte
		want string
	}{
		"plain":   {[]byte(`{"version":1}`), "unpack"},
		"newer":   {pack(`{"version":2}`), "upgrade"},
		"none":    {pack(`{}`), "version 0"},
		"garbage": {pack(`{"version":1} x`), "invalid"},
		"bomb":    {bomb, "too large"},
		"cut":     {pack(`{"version":1}`)[:15], "unpack"},
		"key":     {pack(`{"version":1,"nodes":[{"keys":{"pay":"AAAA"}}]}`), "public key"},
		"addr":    {pack(`{"version":1,"pods":[{"addrs":["10.0.0.256"]}]}`), "read"},
	} {
		if _, err := bulletin.Decode(tc.wire); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", name, err, tc.want)
		}
	}
	if _, err := bulletin.Decode(make([]byte, bulletin.MaxSize+1)); !errors.Is(err, bulletin.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestCheckLeavesOutLies(t *testing.T) {
	addrs := func(ss ...string) (out []netip.Addr) {
		for _, s := range ss {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for name, tc := range map[string]struct {
		lie  func(*fleet.Bulletin)
		want string
	}{
		"pod in another's block": {func(b *fleet.Bulletin) { b.Pods[0].Addrs = addrs("10.77.2.1") }, "not in cluster c1's blocks"},
		"pod of another cluster": {func(b *fleet.Bulletin) { b.Pods[0].Cluster = "c2" }, `of cluster "c2"`},
		"pod with another's address": {func(b *fleet.Bulletin) {
			p := b.Pods[0]
			p.Name, p.Addrs = "web-1", p.Addrs[:1]
			b.Pods = append(b.Pods, p)
		}, "another pod's"},
		"pod with two of a family": {func(b *fleet.Bulletin) { b.Pods[0].Addrs = addrs("10.77.1.1", "10.77.1.2") }, "one family"},
		"pod without a name":       {func(b *fleet.Bulletin) { b.Pods[0].Name = "../x" }, "not names"},
		"node of another cluster":  {func(b *fleet.Bulletin) { b.Nodes[0].Cluster = "c2" }, `of cluster "c2"`},
		"node on loopback":         {func(b *fleet.Bulletin) { b.Nodes[0].Addrs = addrs("127.0.0.1") }, "nobody's"},
		"node without a port":      {func(b *fleet.Bulletin) { b.Nodes[0].Port = 0 }, "port 0"},
		"one key twice":            {func(b *fleet.Bulletin) { b.Nodes[0].Keys = map[string]fleet.Key{"pay": {1}, "seaway": {1}} }, "another's"},
		"empty key":                {func(b *fleet.Bulletin) { b.Nodes[0].Keys = map[string]fleet.Key{"pay": {}} }, "empty"},
		"endpoint elsewhere":       {func(b *fleet.Bulletin) { b.Exports[0].Endpoints[0].Addrs = addrs("10.77.2.1") }, "blocks"},
		"endpoint of another":      {func(b *fleet.Bulletin) { b.Exports[0].Endpoints[0].Cluster = "c2" }, "malformed"},
		"port zero":                {func(b *fleet.Bulletin) { b.Exports[0].Ports[0].Port = 0 }, "ports"},
		"scaling by nobody":        {func(b *fleet.Bulletin) { b.Scaling[0].Name = "../x" }, "scaling"},
		"scaling twice":            {func(b *fleet.Bulletin) { b.Scaling = append(b.Scaling, b.Scaling[0]) }, "twice"},
		"scaling below nothing":    {func(b *fleet.Bulletin) { b.Scaling[0].Ready = -1 }, "cannot be"},
		"scaling to the sky":       {func(b *fleet.Bulletin) { b.Scaling[0].Wants = 1 << 40 }, "cannot be"},
		"scaling of too many": {func(b *fleet.Bulletin) {
			for i := range fleet.MaxScaling {
				s := b.Scaling[0]
				s.Name = "web-" + strconv.Itoa(i)
				b.Scaling = append(b.Scaling, s)
			}
		}, "limit 100"},
		"labels too long": {func(b *fleet.Bulletin) { b.Pods[0].Labels = map[string]string{"a": strings.Repeat("x", 40<<10)} }, "labels"},
	} {
		t.Run(name, func(t *testing.T) {
			b := sample()
			tc.lie(b)
			clean, refused, err := bulletin.Check(b, "c1", []fleet.Slice{pay})
			if err != nil {
				t.Fatal(err)
			}
			if refused.Count != 1 || !strings.Contains(strings.Join(refused.Named, "\n"), tc.want) {
				t.Errorf("refused %+v, want one with %q", refused, tc.want)
			}
			if reflect.DeepEqual(clean, b) {
				t.Error("the lie was kept")
			}
			if again, more, _ := bulletin.Check(clean, "c1", []fleet.Slice{pay}); more.Count != 0 || !reflect.DeepEqual(again, clean) {
				t.Errorf("what was believed is not believed the second time: %v", more)
			}
		})
	}
	// Of the pods' own addresses only those count that the hub says are its cluster's, wherever it has told us of them.
	b := sample()
	b.Exports[0].Endpoints[0].PodAddrs = addrs("10.1.0.7", "10.1.0.8", "fd01::7", "10.2.0.7")
	b.Networks, b.Needed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, addrs("10.96.0.1")
	apart := pay
	for _, tc := range []struct {
		networks []fleet.Block
		want     []netip.Addr
	}{
		{nil, nil},
		{[]fleet.Block{{Cluster: "c2", Prefix: netip.MustParsePrefix("10.1.0.0/16")}}, nil},
		{[]fleet.Block{{Cluster: "c1", Prefix: netip.MustParsePrefix("10.1.0.0/16")}}, addrs("10.1.0.7")},
		{[]fleet.Block{{Cluster: "c1", Prefix: netip.MustParsePrefix("10.2.0.0/16")}, {Cluster: "c1", Prefix: netip.MustParsePrefix("fd01::/64")}}, addrs("fd01::7", "10.2.0.7")},
	} {
		apart.Networks = tc.networks
		clean, refused, err := bulletin.Check(b, "c1", []fleet.Slice{apart})
		if err != nil || refused.Count != 0 || clean.Networks != nil || clean.Needed != nil {
			t.Fatalf("%+v, %v: networks %v, needed %v; want none of them believed and no lie counted", refused, err, clean.Networks, clean.Needed)
		}
		if got := clean.Exports[0].Endpoints[0].PodAddrs; !reflect.DeepEqual(got, tc.want) {
			t.Errorf("networks %v: believed %v, want %v", tc.networks, got, tc.want)
		}
	}
	if _, _, err := bulletin.Check(sample(), "c2", nil); err == nil {
		t.Error("c1's bulletin in c2's mailbox was believed")
	}
}

func FuzzBulletin(f *testing.F) {
	wire, _ := bulletin.Encode(sample())
	f.Add(wire)
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, wire []byte) {
		// Both the packed form and, because a fuzzer cannot guess checksums, the plain one.
		b, err := bulletin.Decode(wire)
		if err != nil {
			var out bytes.Buffer
			z, _ := gzip.NewWriterLevel(&out, gzip.NoCompression)
			z.Write(wire)
			z.Close()
			if b, err = bulletin.Decode(out.Bytes()); err != nil {
				return
			}
		}
		clean, _, err := bulletin.Check(b, "c1", []fleet.Slice{pay})
		if err != nil {
			return
		}
		for _, p := range clean.Pods {
			for _, a := range p.Addrs {
				if !slices.ContainsFunc(pay.Blocks, func(bl fleet.Block) bool { return bl.Cluster == "c1" && bl.Prefix.Contains(a) }) {
					t.Fatalf("believed %v of %s", a, p.Key())
				}
			}
		}
		if _, more, _ := bulletin.Check(clean, "c1", []fleet.Slice{pay}); more.Count != 0 {
			t.Fatalf("what was believed is not believed the second time: %v", more)
		}
	})
}

func FuzzBulletinPlain(f *testing.F) {
	f.Add([]byte(`{"version":1,"cluster":"c1","nodes":[{"name":"n","cluster":"c1","port":1,"keys":{"pay":"` + fleet.Key{1}.String() + `"}}],"pods":[{"namespace":"a","name":"b","slice":"pay","cluster":"c1","node":"n","addrs":["10.77.1.1"]}]}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		var out bytes.Buffer
		z, _ := gzip.NewWriterLevel(&out, gzip.NoCompression)
		z.Write(plain)
		z.Close()
		b, err := bulletin.Decode(out.Bytes())
		if err != nil {
			return
		}
		if again, err := bulletin.Encode(b); err == nil {
			if _, err := bulletin.Decode(again); err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
		}
	})
}
