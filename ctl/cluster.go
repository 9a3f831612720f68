package ctl

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/install"
)

func (c *cli) clusterCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "List, show and delete the fleet's clusters (on the hub)"}
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the clusters", Args: cobra.NoArgs,
		Example: "  seaway cluster list\n  seaway cluster list --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			var list v1alpha1.ClusterList
			if err := t.List(cmd.Context(), &list); err != nil {
				return err
			}
			return c.show(list.Items, func() error { return c.clusterTable(list.Items) })
		}}
	c.outputFlag(list)
	show := &cobra.Command{Use: "show NAME", Short: "Show one cluster with its conditions", Args: cobra.ExactArgs(1),
		Example: "  seaway cluster show paris",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			var cl v1alpha1.Cluster
			if err := t.Get(cmd.Context(), client.ObjectKey{Name: args[0]}, &cl); err != nil {
				return missing(err, "cluster", args[0])
			}
			return c.show(cl, func() error {
				if err := c.clusterTable([]v1alpha1.Cluster{cl}); err != nil {
					return err
				}
				c.conditions(cl.Status.Conditions)
				return nil
			})
		}}
	c.outputFlag(show)
	var wait time.Duration
	del := &cobra.Command{Use: "delete NAME", Short: "Take a cluster out of the fleet and its credential away", Args: cobra.ExactArgs(1),
		Long:    "Take a cluster out of the fleet and its credential away. Use it for a cluster that is gone or that you no\nlonger trust; one that is well leaves by itself with `seaway leave`.",
		Example: "  seaway cluster delete paris",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			cl := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: args[0]}}
			if err := t.Delete(cmd.Context(), cl); err != nil {
				return missing(err, "cluster", args[0])
			}
			return c.progress().step("cluster "+args[0]+" is removed", func(func(string)) (string, error) { return "", t.away(cmd.Context(), cl, wait) })
		}}
	del.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait until it is gone")
	cmd.AddCommand(list, show, del)
	return cmd
}

// away waits until the hub has let an object go.
func (t *target) away(ctx context.Context, o client.Object, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	gvk, err := t.GroupVersionKindFor(o)
	if err != nil {
		return err
	}
	o.GetObjectKind().SetGroupVersionKind(gvk)
	if err := install.Gone(ctx, t, o); err != nil {
		return fail(ExitUnreachable, "%w", err).then("check that the hub runs: kubectl -n %s get deploy %s", install.Namespace, install.HubRole)
	}
	return nil
}

func missing(err error, kind, name string) error {
	if client.IgnoreNotFound(err) == nil {
		return fail(ExitFailed, "there is no %s %s", kind, name).then("seaway %s list", kind)
	}
	return err
}

func (c *cli) clusterTable(list []v1alpha1.Cluster) error {
	w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "CLUSTER\tREADY\tREASON\tNODES\tGATEWAYS\tPRIVATE\tREGION\tLAST SEEN")
	for _, cl := range list {
		state, reason := condition(cl.Status.Conditions, v1alpha1.ClusterReady)
		seen := "-"
		if t := cl.Status.LastSeen; t != nil {
			seen = time.Since(t.Time).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%v\t%s\t%s\n", cl.Name, state, reason, cl.Status.Nodes, cl.Status.Gateways, cl.Spec.Private, dash(cl.Spec.Region), seen)
	}
	return w.Flush()
}

func condition(list []metav1.Condition, typ string) (state, reason string) {
	if cond := meta.FindStatusCondition(list, typ); cond != nil {
		return string(cond.Status), cond.Reason
	}
	return "Unknown", "-"
}

// conditions prints what a table has no room for.
func (c *cli) conditions(list []metav1.Condition) {
	fmt.Fprintln(c.Out)
	for _, cond := range list {
		fmt.Fprintf(c.Out, "%s=%s  %s  since %s\n", cond.Type, cond.Status, cond.Reason, cond.LastTransitionTime.Local().Format(time.DateTime))
		fmt.Fprintf(c.Out, "  %s\n", strings.ReplaceAll(cond.Message, ". Next: ", "\n  next: "))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
