package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/install"
)

// image is the default image of a version.
func (c *cli) image() string { return install.DefaultImage + ":" + c.Version }

func (c *cli) installCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "install", Short: "Install Seaway's hub"}
	var o install.HubOptions
	var dry, atomic bool
	var wait time.Duration
	hub := &cobra.Command{
		Use: "hub", Short: "Make this cluster the hub of a fleet", Args: cobra.NoArgs,
		Long: `Make this cluster the hub: the place where people say what they want of their clusters.
It may be one of the members, too. Its store is the cluster's own API server. Running it
again changes what is to be changed and nothing else.`,
		Example: `  seaway install hub
  seaway install hub --image registry.example/seaway:1.0 --replicas 3
  seaway install hub --dry-run > hub.yaml      # to keep in git, or for kubectl apply`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Replicas < 1 || o.Replicas > 9 {
				return usage("--replicas %d: want 1 to 9 (2 is enough: one works, one waits)", o.Replicas)
			}
			objs := install.Hub(o)
			if dry {
				return c.printYAML(objs)
			}
			return c.installHub(cmd.Context(), objs, atomic, wait)
		},
	}
	f := hub.Flags()
	f.StringVar(&o.Image, "image", c.image(), "`IMAGE` of Seaway, with its tag")
	f.Int32Var(&o.Replicas, "replicas", 2, "how many hubs run; one works, the others wait")
	f.BoolVar(&dry, "dry-run", false, "print the objects and change nothing")
	f.BoolVar(&atomic, "atomic", true, "when it fails, take back what this run made")
	f.DurationVar(&wait, "wait", 3*time.Minute, "how long to wait until the hub runs; 0: do not wait")
	cmd.AddCommand(hub, c.installAutoscalerCmd())
	return cmd
}

func (c *cli) printYAML(objs []client.Object) error {
	b, err := install.YAML(objs)
	if err != nil {
		return err
	}
	_, err = c.Out.Write(b)
	return err
}

func (c *cli) installHub(ctx context.Context, objs []client.Object, atomic bool, wait time.Duration) error {
	t, err := c.connect()
	if err != nil {
		return err
	}
	p := c.progress()
	if err := p.step("you may install here", func(func(string)) (string, error) { return t.mayInstall(ctx) }); err != nil {
		return err
	}
	done, err := c.applyAll(ctx, p, t, "objects of the hub", objs)
	if err == nil && wait > 0 {
		err = p.step("hub runs", func(say func(string)) (string, error) {
			return t.rollout(ctx, wait, say, &appsv1.Deployment{}, install.HubRole)
		})
	}
	if err != nil {
		return c.takeBack(ctx, p, t, done, atomic, "seaway install hub", err)
	}
	p.tell("\nThe hub is ready. Next, for each cluster:\n  seaway token create NAME        # here\n  seaway join --token …           # there")
	return nil
}

// applyAll applies objects and tells how many it changed.
func (c *cli) applyAll(ctx context.Context, p *progress, t *target, what string, objs []client.Object) ([]install.Change, error) {
	var done []install.Change
	err := p.step(what, func(say func(string)) (string, error) {
		count := map[string]int{}
		var err error
		done, err = install.Apply(ctx, t, objs, func(ch install.Change) {
			count[ch.Did]++
			say(ch.Name())
		})
		if err == nil {
			err = t.established(ctx, objs)
		}
		return fmt.Sprintf("%d created, %d changed, %d unchanged", count["created"], count["changed"], count["unchanged"]), err
	})
	return done, err
}

// takeBack undoes a failed run, or says what is there and how to go on.
func (c *cli) takeBack(ctx context.Context, p *progress, t *target, done []install.Change, atomic bool, again string, cause error) error {
	if len(done) == 0 {
		return fmt.Errorf("%w; nothing was changed", cause)
	}
	if !atomic {
		f := explain(cause)
		return fail(f.code, "%w; %d objects are there, the last is %s", cause, len(done), done[len(done)-1].Name()).
			then("mend the cause and run `%s` again: it goes on from there", again)
	}
	// The caller's context may be what ended: undoing has its own time.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := p.step("take back what this run made", func(func(string)) (string, error) { return "", install.Undo(ctx, t, done) })
	if err != nil {
		return fail(ExitPartial, "%w; and taking it back failed: %v", cause, err).then("mend the cause and run `%s` again, or `seaway uninstall`", again)
	}
	f := explain(cause)
	out := fail(f.code, "%w; what this run had made was taken back", cause)
	out.next = fmt.Sprintf("mend the cause and run `%s` again; with --atomic=false what was made stays, to look at", again)
	if f.next != "" {
		out.next = f.next + "\n" + out.next
	}
	return out
}

// established waits until the API server serves the kinds that were just defined.
func (t *target) established(ctx context.Context, objs []client.Object) error {
	for _, o := range objs {
		if _, ok := o.(*apiextensionsv1.CustomResourceDefinition); !ok {
			continue
		}
		err := poll(ctx, 30*time.Second, 100*time.Millisecond, func() (bool, error) {
			var crd apiextensionsv1.CustomResourceDefinition
			if err := t.Get(ctx, client.ObjectKeyFromObject(o), &crd); err != nil {
				return false, client.IgnoreNotFound(err)
			}
			for _, c := range crd.Status.Conditions {
				if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
					return true, nil
				}
			}
			return false, nil
		})
		if err != nil {
			return fmt.Errorf("wait until %s is served: %w", o.GetName(), err)
		}
	}
	return nil
}

// poll asks until the answer is yes, an error, or time is up (context.DeadlineExceeded).
func poll(ctx context.Context, total, every time.Duration, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, total)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := ask(); err != nil && !apierrors.IsServerTimeout(err) {
			return err
		} else if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
