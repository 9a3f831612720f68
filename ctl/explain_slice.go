package ctl

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// SliceAccount is why a slice is as it is: what was asked for (on the hub), and what became of it (on a member).
type SliceAccount struct {
	Name     string            `json:"name"`
	Asked    *v1alpha1.Slice   `json:"asked,omitempty"` // on the hub
	Cluster  string            `json:"cluster,omitempty"`
	Written  time.Time         `json:"written,omitzero"` // of what the member says
	Here     *fleet.SliceState `json:"here,omitempty"`   // on a member
	Nodes    []SliceNode       `json:"nodes,omitempty"`  // of the member, that host it
	Paths    []PathAccount     `json:"paths,omitempty"`
	Problems []fleet.Problem   `json:"problems,omitempty"`
}

// SliceNode is a node's part of a slice.
type SliceNode struct {
	Name      string             `json:"name"`
	Connected bool               `json:"connected"`
	Applied   bool               `json:"applied"`
	Pods      int                `json:"pods"`
	Waiting   []fleet.Attachment `json:"waiting,omitempty"` // those without a working link
}

func (c *cli) explainSliceCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "slice NAME", Short: "Show who is on a slice and by which rule, and its ways", Args: cobra.ExactArgs(1),
		Long: `Show why a slice is as it is. On the hub: what was asked for, and every cluster's part with its
addresses. On a member: by which rule each namespace is on it, its nodes and pods, those that are not
attached and why, the ways to the other clusters' nodes, and the problems that concern it.`,
		Example: "  seaway explain slice pay\n  seaway explain slice pay -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			a := SliceAccount{Name: args[0]}
			hub, err := t.isHub(cmd.Context())
			if err != nil {
				return err
			}
			if hub {
				var s v1alpha1.Slice
				if err := t.Get(cmd.Context(), client.ObjectKey{Name: a.Name}, &s); err == nil {
					a.Asked = &s
				} else if !apierrors.IsNotFound(err) {
					return err
				}
			}
			st, err := t.memberStatus(cmd.Context())
			if err != nil && !hub {
				return err
			}
			if st != nil {
				a.seen(st)
			}
			if a.Asked == nil && a.Here == nil {
				return fail(ExitRefused, "there is no slice %s here", a.Name).
					then("seaway slice list    # on the hub; a member knows the slices that it is on: seaway status")
			}
			return c.show(a, func() error { _, err := io.WriteString(c.Out, a.Text()); return err })
		},
	}
	c.outputFlag(cmd)
	return cmd
}

// seen adds what a member's controller says of the slice.
func (a *SliceAccount) seen(st *fleet.Status) {
	a.Cluster, a.Written = st.Cluster, st.Written
	for i := range st.Slices {
		if st.Slices[i].Name == a.Name {
			a.Here = &st.Slices[i]
		}
	}
	if a.Here == nil {
		return
	}
	for _, n := range st.Nodes {
		if !slices.Contains(n.Slices, a.Name) {
			continue
		}
		sn := SliceNode{Name: n.Name, Connected: n.Connected, Applied: n.Applied}
		for _, p := range n.Pods {
			if p.Slice != a.Name {
				continue
			}
			sn.Pods++
			if !p.Attached {
				sn.Waiting = append(sn.Waiting, p)
			}
		}
		a.Nodes = append(a.Nodes, sn)
		for _, p := range n.Peers {
			if p.Slice == a.Name {
				a.Paths = append(a.Paths, accountOf(st.Cluster+"/"+n.Name, p))
			}
		}
	}
	for _, p := range st.Problems {
		if concerns(p.Where, a.Name, a.Here.Namespaces) {
			a.Problems = append(a.Problems, p)
		}
	}
}

// concerns tells whether what is at a place ("slice pay", "pod shop/web-0", "namespace shop") is of a slice.
func concerns(where, slice string, namespaces []string) bool {
	kind, name, _ := strings.Cut(where, " ")
	if kind == "slice" {
		return name == slice
	}
	ns, _, _ := strings.Cut(name, "/")
	return (kind == "pod" || kind == "namespace" || kind == "service" || kind == "export") && slices.Contains(namespaces, ns)
}

