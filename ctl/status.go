package ctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// isNoNamespace tells whether an object could not be made because its namespace is not there.
func isNoNamespace(err error) bool {
	return apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces ")
}

// notMember explains that the MCS-API's kinds are missing.
func notMember(err error) error {
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return fail(ExitRefused, "this cluster does not know ServiceExports: it is in no fleet").
			then("`seaway join --token …` here, or name the right cluster with --kubeconfig or --context")
	}
	return err
}

// silent is how old a member's status may be: the controller writes it every minute, changed or not.
const silent = 150 * time.Second

// Overview is what `seaway status` prints: the fleet on the hub, the cluster's own state on a member, or both.
type Overview struct {
	Clusters []v1alpha1.Cluster `json:"clusters,omitempty"`
	Slices   []v1alpha1.Slice   `json:"slices,omitempty"`
	Member   *fleet.Status      `json:"member,omitempty"`
	Problems []fleet.Problem    `json:"problems"`
}

func (c *cli) statusCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the fleet (on the hub) or this cluster (on a member), and what needs you", Args: cobra.NoArgs,
		Long:    "Show the fleet (on the hub) or this cluster and its paths (on a member), and every problem with what to do.\nThe exit code is 0 when there is no problem and 5 when there is.",
		Example: "  seaway status\n  seaway status -o json | jq .problems",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			o, err := t.overview(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.show(o, func() error { return c.statusTables(o) }); err != nil {
				return err
			}
			if n := len(o.Problems); n > 0 {
				return fail(ExitPartial, "%s", fleet.Count(n, "problem"))
			}
			return nil
		},
	}
	c.outputFlag(cmd)
	return cmd
}

func (t *target) overview(ctx context.Context) (*Overview, error) {
	o := &Overview{Problems: []fleet.Problem{}}
	hub, err := t.isHub(ctx)
	if err != nil {
		return nil, err
	}
	if hub {
		var clusters v1alpha1.ClusterList
		var slices v1alpha1.SliceList
		if err := t.List(ctx, &clusters); err != nil {
			return nil, err
		}
		if err := t.List(ctx, &slices); err != nil {
			return nil, err
		}
		o.Clusters, o.Slices = clusters.Items, slices.Items
		for _, cl := range o.Clusters {
			o.Problems = append(o.Problems, troubles("cluster "+cl.Name, cl.Status.Conditions, v1alpha1.ClusterReady)...)
		}
		for _, s := range o.Slices {
			o.Problems = append(o.Problems, troubles("slice "+s.Name, s.Status.Conditions, v1alpha1.SliceReady)...)
		}
	}
	member, err := t.isMember(ctx)
	if err != nil {
		return nil, err
	}
	if member {
		s, err := t.status(ctx)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
		if o.Member = s; s != nil && time.Since(s.Written) > silent {
			o.Problems = append(o.Problems, fleet.Problem{Reason: "ControllerSilent", Where: "cluster " + s.Cluster, Since: s.Written,
				Message: "the controller has written no status since " + s.Written.Local().Format(time.DateTime), Next: "kubectl -n seaway-system get pods"})
		}
		if s != nil {
			o.Problems = append(o.Problems, s.Problems...)
			if known := func(p fleet.Problem) bool { return p.Reason == "HubUnreachable" || p.Reason == "HubRefuses" }; !s.Hub.Connected && !slices.ContainsFunc(o.Problems, known) {
				o.Problems = append(o.Problems, fleet.Problem{Reason: "HubUnreachable", Where: "cluster " + s.Cluster, Since: s.Hub.Since,
					Message: "the controller has no link to the hub: " + s.Hub.Error, Next: "check the way to the hub; traffic, names and failover go on meanwhile"})
			}
		} else {
			o.Problems = append(o.Problems, fleet.Problem{Reason: "ControllerSilent", Where: "this cluster",
				Message: "the controller has not written its status yet", Next: "kubectl -n seaway-system get pods"})
		}
	}
	if !hub && !member {
		return nil, fail(ExitRefused, "Seaway is not installed on %s", t.rest.Host).
			then("`seaway install hub` to make it a hub, `seaway join --token …` to bring it into a fleet, or choose another --context")
	}
	return o, nil
}

// changeTakes is for how long a change of keys is nothing that needs anybody: it takes some 20 s, and a node that is being
// restarted some more.
const changeTakes = 3 * time.Minute

