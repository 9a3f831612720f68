package autoscaler

import (
	"context"
	"sync"
	"time"
)

// pulse notices that the process stood still (a frozen container, a machine that slept): its lease may have run out
// meanwhile, and another may lead. The election goes on believing for as long as leaseRenew that the lease is ours, so
// nothing may be done until then. What had begun before ends by its own time limit, or by the version of the scale that
// it read.
type pulse struct {
	mu          sync.Mutex
	last, rests time.Time
}

// steady tells whether one may act.
func (p *pulse) steady(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() {
		away := max(now.Sub(p.last), now.Round(0).Sub(p.last.Round(0))) // where machines sleep, one of the clocks does
		if away > leaseFor-leaseRenew {
			p.rests = now.Add(leaseRenew + leaseRetry)
		}
	}
	p.last = now
	return !now.Before(p.rests)
}

// beat feels the pulse, also while a round takes long.
func (p *pulse) beat(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		p.steady(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
