package ctl

import (
	"context"
	"encoding/json"
	"io"
	"path"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/slice/plan"
)

// explainLimit is the largest plan that explain reads: far more than a node with thousands of services has.
const explainLimit = 64 << 20

// explainCmd prints the value that says what a node should be: the one that its agent compares with the kernel.
func (c *cli) explainCmd() *cobra.Command {
	var socket string
	var asJSON bool
	node := &cobra.Command{
		Use: "node", Short: "Print what this node should be", Args: cobra.NoArgs,
		Long: `Print what this node should be, as its agent compiled it: slices, pods, routes, services, peers and
the ways to them, and what it relays. It asks the agent's socket on the node, so run it there or in the
agent's pod.`,
		Example: "  kubectl -n seaway-system exec ds/seaway-agent -- /seaway explain node\n  seaway explain node --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := wantOf(cmd.Context(), socket)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(c.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(want)
			}
			_, err = io.WriteString(c.Out, want.Text())
			return err
		},
	}
	node.Flags().StringVar(&socket, "socket", path.Join(plan.RunDir, "agent.sock"), "the agent's `SOCKET`")
	node.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd := &cobra.Command{Use: "explain", Short: "Show why things are as they are"}
	cmd.AddCommand(c.explainSliceCmd(), c.explainPodCmd(), c.explainServiceCmd(), c.explainPathCmd(), node, c.explainAutoscalerCmd())
	return cmd
}

// wantOf asks an agent what its node should be.
func wantOf(ctx context.Context, socket string) (plan.Node, error) {
	var want plan.Node
	err := askAgent(ctx, socket, "/v1/want", &want)
	return want, err
}
