// Package controller is the role that speaks for one member cluster. Two replicas run; one leads. The leader watches
// its own cluster and the hub, hands out slice addresses, tells each node its intent, tells the other clusters its
// bulletin, and says on every pod of a slice how it stands.
//
//	hub ── slices, clusters, bulletins ──▶ ┌───────┐          ┌────────┐ ── intent ──▶ agents
//	own API server ── pods, nodes, … ────▶ │ board │ ─ New ─▶ │ roster │ ── bulletin ─▶ hub mailbox
//	agents ── reports ───────────────────▶ └───────┘          └────────┘ ── conditions ▶ pods
//	                                        mutable            immutable
//	                                        facts              answers
//
// Package roster decides; this package only carries facts in and answers out. With the hub away it goes on from the
// last known state, which it also keeps in its own cluster, so that a restart without the hub changes nothing.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"seaway.dev/seaway/kube"
	"seaway.dev/seaway/slice/addr"
)

// Names of the objects that the controller keeps in its own cluster, in Config.Namespace.
const (
	Service         = "seaway-controller"         // that agents dial; points at the leader
	ServicePort     = 8443                        // of Service
	Audience        = "seaway-controller"         // of the agents' tokens
	TLSSecret       = "seaway-controller-tls"     // the authority and the server's certificate
	AuthorityMap    = "seaway-controller-ca"      // ConfigMap with the authority's certificate, for agents
	AuthorityKey    = "ca.crt"                    // its key
	MemoryMap       = "seaway-fleet"              // ConfigMap: what was last known of the fleet
	StatusMap       = "seaway-status"             // ConfigMap: fleet.Status for people
	SettingsMap     = "seaway"                    // ConfigMap: the member's settings, data.leaving among them
	LedgerPrefix    = "seaway-addresses-"         // ConfigMap per slice: who has which address
	LeaderLease     = "seaway-controller"         // Lease by which the replicas elect
	LeaderLabel     = "seaway.dev/leader"         // on the leader's pod, for Service
	componentLabel  = "app.kubernetes.io/part-of" // on all objects that the controller makes
	componentValue  = "seaway"
	defaultNS       = "seaway-system"
	defaultAgent    = "seaway-agent"
	controllerField = "seaway-controller" // field manager, event source
)

// Config is what a controller needs to know. Zero values have defaults where a comment says so.
type Config struct {
	Cluster   string // this member's name in the fleet
	Namespace string // default seaway-system
	Pod       string // the replica's own pod: it elects under this name
	Agent     string // service account of the agents, in Namespace; default seaway-agent
	Software  string // version of Seaway

	Member *rest.Config                                // this cluster's API server
	Hub    func(context.Context) (*rest.Config, error) // how to reach the hub; nil: the credential in its Secret
	Rest   time.Duration                               // of released addresses; default addr.DefaultRest

	Listen  string // of the agents' streams; default :8443
	Metrics string // default :8080; "0" is off
	Health  string // default :8081; "0" is off

	Log *slog.Logger // default: none
}

func (c Config) complete() (Config, error) {
	if c.Cluster == "" || c.Pod == "" || c.Member == nil {
		return c, errors.New("controller: the cluster's name, the pod's name and the API server must be given")
	}
	c.Namespace = cmp.Or(c.Namespace, defaultNS)
	c.Agent = cmp.Or(c.Agent, defaultAgent)
	c.Listen = cmp.Or(c.Listen, fmt.Sprintf(":%d", ServicePort))
	c.Metrics = cmp.Or(c.Metrics, ":8080")
	c.Health = cmp.Or(c.Health, ":8081")
	c.Rest = cmp.Or(c.Rest, addr.DefaultRest)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Member = rest.CopyConfig(c.Member)
	c.Member.QPS = -1 // the API server's own fairness limits us; a client-side limit only delays addresses
	return c, nil
}

// Run runs one replica until ctx ends, or it loses its lease (an error: the process must end, because another one
// may lead already).
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.complete()
	if err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(cfg.Log.Handler()))
	// Losing the lease late is worse than losing it often: two leaders are kept apart by the addresses' resource
	// versions, and until then agents simply have one stream.
	leaseFor, renewBy, retry := 10*time.Second, 6*time.Second, 2*time.Second
	mgr, err := manager.New(cfg.Member, manager.Options{
		Scheme:                        kube.Scheme(),
		Cache:                         cacheOptions(cfg.Namespace),
		Client:                        client.Options{},
		Logger:                        logr.FromSlogHandler(cfg.Log.Handler()),
		LeaderElection:                true,
		LeaderElectionID:              LeaderLease,
		LeaderElectionNamespace:       cfg.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &leaseFor,
		RenewDeadline:                 &renewBy,
		RetryPeriod:                   &retry,
		Metrics:                       server.Options{BindAddress: cfg.Metrics},
		HealthProbeBindAddress:        cfg.Health,
		// Names of controllers are metrics' labels; two replicas in one process (a test) may share them.
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		return fmt.Errorf("controller of %s: %w", cfg.Cluster, err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("controller of %s: %w", cfg.Cluster, err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("controller of %s: %w", cfg.Cluster, err)
	}
	l, err := newLeader(cfg, mgr)
	if err != nil {
		return fmt.Errorf("controller of %s: %w", cfg.Cluster, err)
	}
	if err := errors.Join(l.meters.register(metrics.Registry), mgr.Add(l)); err != nil {
		return fmt.Errorf("controller of %s: %w", cfg.Cluster, err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("controller of %s: %w", cfg.Cluster, err)
	}
	return nil
}
