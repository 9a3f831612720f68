package node

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/tunnel"
)

func scraped(t *testing.T) (a *agent, url, token string) {
	t.Helper()
	token = filepath.Join(t.TempDir(), "token")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	a = newAgent(Config{Node: "n1", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), RunDir: t.TempDir(),
		Scrape: Scrape{Addrs: []netip.AddrPort{netip.MustParseAddrPort(addr)}, TokenFile: token}})
	a.cfg.Metrics.MustRegister(tunnelCollector{a})
	return a, "https://" + addr + "/metrics", token
}

// TestScrape: nobody sees the metrics without the token, which may come, change and go while the agent runs.
func TestScrape(t *testing.T) {
	a, url, token := scraped(t)
	a.tunnel = tunnel.Status{Started: time.Unix(1000, 0), Reach: []fleet.Reach{{Node: "c2/b", State: fleet.ReachUp, RTT: 20 * time.Millisecond}},
		Relay:   relay.Counters{Forwarded: 7, Targets: 2, Dropped: map[string]uint64{"unknown": 3}},
		Devices: []tunnel.DeviceStatus{{Slice: "pay", Peers: []fleet.PeerState{{Path: "direct 10.0.0.1:1", RxBytes: 5, TxBytes: 1}, {Path: "relay c2/g 10.0.0.2:1", RxBytes: 6}}}}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.scrape(ctx) }()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	get := func(header string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		for limit := time.Now().Add(5 * time.Second); ; {
			resp, err := client.Do(r)
			if err != nil {
				if time.Now().After(limit) {
					t.Fatal(err)
				}
				continue // it does not listen yet
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, string(b)
		}
	}
	refused := func(what, header, says string) {
		t.Helper()
		if code, body := get(header); code != http.StatusUnauthorized || !strings.Contains(body, says) || strings.Contains(body, "seaway_tunnel") {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused("no token made", "Bearer ", "seaway-metrics")
	write("")
	refused("an empty one", "Bearer ", "seaway-metrics")
	write("secret\n")
	refused("none sent", "", "bearer token")
	refused("another", "Bearer secre", "bearer token")
	refused("another scheme", "Basic secret", "bearer token")
	code, body := get("Bearer secret")
	for _, line := range []string{"seaway_tunnel_up 1", "seaway_tunnel_start_time_seconds 1000", `seaway_tunnel_peers{path="relay",slice="pay"} 1`,
		`seaway_tunnel_received_bytes_total{slice="pay"} 11`, "seaway_relay_packets_total 7", `seaway_tunnel_dropped_packets_total{reason="unknown"} 3`,
		`seaway_path_rtt_seconds{node="c2/b"} 0.02`, `seaway_path_state{node="c2/b",state="up"} 1`} {
		if code != 200 || !strings.Contains(body, line+"\n") {
			t.Errorf("%d: no %s in\n%s", code, line, body)
		}
	}
	write("changed")
	refused("the former", "Bearer secret", "bearer token")
	if code, _ := get("Bearer changed"); code != 200 {
		t.Errorf("the changed one: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestScrapePortTaken: it is said, and the agent goes on.
func TestScrapePortTaken(t *testing.T) {
	a, url, _ := scraped(t)
	l, err := net.Listen("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.scrape(ctx) }()
	<-a.dirty
	a.mu.Lock()
	ps := a.problems["scrape"]
	a.mu.Unlock()
	if len(ps) != 1 || ps[0].Reason != "NodeMetricsUnserved" {
		t.Errorf("got %v", ps)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
