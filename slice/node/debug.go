package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"seaway.dev/seaway/slice/share"
)

// SocketName is the agent's local socket in RunDir, readable by root alone:
//
//	GET /v1/want   what the node should be: plan.Node
//	GET /v1/state  how it stands: fleet.Report
//	GET /v1/services/NAMESPACE/NAME   where this node's traffic to a service goes, and why: share.Account
//	GET /metrics   for Prometheus
//	GET /healthz   200 while the loop runs
const SocketName = "agent.sock"

// Handler serves the agent's state over HTTP.
func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/want", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		want := a.want
		a.mu.Unlock()
		writeJSON(w, want)
	})
	mux.HandleFunc("GET /v1/state", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, a.state()) })
	mux.HandleFunc("GET /v1/services/{namespace}/{name}", a.explainService)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.cfg.Metrics, promhttp.HandlerOpts{}))
	return mux
}

func (a *agent) explainService(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	in, nodes, reach := a.intent, a.nodes, a.reach
	a.mu.Unlock()
	if in == nil {
		http.Error(w, "this node was told nothing yet: its controller is not heard", http.StatusNotFound)
		return
	}
	for _, s := range in.Services {
		if s.Namespace == r.PathValue("namespace") && s.Name == r.PathValue("name") {
			writeJSON(w, share.Explain(s, viewOf(in, nodes), reach))
			return
		}
	}
	http.Error(w, fmt.Sprintf("service %.100s/%.100s is not imported here: nobody exports it to a slice of this cluster",
		r.PathValue("namespace"), r.PathValue("name")), http.StatusNotFound)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// debug serves the local socket.
func (a *agent) debug(ctx context.Context) error {
	path := filepath.Join(a.cfg.RunDir, SocketName)
	if err := os.MkdirAll(a.cfg.RunDir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", a.cfg.RunDir, err)
	}
	if err := removeIfThere(path); err != nil {
		return fmt.Errorf("remove a former agent's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on the agent's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return fmt.Errorf("protect the agent's socket: %w", err)
	}
	a.metrics.register(a)
	srv := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the agent's socket: %w", err)
	}
	return nil
}
