package ctl

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/place"
)

// DefaultPrefix is what `seaway slice create` takes when nobody says otherwise. Slices may all have the same one.
const DefaultPrefix = "10.77.0.0/16"

type sliceOptions struct {
	prefixes, clusters, namespaces []string
	selector, addresses, rotation  string
	dry                            bool
	wait                           time.Duration
}

func (c *cli) sliceCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "slice", Short: "Create, list, show and delete slices, change their keys (on the hub)"}
	cmd.AddCommand(c.sliceCreateCmd(), c.sliceListCmd(), c.sliceShowCmd(), c.sliceRotateCmd(), c.sliceDeleteCmd())
	return cmd
}

func (c *cli) sliceCreateCmd() *cobra.Command {
	var o sliceOptions
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a slice, or change one", Args: cobra.ExactArgs(1),
		Long: `Make a slice: an application's own network across clusters. The pods of its namespaces get
an address on it; those that run already, too, without a restart. For a slice that is there
only what is given is changed; its prefix can be made larger.`,
		Example: `  seaway slice create pay --namespace pay
  seaway slice create pay --prefix 10.77.0.0/16 --prefix fd00:77::/48 --clusters paris,tokyo --namespace pay
  seaway slice create dev --selector team=blue
  seaway slice create pay --prefix 10.76.0.0/15       # the prefix was full: make it larger
  seaway slice create pay --addresses Pod             # headless names answer with the pods' own addresses
  seaway slice create pay --namespace pay --dry-run   # print the YAML`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.createSlice(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.prefixes, "prefix", nil, "`CIDR` of the slice's addresses, one per family (default "+DefaultPrefix+")")
	f.StringSliceVar(&o.clusters, "clusters", nil, "the `NAMES` of its clusters (default: all, also those that join later)")
	f.StringSliceVarP(&o.namespaces, "namespace", "n", nil, "`NAMESPACE` whose pods are on it; can be given several times")
	f.StringVarP(&o.selector, "selector", "l", "", "labels (`K=V,…`) of namespaces whose pods are on it")
	f.StringVar(&o.addresses, "addresses", "", "what headless names answer with: `Slice` addresses (the default), or the Pods' own, where clusters' pod networks do not overlap (Pod)")
	f.StringVar(&o.rotation, "key-rotation", "", "`TIME` like 24h after which its nodes change their keys, again and again (default: only when asked, see slice rotate)")
	f.BoolVar(&o.dry, "dry-run", false, "print the slice and change nothing")
	f.DurationVar(&o.wait, "wait", 15*time.Second, "how long to wait until it has addresses; 0: do not wait")
	return cmd
}

// build makes the slice that the flags describe, on top of the one that is there.
func (o sliceOptions) build(name string, have *v1alpha1.Slice) (*v1alpha1.Slice, error) {
	if err := place.CheckSlice(name); err != nil {
		return nil, usage("%w", err)
	}
	s := &v1alpha1.Slice{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Slice"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	if have != nil {
		s.Spec = *have.Spec.DeepCopy()
	} else if len(o.prefixes) == 0 {
		o.prefixes = []string{DefaultPrefix}
	}
	if len(o.prefixes) > 0 {
		s.Spec.Prefixes = nil
	}
	for _, text := range o.prefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, usage("--prefix %q is no address prefix: write it like 10.77.0.0/16 or fd00:77::/48", text)
		}
		if p != p.Masked() {
			return nil, usage("--prefix %s has bits set after its length: did you mean %s?", text, p.Masked())
		}
		s.Spec.Prefixes = append(s.Spec.Prefixes, v1alpha1.CIDR(p.String()))
	}
	for _, cl := range o.clusters {
		if err := place.CheckCluster(cl); err != nil {
			return nil, usage("%w", err)
		}
	}
	if o.clusters != nil {
		s.Spec.Clusters = o.clusters
	}
	if o.namespaces != nil {
		s.Spec.Namespaces.Names = o.namespaces
	}
	switch o.addresses {
	case "":
	case v1alpha1.AddressesSlice, v1alpha1.AddressesPod:
		s.Spec.Addresses = o.addresses
	default:
		return nil, usage("--addresses %q: there are %s and %s", o.addresses, v1alpha1.AddressesSlice, v1alpha1.AddressesPod)
	}
	if o.rotation != "" {
		s.Spec.KeyRotation = o.rotation
	}
	if o.selector != "" {
		sel, err := metav1.ParseToLabelSelector(o.selector)
		if err != nil {
			return nil, usage("--selector %q: %w", o.selector, err)
		}
		s.Spec.Namespaces.Selector = sel
	}
	return s, nil
}

func (c *cli) createSlice(ctx context.Context, name string, o sliceOptions) error {
	if o.dry {
		s, err := o.build(name, nil)
		if err != nil {
			return err
		}
		return c.printYAML([]client.Object{s})
	}
	t, err := c.connect()
	if err != nil {
		return err
	}
	have := &v1alpha1.Slice{}
	if err := t.Get(ctx, client.ObjectKey{Name: name}, have); apierrors.IsNotFound(err) {
		have = nil
	} else if err != nil {
		return err
	}
	s, err := o.build(name, have)
	if err != nil {
		return err
	}
	if err := t.known(ctx, o.clusters); err != nil {
		return err
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s)
	if err != nil {
		return err
	}
	delete(m, "status")
	u := &unstructured.Unstructured{Object: m}
	if err := t.Patch(ctx, u, client.Apply, client.FieldOwner(place.Owner), client.ForceOwnership); err != nil { //nolint:staticcheck // the typed form needs generated types
		return err
	}
	p := c.progress()
	if o.wait == 0 {
		p.tell("slice %s is stored", name)
		return nil
	}
	return p.step("slice "+name+" has addresses", func(say func(string)) (string, error) { return t.carved(ctx, name, u.GetGeneration(), o.wait, say) })
}

