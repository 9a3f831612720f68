package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/drill"
	"seaway.dev/seaway/drill/field"
)

func (c *cli) drillCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "drill", Short: "Rehearse a failure on this cluster, measured, and always undone",
		Example: "  seaway drill list\n  seaway drill run delete-pod web -n shop\n  seaway drill run blackhole-peer web -n shop --peer c2/node-1 --hold 10s --record drill.json\n  seaway drill undo"}
	cmd.AddCommand(c.drillListCmd(), c.drillRunCmd(), c.drillUndoCmd())
	return cmd
}

func (c *cli) drillListCmd() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List what can be rehearsed", Args: cobra.NoArgs, Example: "  seaway drill list",
		RunE: func(*cobra.Command, []string) error {
			w := tabwriter.NewWriter(c.Out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tDOES\tTHE APPLICATION IS TO SEE")
			for _, d := range drill.Catalogue {
				fmt.Fprintf(w, "%s\t%s\t%s\n", d.Name, d.Tells, d.Sees)
			}
			return w.Flush()
		}}
}

// drillFlags are what a person may say about a drill.
type drillFlags struct {
	namespace, peer, record string
	port                    int32
	hold                    time.Duration
	errors                  float64
}

func (c *cli) drillRunCmd() *cobra.Command {
	var f drillFlags
	cmd := &cobra.Command{Use: "run NAME SERVICE", Short: "Run a drill", Args: cobra.ExactArgs(2),
		Long: `Run a drill on a service of a slice, as this cluster sees it. A client of the drill's own opens a connection to the
service every 20 ms and notes what comes of it; nothing is done if something fails already; the fault is undone
after --hold, when you interrupt, and as soon as more than --max-errors of the questions of two seconds fail.
If this command itself is killed, packets are let through again when --hold is over, a cordoned gateway relays again
half a minute later, and the next ` + "`seaway drill undo`" + ` (or run) uncordons its node for Kubernetes, too. The record says what was done, when, and what the client saw.`,
		Example: "  seaway drill run nothing web -n shop\n  seaway drill run cordon-gateway web -n shop --hold 20s --record drill.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.drillRun(cmd.Context(), args[0], args[1], f)
		}}
	c.namespaceFlag(cmd, &f.namespace)
	cmd.Flags().StringVar(&f.peer, "peer", "", "`CLUSTER/NODE` for blackhole-peer, as `seaway status` shows it")
	cmd.Flags().Int32Var(&f.port, "port", 0, "TCP `PORT` of the service (default: its first)")
	cmd.Flags().DurationVar(&f.hold, "hold", 10*time.Second, "how long the fault stays, up to "+drill.Longest.String())
	cmd.Flags().Float64Var(&f.errors, "max-errors", drill.DefaultGuard.Errors, "`SHARE` of questions that may fail before the drill ends, 0 to 1")
	cmd.Flags().StringVar(&f.record, "record", "", "`FILE` for the record, as JSON")
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) drillRun(ctx context.Context, name, service string, f drillFlags) error {
	d, err := drill.Find(name)
	switch {
	case err != nil:
		return usage("%v", err).then("seaway drill list")
	case d.Peer && strings.Count(f.peer, "/") != 1:
		return usage("%s needs --peer CLUSTER/NODE", name).then("seaway status")
	case f.hold <= 0 || f.hold > drill.Longest:
		return usage("--hold %s: up to %s", f.hold, drill.Longest)
	case f.errors < 0 || f.errors > 1:
		return usage("--max-errors %g: 0 to 1", f.errors)
	}
	t, err := c.connect()
	if err != nil {
		return err
	}
	hands, err := c.drillField(ctx, t, client.ObjectKey{Namespace: c.namespace(f.namespace), Name: service}, f)
	if err != nil {
		return err
	}
	hands.Drill = name
	p := c.progress()
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if err := hands.End(bye); err != nil {
			p.tell("something of the drill was left behind (%v): seaway drill undo", err)
		}
	}()
	if err := hands.Start(ctx); err != nil {
		return err
	}
	guard := drill.DefaultGuard
	guard.Errors = f.errors
	rec := drill.Record{Drill: name, Cluster: hands.Cluster, Target: hands.Namespace + "/" + service}
	p.tell("%s", d.Tells)
	ran := drill.Run(ctx, &rec, hands, drill.Options{Hold: f.hold, Guard: guard, Tell: func(s string) { p.tell("%s", s) }})
	if rec.Fault.IsZero() {
		return drillNotDone(ran)
	}
	if err := c.drillRecord(rec, f.record); err != nil {
		return errors.Join(ran, err)
	}
	if ran == nil && rec.Aborted != "" {
		return fail(ExitPartial, "the drill was aborted and undone: %s", rec.Aborted)
	}
	return ran
}

func drillNotDone(err error) error {
	if errors.Is(err, drill.ErrNotCalm) {
		return fail(ExitRefused, "%v", err).then("seaway status")
	}
	return err
}

// drillField learns of the cluster and the service.
func (c *cli) drillField(ctx context.Context, t *target, key client.ObjectKey, f drillFlags) (*field.Field, error) {
	st, err := t.status(ctx)
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil, fail(ExitRefused, "this cluster is no member of a fleet, or its controller has said nothing yet").then("seaway status")
		}
		return nil, err
	}
	port := f.port
	if port == 0 {
		var imp mcsv1beta1.ServiceImport
		if err := t.Get(ctx, key, &imp); err != nil {
			if apierrors.IsNotFound(err) {
				return nil, fail(ExitRefused, "service %s is not imported here", key).then("`seaway export %s -n %s` in a cluster that has it", key.Name, key.Namespace)
			}
			return nil, notMember(err)
		}
		for _, p := range imp.Spec.Ports {
			if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
				port = p.Port
				break
			}
		}
		if port == 0 {
			return nil, usage("service %s has no TCP port: say one with --port", key)
		}
	}
	return &field.Field{Kube: t.kube, Cluster: st.Cluster, Namespace: key.Namespace, Service: key.Name, Port: port, Peer: f.peer, Hold: f.hold, Status: *st}, nil
}

func (c *cli) drillRecord(rec drill.Record, file string) error {
	if file != "" {
		b, err := json.MarshalIndent(rec, "", "  ")
		if err == nil {
			err = os.WriteFile(file, append(b, '\n'), 0o644)
		}
		if err != nil {
			return fmt.Errorf("record of the drill: %w", err)
		}
	}
	return c.show(rec, func() error { _, err := fmt.Fprint(c.Out, rec); return err })
}

func (c *cli) drillUndoCmd() *cobra.Command {
	return &cobra.Command{Use: "undo", Short: "Undo what drills left that were killed", Args: cobra.NoArgs, Example: "  seaway drill undo",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			did, err := (&field.Field{Kube: t.kube}).Sweep(cmd.Context(), func(corev1.Pod) bool { return true })
			for _, d := range did {
				fmt.Fprintln(c.Out, d)
			}
			if err == nil && len(did) == 0 {
				fmt.Fprintln(c.Out, "nothing was left")
			}
			return err
		}}
}
