package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"time"

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
	cmd.AddCommand(node, c.explainAutoscalerCmd())
	return cmd
}

// wantOf asks an agent what its node should be.
func wantOf(ctx context.Context, socket string) (plan.Node, error) {
	var want plan.Node
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer web.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/want", nil)
	if err != nil {
		return want, err
	}
	answer, err := web.Do(req)
	if err != nil {
		return want, fail(ExitRefused, "no agent answers on %s: %v", socket, err).
			then("run it on a node of a member, or in the agent's pod:\nkubectl -n seaway-system exec ds/seaway-agent -- /seaway explain node")
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return want, fail(ExitRefused, "the agent on %s says %s", socket, answer.Status).then("kubectl -n seaway-system logs ds/seaway-agent")
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, explainLimit)).Decode(&want); err != nil {
		return want, fmt.Errorf("read the plan from %s: %w", socket, err)
	}
	return want, nil
}
