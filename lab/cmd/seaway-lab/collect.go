package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab/progress"
)

func collectCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "collect DIR", Short: "Gather everything for a post-mortem into a folder", Args: cobra.ExactArgs(1),
		Long:    "Status, daemons' and pods' logs, objects and events of every cluster, addresses, routes, firewall and connections of every machine.",
		Example: "  seaway-lab collect /tmp/post-mortem",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := o.lab()
			if err != nil {
				return err
			}
			stages := progress.New(os.Stderr)
			defer stages.Close()
			done := stages.Begin("collect into %s", args[0])
			err = l.Collect(cmd.Context(), args[0])
			done(err)
			if err != nil {
				return fmt.Errorf("collected in %s, but not everything: %w", args[0], err)
			}
			return nil
		},
	}
}
