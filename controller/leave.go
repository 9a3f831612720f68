package controller

import (
	"context"
	"errors"
	"time"
)

// leave takes back what the controller wrote into its cluster, when the cluster leaves the fleet: discovery's objects
// here; conditions and ledgers go by themselves, because a leaving cluster's roster is empty. Nodes purge themselves
// at the same time, told by their intents.
func (l *leader) leave(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-l.leaving:
	}
	l.log.Info("leaving the fleet: taking back what was written into this cluster")
	for {
		err := l.clean(ctx)
		if err == nil {
			l.clear.Store(true)
			l.status.touch()
			l.log.Info("nothing of the controller's is left on pods and services")
			return nil
		}
		if ctx.Err() == nil {
			l.log.Info("leaving: not all is taken back yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (l *leader) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if l.discover != nil {
		if err := l.discover.Cleanup(ctx); err != nil {
			return err
		}
	}
	if !l.marks.settled() {
		return errors.New("pods still show conditions")
	}
	if len(l.ledgers.unsaved()) > 0 {
		return errors.New("ledgers are still there")
	}
	return nil
}
