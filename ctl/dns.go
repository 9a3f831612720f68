package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/discovery/corefile"
	"seaway.dev/seaway/install"
)

// zones are where the slices' names lie.
func zones() []string { return []string{"clusterset.local", "slice.local"} }

// The ConfigMap of CoreDNS, as kubeadm and most others have it.
const (
	dnsNamespace = "kube-system"
	dnsMap       = "coredns"
	dnsKey       = "Corefile"
)

// dnsCmd groups what is about the cluster's own DNS.
func (c *cli) dnsCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "dns", Short: "What the cluster's own DNS asks Seaway for", Args: cobra.NoArgs}
	var reverse []string
	forward := &cobra.Command{
		Use: "forward", Short: "Have CoreDNS ask the agents for the slices' names, and for reverse names if wanted", Args: cobra.NoArgs,
		Long: `Have this cluster's CoreDNS ask the agents for clusterset.local and slice.local, as
joining does, and for the reverse names of the prefixes given here: those of slices
that this cluster is on. Prefixes given earlier and not now are forwarded no more.
Leaving undoes all of it.`,
		Example: "  seaway dns forward --reverse 10.77.0.0/16",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			all := zones()
			for _, text := range reverse {
				more, err := t.reverseZones(cmd.Context(), text)
				if err != nil {
					return err
				}
				all = append(all, more...)
			}
			note, err := t.forwardZones(cmd.Context(), all)
			if err != nil {
				return err
			}
			if note != "" {
				c.progress().tell("%s", note)
			}
			for _, z := range all {
				fmt.Fprintln(c.Out, z)
			}
			return nil
		},
	}
	forward.Flags().StringArrayVar(&reverse, "reverse", nil, "`PREFIX` of a slice whose reverse names are forwarded, too (may be given again)")
	cmd.AddCommand(forward)
	return cmd
}

// reverseZones lists the zones of a prefix's reverse names. It refuses a prefix of which the cluster uses a part itself:
// the reverse names of its own pods and Services would be gone.
func (t *target) reverseZones(ctx context.Context, text string) ([]string, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, usage("--reverse %s: want a prefix such as 10.77.0.0/16", text)
	}
	refuse := func(what string) error {
		return fail(ExitRefused, "the cluster itself uses %s, which is in %s: the reverse names of its own pods and Services would be gone", what, p).
			then("leave out --reverse %s; names other than reverse ones do not need it", p)
	}
	var nodes corev1.NodeList
	if err := t.List(ctx, &nodes); err != nil {
		return nil, err
	}
	for _, n := range nodes.Items {
		for _, cidr := range n.Spec.PodCIDRs {
			if own, err := netip.ParsePrefix(cidr); err == nil && own.Overlaps(p) {
				return nil, refuse(cidr)
			}
		}
	}
	var services corev1.ServiceList
	if err := t.List(ctx, &services); err != nil {
		return nil, err
	}
	for _, s := range services.Items {
		for _, ip := range s.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(ip); err == nil && p.Contains(a) {
				return nil, refuse(ip)
			}
		}
	}
	out, err := corefile.Reverse(p)
	if err != nil {
		return nil, usage("--reverse: %v", err)
	}
	return out, nil
}

// forwardZones makes the cluster's CoreDNS ask the agents for some zones.
func (t *target) forwardZones(ctx context.Context, zones []string) (string, error) {
	upstreams, err := t.dnsAddresses(ctx)
	if err != nil {
		return "", err
	}
	var reloads bool
	changed, err := t.editCorefile(ctx, func(text string) (string, error) {
		reloads = corefile.Reloads(text)
		out, err := corefile.Add(text, zones, upstreams)
		if err != nil {
			return "", fail(ExitRefused, "CoreDNS: %w", err).then("mend configmap %s/%s, or join with --skip-dns and forward clusterset.local to %s yourself", dnsNamespace, dnsMap, upstreams[0])
		}
		return out, nil
	})
	switch {
	case apierrors.IsNotFound(err):
		return "", fail(ExitRefused, "this cluster's DNS is no CoreDNS that keeps its Corefile in configmap %s/%s", dnsNamespace, dnsMap).
			then("join with --skip-dns, and let your DNS forward clusterset.local and slice.local to %s", upstreams[0])
	case err != nil:
		return "", err
	case !changed:
		return "as it was", nil
	case !reloads:
		return "CoreDNS does not reload by itself: restart it when it suits you (kubectl -n kube-system rollout restart deploy/coredns)", nil
	}
	return "", nil
}

// unforwardZones puts the Corefile back as it was.
func (t *target) unforwardZones(ctx context.Context) (string, error) {
	changed, err := t.editCorefile(ctx, corefile.Remove)
	if apierrors.IsNotFound(err) || err == nil && !changed {
		return "nothing to do", nil
	}
	return "", err
}

// editCorefile changes CoreDNS's Corefile, and starts again when somebody else changes it at the same time.
func (t *target) editCorefile(ctx context.Context, edit func(string) (string, error)) (changed bool, err error) {
	for range 5 {
		var cm corev1.ConfigMap
		if err := t.Get(ctx, client.ObjectKey{Namespace: dnsNamespace, Name: dnsMap}, &cm); err != nil {
			return false, err
		}
		text, ok := cm.Data[dnsKey]
		if !ok {
			return false, apierrors.NewNotFound(corev1.Resource("configmaps"), dnsMap)
		}
		out, err := edit(text)
		if err != nil || out == text {
			return false, err
		}
		cm.Data[dnsKey] = out
		if err = t.Update(ctx, &cm); !apierrors.IsConflict(err) {
			return err == nil, err
		}
	}
	return false, errors.New("change the Corefile: somebody else keeps changing configmap kube-system/coredns; run this again")
}

// dnsAddresses are where the agents' DNS is reached.
func (t *target) dnsAddresses(ctx context.Context) ([]string, error) {
	var out []string
	err := poll(ctx, 10*time.Second, 200*time.Millisecond, func() (bool, error) {
		var s corev1.Service
		if err := t.Get(ctx, client.ObjectKey{Namespace: install.Namespace, Name: install.DNSService}, &s); err != nil {
			return false, err
		}
		for _, ip := range s.Spec.ClusterIPs {
			if net.ParseIP(ip) != nil {
				out = append(out, net.JoinHostPort(ip, "53"))
			}
		}
		return len(out) > 0, nil
	})
	if err != nil {
		return nil, fmt.Errorf("find the address of service %s/%s: %w", install.Namespace, install.DNSService, err)
	}
	return out, nil
}
