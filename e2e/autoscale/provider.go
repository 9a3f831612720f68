package autoscale

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/e2e/stage"
)

// room is the extended resource of which each pod of the service needs one, so that a node has a known room.
const room = "seaway.dev/room"

// Provider is a cloud in small: the cluster's second node exists only while it is needed. When pods wait for room it is
// bought: its machine is started after Boot, and registers itself anew. When it has stood empty for Idle it is given
// back: switched off and its Node removed.
type Provider struct {
	Boot, Idle time.Duration
	Room       int // pods of the service per node

	site   *Site
	stays  string // the node that is always there
	comes  string
	mu     sync.Mutex
	up     bool
	since  time.Time // it was ordered
	Bought int
}

// Begin moves everything to the first node and gives the second back.
func (p *Provider) Begin(ctx context.Context, site *Site) error {
	l, err := site.stage.Layout(ctx)
	if err != nil {
		return err
	}
	c, err := l.Cluster(site.Cluster)
	if err != nil {
		return err
	}
	if len(c.Nodes) < 2 {
		return fmt.Errorf("cluster %s has one node: an elastic one needs a second", site.Cluster)
	}
	p.site, p.stays, p.comes, p.up = site, c.Nodes[0], c.Nodes[1], true
	if err := p.furnish(ctx, p.stays); err != nil {
		return err
	}
	if _, err := site.stage.Kubectl(ctx, site.Cluster, "drain", p.comes, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"); err != nil {
		return err
	}
	return p.giveBack(ctx)
}

// furnish gives a node its room.
func (p *Provider) furnish(ctx context.Context, node string) error {
	n := &corev1.Node{}
	n.Name = node
	patch := fmt.Sprintf(`{"status":{"capacity":{%q:"%d"},"allocatable":{%q:"%d"}}}`, room, p.Room, room, p.Room)
	if err := p.site.Client.Status().Patch(ctx, n, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return fmt.Errorf("room on %s: %w", node, err)
	}
	return nil
}

func (p *Provider) giveBack(ctx context.Context) error {
	if _, err := p.site.stage.Labctl(ctx, "machine", "kill", p.comes); err != nil {
		return err
	}
	n := &corev1.Node{}
	n.Name = p.comes
	if err := client.IgnoreNotFound(p.site.Client.Delete(ctx, n)); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.since = false, time.Time{}
	return nil
}

// buy starts the machine and waits for its node.
func (p *Provider) buy(ctx context.Context) error {
	if _, err := p.site.stage.Labctl(ctx, "machine", "start", p.comes); err != nil {
		return err
	}
	return stage.Await(ctx, time.Minute, func() error { return p.furnish(ctx, p.comes) })
}

// Work watches until the context ends, and tells what failed.
func (p *Provider) Work(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	empty := time.Now()
	for {
		waiting, there, err := p.look(ctx)
		switch up, since := p.state(); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case !up && since.IsZero() && waiting > 0:
			p.set(false, time.Now())
			p.Bought++
		case !up && !since.IsZero() && time.Since(since) >= p.Boot:
			if err := p.buy(ctx); err != nil {
				return errors.Join(err, ctx.Err())
			}
			p.set(true, since)
			empty = time.Now()
		case up && there > 0:
			empty = time.Now()
		case up && waiting == 0 && time.Since(empty) > p.Idle:
			if err := p.giveBack(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *Provider) state() (bool, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up, p.since
}

func (p *Provider) set(up bool, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.since = up, since
}

// Nodes is how many are paid for: from the order on.
func (p *Provider) Nodes() int {
	if up, since := p.state(); up || !since.IsZero() {
		return 2
	}
	return 1
}

// look counts pods that wait for room, and those on the second node.
func (p *Provider) look(ctx context.Context) (waiting, there int, err error) {
	var list corev1.PodList
	if err := p.site.Client.List(ctx, &list, client.InNamespace(Namespace), client.MatchingLabels{"app": "web"}); err != nil {
		return 0, 0, err
	}
	for _, pod := range list.Items {
		switch {
		case pod.Spec.NodeName == p.comes:
			there++
		case pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && time.Since(pod.CreationTimestamp.Time) > time.Second:
			waiting++
		}
	}
	return waiting, there, nil
}

// End leaves the node as it was.
func (p *Provider) End(ctx context.Context) error {
	if up, _ := p.state(); up {
		return nil
	}
	_, err := p.site.stage.Labctl(ctx, "machine", "start", p.comes, "--wait")
	return err
}
