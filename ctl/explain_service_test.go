package ctl

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

func TestExplainService(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := fleet.Service{Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr("10.77.9.9")},
		Ports:     []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}},
		Endpoints: []fleet.Endpoint{{Cluster: "c2", Node: "n1", Pod: "web-0", Ready: true, Addrs: []netip.Addr{netip.MustParseAddr("10.77.2.1")}, Ports: map[string]uint16{"http": 80}}}}
	a := share.Explain(s, share.View{Cluster: "c1", Node: "n1"}, nil)
	agent := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/services/shop/web" {
			http.Error(w, "service shop/nobody is not imported here", http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(a)
	})}
	go func() { _ = agent.Serve(l) }()
	t.Cleanup(func() { _ = agent.Close() })
	if out, errs, code := run(t, "explain", "service", "shop/web", "--socket", socket); code != 0 || out != a.Text() {
		t.Errorf("code %d, %s, %s", code, out, errs)
	}
	for format, want := range map[string]string{"json": `"share": 1`, "yaml": "share: 1"} {
		if out, errs, code := run(t, "explain", "service", "shop/web", "-o", format, "--socket", socket); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: code %d, %s, %s", format, code, out, errs)
		}
	}
	if _, errs, code := run(t, "explain", "service", "shop/nobody", "--socket", socket); code != ExitRefused || !strings.Contains(errs, "not imported") {
		t.Errorf("nobody: code %d, %s", code, errs)
	}
	if _, errs, code := run(t, "explain", "service", "web", "--socket", socket); code != ExitUsage || !strings.Contains(errs, "NAMESPACE/NAME") {
		t.Errorf("no namespace: code %d, %s", code, errs)
	}
}
