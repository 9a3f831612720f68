package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab/config"
	"seaway.dev/seaway/lab/host"
	"seaway.dev/seaway/lab/progress"
	"seaway.dev/seaway/lab/state"
)

type upFlags struct {
	clusters, nodes        int
	file                   string
	only, private          []string
	noDNS, noIPv6, metrics bool
}

func upCommand(o *options) *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use: "up", Short: "Start a lab and wait until it is usable", Args: cobra.NoArgs,
		Long: `Builds what is not built yet (about 8 minutes the first time), starts all clusters
at once and returns when their nodes are Ready and their DNS answers.`,
		Example: `  seaway-lab up
  seaway-lab up --clusters 2 --nodes 1 --no-dns
  seaway-lab up --only hub,c1
  seaway-lab up --config lab.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := f.config(cmd)
			if err != nil {
				return err
			}
			l, err := o.lab()
			if err != nil {
				return err
			}
			start := time.Now()
			stages := progress.New(os.Stderr)
			err = l.Up(cmd.Context(), conf, stages)
			stages.Close()
			if err == nil {
				fmt.Fprintf(os.Stderr, "up after %.1f s; try: seaway-lab status\n", time.Since(start).Seconds())
			}
			return err
		},
	}
	c.Flags().IntVar(&f.clusters, "clusters", 3, "member clusters, besides the hub")
	c.Flags().IntVar(&f.nodes, "nodes", 2, "nodes of each member cluster")
	c.Flags().StringVar(&f.file, "config", "", "YAML file that describes the clusters (see `seaway-lab config`)")
	c.Flags().StringSliceVar(&f.only, "only", nil, "start only these clusters of the layout")
	c.Flags().StringSliceVar(&f.private, "private", nil, "put these clusters behind a NAT (default c3)")
	c.Flags().BoolVar(&f.noDNS, "no-dns", false, "without CoreDNS")
	c.Flags().BoolVar(&f.noIPv6, "no-ipv6", false, "without IPv6 on the underlay")
	c.Flags().BoolVar(&f.metrics, "metrics", false, "with metrics-server (built the first time)")
	return c
}

func (f upFlags) config(cmd *cobra.Command) (config.Config, error) {
	c := config.Default(f.clusters, f.nodes)
	if f.file != "" {
		if cmd.Flags().Changed("clusters") || cmd.Flags().Changed("nodes") || cmd.Flags().Changed("private") {
			return c, errors.New("--clusters, --nodes and --private describe the layout, and so does --config; use one of the two ways")
		}
		var err error
		if c, err = config.Load(f.file); err != nil {
			return c, err
		}
	}
	if cmd.Flags().Changed("private") {
		if err := c.SetPrivate(f.private); err != nil {
			return c, err
		}
	}
	if f.noDNS {
		c.DNS = new(false)
	}
	if f.noIPv6 {
		c.IPv6 = new(false)
	}
	c.Metrics = c.Metrics || f.metrics
	if len(f.only) > 0 {
		// Numbers are given before some are dropped, so addresses stay the same.
		if err := c.Complete(); err != nil {
			return c, err
		}
		return c, c.Keep(f.only)
	}
	return c, nil
}

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the lab and everything it made", Args: cobra.NoArgs,
		Long:    "Also after a crash, also twice: goes by what is recorded on disk and by the lab's own names. Built binaries and images stay in the cache.",
		Example: "  seaway-lab down",
		RunE: func(*cobra.Command, []string) error {
			l, err := o.lab()
			if err != nil {
				return err
			}
			if _, err := l.Dir.Load(); errors.Is(err, state.ErrNone) {
				fmt.Fprintln(os.Stderr, "no lab is recorded in", l.Dir)
			}
			stages := progress.New(os.Stderr)
			defer stages.Close()
			done := stages.Begin("take the lab down")
			err = l.Down()
			done(err)
			return err
		},
	}
}

func setupCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "setup", Short: "Install packages and build binaries and images ahead of the first `up`", Args: cobra.NoArgs,
		Example: "  seaway-lab setup",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := host.CheckRoot(); err != nil {
				return err
			}
			l, err := o.lab()
			if err != nil {
				return err
			}
			stages := progress.New(os.Stderr)
			defer stages.Close()
			p, err := l.Prepare(cmd.Context(), false, stages)
			if err == nil {
				stages.Note("ready: binaries in %s, images in %s", p.Bin, p.Seed.Dir)
			}
			return err
		},
	}
}
