package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab"
	"seaway.dev/seaway/lab/progress"
)

func statusCommand(o *options) *cobra.Command {
	var output string
	var cost bool
	var watch time.Duration
	c := &cobra.Command{
		Use: "status", Short: "Show clusters and machines; exit code 1 if something is not well", Args: cobra.NoArgs,
		Example: "  seaway-lab status\n  seaway-lab status -o json\n  seaway-lab status --cost --for 20s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := o.lab()
			if err != nil {
				return err
			}
			s, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			if cost {
				stages := progress.New(os.Stderr)
				done := stages.Begin("watch the clusters for %s", watch)
				err := s.AddCost(cmd.Context(), watch)
				done(err)
				stages.Close()
				if err != nil {
					return err
				}
			}
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			printStatus(cmd.OutOrStdout(), s)
			if !s.Healthy {
				return fmt.Errorf("not everything is well (phase %q)", s.Phase)
			}
			return nil
		},
	}
	outputFlag(c, &output)
	c.Flags().BoolVar(&cost, "cost", false, "also memory and processor time of each cluster")
	c.Flags().DurationVar(&watch, "for", 10*time.Second, "how long to watch for --cost")
	return c
}

func printStatus(out io.Writer, s lab.Status) {
	fmt.Fprintf(out, "lab %s since %s, state in %s\n\n", s.Phase, s.Started.Format(time.DateTime), s.State)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CLUSTER\tAPI\tNODES\tPODS\tSERVICES\tSERVER\tNETWORK")
	for _, c := range s.Clusters {
		network := c.LAN
		if c.Private {
			network += " behind NAT " + c.Outside
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\t%s\t%s\t%s\n", c.Name, word(c.API, "up", "down"), c.NodesReady, c.Nodes, c.PodCIDR, c.ServiceCIDR, c.Server, network)
	}
	_ = w.Flush()
	fmt.Fprintln(w, "\nMACHINE\tSTATE\tCABLE\tREADY\tIP\tIPV6\tROLE")
	for _, c := range s.Clusters {
		for _, m := range c.Machines {
			ready := "-"
			if m.Ready != nil {
				ready = word(*m.Ready, "yes", "no")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.State, word(m.Cable, "in", "out"), ready, m.IP, m.IPv6, m.Role)
		}
	}
	_ = w.Flush()
	printCost(out, s)
}

func printCost(out io.Writer, s lab.Status) {
	if len(s.Clusters) == 0 || s.Clusters[0].Cost == nil {
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\nCLUSTER\tMEMORY (PSS)\tCPU (of one core)\tPROCESSES")
	var sum lab.Cost
	row := func(name string, c lab.Cost) {
		fmt.Fprintf(w, "%s\t%.0f MiB\t%.1f %%\t%d\n", name, c.PSS, c.CPU, c.Processes)
	}
	for _, c := range s.Clusters {
		row(c.Name, *c.Cost)
		sum.PSS, sum.CPU, sum.Processes = sum.PSS+c.Cost.PSS, sum.CPU+c.Cost.CPU, sum.Processes+c.Cost.Processes
	}
	row("all", sum)
	_ = w.Flush()
}

func word(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
