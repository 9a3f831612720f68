package controller

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"seaway.dev/seaway/controller/report"
	"seaway.dev/seaway/fleet"
)

// heartbeat is how often an idle stream shows that it lives, by an empty line.
const heartbeat = 15 * time.Second

// writeLimit is how long a node may take to accept what it is told. A stuck one loses its stream and dials again.
const writeLimit = 20 * time.Second

// streamRate bounds what one node's intents cost, bytes a second: after a long one the next waits a little.
const streamRate = 16 << 20

// httpError is an answer to a request that is wrong.
type httpError struct {
	code int
	text string
}

func (e httpError) Error() string { return e.text }

// handler answers agents. who tells which node a request's bearer may speak for.
type handler struct {
	streams *streams
	who     func(*http.Request) (node string, err error)
	log     *slog.Logger
}

// routes:
//
//	GET  /v1/intent?node=NAME   the node's intents, one JSON value a line, for as long as the connection lasts; with
//	                            &changes=1 the first one whole, then a fleet.IntentDelta where that is possible
//	POST /v1/report             one fleet.Report; 204
//	GET  /v1/bulletins          on a carrier: the connection becomes a session of package bulletin/post
func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/intent", h.checked(h.intent))
	mux.HandleFunc("POST /v1/report", h.checked(h.report))
	mux.HandleFunc("GET "+carryPath, h.checked(h.bulletins))
	return mux
}

// checked lets a request through with its node's name, and turns errors into answers.
func (h *handler) checked(next func(http.ResponseWriter, *http.Request, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		node, err := h.who(r)
		if err == nil {
			err = next(w, r, node)
		}
		if err == nil {
			return
		}
		var he httpError
		if !errors.As(err, &he) {
			he = httpError{http.StatusInternalServerError, err.Error()}
		}
		h.streams.l.meters.refused.WithLabelValues(fmt.Sprint(he.code)).Inc()
		h.log.Warn("request refused", "path", r.URL.Path, "from", r.RemoteAddr, "node", node, "code", he.code, "err", he.text)
		http.Error(w, he.text, he.code)
	}
}

func (h *handler) intent(w http.ResponseWriter, r *http.Request, node string) error {
	if asked := r.URL.Query().Get("node"); asked != "" && asked != node {
		return httpError{http.StatusForbidden, fmt.Sprintf("this token speaks for node %s, not for %s", node, asked)}
	}
	changes := r.URL.Query().Get("changes") != ""
	h.streams.opened(node)
	defer h.streams.closed(node)
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	var last *fleet.Intent
	var pause <-chan time.Time // while it lasts, changes gather
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		in, d, change := h.streams.next(node, last, pause == nil)
		if in != nil {
			say := any(in)
			if d != nil && changes {
				say = d
			}
			line, err := json.Marshal(say)
			if err != nil {
				return fmt.Errorf("write intent: %w", err)
			}
			_ = out.SetWriteDeadline(time.Now().Add(writeLimit))
			if _, err := w.Write(append(line, '\n')); err != nil || out.Flush() != nil {
				return nil // the node is gone: it dials again
			}
			last = in
			pause = time.After(time.Duration(len(line)) * time.Second / streamRate)
			h.streams.l.meters.intents.Inc()
		}
		if pause != nil {
			change = nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-pause:
			pause = nil
		case <-change:
		case <-beat.C:
			_ = out.SetWriteDeadline(time.Now().Add(writeLimit))
			if _, err := io.WriteString(w, "\n"); err != nil || out.Flush() != nil {
				return nil
			}
		}
	}
}

func (h *handler) report(w http.ResponseWriter, r *http.Request, node string) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, report.MaxSize))
	if err != nil {
		return httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("report: %v (limit %d bytes)", err, report.MaxSize)}
	}
	rep, err := report.Parse(body)
	if err != nil {
		return httpError{http.StatusBadRequest, err.Error()}
	}
	if rep.Node != node {
		return httpError{http.StatusForbidden, fmt.Sprintf("this token speaks for node %s, not for %s", node, rep.Node)}
	}
	h.streams.report(rep)
	h.streams.l.meters.reports.Inc()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serve answers agents until ctx ends.
func serve(ctx context.Context, l *leader, cert *authority) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	h := &handler{streams: l.streams, who: newReviewer(l.client, l.cfg, l.board).node, log: l.log}
	srv := &http.Server{
		Handler:           h.routes(),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: cert.certificate},
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       0, // streams last; bodies are bounded in size
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(listener, "", "") }()
	select {
	case err = <-done:
		return fmt.Errorf("agents' streams: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		_ = srv.Close()
	}
	<-done
	return nil
}
