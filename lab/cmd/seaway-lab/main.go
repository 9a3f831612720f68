// Command seaway-lab runs real multi-cluster Kubernetes on one machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab"
	"seaway.dev/seaway/lab/boot"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/state"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	os.Exit(exitCode(err))
}

// exitCode prints an error; that of a program run on the user's behalf was
// printed by that program, and only its code is passed on.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() > 0 {
		return e.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "seaway-lab:", err)
	return 1
}

// options that every command has.
type options struct {
	state string
}

func (o *options) lab() (lab.Lab, error) { return lab.Open(o.state) }

// load opens the lab and its record; an error if none is up.
func (o *options) load() (lab.Lab, state.Lab, error) {
	l, err := o.lab()
	if err != nil {
		return l, state.Lab{}, err
	}
	rec, err := l.Dir.Load()
	return l, rec, err
}

func root() *cobra.Command {
	var o options
	def := os.Getenv("SEAWAY_LAB_STATE")
	if def == "" {
		def = state.DefaultDir
	}
	c := &cobra.Command{
		Use:   "seaway-lab",
		Short: "Real multi-cluster Kubernetes on one machine, with a WAN that can misbehave",
		Long: `Runs a hub and member clusters (etcd, the Kubernetes daemons, containerd, CoreDNS)
in namespaces of this machine: no container engine, no registry. The clusters use
the same pod and Service networks on purpose, and are joined by an emulated WAN.`,
		Example: `  seaway-lab up                       # hub + c1, c2, c3 with two nodes each; c3 behind a NAT
  seaway-lab up --clusters 2 --nodes 1
  seaway-lab status
  seaway-lab kubectl c1 get pods -A
  seaway-lab exec c1n1 -- ip addr
  seaway-lab machine kill c1n1        # pull the plug
  seaway-lab wan set c1 c2 --delay 20ms --loss 1%
  seaway-lab down`,
		SilenceUsage: true, SilenceErrors: true,
	}
	c.PersistentFlags().StringVar(&o.state, "state", def, "directory of the lab's state (env SEAWAY_LAB_STATE)")
	c.AddCommand(upCommand(&o), downCommand(&o), setupCommand(&o), kubectlCommand(&o), kubeconfigCommand(&o), execCommand(&o),
		machineCommand(&o), imageCommand(&o), wanCommand(&o), statusCommand(&o), collectCommand(&o), configCommand(), initCommand(), emulatorCommand(&o))
	o.completeNames(c)
	return c
}

func initCommand() *cobra.Command {
	return &cobra.Command{Use: machine.InitCommand + " SPEC", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return boot.Run(args[0]) }}
}
