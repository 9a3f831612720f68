// Package hub is the role that keeps the fleet's intent in order: it lets clusters in, carves the slices' addresses
// into blocks for them, and writes on Clusters and Slices what is true of them. It never speaks to a member; members
// read and write the hub's Kubernetes API (see package place). With the hub gone, traffic, discovery and failover go
// on as they were, and only new intent waits.
//
// Two or more replicas run; the one that holds the lease works.
package hub

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/kube"
)

// Config is what the role needs.
type Config struct {
	Kube    *rest.Config // the hub's own API server
	Log     *slog.Logger
	Metrics string // address of /metrics, such as ":8080"; "0": none
	Health  string // address of /healthz and /readyz, such as ":8081"; "0": none
	Alone   bool   // no leader election: for tests and trials
}

// Leases of the leader election: a follower takes over within about 15 seconds of a crash, at once after a shutdown.
const (
	leaseFor   = 15 * time.Second
	leaseRenew = 10 * time.Second
	leaseRetry = 2 * time.Second
)

// Run works until ctx ends. It returns an error when the lease is lost or the API server's answers make no sense.
func Run(ctx context.Context, conf Config) error {
	logger := logr.FromSlogHandler(conf.Log.Handler())
	ctrl.SetLogger(logger)
	renew, retry, lease := leaseRenew, leaseRetry, leaseFor
	rc := rest.CopyConfig(conf.Kube)
	rc.QPS, rc.Burst, rc.UserAgent = 50, 100, "seaway-hub"
	mgr, err := ctrl.NewManager(rc, ctrl.Options{
		Scheme:                        kube.Scheme(),
		Logger:                        logger,
		Cache:                         watched(),
		Metrics:                       server.Options{BindAddress: conf.Metrics},
		HealthProbeBindAddress:        conf.Health,
		LeaderElection:                !conf.Alone,
		LeaderElectionID:              "seaway-hub",
		LeaderElectionNamespace:       place.System,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease, RenewDeadline: &renew, RetryPeriod: &retry,
	})
	if err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	clients, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	heard := newHearing(time.Now)
	for _, add := range []func(ctrl.Manager) error{
		(&joins{client: mgr.GetClient(), tokens: clients, log: conf.Log.With("loop", "joins")}).add,
		(&clusters{client: mgr.GetClient(), heard: heard, log: conf.Log.With("loop", "clusters"),
			events: mgr.GetEventRecorderFor("seaway-hub")}).add,
		(&sliceLoop{client: mgr.GetClient(), heard: heard, log: conf.Log.With("loop", "slices"),
			events: mgr.GetEventRecorderFor("seaway-hub")}).add,
	} {
		if err := add(mgr); err != nil {
			return fmt.Errorf("start the hub: %w", err)
		}
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	return nil
}

// watched limits the cache to what the hub needs of a cluster that has much else in it.
func watched() cache.Options {
	named := func(n string) cache.ByObject {
		return cache.ByObject{Field: fields.OneTermEqualSelector("metadata.name", n)}
	}
	joins := map[string]cache.Config{place.Joins: {}}
	mail := cache.ByObject{Namespaces: map[string]cache.Config{
		place.Joins:         {},
		cache.AllNamespaces: {FieldSelector: fields.OneTermEqualSelector("metadata.name", place.Bulletin)},
	}}
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.ConfigMap{}:      mail,
		&coordinationv1.Lease{}:  named(place.Alive),
		&corev1.ServiceAccount{}: {Namespaces: joins},
	}}
}
