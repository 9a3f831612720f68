package ctl

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
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

// explainAutoscalerCmd tells why replicas are as they are.
func (c *cli) explainAutoscalerCmd() *cobra.Command {
	var ns string
	var n int
	cmd := &cobra.Command{
		Use: "autoscaler NAME", Short: "Show why a workload has its replicas", Args: cobra.ExactArgs(1),
		Long: `Show the newest actions of an Autoscaler: what it saw and how old that was, what it expected, which
start delays it planned with, what bound it, and what an HPA would have done.`,
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
