package lab

import (
	"context"
	"time"

	"seaway.dev/seaway/lab/api"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
)

// AwaitMachine waits until a machine that was switched on does its work: a
// control plane answers, a node is Ready.
func (l Lab) AwaitMachine(ctx context.Context, m machine.Machine) error {
	c, err := l.Cluster(m.Cluster())
	if err != nil {
		return err
	}
	if m.Plan().Role == layout.ControlPlane {
		return c.AwaitAPI(ctx)
	}
	// The API goes on saying Ready for a while after a node is gone, so a node
	// counts only once its kubelet has reported since this boot.
	err = api.Poll(ctx, 100*time.Millisecond, func(context.Context) (bool, error) { return m.KubeletAnswers(), nil })
	if err != nil {
		return err
	}
	return c.AwaitNodes(ctx, m.Plan().Name)
}
