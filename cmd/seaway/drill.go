package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/datapath/hole"
	"seaway.dev/seaway/drill/client"
)

// drillClientCmd is what a drill's client pod runs.
func drillClientCmd() *cobra.Command {
	var to string
	var life time.Duration
	cmd := &cobra.Command{Use: "drill-client", Short: "Ask a service all the time (a role of the image, for seaway drill)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), life)
			defer cancel()
			return client.Run(ctx, os.Stdout, to)
		}}
	cmd.Flags().StringVar(&to, "to", "", "`HOST:PORT`")
	cmd.Flags().DurationVar(&life, "for", time.Minute, "how long")
	return cmd
}

// drillHoleCmd drops packets to peers for a time, in the network namespace it runs in. The kernel closes the hole even
// if this process is killed.
func drillHoleCmd() *cobra.Command {
	var peers []string
	var d time.Duration
	cmd := &cobra.Command{Use: "drill-hole", Short: "Drop packets to and from peers for a while (a role of the image, for seaway drill)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var addrs []netip.AddrPort
			for _, p := range peers {
				a, err := netip.ParseAddrPort(p)
				if err != nil {
					return fmt.Errorf("--peer: %w", err)
				}
				addrs = append(addrs, a)
			}
			if err := hole.Open(addrs, d); err != nil {
				return err
			}
			fmt.Println("open for", d)
			select {
			case <-cmd.Context().Done():
			case <-time.After(d):
			}
			return hole.Close()
		}}
	cmd.Flags().StringSliceVar(&peers, "peer", nil, "`ADDRESS:PORT` (may be given again)")
	cmd.Flags().DurationVar(&d, "for", 10*time.Second, "how long, up to "+hole.Longest.String())
	return cmd
}
