package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/slice/share"
)

// explainServiceCmd prints where a node's traffic to a service goes, and why.
func (c *cli) explainServiceCmd() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use: "service NAMESPACE/NAME", Short: "Print where this node's traffic to a service goes, and why", Args: cobra.ExactArgs(1),
		Long: `Print every endpoint of an imported service as this node sees it: whether it is ready and can be
reached, how far it is, which share of the service address's new connections it gets (or, of a headless
service, in which order the name answers), and why. It asks the agent's socket on the node, so run it there or in the
agent's pod; each node decides for its own pods.`,
		Example: "  kubectl -n seaway-system exec ds/seaway-agent -- /seaway explain service shop/web\n  seaway explain service shop/web --output yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, name, ok := strings.Cut(args[0], "/")
			if !ok || namespace == "" || name == "" {
				return usage("%q: want NAMESPACE/NAME", args[0]).then("seaway explain service shop/web")
			}
			var a share.Account
			if err := askAgent(cmd.Context(), socket, "/v1/services/"+url.PathEscape(namespace)+"/"+url.PathEscape(name), &a); err != nil {
				return err
			}
			return c.show(a, func() error {
				_, err := io.WriteString(c.Out, a.Text())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&socket, "socket", path.Join(plan.RunDir, "agent.sock"), "the agent's `SOCKET`")
	c.outputFlag(cmd)
	return cmd
}

// askAgent asks an agent on its socket for a value.
func askAgent(ctx context.Context, socket, what string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer web.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+what, nil)
	if err != nil {
		return err
	}
	answer, err := web.Do(req)
	if err != nil {
		return fail(ExitRefused, "no agent answers on %s: %v", socket, err).
			then("run it on a node of a member, or in the agent's pod:\nkubectl -n seaway-system exec ds/seaway-agent -- /seaway explain node")
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 300))
		return fail(ExitRefused, "%s", strings.TrimSpace(string(text))).
			then("kubectl get serviceimports -A    # what is imported here")
	default:
		return fail(ExitRefused, "the agent on %s says %s", socket, answer.Status).then("kubectl -n seaway-system logs ds/seaway-agent")
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, explainLimit)).Decode(out); err != nil {
		return fmt.Errorf("read the agent's answer from %s: %w", socket, err)
	}
	return nil
}
