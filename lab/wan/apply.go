package wan

import (
	"context"
	"fmt"
	"maps"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/state"
	"seaway.dev/seaway/lab/underlay"
)

// Apply makes a table real and records it. A queue has its listener before the
// first rule leads to it, and keeps it until the last rule is gone, so no packet
// is lost by a change.
func Apply(ctx context.Context, dir state.Dir, l layout.Layout, t Table) error {
	old, err := Load(dir)
	if err != nil {
		return err
	}
	if err := dir.Write(tableFile, t); err != nil {
		return err
	}
	queues := t.Queues()
	if len(queues) > 0 {
		both := old.Queues()
		maps.Copy(both, queues)
		if err := ensure(ctx, dir); err != nil {
			return err
		}
		if _, err := ask(dir, request{Apply: both}); err != nil {
			return fmt.Errorf("WAN emulator: %w", err)
		}
	}
	if err := t.install(underlay.Router, l); err != nil {
		return err
	}
	if len(queues) == 0 {
		return Stop(dir)
	}
	_, err = ask(dir, request{Apply: queues})
	return err
}

// Statistics by queue number; none if no emulator runs.
func Statistics(dir state.Dir) map[int]Stats {
	rep, err := ask(dir, request{})
	if err != nil {
		return nil
	}
	return rep.Stats
}
