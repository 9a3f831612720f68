package plan_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

var update = flag.Bool("update", false, "rewrite the goldens from what Compile says now")

// TestCompile compares plans with goldens: testdata/NAME.yaml is an intent, testdata/NAME.want the plan as text.
func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			node, problems := plan.Compile(intent(t, f), plan.Local{Port: fleet.DefaultPort, MTU: 1500})
			got := node.Text()
			for _, p := range problems {
				got += "problem " + p.Reason + " " + p.Where + ": " + p.Message + "; " + p.Next + "\n"
			}
			golden := strings.TrimSuffix(f, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("plan differs from %s (go test ./slice/plan -update rewrites it)\n got:\n%s\nwant:\n%s", golden, got, want)
			}
		})
	}
}

// TestOrderDoesNotMatter: the same intent with its lists in any order gives the same plan.
func TestOrderDoesNotMatter(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, f := range files {
		in := intent(t, f)
		want, _ := plan.Compile(in, plan.Local{Port: 1, MTU: 1500})
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 1))
			p := intent(t, f)
			shuffle(r, p.Clusters)
			for i := range p.Clusters {
				shuffle(r, p.Clusters[i].Nodes)
			}
			shuffle(r, p.Slices)
			shuffle(r, p.Pods)
			shuffle(r, p.Services)
			if got, _ := plan.Compile(p, plan.Local{Port: 1, MTU: 1500}); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s, seed %d: another order gives another plan\n got:\n%s\nwant:\n%s", f, seed, got.Text(), want.Text())
			}
		}
	}
}

// TestNoAddressHasTwoPeers: WireGuard gives an address to one peer only, so a plan that names two would flap.
func TestNoAddressHasTwoPeers(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, f := range files {
		node, _ := plan.Compile(intent(t, f), plan.Local{})
		for _, d := range node.Tunnel.Devices {
			owner := map[netip.Prefix]string{}
			for _, p := range d.Peers {
				for _, a := range p.Allowed {
					if o, taken := owner[a]; taken {
						t.Errorf("%s: %s belongs to both %s and %s", f, a, o, p.ID)
					}
					owner[a] = p.ID
				}
			}
		}
	}
}

// TestPurge: leaving plans nothing, whatever else the intent says.
func TestPurge(t *testing.T) {
	in := intent(t, "testdata/private.yaml")
	in.Purge = true
	node, _ := plan.Compile(in, plan.Local{Port: 9})
	if len(node.Slices)+len(node.Tunnel.Devices)+len(node.Tunnel.Relay) != 0 {
		t.Errorf("a purged node still plans\n%s", node.Text())
	}
}

// TestCompileKeepsItsInput: intents are shared between goroutines.
func TestCompileKeepsItsInput(t *testing.T) {
	in := intent(t, "testdata/private.yaml")
	before, _ := json.Marshal(in)
	plan.Compile(in, plan.Local{})
	after, _ := json.Marshal(in)
	if !bytes.Equal(before, after) {
		t.Error("Compile changed its intent")
	}
}

func intent(t *testing.T, file string) fleet.Intent {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var in fleet.Intent
	if err := yaml.UnmarshalStrict(b, &in); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return in
}

func shuffle[T any](r *rand.Rand, s []T) {
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}
