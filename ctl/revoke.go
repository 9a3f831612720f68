package ctl

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
)

func (c *cli) nodeCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Revoke a node of a cluster and admit it again (on the hub)"}
	revoke := &cobra.Command{
		Use: "revoke CLUSTER/NODE", Short: "Have every node of the fleet refuse a node", Args: cobra.ExactArgs(1),
		Long: `Have every node of the fleet refuse a node, within seconds: one that was lost, stolen or broken into.
None of its keys is taken any more, of no slice, not by gateways, not on the management slice, and no
key that it makes later; its pods are taken off their slices. It stays so, whatever is restarted and
whoever cannot be reached, until somebody admits the node again. Who may write Clusters on the hub may
do this. It does not end the node's rights in its own cluster: delete it there as well.
For a whole cluster: seaway cluster delete CLUSTER, which takes its credential away, too.`,
		Example: `  seaway node revoke paris/worker-3
  kubectl --context paris delete node worker-3
  seaway cluster show paris               # which nodes are revoked`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.revoke(cmd.Context(), args[0], true) },
	}
	readmit := &cobra.Command{
		Use: "readmit CLUSTER/NODE", Short: "Admit a revoked node again", Args: cobra.ExactArgs(1),
		Long: `Admit a revoked node again, once it is made anew or found innocent. A node that could hear that it was
revoked has thrown its slices' keys away a minute later and makes new ones. If somebody else may have read
its keys, remove /var/lib/seaway/keys there and delete the tunnel's pod before: else the one of the
management slice is still the old one.`,
		Example: "  seaway node readmit paris/worker-3",
		RunE:    func(cmd *cobra.Command, args []string) error { return c.revoke(cmd.Context(), args[0], false) },
	}
	cmd.AddCommand(revoke, readmit)
	return cmd
}

// revoke puts a node on its cluster's list of those that are refused, or takes it off.
func (c *cli) revoke(ctx context.Context, id string, refuse bool) error {
	cluster, node, ok := strings.Cut(id, "/")
	if !ok || cluster == "" || node == "" || strings.Contains(node, "/") {
		return usage("%q: want CLUSTER/NODE, like paris/worker-3", id)
	}
	t, err := c.connect()
	if err != nil {
		return err
	}
	changed := false
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var cl v1alpha1.Cluster
		if err := t.Get(ctx, client.ObjectKey{Name: cluster}, &cl); err != nil {
			return missing(err, "cluster", cluster)
		}
		before := cl.DeepCopy()
		changed = slices.Contains(cl.Spec.RevokedNodes, node) != refuse
		if !changed {
			return nil
		}
		if refuse {
			cl.Spec.RevokedNodes = append(cl.Spec.RevokedNodes, node)
		} else {
			cl.Spec.RevokedNodes = slices.DeleteFunc(cl.Spec.RevokedNodes, func(n string) bool { return n == node })
		}
		return t.Patch(ctx, &cl, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
	if err != nil {
		return err
	}
	p := c.progress()
	switch {
	case !refuse && !changed:
		p.tell("node %s was not revoked: nothing to do", id)
	case !refuse:
		p.tell("node %s is admitted again; its pods come back to their slices within seconds", id)
	default:
		p.tell("node %s is revoked: every node refuses it within seconds", id)
		return c.deaf(ctx, t, p)
	}
	return nil
}

// deaf says which clusters may not have heard of it yet.
func (c *cli) deaf(ctx context.Context, t *target, p *progress) error {
	var all v1alpha1.ClusterList
	if err := t.List(ctx, &all); err != nil {
		return err
	}
	var silent []string
	for _, cl := range all.Items {
		if state, _ := condition(cl.Status.Conditions, v1alpha1.ClusterReady); state != "True" {
			silent = append(silent, cl.Name)
		}
	}
	if silent != nil {
		p.tell("not heard from now: %s; they hear of it from the node's own cluster, or when they are back", strings.Join(silent, ", "))
	}
	return nil
}
