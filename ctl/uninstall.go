package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/install"
)

func (c *cli) uninstallCmd() *cobra.Command {
	var o leaveOptions
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Remove Seaway from this cluster: the member, or with `hub` the hub", Args: cobra.NoArgs,
		Long:    "Remove everything of Seaway from this cluster. On a member that is the same as `seaway leave`;\na hub is removed by `seaway uninstall hub`.",
		Example: "  seaway uninstall\n  seaway uninstall hub",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			member, err := t.isMember(cmd.Context())
			if err != nil {
				return err
			}
			hub, err := t.isHub(cmd.Context())
			if err != nil {
				return err
			}
			if !member && hub {
				return usage("this cluster is a hub and no member").then("seaway uninstall hub")
			}
			return c.leave(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.force, "force", false, "go on when nodes or the hub do not answer, and say what is left behind")
	cmd.Flags().DurationVar(&o.wait, "wait", 2*time.Minute, "how long to wait for the nodes")
	var force bool
	hub := &cobra.Command{
		Use: "hub", Short: "Remove the hub, its kinds, and every member's mailbox", Args: cobra.NoArgs,
		Long: `Remove the hub. Its slices and clusters are gone with it, so it refuses while there are
clusters in the fleet: let them leave first. With --force it goes on; the members keep
running as they are, until you run seaway leave --force on them.`,
		Example: "  seaway uninstall hub\n  seaway uninstall hub --force",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.uninstallHub(cmd.Context(), force) },
	}
	hub.Flags().BoolVar(&force, "force", false, "also when there are clusters in the fleet")
	cmd.AddCommand(hub, c.uninstallAutoscalerCmd())
	return cmd
}

func (c *cli) uninstallHub(ctx context.Context, force bool) error {
	t, err := c.connect()
	if err != nil {
		return err
	}
	p := c.progress()
	is, err := t.isHub(ctx)
	if err != nil {
		return err
	}
	var clusters v1alpha1.ClusterList
	if is {
		if err := t.List(ctx, &clusters); err != nil && !meta.IsNoMatchError(err) {
			return err
		}
	}
	clusters.Items = slices.DeleteFunc(clusters.Items, func(cl v1alpha1.Cluster) bool { return cl.DeletionTimestamp != nil })
	if n := len(clusters.Items); n > 0 && !force {
		return fail(ExitRefused, "still in the fleet: %s, %s among them", fleet.Count(n, "cluster"), clusters.Items[0].Name).
			then("run `seaway leave` on each of them first; or `seaway uninstall hub --force`")
	}
	if is {
		err := p.step("slices and clusters are removed", func(say func(string)) (string, error) { return t.clearFleet(ctx, say) })
		if err != nil {
			return err
		}
	}
	return p.step("Seaway's objects are removed", func(say func(string)) (string, error) {
		n := 0
		told := func(what string) { n++; say(what) }
		if err := install.RemoveHub(ctx, t, told); err != nil {
			return "", err
		}
		if err := t.removeDefinitions(ctx, install.Hub(install.HubOptions{}), told); err != nil {
			return "", err
		}
		member, err := t.isMember(ctx)
		if err != nil {
			return "", err
		}
		names := []string{place.Joins, place.Renewal, place.Members}
		scaler, err := t.hasAutoscaler(ctx)
		if err != nil {
			return "", err
		}
		if !member && !scaler {
			names = append(names, install.Namespace)
		}
		return fmt.Sprintf("%d objects", n), install.RemoveNamespaces(ctx, t, told, names...)
	})
}

// clearFleet removes slices and clusters while the hub still runs, and, where it does not, what the hub would have.
func (t *target) clearFleet(ctx context.Context, say func(string)) (string, error) {
	if err := t.DeleteAllOf(ctx, &v1alpha1.Slice{}); err != nil {
		return "", err
	}
	if err := t.DeleteAllOf(ctx, &v1alpha1.Cluster{}); err != nil {
		return "", err
	}
	var list v1alpha1.ClusterList
	err := poll(ctx, 20*time.Second, 300*time.Millisecond, func() (bool, error) {
		if err := t.List(ctx, &list); err != nil {
			return false, err
		}
		say(fleet.Count(len(list.Items), "cluster") + " left")
		return len(list.Items) == 0, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		return "", err
	}
	// The hub does not run: do its work.
	for i := range list.Items {
		cl := &list.Items[i]
		for _, o := range place.ForMember(cl.Name) {
			if err := t.Delete(ctx, o); err != nil && !apierrors.IsNotFound(err) {
				return "", err
			}
		}
		before := cl.DeepCopy()
		cl.Finalizers = nil
		if err := t.Patch(ctx, cl, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return "", err
		}
	}
	return "the hub does not run, so it was done from here", nil
}

// removeDefinitions removes those of the objects that define kinds, and waits until they are gone.
func (t *target) removeDefinitions(ctx context.Context, objects []client.Object, told func(string)) error {
	for _, o := range objects {
		if o.GetObjectKind().GroupVersionKind().Kind != "CustomResourceDefinition" {
			continue
		}
		if err := t.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return err
		}
		told(o.GetName())
		if err := install.Gone(ctx, t, o); err != nil {
			return err
		}
	}
	return nil
}
