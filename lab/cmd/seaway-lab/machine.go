package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/progress"
)

func machineCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "machine", Short: "Switch machines off and on, freeze them, pull their cables",
		Example: "  seaway-lab machine kill c1n1\n  seaway-lab machine start c1n1 --wait\n  seaway-lab machine cut c2n1",
	}
	type action struct {
		name, short string
		run         func(ctx context.Context, l lab.Lab, m machine.Machine) error
		first       func(machine.Machine) error // done to all of them before run is to any
	}
	plain := func(f func(machine.Machine) error) func(context.Context, lab.Lab, machine.Machine) error {
		return func(_ context.Context, _ lab.Lab, m machine.Machine) error { return f(m) }
	}
	cut := func(m machine.Machine) error { return m.SetCable(false) }
	for _, a := range []action{
		{name: "kill", short: "Power off at once; the disk stays", run: plain(machine.Machine.Kill), first: cut},
		{name: "start", short: "Power on", run: plain(machine.Machine.Start)},
		{name: "reboot", short: "Power off and on", run: plain(machine.Machine.Reboot), first: cut},
		{name: "pause", short: "Freeze all processes", run: plain(func(m machine.Machine) error { return m.SetPaused(true) })},
		{name: "resume", short: "Let frozen processes go on", run: plain(func(m machine.Machine) error { return m.SetPaused(false) })},
		{name: "cut", short: "Pull the network cable", run: plain(cut)},
		{name: "heal", short: "Plug the network cable in", run: plain(func(m machine.Machine) error { return m.SetCable(true) })},
	} {
		var wait bool
		sub := &cobra.Command{
			Use: a.name + " MACHINE...", Short: a.short, Args: cobra.MinimumNArgs(1),
			Example: fmt.Sprintf("  seaway-lab machine %s c1n1", a.name),
			RunE: func(cmd *cobra.Command, args []string) error {
				return o.onMachines(args, "machine "+a.name, a.first, func(l lab.Lab, m machine.Machine) error {
					start := time.Now()
					if err := a.run(cmd.Context(), l, m); err != nil || !wait {
						return err
					}
					return awaitMachine(cmd.Context(), l, m, start)
				})
			},
		}
		if a.name == "start" || a.name == "reboot" {
			sub.Flags().BoolVar(&wait, "wait", false, "wait until the node is Ready (or the API answers)")
		}
		c.AddCommand(sub)
	}
	return c
}

// onMachines checks all names before anything happens to the first; first may be nil.
func (o *options) onMachines(names []string, what string, first func(machine.Machine) error, do func(lab.Lab, machine.Machine) error) error {
	l, rec, err := o.load()
	if err != nil {
		return err
	}
	var ms []machine.Machine
	for _, n := range names {
		m, err := machine.Find(l.Dir, rec, n)
		if err != nil {
			return err
		}
		ms = append(ms, m)
	}
	unlock, err := l.Dir.Lock("seaway-lab " + what)
	if err != nil {
		return err
	}
	defer unlock()
	for _, m := range ms {
		if first != nil {
			_ = first(m) // what is in its way is in do's way, too
		}
	}
	for _, m := range ms {
		if err := do(l, m); err != nil {
			return err
		}
	}
	return nil
}

func awaitMachine(ctx context.Context, l lab.Lab, m machine.Machine, start time.Time) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lab.Patience, fmt.Errorf("%s not ready after %s", m.Plan().Name, lab.Patience))
	defer cancel()
	stages := progress.New(os.Stderr)
	defer stages.Close()
	if err := l.AwaitMachine(ctx, m, start); err != nil {
		return err
	}
	stages.Note("%s is ready after %.1f s", m.Plan().Name, time.Since(start).Seconds())
	return nil
}
