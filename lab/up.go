package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"seaway.dev/seaway/lab/cluster"
	"seaway.dev/seaway/lab/config"
	"seaway.dev/seaway/lab/host"
	"seaway.dev/seaway/lab/image"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/pki"
	"seaway.dev/seaway/lab/progress"
	"seaway.dev/seaway/lab/state"
	"seaway.dev/seaway/lab/underlay"
)

// Patience is how long Up waits for the clusters.
const Patience = 4 * time.Minute

// Up starts a lab. What it has made when it fails is left as it is, for a look
// at the logs; Down removes it.
func (l Lab) Up(ctx context.Context, c config.Config, stages *progress.Stages) error {
	if err := c.Complete(); err != nil {
		return err
	}
	plan, err := layout.New(c)
	if err != nil {
		return err
	}
	if err := host.CheckRoot(); err != nil {
		return err
	}
	unlock, err := l.Dir.Lock("seaway-lab up")
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.checkFree(plan); err != nil {
		return err
	}
	ready, err := l.Prepare(ctx, plan.Metrics, stages)
	if err != nil {
		return err
	}
	rec, err := l.record(plan, ready)
	if err != nil {
		return err
	}
	if err := l.build(plan, rec, ready.Seed, stages); err != nil {
		return err
	}
	if err := l.await(ctx, plan, stages); err != nil {
		return fmt.Errorf("%w\nlook at %s/machines/*/log, then `seaway-lab down`", err, l.Dir)
	}
	rec.Phase = state.Up
	return l.Dir.Save(rec)
}

// checkFree refuses to start over another lab.
func (l Lab) checkFree(plan layout.Layout) error {
	rec, err := l.Dir.Load()
	switch {
	case errors.Is(err, state.ErrNone):
	case err != nil:
		return err
	case rec.Phase == state.Up:
		return fmt.Errorf("a lab is up already (since %s, state %s); `seaway-lab status` shows it, `seaway-lab down` removes it",
			rec.Started.Format(time.DateTime), l.Dir)
	default:
		return fmt.Errorf("a lab in %s is half up (phase %q, begun %s by pid %d); remove it with `seaway-lab down`",
			l.Dir, rec.Phase, rec.Started.Format(time.DateTime), rec.Owner.PID)
	}
	if other, ok := l.Dir.Other(); ok {
		return fmt.Errorf("another lab is up on this host, with its state in %[1]s; there can be one at a time: `seaway-lab down --state %[1]s` removes it", other)
	}
	return underlay.Check(plan)
}

// record writes down what is about to be made, before any of it is.
func (l Lab) record(plan layout.Layout, ready Prepared) (state.Lab, error) {
	sysctls, err := host.Sysctls()
	if err != nil {
		return state.Lab{}, err
	}
	owner, err := state.Identify(os.Getpid())
	if err != nil {
		return state.Lab{}, err
	}
	rec := state.Lab{Phase: state.Starting, Started: time.Now(), Owner: owner, Bin: ready.Bin, Seed: ready.Seed.Dir, Layout: plan, Sysctls: sysctls}
	return rec, errors.Join(l.Dir.Save(rec), l.Dir.Claim())
}

func (l Lab) build(plan layout.Layout, rec state.Lab, seed image.Seed, stages *progress.Stages) (err error) {
	done := stages.Begin("switch on the machines (%d)", len(plan.Machines()))
	defer func() { done(err) }()
	if err := host.SetSysctls(); err != nil {
		return err
	}
	if err := underlay.Up(plan); err != nil {
		return err
	}
	for _, c := range plan.Clusters {
		if err := l.keys(c); err != nil {
			return fmt.Errorf("keys of %s: %w", c.Name, err)
		}
	}
	// Control planes first: they take longest, and the nodes wait for them.
	for _, role := range []layout.Role{layout.ControlPlane, layout.Node} {
		for _, m := range machine.All(l.Dir, rec) {
			if m.Plan().Role != role {
				continue
			}
			if role == layout.Node {
				if err := seed.Plant(filepath.Join(m.Dir(), "disk/var/lib/containerd")); err != nil {
					return fmt.Errorf("images of %s: %w", m.Plan().Name, err)
				}
			}
			if err := m.Start(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l Lab) keys(c layout.Cluster) error {
	dir := filepath.Join(l.Dir.ClusterDir(c.Name), "pki")
	if err := pki.Write(dir, c); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, "admin.kubeconfig"))
	if err != nil {
		return err
	}
	return os.WriteFile(l.Dir.Kubeconfig(c.Name), b, 0o600)
}

// Cluster opens a client of a cluster.
func (l Lab) Cluster(c layout.Cluster) (cluster.Cluster, error) {
	return cluster.Open(c, filepath.Join(l.Dir.ClusterDir(c.Name), "pki"))
}

// await waits for all clusters at the same time.
func (l Lab) await(ctx context.Context, plan layout.Layout, stages *progress.Stages) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, fmt.Errorf("not ready after %s", Patience))
	defer cancel()
	errs := make([]error, len(plan.Clusters))
	var wg sync.WaitGroup
	for i, c := range plan.Clusters {
		wg.Go(func() {
			if err := l.awaitCluster(ctx, c, plan, stages); err != nil {
				errs[i] = fmt.Errorf("%s: %w", c.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l Lab) awaitCluster(ctx context.Context, plan layout.Cluster, lay layout.Layout, stages *progress.Stages) error {
	c, err := l.Cluster(plan)
	if err != nil {
		return err
	}
	type step struct {
		what string
		run  func(context.Context) error
	}
	steps := []step{
		{"API", c.AwaitAPI},
		{"nodes Ready", func(ctx context.Context) error { return c.AwaitNodes(ctx, time.Time{}) }},
		{"default ServiceAccount", c.AwaitServiceAccount},
	}
	if lay.DNS {
		// Applied early, so that the pod can start as soon as a node is Ready.
		steps = append(steps[:1], append([]step{{"DNS applied", c.ApplyDNS}}, steps[1:]...)...)
		steps = append(steps, step{"DNS available", c.AwaitDNS})
	}
	if lay.Metrics {
		steps = append(steps, step{"metrics-server applied", c.ApplyMetrics}, step{"metrics-server available", c.AwaitMetrics})
	}
	for _, s := range steps {
		done := stages.Begin("%s: %s", plan.Name, s.what)
		err := s.run(ctx)
		if done(err); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}
