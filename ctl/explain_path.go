package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"seaway.dev/seaway/fleet"
)

// PathAccount is the way that a node's packets take to another node on a slice, and why that one.
type PathAccount struct {
	From string `json:"from"` // cluster/node
	fleet.PeerState
}

// accountOf says why in every case, also where the prober has nothing to add.
func accountOf(from string, p fleet.PeerState) PathAccount {
	if p.Why == "" {
		kind, _, _ := strings.Cut(p.Path, " ")
		switch {
		case kind == "direct":
			p.Why = "the nodes reach each other"
		case kind == "relay":
			p.Why = "the nodes do not reach each other, or one of them cannot be dialled: a gateway relays, unread"
		case p.State == fleet.ReachUp:
			p.Why = "nothing was sent yet; probes reach the node, and the first packet takes the best way"
		default:
			p.Why = "no way is known yet"
		}
	}
	return PathAccount{from, p}
}

// measured is the round trip and the loss, for people.
func (a PathAccount) measured() (rtt, loss string) {
	if a.RTT <= 0 {
		return "-", "-"
	}
	return a.RTT.Round(100 * time.Microsecond).String(), fmt.Sprintf("%.0f%%", 100*a.Loss)
}

func (c *cli) explainPathCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "path FROM TO", Short: "Show which way packets take between two nodes or pods, and why", Args: cobra.ExactArgs(2),
		Long: `Show which way packets take from a node of this cluster to another node, on each slice that both
host: directly or by which gateway, what probes measure of it, and why it is that way. FROM is a node or a
pod (NAMESPACE/NAME) of this cluster; TO is CLUSTER/NODE, or a node or pod of this cluster. It tells what
the controller heard last, a minute ago at most.`,
		Example: "  seaway explain path c1n1 tokyo/n2\n  seaway explain path shop/web-0 tokyo/n2 -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			st, err := t.memberStatus(cmd.Context())
			if err != nil {
				return err
			}
			list, err := pathsBetween(st, args[0], args[1])
			if err != nil {
				return err
			}
			return c.show(list, func() error { _, err := io.WriteString(c.Out, pathsText(list)); return err })
		},
	}
	c.outputFlag(cmd)
	return cmd
}

// memberStatus is what this cluster's controller says; an error with what to do if this is no member.
func (t *target) memberStatus(ctx context.Context) (*fleet.Status, error) {
	st, err := t.status(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fail(ExitRefused, "no controller of Seaway has written its status on %s", t.rest.Host).
			then("name a member with --kubeconfig or --context; if this is one: kubectl -n seaway-system get pods")
	case err == nil && st == nil:
		return nil, fail(ExitRefused, "the status on %s cannot be read", t.rest.Host).then("use the seaway of the controller's version: kubectl -n seaway-system get deploy -o wide")
	}
	return st, err
}

// nodeNamed finds the node that a name stands for: CLUSTER/NODE, a node of this cluster, or a pod of this cluster.
func nodeNamed(st *fleet.Status, name string) (id string, found bool) {
	if ns, pod, ok := strings.Cut(name, "/"); ok {
		for _, n := range st.Nodes {
			for _, p := range n.Pods {
				if p.Namespace == ns && p.Pod == pod {
					return st.Cluster + "/" + n.Name, true
				}
			}
		}
		if ns != st.Cluster {
			return name, true // of another cluster, whose nodes are not listed here
		}
		name = pod
	}
	for _, n := range st.Nodes {
		if n.Name == name {
			return st.Cluster + "/" + name, true
		}
	}
	return "", false
}

// pathsBetween lists the ways from one node to another, one a slice.
func pathsBetween(st *fleet.Status, from, to string) ([]PathAccount, error) {
	a, okA := nodeNamed(st, from)
	b, okB := nodeNamed(st, to)
	if mine := okA && strings.HasPrefix(a, st.Cluster+"/"); !mine || !okB {
		return nil, fail(ExitUsage, "cluster %s has no node or attached pod %q", st.Cluster, map[bool]string{true: to, false: from}[mine]).
			then("seaway status    # lists the nodes; from another cluster's nodes, ask that cluster")
	}
	if a == b {
		return []PathAccount{{a, fleet.PeerState{Peer: b, Path: "local", Why: "both are on this node: packets stay in the slice's own namespace there"}}}, nil
	}
	var out []PathAccount
	hosts := ""
	for _, n := range st.Nodes {
		if st.Cluster+"/"+n.Name != a {
			continue
		}
		hosts = strings.Join(n.Slices, ", ")
		for _, p := range n.Peers {
			if p.Peer == b {
				out = append(out, accountOf(a, p))
			}
		}
	}
	if out == nil {
		return nil, fail(ExitRefused, "%s has no way to %s, and needs none: nodes are peers while both host pods of a slice (%s hosts %s)", a, b, a, cmp.Or(hosts, "none")).
			then("seaway explain slice NAME    # who hosts a slice")
	}
	return out, nil
}

func pathsText(list []PathAccount) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 3, ' ', 0)
	fmt.Fprintf(w, "%s > %s\n", list[0].From, list[0].Peer)
	fmt.Fprintln(w, "SLICE\tPATH\tSTATE\tRTT\tLOSS\tHANDSHAKE\tWHY")
	for _, p := range list {
		rtt, loss := p.measured()
		handshake := "-"
		if !p.Handshake.IsZero() {
			handshake = time.Since(p.Handshake).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(p.Slice), p.Path, dash(string(p.State)), rtt, loss, handshake, p.Why)
	}
	_ = w.Flush()
	return b.String()
}
