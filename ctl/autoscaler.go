package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/install"
	"seaway.dev/seaway/scale/record"
)

// installAutoscalerCmd installs the autoscaler alone.
func (c *cli) installAutoscalerCmd() *cobra.Command {
	var o install.AutoscalerOptions
	var dry bool
	cmd := &cobra.Command{
		Use: "autoscaler", Short: "Install the autoscaler on this cluster", Args: cobra.NoArgs,
		Long: `Install the autoscaler on this cluster. It needs metrics in a Prometheus and nothing else of
Seaway. It scales nothing until you make an Autoscaler.`,
		Example: `  seaway install autoscaler --prometheus http://prometheus.monitoring:9090
  seaway install autoscaler --dry-run > autoscaler.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			objs := install.Autoscaler(o)
			if dry {
				return c.printYAML(objs)
			}
			t, err := c.connect()
			if err != nil {
				return err
			}
			if _, err := c.applyAll(cmd.Context(), c.progress(), t, "objects of the autoscaler", objs); err != nil {
				return fail(ExitFailed, "install the autoscaler: %w", err).then("run the same command again to go on")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Image, "image", c.image(), "`IMAGE` of Seaway, with its tag")
	f.StringVar(&o.Prometheus, "prometheus", "", "`URL` of the Prometheus for Autoscalers that name none")
	f.BoolVar(&dry, "dry-run", false, "print the objects and change nothing")
	return cmd
}

// uninstallAutoscalerCmd removes the autoscaler; HPAs take over.
func (c *cli) uninstallAutoscalerCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "autoscaler", Short: "Remove the autoscaler; what it scaled is left to HPAs", Args: cobra.NoArgs,
		Long: `Remove the autoscaler from this cluster. First every Autoscaler is switched off, which leaves an
HPA in charge of its workload; then the autoscaler, what it has learnt, and its kind are removed.`,
		Example: "  seaway uninstall autoscaler",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			return c.uninstallAutoscaler(cmd.Context(), t, wait)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the HPAs")
	return cmd
}

func (c *cli) uninstallAutoscaler(ctx context.Context, t *target, wait time.Duration) error {
	p := c.progress()
	err := p.step("HPAs take over", func(say func(string)) (string, error) { return t.switchOff(ctx, wait, say) })
	if err != nil {
		return fail(ExitFailed, "%w", err).then("see what Ready says in kubectl get autoscalers.seaway.dev -A -o wide; delete an Autoscaler that nobody needs, and run the same command again")
	}
	return p.step("objects of the autoscaler are removed", func(say func(string)) (string, error) {
		n := 0
		told := func(what string) { n++; say(what) }
		if err := install.RemoveAutoscaler(ctx, t, told); err != nil {
			return "", err
		}
		if err := t.removeDefinitions(ctx, install.Autoscaler(install.AutoscalerOptions{}), told); err != nil {
			return "", err
		}
		if err := t.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(install.Namespace), client.HasLabels{"seaway.dev/autoscaler-memory"}); err != nil {
			return "", err
		}
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: install.Namespace, Name: install.AutoscalerRole}}
		if err := t.Delete(ctx, lease); client.IgnoreNotFound(err) != nil {
			return "", err
		}
		hub, err := t.isHub(ctx)
		if err != nil {
			return "", err
		}
		member, err := t.isMember(ctx)
		if err == nil && !hub && !member {
			err = install.RemoveNamespaces(ctx, t, told, install.Namespace)
		}
		return fmt.Sprintf("%d objects", n), err
	})
}

// switchOff switches every Autoscaler off and waits until each says that an HPA is in charge.
func (t *target) switchOff(ctx context.Context, wait time.Duration, say func(string)) (string, error) {
	var list v1alpha1.AutoscalerList
	err := t.List(ctx, &list)
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return "no Autoscalers", nil
	} else if err != nil {
		return "", err
	}
	for i := range list.Items {
		as := &list.Items[i]
		before := as.DeepCopy()
		as.Spec.Mode = v1alpha1.ModeOff
		if err := t.Patch(ctx, as, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("switch %s/%s off: %w", as.Namespace, as.Name, err)
		}
	}
	total, left := len(list.Items), ""
	err = poll(ctx, wait, 300*time.Millisecond, func() (bool, error) {
		if err := t.List(ctx, &list); err != nil {
			return false, err
		}
		for _, as := range list.Items {
			r := meta.FindStatusCondition(as.Status.Conditions, v1alpha1.AutoscalerReady)
			if as.Status.Mode != v1alpha1.ModeOff || as.Status.ObservedGeneration != as.Generation || r == nil || r.Status != metav1.ConditionTrue {
				left = as.Namespace + "/" + as.Name
				say("wait for " + left)
				return false, nil
			}
		}
		return true, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return "", fmt.Errorf("the Autoscaler %s has not handed over to an HPA within %s", left, wait)
	}
	return fmt.Sprintf("%d of them", total), err
}

// hasAutoscaler tells whether the autoscaler runs in this cluster, too.
func (t *target) hasAutoscaler(ctx context.Context) (bool, error) {
	var d appsv1.Deployment
	err := t.Get(ctx, client.ObjectKey{Namespace: install.Namespace, Name: install.AutoscalerRole}, &d)
	return err == nil, client.IgnoreNotFound(err)
}

// explainAutoscalerCmd tells why replicas are as they are.
func (c *cli) explainAutoscalerCmd() *cobra.Command {
	var ns string
	var n int
	cmd := &cobra.Command{
		Use: "autoscaler NAME", Short: "Show why a workload has its replicas", Args: cobra.ExactArgs(1),
		Long: `Show the newest actions of an Autoscaler: what it saw and how old that was, what it expected, which
start delays it planned with, what bound it, and what an HPA would have done. Where clusters divide
their pods (spec.across), it shows how, with each cluster's delays, price and reason.`,
		Example: "  seaway explain autoscaler web -n shop\n  seaway explain autoscaler web -n shop --last 5 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			key := client.ObjectKey{Namespace: c.namespace(ns), Name: args[0]}
			as := &v1alpha1.Autoscaler{}
			if err := t.Get(cmd.Context(), key, as); apierrors.IsNotFound(err) {
				return fail(ExitFailed, "there is no Autoscaler %s", key).then("kubectl get autoscalers.seaway.dev -A")
			} else if meta.IsNoMatchError(err) {
				return fail(ExitRefused, "this cluster does not know Autoscalers").then("seaway install autoscaler")
			} else if err != nil {
				return err
			}
			recs, err := recordsOf(as, n)
			if err != nil {
				return err
			}
			return c.show(recs, func() error { return c.tellRecords(as, recs) })
		},
	}
	c.namespaceFlag(cmd, &ns)
	cmd.Flags().Lookup("namespace").Usage = "`NAMESPACE` of the Autoscaler (default: the context's)"
	cmd.Flags().IntVar(&n, "last", 1, "how many actions to show, the newest first")
	c.outputFlag(cmd)
	return cmd
}

