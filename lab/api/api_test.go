package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestApply(t *testing.T) {
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen = append(seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+strings.SplitN(string(b), "\n", 2)[0])
	}))
	defer s.Close()
	c := &Client{server: s.URL, http: s.Client()}
	err := c.Apply(t.Context(), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: ns}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := "PATCH /api/v1/namespaces/b/configmaps/a application/apply-patch+yaml apiVersion: v1|PATCH /apis/apps/v1/namespaces/ns/deployments/d application/apply-patch+yaml apiVersion: apps/v1"
	if got := strings.Join(seen, "|"); got != want {
		t.Error(got)
	}
	if err := c.Apply(t.Context(), []byte("apiVersion: v1\nkind: Pod\n")); err == nil || !strings.Contains(err.Error(), "Pod") {
		t.Error(err)
	}
}

func TestErrorsCarryTheServersMessage(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"message":"it was changed"}`)
	}))
	defer s.Close()
	err := (&Client{server: s.URL, http: s.Client()}).Get(t.Context(), "/x", nil)
	se, ok := errors.AsType[*StatusError](err)
	if !ok || se.Code != http.StatusConflict || !strings.Contains(err.Error(), "it was changed") {
		t.Error(err)
	}
}

func TestPollTellsWhatWasMissing(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("too late"))
	defer cancel()
	err := Poll(ctx, time.Millisecond, func(context.Context) (bool, error) { return false, errors.New("not Ready: c1n1") })
	if err == nil || !strings.Contains(err.Error(), "too late") || !strings.Contains(err.Error(), "not Ready: c1n1") {
		t.Error(err)
	}
	n := 0
	if err := Poll(t.Context(), time.Millisecond, func(context.Context) (bool, error) { n++; return n == 3, nil }); err != nil || n != 3 {
		t.Error(n, err)
	}
}
