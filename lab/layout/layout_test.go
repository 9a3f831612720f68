package layout

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"seaway.dev/seaway/lab/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func plan(t *testing.T, c config.Config) Layout {
	t.Helper()
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDefaultPlan(t *testing.T) {
	got, err := json.MarshalIndent(plan(t, config.Default(3, 2)), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "testdata/default.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the plan has changed; look at `git diff` after: go test ./layout -update\n%s", got)
	}
	var back Layout
	if err := json.Unmarshal(got, &back); err != nil || back.Clusters[3].Outside != netip.MustParseAddr("172.30.3.10") {
		t.Errorf("does not survive its own encoding: %v", err)
	}
}

func TestAddressesAreUnique(t *testing.T) {
	l := plan(t, config.Default(19, 40))
	seen := map[netip.Addr]string{}
	for _, m := range l.Machines() {
		for _, a := range []netip.Addr{m.IP, m.IPv6} {
			if seen[a] != "" {
				t.Errorf("%s and %s both have %s", m.Name, seen[a], a)
			}
			seen[a] = m.Name
		}
	}
}

func TestUnknownNamesListTheKnown(t *testing.T) {
	l := plan(t, config.Default(1, 1))
	if _, err := l.Cluster("x"); err == nil || !strings.Contains(err.Error(), "hub, c1") {
		t.Error(err)
	}
	if _, _, err := l.Machine("x"); err == nil || !strings.Contains(err.Error(), "hubcp, hubn1, c1cp, c1n1") {
		t.Error(err)
	}
}

func TestNth(t *testing.T) {
	for _, c := range []struct {
		a    string
		n    int
		want string
	}{{"10.0.0.0", 1, "10.0.0.1"}, {"10.0.0.0", 256, "10.0.1.0"}, {"10.0.255.255", 1, "10.1.0.0"}, {"10.96.0.0", 10, "10.96.0.10"}} {
		if got := nth(netip.MustParseAddr(c.a), c.n); got.String() != c.want {
			t.Errorf("%s + %d = %s", c.a, c.n, got)
		}
	}
}

func TestClashingNames(t *testing.T) {
	c := config.Config{Clusters: []config.Cluster{{Name: "c1"}, {Name: "c1n1"}}}
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "c1n1") {
		t.Error(err)
	}
}
