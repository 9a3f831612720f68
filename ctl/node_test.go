package ctl

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"seaway.dev/seaway/slice/plan"
)

func TestExplainNode(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	want := plan.Node{Cluster: "c1", Name: "n1", Tunnel: plan.Tunnel{Port: 51871}}
	agent := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(want) })}
	go func() { _ = agent.Serve(l) }()
	t.Cleanup(func() { _ = agent.Close() })
	if out, errs, code := run(t, "explain", "node", "--socket", socket); code != 0 || out != want.Text() {
		t.Errorf("code %d, %s, %s", code, out, errs)
	}
	if out, _, code := run(t, "explain", "node", "--json", "--socket", socket); code != 0 || !strings.Contains(out, `"cluster": "c1"`) {
		t.Errorf("code %d, %s", code, out)
	}
	if _, errs, code := run(t, "explain", "node", "--socket", socket+".not"); code != ExitRefused || !strings.Contains(errs, "kubectl -n seaway-system exec") {
		t.Errorf("without an agent: code %d, %s; want the way to one", code, errs)
	}
}