// Text prints the account for people.
func (a SliceAccount) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 3, ' ', 0)
	if s := a.Asked; s != nil {
		state, reason := condition(s.Status.Conditions, v1alpha1.SliceReady)
		fmt.Fprintf(w, "slice %s, as the hub has it: Ready %s, %s\n", a.Name, state, reason)
		fmt.Fprintf(w, "prefixes\t%s\nclusters\t%s\nnamespaces\t%s\n", joined(s.Spec.Prefixes), clustersWanted(s), namespacesWanted(s))
		fmt.Fprintln(w, "\nCLUSTER\tREADY\tNODES\tPODS\tHANDS OUT ADDRESSES OF")
		for _, r := range s.Status.Clusters {
			fmt.Fprintf(w, "%s\t%v\t%d\t%d\t%s\n", r.Name, r.Ready, r.Nodes, r.Pods, dash(strings.Join(r.Blocks, " ")))
		}
		for _, p := range troubles("slice "+a.Name, s.Status.Conditions, v1alpha1.SliceReady) {
			fmt.Fprintf(w, "\n%s: %s\n  next: %s\n", p.Reason, p.Message, dash(p.Next))
		}
	}
	if a.Here != nil {
		if a.Asked != nil {
			fmt.Fprintln(w)
		}
		a.here(w)
	} else if a.Cluster != "" {
		fmt.Fprintf(w, "\ncluster %s is not on it\n", a.Cluster)
	}
	_ = w.Flush()
	return b.String()
}

func clustersWanted(s *v1alpha1.Slice) string {
	if len(s.Spec.Clusters) == 0 {
		return "all of the fleet, also those that join later"
	}
	return strings.Join(s.Spec.Clusters, ", ")
}

func namespacesWanted(s *v1alpha1.Slice) string {
	var out []string
	if names := s.Spec.Namespaces.Names; len(names) > 0 {
		out = append(out, "named: "+strings.Join(names, ", "))
	}
	if sel := s.Spec.Namespaces.Selector; sel != nil {
		out = append(out, "whose labels match "+metav1.FormatLabelSelector(sel))
	}
	if len(out) == 0 {
		return "none: the slice names none and selects none"
	}
	return strings.Join(out, "; and those ")
}

// here prints a member's part.
func (a SliceAccount) here(w io.Writer) {
	s := a.Here
	var blocks []string
	for _, b := range s.Blocks {
		blocks = append(blocks, b.String())
	}
	fmt.Fprintf(w, "slice %s in cluster %s, as of %s\n", a.Name, a.Cluster, a.Written.Local().Format(time.DateTime))
	fmt.Fprintf(w, "addresses\tof %s; %d in use or reserved, %d resting after use\n", dash(strings.Join(blocks, " ")), s.Leased, s.Resting)
	fmt.Fprintf(w, "pods\t%d here, %d attached; %d in other clusters; %s\n", s.Pods, s.Attached, s.Remote, fleet.Count(s.Services, "service"))
	if len(s.Namespaces) == 0 {
		fmt.Fprintln(w, "no namespace here is on it: none has a name or labels that it asks for")
	} else {
		fmt.Fprintln(w, "\nNAMESPACE\tIS ON IT BECAUSE")
		for _, ns := range s.Namespaces {
			fmt.Fprintf(w, "%s\t%s\n", ns, dash(s.Rules[ns]))
		}
	}
	if len(a.Nodes) > 0 {
		fmt.Fprintln(w, "\nNODE\tAGENT\tUP TO DATE\tPODS\tNOT ATTACHED")
		for _, n := range a.Nodes {
			agent := "silent"
			if n.Connected {
				agent = "connected"
			}
			var waiting []string
			for _, p := range n.Waiting {
				waiting = append(waiting, p.Namespace+"/"+p.Pod+" "+p.Reason)
			}
			fmt.Fprintf(w, "%s\t%s\t%v\t%d\t%s\n", n.Name, agent, n.Applied, n.Pods, dash(strings.Join(waiting, ", ")))
		}
	}
	if len(a.Paths) > 0 {
		fmt.Fprintln(w, "\nFROM\tTO\tPATH\tSTATE\tRTT\tLOSS\tWHY")
		for _, p := range a.Paths {
			rtt, loss := p.measured()
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.From, p.Peer, p.Path, dash(string(p.State)), rtt, loss, p.Why)
		}
	}
	for _, p := range a.Problems {
		fmt.Fprintf(w, "\n%s: %s\n  %s\n  next: %s\n", p.Where, p.Reason, p.Message, dash(p.Next))
	}
}