// known refuses clusters that nobody has heard of: most often the name is misspelt. The API takes them, and says
// UnknownCluster until they join.
func (t *target) known(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var list v1alpha1.ClusterList
	if err := t.List(ctx, &list); err != nil {
		return err
	}
	have := map[string]bool{}
	var all []string
	for _, cl := range list.Items {
		have[cl.Name] = true
		all = append(all, cl.Name)
	}
	for _, n := range names {
		if !have[n] {
			return fail(ExitUsage, "there is no cluster %s in the fleet (there is %s)", n, dash(strings.Join(all, ", "))).
				then("correct the name; or join it first (seaway token create %s); or, to name it ahead, add --dry-run and kubectl apply the output", n)
		}
	}
	return nil
}

// carved waits until the hub has looked at the slice as it is now.
func (t *target) carved(ctx context.Context, name string, generation int64, wait time.Duration, say func(string)) (string, error) {
	var s v1alpha1.Slice
	err := poll(ctx, wait, 200*time.Millisecond, func() (bool, error) {
		if err := t.Get(ctx, client.ObjectKey{Name: name}, &s); err != nil {
			return false, err
		}
		return s.Status.ObservedGeneration >= generation, nil
	})
	if err != nil {
		return "", fail(ExitUnreachable, "the slice is stored, and the hub has not looked at it: %w", err).
			then("check that the hub runs: kubectl -n %s get deploy seaway-hub", place.System)
	}
	_, reason := condition(s.Status.Conditions, v1alpha1.SliceReady)
	say(reason)
	var rows []string
	for _, r := range s.Status.Clusters {
		rows = append(rows, r.Name+" "+strings.Join(r.Blocks, " "))
	}
	out := reason
	if rows != nil {
		out += ", " + strings.Join(rows, ", ")
	}
	return out, nil
}

func (c *cli) sliceListCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the slices", Args: cobra.NoArgs,
		Example: "  seaway slice list\n  seaway slice list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			var list v1alpha1.SliceList
			if err := t.List(cmd.Context(), &list); err != nil {
				return err
			}
			return c.show(list.Items, func() error { return c.sliceTable(list.Items) })
		}}
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) sliceTable(list []v1alpha1.Slice) error {
	w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "SLICE\tREADY\tREASON\tPREFIXES\tCLUSTERS\tNAMESPACES\tPODS\tKEYS")
	for _, s := range list {
		state, reason := condition(s.Status.Conditions, v1alpha1.SliceReady)
		var names []string
		for _, r := range s.Status.Clusters {
			names = append(names, r.Name)
		}
		ns := s.Spec.Namespaces.Names
		if sel := s.Spec.Namespaces.Selector; sel != nil {
			ns = append(ns[:len(ns):len(ns)], metav1.FormatLabelSelector(sel))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, state, reason, joined(s.Spec.Prefixes), dash(strings.Join(names, ",")), dash(strings.Join(ns, ",")), s.Status.Pods, keysAge(&s, time.Now()))
	}
	return w.Flush()
}

func joined[S ~string](in []S) string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return strings.Join(out, ",")
}

func (c *cli) sliceShowCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show one slice with its blocks and conditions", Args: cobra.ExactArgs(1),
		Example: "  seaway slice show pay",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			var s v1alpha1.Slice
			if err := t.Get(cmd.Context(), client.ObjectKey{Name: args[0]}, &s); err != nil {
				return missing(err, "slice", args[0])
			}
			return c.show(s, func() error {
				if err := c.sliceTable([]v1alpha1.Slice{s}); err != nil {
					return err
				}
				w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
				fmt.Fprintln(w, "\nCLUSTER\tREADY\tNODES\tPODS\tBLOCKS")
				for _, r := range s.Status.Clusters {
					fmt.Fprintf(w, "%s\t%v\t%d\t%d\t%s\n", r.Name, r.Ready, r.Nodes, r.Pods, strings.Join(r.Blocks, " "))
				}
				if err := w.Flush(); err != nil {
					return err
				}
				if k := s.Status.Keys; k != nil {
					fmt.Fprintf(c.Out, "\nKeys: %s\n", keysLine(k, time.Now()))
				}
				c.conditions(s.Status.Conditions)
				return nil
			})
		}}
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) sliceDeleteCmd() *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "Delete a slice: its pods lose their address on it and keep running", Args: cobra.ExactArgs(1),
		Example: "  seaway slice delete pay",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			s := &v1alpha1.Slice{ObjectMeta: metav1.ObjectMeta{Name: args[0]}}
			if err := t.Delete(cmd.Context(), s); err != nil {
				return missing(err, "slice", args[0])
			}
			c.progress().tell("slice %s is deleted", args[0])
			return nil
		}}
}
