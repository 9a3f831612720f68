package share

import (
	"flag"
	"net/netip"
	"os"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
)

var update = flag.Bool("update", false, "rewrite the golden from what Explain says now")

// TestExplain compares what people read with testdata/account.want.
func TestExplain(t *testing.T) {
	v := View{Cluster: "c1", Node: "n1", Nodes: map[string]Sight{
		"c2/n1": far(21 * time.Millisecond), "c3/n1": {Down: true, Distance: 6, Why: "no answer on 3 paths for 180ms"},
		"c3/n2": {Down: true, Back: true, Distance: 6},
	}}
	reach := []fleet.Reach{
		{Node: "c2/n1", State: fleet.ReachUp, Path: "direct 172.30.2.11:51871", RTT: 21234 * time.Microsecond},
		{Node: "c3/n1", State: fleet.ReachDown, Path: "none"},
	}
	s := fleet.Service{Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr("10.77.9.9")},
		Affinity: true, Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}, Endpoints: ends("c2/n1 c3/n1 c3/n2 c1/n2! c2/n2-")}
	text := Explain(s, v, reach).Text() + "---\n"
	v.Nodes["c2/n1"] = Sight{Down: true, Distance: 5, Why: "witness c4/n1 does not reach it"}
	v.Nodes["c3/n2"] = v.Nodes["c3/n1"]
	text += Explain(s, v, reach).Text() + "---\n"
	s.Headless, s.IPs = true, nil
	text += Explain(s, v, nil).Text()
	const golden = "testdata/account.want"
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("differs from %s (go test ./slice/share -update rewrites it)\n%s", golden, text)
	}
}
