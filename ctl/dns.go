package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

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

// forwardZones makes the cluster's CoreDNS ask the agents for the slices' names.
func (t *target) forwardZones(ctx context.Context) (string, error) {
	upstreams, err := t.dnsAddresses(ctx)
	if err != nil {
		return "", err
	}
	var reloads bool
	changed, err := t.editCorefile(ctx, func(text string) (string, error) {
		reloads = corefile.Reloads(text)
		out, err := corefile.Add(text, zones(), upstreams)
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
