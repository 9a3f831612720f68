package share

import (
	"net/netip"
	"reflect"
	"testing"

	"seaway.dev/seaway/fleet"
)

func TestGather(t *testing.T) {
	up := func(node string, distance int) fleet.Sight { return fleet.Sight{Node: node, Distance: distance} }
	down := func(node string) fleet.Sight { return fleet.Sight{Node: node, Down: true} }
	type said = map[string][]fleet.Sight
	for name, c := range map[string]struct {
		said said
		want string // of c2/n1: "down", "up", or "" for nothing
		dist int
	}{
		"nobody says anything":         {said{}, "", 0},
		"one says down":                {said{"c1/n1": {down("c2/n1")}}, "down", 0},
		"one says up":                  {said{"c1/n1": {up("c2/n1", 5)}}, "up", 5},
		"half say down":                {said{"c1/n1": {down("c2/n1")}, "c1/n2": {up("c2/n1", 4)}}, "up", 4},
		"most say down":                {said{"c1/n1": {down("c2/n1")}, "c1/n2": {up("c2/n1", 4)}, "c1/n3": {down("c2/n1")}}, "down", 4},
		"the nearest counts":           {said{"c1/n1": {up("c2/n1", 6)}, "c1/n2": {up("c2/n1", 4)}}, "up", 4},
		"a fallen one's word is old":   {said{"c1/n1": {up("c2/n1", 4)}, "c1/n2": {down("c2/n1"), down("c1/n1")}}, "down", 0},
		"each says the other fell":     {said{"c1/n1": {up("c2/n1", 4), down("c1/n2")}, "c1/n2": {down("c2/n1"), down("c1/n1")}}, "up", 4},
		"who does not measure it":      {said{"c1/n1": {up("c3/n1", 4)}}, "", 0},
		"a fallen one who is no voice": {said{"c1/n1": {down("c2/n1"), down("c1/n9")}}, "down", 0},
	} {
		s, known := Gather(c.said)["c2/n1"]
		got := ""
		if known {
			got = map[bool]string{true: "down", false: "up"}[s.Down]
		}
		if got != c.want || s.Distance != c.dist {
			t.Errorf("%s: %q at %d, want %q at %d", name, got, s.Distance, c.want, c.dist)
		}
	}
}

// TestOthersEyes: a node that measures nothing orders a headless service's names by what its cluster's others measured,
// and by its own eyes where it has them.
func TestOthersEyes(t *testing.T) {
	s := fleet.Service{Namespace: "kv", Name: "db", Headless: true}
	for i, c := range []string{"c2", "c3", "c4"} {
		s.Endpoints = append(s.Endpoints, fleet.Endpoint{Cluster: c, Node: "n1", Pod: "db-0", Hostname: "db-0", Ready: true, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 7, byte(i), 1})}})
	}
	order := func(v View) (out []string) {
		got, _ := Arrange(s, v)
		for _, e := range got.Endpoints {
			if e.Ready {
				out = append(out, e.Cluster)
			}
		}
		return out
	}
	blind := View{Cluster: "c1", Node: "n9"}
	others := []fleet.Sight{{Node: "c2/n1", Distance: 6}, {Node: "c3/n1", Down: true}, {Node: "c4/n1", Distance: 4}}
	if got := order(blind); !reflect.DeepEqual(got, []string{"c2", "c3", "c4"}) {
		t.Errorf("control, without eyes: %v", got)
	}
	if got := order(blind.With(others)); !reflect.DeepEqual(got, []string{"c4", "c2"}) {
		t.Errorf("with others' eyes: %v", got)
	}
	own := blind
	own.Nodes = map[string]Sight{"c2/n1": {Distance: 2}}
	if got := order(own.With(others)); !reflect.DeepEqual(got, []string{"c2", "c4"}) {
		t.Errorf("with own eyes as well: %v", got)
	}
	for i := range others {
		others[i].Down = true
	}
	if got := order(blind.With(others)); len(got) != 3 {
		t.Errorf("with everybody down: %v, want the last answer", got)
	}
	if got := own.Sights(); !reflect.DeepEqual(got, []fleet.Sight{{Node: "c2/n1", Distance: 2}}) {
		t.Errorf("what is told others: %v", got)
	}
}
