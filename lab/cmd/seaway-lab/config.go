package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/lab/config"
)

func configCommand() *cobra.Command {
	var clusters, nodes int
	c := &cobra.Command{
		Use: "config", Short: "Print the default layout as a configuration file, to start from", Args: cobra.NoArgs,
		Example: "  seaway-lab config > lab.yaml\n  seaway-lab up --config lab.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf := config.Default(clusters, nodes)
			if err := conf.Complete(); err != nil {
				return err
			}
			b, err := yaml.Marshal(conf)
			fmt.Fprint(cmd.OutOrStdout(), string(b))
			return err
		},
	}
	c.Flags().IntVar(&clusters, "clusters", 3, "member clusters, besides the hub")
	c.Flags().IntVar(&nodes, "nodes", 2, "nodes of each member cluster")
	return c
}