func recordsOf(as *v1alpha1.Autoscaler, n int) ([]record.Record, error) {
	out := []record.Record{}
	for _, text := range as.Status.Records[:max(0, min(n, len(as.Status.Records)))] {
		var r record.Record
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("the status of Autoscaler %s/%s holds a record that makes no sense: %w", as.Namespace, as.Name, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (c *cli) tellRecords(as *v1alpha1.Autoscaler, recs []record.Record) error {
	s := as.Status
	w := tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "%s %s/%s:\t%d replicas, wants %d; HPA would have %d; mode %s", as.Spec.Target.Kind, as.Namespace, as.Spec.Target.Name, s.Replicas, s.Wants, s.HPA, s.Mode)
	if s.ModeWhy != "" {
		fmt.Fprintf(w, " (%s)", s.ModeWhy)
	}
	fmt.Fprintf(w, "\nNow:\t%s\n", s.Why)
	if s.Place != "" && s.Place != s.Why {
		fmt.Fprintf(w, "Clusters:\t%s\n", s.Place)
	}
	if r := meta.FindStatusCondition(s.Conditions, v1alpha1.AutoscalerReady); r != nil && r.Status != "True" {
		fmt.Fprintf(w, "%s:\t%s\n", r.Reason, r.Message)
	}
	if len(recs) == 0 {
		fmt.Fprintf(w, "Actions:\tnone yet\n")
	}
	for _, r := range recs {
		fmt.Fprintln(w)
		for _, l := range r.Lines() {
			fmt.Fprintf(w, "%s:\t%s\n", l[0], l[1])
		}
	}
	return w.Flush()
}
