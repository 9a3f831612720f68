package cluster

import (
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/lab/config"
	"seaway.dev/seaway/lab/layout"
)

func TestManifests(t *testing.T) {
	conf := config.Config{Clusters: []config.Cluster{{Name: "c1", ServiceCIDR: "10.50.0.0/16"}}}
	if err := conf.Complete(); err != nil {
		t.Fatal(err)
	}
	l, err := layout.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"coredns.yaml", "metrics-server.yaml"} {
		b, err := (Cluster{Plan: l.Clusters[0]}).manifest(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "coredns.yaml" && (!strings.Contains(string(b), "clusterIP: 10.50.0.10") || !strings.Contains(string(b), "reload 2s")) {
			t.Errorf("%s", b)
		}
		for doc := range strings.SplitSeq(string(b), "\n---\n") {
			if err := yaml.UnmarshalStrict([]byte(doc), &map[string]any{}); err != nil {
				t.Errorf("%s: %v\n%s", name, err, doc)
			}
		}
	}
}

func TestAnOldReportDoesNotCount(t *testing.T) {
	var n node
	err := yaml.Unmarshal([]byte(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:00:10Z"}]}}`), &n)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 10, 0, time.UTC)
	if !n.ready(at) || !n.ready(time.Time{}) || n.ready(at.Add(time.Second)) {
		t.Error("ready is judged wrongly")
	}
	// The power was cut half a second after that report, within its second: it is no sign of life.
	if cut := at.Add(500 * time.Millisecond); n.ready(ReportAfter(cut)) || !n.ready(ReportAfter(cut.Add(-time.Second))) {
		t.Error("a report of the second in which the power was cut is believed")
	}
}
