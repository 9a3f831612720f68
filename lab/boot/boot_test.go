package boot

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/lab/config"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func spec(t *testing.T) machine.Spec {
	t.Helper()
	c := config.Default(1, 2)
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	l, err := layout.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return machine.Spec{Machine: l.Clusters[1].Nodes()[0], Cluster: l.Clusters[1], Layout: l}
}

func TestNodeFiles(t *testing.T) {
	for _, name := range nodeFiles {
		got, err := render(name, spec(t))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(name) != ".toml" {
			if err := yaml.Unmarshal(got, new(any)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || string(got) != string(want) {
			t.Errorf("%s differs from its golden file (%v); go test ./boot -update rewrites it\n%s", name, err, got)
		}
	}
}

func TestControlPlaneFlags(t *testing.T) {
	s := spec(t)
	for _, c := range []struct {
		d    daemon
		want string
	}{
		{apiServer(s), "--service-cluster-ip-range=10.96.0.0/16"}, {controllerManager(s), "--cluster-cidr=10.244.0.0/16"},
		{controllerManager(s), "--leader-elect=false"}, {scheduler(), "--leader-elect=false"}, {etcd(), "--unsafe-no-fsync"},
	} {
		if !strings.Contains(strings.Join(c.d.argv, "\n")+"\n", c.want+"\n") {
			t.Errorf("%s lacks %s", c.d.name, c.want)
		}
	}
}

func TestOnlyAsPID1(t *testing.T) {
	if err := Run("/nonexistent"); err == nil || !strings.Contains(err.Error(), "PID 1") {
		t.Error(err)
	}
}
