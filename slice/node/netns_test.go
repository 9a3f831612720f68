package node

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// controller is a real HTTPS server that speaks to one node.
type controller struct {
	srv *httptest.Server

	mu      sync.Mutex
	token   string
	intents chan fleet.Intent
	cut     chan struct{} // closed to end streams
	report  fleet.Report
	changed chan struct{}
}

func newController(t *testing.T) *controller {
	c := &controller{token: "one", intents: make(chan fleet.Intent, 8), cut: make(chan struct{}), changed: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/intent", func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		ok, cut := r.Header.Get("Authorization") == "Bearer "+c.token && r.URL.Query().Get("node") == "n1", c.cut
		c.mu.Unlock()
		if !ok {
			http.Error(w, "this token is not known", http.StatusUnauthorized)
			return
		}
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-cut:
				return
			case in := <-c.intents:
				_ = json.NewEncoder(w).Encode(in)
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	mux.HandleFunc("POST /v1/report", func(w http.ResponseWriter, r *http.Request) {
		var rep fleet.Report
		if err := json.NewDecoder(r.Body).Decode(&rep); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		c.report = rep
		c.mu.Unlock()
		poke(c.changed)
		w.WriteHeader(http.StatusNoContent)
	})
	c.srv = httptest.NewTLSServer(mux)
	t.Cleanup(c.srv.Close)
	return c
}

// until waits for a report that satisfies a condition.
func (c *controller) until(t *testing.T, what string, ok func(fleet.Report) bool) fleet.Report {
	t.Helper()
	end := time.After(15 * time.Second)
	for {
		c.mu.Lock()
		r := c.report
		c.mu.Unlock()
		if r.Node != "" && ok(r) {
			return r
		}
		select {
		case <-c.changed:
		case <-end:
			b, _ := json.MarshalIndent(r, "", " ")
			t.Fatalf("no report of %s; the last one:\n%s", what, b)
		}
	}
}

func allAttached(n int) func(fleet.Report) bool {
	return func(r fleet.Report) bool {
		for _, a := range r.Attachments {
			if !a.Attached {
				return false
			}
		}
		return len(r.Attachments) == n
	}
}

// TestAgent runs a whole agent against a real kernel, a fake container runtime and a real HTTPS controller.
func TestAgent(t *testing.T) {
	rt, node, ctl := podtest.NewRuntime(t), podtest.NewNode(t), newController(t)
	dir := t.TempDir()
	finder, err := pod.NewFinder(pod.Config{Root: rt.Root, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer finder.Close()
	cfg := Config{
		Node: "n1", Controller: ctl.srv.URL, CAFile: filepath.Join(dir, "ca.crt"), TokenFile: filepath.Join(dir, "token"),
		RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), HostRoot: "/",
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, MTU: 1500, Tunnel: &fakeTunnel{started: time.Now()}, Pods: finder,
		Datapath: datapath.New(datapath.Config{
			NetNSDir: filepath.Join(dir, "run/netns"), Sandboxes: finder, Log: slog.New(slog.DiscardHandler),
		}),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	write(t, cfg.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ctl.srv.Certificate().Raw}))
	write(t, cfg.TokenFile, []byte("one\n"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()

	// Ten pods are announced before any of them runs, as the scheduler does.
	const pods = 10
	var uids []string
	for i := range pods {
		uids = append(uids, fmt.Sprintf("pod-%d", i))
	}
	ctl.intents <- intent(1, uids...)
	ctl.until(t, "the pods as missing", func(r fleet.Report) bool { return len(r.Attachments) == pods })
	before := map[string]string{}
	for i, uid := range uids {
		p := node.Pod(t, uid)
		before[uid] = podtest.Snapshot(t, p.NS)
		rt.Start(uid, fmt.Sprint("sandbox-", i), p.NS)
	}
	r := ctl.until(t, "ten attached pods", allAttached(pods))
	worst := 0.0
	for _, a := range r.Attachments {
		worst = max(worst, a.Took)
	}
	// The limit of 300 ms is the story hot-attach-and-heal's: here other packages' tests share the processors.
	t.Logf("slowest of %d pods attached %.1f ms after its sandbox's birth", pods, worst)

	// A sandbox dies and comes back with another namespace.
	old := attachmentOf(r, uids[3]).NetNS
	rt.Stop("sandbox-3")
	rt.Start(uids[3], "sandbox-3b", node.Pod(t, uids[3]).NS)
	r = ctl.until(t, "the pod in its new sandbox", func(r fleet.Report) bool {
		a := attachmentOf(r, uids[3])
		return a.Attached && a.NetNS != old
	})
	t.Logf("a recreated sandbox took %.1f ms", attachmentOf(r, uids[3]).Took)

	checkSocket(t, cfg, pods)

	// The token is renewed: the next connection carries the new one.
	ctl.mu.Lock()
	ctl.token = "two"
	close(ctl.cut)
	ctl.cut = make(chan struct{})
	ctl.mu.Unlock()
	ctl.until(t, "the refusal", func(r fleet.Report) bool {
		return len(r.Problems) == 1 && strings.Contains(r.Problems[0].Message, "this token is not known")
	})
	write(t, cfg.TokenFile, []byte("two"))

	purge := intent(2)
	purge.Purge = true
	ctl.intents <- purge
	ctl.until(t, "the purge", func(r fleet.Report) bool { return r.Purged })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	for _, d := range []string{cfg.RunDir, cfg.StateDir} {
		if _, err := os.Stat(d); !os.IsNotExist(err) {
			t.Errorf("%s stayed: %v", d, err)
		}
	}
}

func attachmentOf(r fleet.Report, uid string) fleet.Attachment {
	for _, a := range r.Attachments {
		if a.PodUID == uid {
			return a
		}
	}
	return fleet.Attachment{}
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func checkSocket(t *testing.T, cfg Config, pods int) {
	t.Helper()
	path := filepath.Join(cfg.RunDir, SocketName)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, want mode 0600", err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	get := func(p string) []byte {
		resp, err := client.Get("http://agent" + p)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s %v", p, resp.Status, err)
		}
		return b
	}
	var want plan.Node
	if err := json.Unmarshal(get("/v1/want"), &want); err != nil || len(want.Slices) != 1 || len(want.Slices[0].Attachments) != pods {
		t.Errorf("/v1/want: %v, %+v", err, want)
	}
	var state fleet.Report
	if err := json.Unmarshal(get("/v1/state"), &state); err != nil || len(state.Attachments) != pods {
		t.Errorf("/v1/state: %v", err)
	}
	metrics := get("/metrics")
	for _, line := range []string{
		fmt.Sprintf("seaway_agent_attachments{reason=\"Attached\",slice=\"pay\"} %d\n", pods),
		"seaway_agent_controller_connected 1\n", "seaway_agent_intent_revision 1\n",
		"seaway_agent_dropped_packets_total{rule=\"forged IPv4 source\",slice=\"pay\"} 0\n",
	} {
		if !bytes.Contains(metrics, []byte(line)) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	get("/healthz")
}
