// Package boot is PID 1 of a machine: it mounts the machine's own view of the
// file system, starts the daemons, starts them again when they die, and reaps.
package boot

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/api"
	"seaway.dev/seaway/lab/cgroup"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/state"
)

// Run boots the machine that a spec file describes. It returns only to die.
func Run(specFile string) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is for the lab's own use; it must be PID 1 of a new machine", machine.InitCommand)
	}
	if err := state.AwaitRecord(); err != nil {
		return err
	}
	b, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var spec machine.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("machine", spec.Machine.Name)
	log.Info("boot")
	if err := cgroup.Enter(spec.Machine.Name); err != nil {
		return err
	}
	if err := mountAll(spec); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	s := newSupervisor(log)
	go s.reap()
	if spec.Machine.Role == layout.ControlPlane {
		err = controlPlane(ctx, spec, s)
	} else {
		err = node(ctx, spec, s)
	}
	if err != nil {
		return err
	}
	log.Info("booted")
	<-ctx.Done()
	return nil
}

// awaitAPI waits for the API server, so that daemons that need it do not start
// in vain and then sit in their back-off. A machine without one boots anyway.
func awaitAPI(ctx context.Context, server, who string, patience time.Duration, log *slog.Logger) {
	c, err := api.New(server, kubernetesDir, who)
	if err != nil {
		log.Error("API client", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	err = api.Poll(ctx, 100*time.Millisecond, func(ctx context.Context) (bool, error) {
		err := c.Ready(ctx)
		return err == nil, err
	})
	log.Info("waited for the API server", "for", time.Since(start).Round(time.Millisecond), "error", err)
}
