package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/place"
)

func (c *cli) sliceRotateCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "rotate NAME", Short: "Change the keys of a slice on all its nodes, under load", Args: cobra.ExactArgs(1),
		Long: `Change the keys of a slice: each node that hosts it makes a new one, and both are in use until
every node is spoken with by the new one and the old one has had its rest. No packet is lost and no
connection notices. A node that is away keeps its old key with the others until it is back.
To have it done regularly: seaway slice create NAME --key-rotation 24h.`,
		Example: `  seaway slice rotate pay
  seaway slice rotate pay --wait 2m   # until no node has an old key any more
  seaway slice show pay               # how old the keys are, and how far a change is`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.rotateSlice(cmd.Context(), args[0], wait) },
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until it is done on all nodes; 0: do not wait")
	return cmd
}

func (c *cli) rotateSlice(ctx context.Context, name string, wait time.Duration) error {
	t, err := c.connect()
	if err != nil {
		return err
	}
	asked := time.Now().UTC().Format(time.RFC3339Nano)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.RotateAnnotation: asked}}})
	if err != nil {
		return err
	}
	s := &v1alpha1.Slice{}
	s.Name = name
	if err := t.Patch(ctx, s, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return missing(err, "slice", name)
	}
	p := c.progress()
	if wait == 0 {
		p.tell("the nodes of slice %s change their keys; see how far they are with seaway slice show %s", name, name)
		return nil
	}
	return p.step("keys of slice "+name+" changed", func(say func(string)) (string, error) {
		var s v1alpha1.Slice
		err := poll(ctx, wait, 200*time.Millisecond, func() (bool, error) {
			if err := t.Get(ctx, client.ObjectKey{Name: name}, &s); err != nil {
				return false, err
			}
			k := s.Status.Keys
			if k == nil || k.Asked != asked {
				say("waiting for the hub, or for an earlier change")
				return false, nil
			}
			say(keysLine(k, time.Now()))
			return k.Done == k.Nodes, nil
		})
		if err != nil {
			return "", fail(ExitUnreachable, "the change was asked for and is not done: %w", err).
				then("it goes on by itself; see which nodes are behind: seaway slice show %s; and that the hub runs: kubectl -n %s get deploy seaway-hub", name, place.System)
		}
		return keysLine(s.Status.Keys, time.Now()), nil
	})
}

// keysAge tells how old a slice's keys are at most: "3h0m0s old", or how far a change is.
func keysAge(s *v1alpha1.Slice, now time.Time) string {
	k, since := s.Status.Keys, s.CreationTimestamp.Time
	if k != nil && k.Generation > 0 && k.Since != nil {
		since = k.Since.Time
	}
	age := now.Sub(since).Round(time.Second).String() + " old"
	if k != nil && k.Done < k.Nodes {
		age += fmt.Sprintf(", %d of %d nodes", k.Done, k.Nodes)
	}
	return age
}

// keysLine tells of which generation a slice's keys are, how old, and how far a change is.
func keysLine(k *v1alpha1.SliceKeys, now time.Time) string {
	age := "age unknown"
	if k.Since != nil {
		age = now.Sub(k.Since.Time).Round(time.Second).String() + " old"
	}
	if k.Done == k.Nodes {
		return fmt.Sprintf("generation %d, %s, on all %d nodes", k.Generation, age, k.Nodes)
	}
	return fmt.Sprintf("generation %d, %s, on %d of %d nodes; %d have no older ones any more", k.Generation, age, k.New, k.Nodes, k.Done)
}
