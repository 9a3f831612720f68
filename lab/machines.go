package lab

import (
	"context"
	"time"

	"seaway.dev/seaway/lab/cluster"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
)

// AwaitMachine waits until a machine that was switched on does its work: a
// control plane answers, a node has reported Ready since it was switched on.
func (l Lab) AwaitMachine(ctx context.Context, m machine.Machine, since time.Time) error {
	c, err := l.Cluster(m.Cluster())
	if err != nil {
		return err
	}
	if m.Plan().Role == layout.ControlPlane {
		return c.AwaitAPI(ctx)
	}
	return c.AwaitNodes(ctx, cluster.ReportAfter(since), m.Plan().Name)
}