// troubles turns conditions into problems: a false Ready, and whatever else is true and not it.
func troubles(where string, list []metav1.Condition, ready string) []fleet.Problem {
	var out []fleet.Problem
	add := func(cond metav1.Condition) {
		what, next, _ := strings.Cut(cond.Message, ". Next: ")
		out = append(out, fleet.Problem{Reason: cond.Reason, Where: where, Message: what, Next: next, Since: cond.LastTransitionTime.Time})
	}
	seen := false
	for _, cond := range list {
		if cond.Type == v1alpha1.SliceKeysChanging && time.Since(cond.LastTransitionTime.Time) < changeTakes {
			continue // it passes
		}
		if cond.Type == cond.Reason && cond.Type != ready && cond.Type != v1alpha1.ClusterJoined && cond.Status == metav1.ConditionTrue {
			add(cond)
			seen = true
		}
	}
	if cond := meta.FindStatusCondition(list, ready); !seen && cond != nil && cond.Status != metav1.ConditionTrue {
		add(*cond)
	}
	return out
}

func (c *cli) statusTables(o *Overview) error {
	if o.Clusters != nil {
		if err := c.clusterTable(o.Clusters); err != nil {
			return err
		}
		fmt.Fprintln(c.Out)
	}
	if o.Slices != nil {
		if err := c.sliceTable(o.Slices); err != nil {
			return err
		}
		fmt.Fprintln(c.Out)
	}
	if o.Member != nil {
		if err := c.memberTables(o.Member); err != nil {
			return err
		}
	}
	for _, p := range o.Problems {
		since := ""
		if !p.Since.IsZero() {
			since = " for " + time.Since(p.Since).Round(time.Second).String()
		}
		fmt.Fprintf(c.Out, "%s: %s%s\n  %s\n", p.Where, p.Reason, since, p.Message)
		if p.Next != "" {
			fmt.Fprintf(c.Out, "  next: %s\n", p.Next)
		}
	}
	return nil
}

// refusals lists what was not taken from a cluster, by reason: "Forged 3, entries 1".
func refusals(m fleet.MemberState) string {
	var out []string
	for _, reason := range slices.Sorted(maps.Keys(m.Refusals)) {
		out = append(out, fmt.Sprintf("%s %d", reason, m.Refusals[reason]))
	}
	if m.Refused > 0 {
		out = append(out, fmt.Sprintf("entries %d", m.Refused))
	}
	return strings.Join(out, ", ")
}

func (c *cli) memberTables(s *fleet.Status) error {
	link := "connected"
	if !s.Hub.Connected {
		link = "not connected: " + s.Hub.Error
	}
	fmt.Fprintf(c.Out, "cluster %s, hub %s, status of %s\n\n", s.Cluster, link, s.Written.Local().Format(time.DateTime))
	w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tAGENT\tAPPLIED\tGATEWAY\tDRIVER\tSLICES\tPODS\tPEERS")
	for _, n := range s.Nodes {
		state := "silent"
		if n.Connected {
			state = "connected"
		}
		fmt.Fprintf(w, "%s\t%s\t%v\t%v\t%s\t%s\t%d\t%d\n", n.Name, state, n.Applied, n.Gateway, dash(n.Driver), dash(strings.Join(n.Slices, ",")), len(n.Pods), len(n.Peers))
	}
	fmt.Fprintln(w, "\nSLICE\tPODS\tATTACHED\tREMOTE\tSERVICES\tNAMESPACES\tBLOCKS")
	for _, sl := range s.Slices {
		var blocks []string
		for _, b := range sl.Blocks {
			blocks = append(blocks, b.String())
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\n", sl.Name, sl.Pods, sl.Attached, sl.Remote, sl.Services, dash(strings.Join(sl.Namespaces, ",")), dash(strings.Join(blocks, " ")))
	}
	if len(s.Members) > 0 {
		fmt.Fprintln(w, "\nCLUSTER\tNODES\tPODS\tEXPORTS\tHEARD\tBY\tCARRIERS\tREFUSED")
	}
	for _, m := range s.Members {
		heard := "never"
		if !m.Heard.IsZero() {
			heard = time.Since(m.Heard).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%d\t%s\n", m.Name, m.Nodes, m.Pods, m.Exports, heard, dash(m.Way), m.Direct, dash(refusals(m)))
	}
	fmt.Fprintln(w, "\nFROM\tSLICE\tTO\tPATH\tSTATE\tRTT\tLOSS\tHANDSHAKE\tSENT\tRECEIVED")
	for _, n := range s.Nodes {
		for _, p := range n.Peers {
			hs := "never"
			if !p.Handshake.IsZero() {
				hs = time.Since(p.Handshake).Round(time.Second).String() + " ago"
			}
			rtt, loss := "-", "-"
			if p.RTT > 0 {
				rtt, loss = p.RTT.Round(100*time.Microsecond).String(), fmt.Sprintf("%.0f%%", 100*p.Loss)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", n.Name, p.Slice, p.Peer, p.Path, dash(string(p.State)), rtt, loss, hs, p.TxBytes, p.RxBytes)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(c.Out)
	return nil
}
