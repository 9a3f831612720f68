package ctl

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// outputFlag gives a verb --output.
func (c *cli) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// show prints a value as the reader wants it: for people by table, for programs as JSON or YAML.
func (c *cli) show(v any, table func() error) error {
	var b []byte
	var err error
	switch c.output {
	case "table", "":
		return table()
	case "json":
		b, err = json.MarshalIndent(v, "", "  ")
		b = append(b, '\n')
	case "yaml":
		b, err = yaml.Marshal(v)
	default:
		return usage("--output %q: want table, json or yaml", c.output)
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err = c.Out.Write(b)
	return err
}
