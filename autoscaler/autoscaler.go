// Package autoscaler is the role that scales workloads as their Autoscalers ask: it reads metrics, asks a pilot
// (scale/pilot, which is pure) what should be, and writes the scale subresource, or moves an HPA's floor, or answers
// KEDA. It explains each action as an event, a metric and a record in the Autoscaler's status.
//
//	Autoscalers ─┐                         ┌─▶ /scale, or the HPA's minReplicas, or KEDA
//	pods, nodes ─┼─▶ target.step ─▶ pilot ─┼─▶ status, events, metrics
//	Prometheus  ─┘   (every second)        └─▶ what was learnt, in a ConfigMap
//
// It needs a cluster with metrics and nothing else of Seaway. Two replicas run; the one that holds the lease works.
package autoscaler

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/kube"
)

// Config is what the role needs.
type Config struct {
	Kube       *rest.Config
	Log        *slog.Logger
	Prometheus string        // URL of the Prometheus for Autoscalers that name none
	Metrics    string        // address of /metrics; "0": none
	Health     string        // address of /healthz and /readyz; "0": none
	KEDA       string        // address of the external push scaler for KEDA; "": none
	Every      time.Duration // how often metrics are read; 0: 1 s
	Days       int           // days of evidence for a promotion; 0: 3
	Alone      bool          // no leader election
}

// Name is the role's name: of its lease, its events and its fields.
const Name = "seaway-autoscaler"

// The lease lasts for leaseFor, is renewed every leaseRetry, and given up when that has failed for leaseRenew.
const (
	leaseFor   = 15 * time.Second
	leaseRenew = 10 * time.Second
	leaseRetry = 2 * time.Second
)

// Run works until ctx ends.
func Run(ctx context.Context, conf Config) error {
	logger := logr.FromSlogHandler(conf.Log.Handler())
	ctrl.SetLogger(logger)
	rc := rest.CopyConfig(conf.Kube)
	duration, renew, retry := leaseFor, leaseRenew, leaseRetry
	rc.QPS, rc.Burst, rc.UserAgent = 200, 400, Name
	mgr, err := ctrl.NewManager(rc, ctrl.Options{
		Scheme: kube.Scheme(), Logger: logger,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{place.System: {}}},
		}},
		Metrics:                server.Options{BindAddress: conf.Metrics},
		HealthProbeBindAddress: conf.Health,
		LeaderElection:         !conf.Alone, LeaderElectionID: Name, LeaderElectionNamespace: place.System,
		LeaderElectionReleaseOnCancel: true, LeaseDuration: &duration, RenewDeadline: &renew, RetryPeriod: &retry,
	})
	if err != nil {
		return fmt.Errorf("start the autoscaler: %w", err)
	}
	l := newLoop(conf, mgr.GetClient(), mgr.GetEventRecorderFor(Name), newSource(conf.Prometheus).read)
	if err := l.meters.register(metrics.Registry); err != nil {
		return fmt.Errorf("start the autoscaler: %w", err)
	}
	add := []func() error{
		func() error { return mgr.Add(l) },
		func() error { return mgr.AddHealthzCheck("ping", healthz.Ping) },
		func() error { return mgr.AddReadyzCheck("ping", healthz.Ping) },
	}
	if conf.KEDA != "" {
		add = append(add, func() error { return mgr.Add(&keda{addr: conf.KEDA, wishes: l.wishes, log: conf.Log}) },
			func() error { return mgr.Add(echo{l}) })
	}
	for _, f := range add {
		if err := f(); err != nil {
			return fmt.Errorf("start the autoscaler: %w", err)
		}
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("autoscaler: %w", err)
	}
	return nil
}
