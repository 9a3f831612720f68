package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
	"seaway.dev/seaway/fleet"
)

// perSlice is how many endpoints an EndpointSlice is meant to hold. Kubernetes' own controller fills them to 100; we
// spread pods over them by a hash of their names and leave room, so that a pod that comes or goes changes one object.
const perSlice = 64

// writeSlices makes the EndpointSlices of an import what they should be and deletes the rest; all if im is nil.
func (r *Reconciler) writeSlices(ctx context.Context, key types.NamespacedName, owner *mcs.ServiceImport, im *discovery.Import) error {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingLabels{
		mcs.LabelServiceName: key.Name, discoveryv1.LabelManagedBy: ManagedBy}); err != nil {
		return fmt.Errorf("list EndpointSlices of ServiceImport %s: %w", key, err)
	}
	want := map[string]*discoveryv1.EndpointSlice{}
	if im != nil {
		want = endpointSlices(owner, im)
	}
	var errs []error
	for i := range list.Items {
		have := &list.Items[i]
		w, ok := want[have.Name]
		delete(want, have.Name)
		switch {
		case !ok || have.AddressType != w.AddressType: // the type of an EndpointSlice cannot be changed
			if err := r.client.Delete(ctx, have); client.IgnoreNotFound(err) != nil {
				errs = append(errs, fmt.Errorf("delete EndpointSlice %s/%s: %w", have.Namespace, have.Name, err))
			}
		case !same(have, w):
			updated := have.DeepCopy()
			updated.Labels, updated.OwnerReferences = w.Labels, w.OwnerReferences
			updated.Endpoints, updated.Ports = w.Endpoints, w.Ports
			if err := r.client.Update(ctx, updated); err != nil {
				errs = append(errs, fmt.Errorf("update EndpointSlice %s/%s: %w", have.Namespace, have.Name, err))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if err := r.client.Create(ctx, want[name]); err != nil {
			errs = append(errs, fmt.Errorf("create EndpointSlice %s/%s: %w", key.Namespace, name, err))
		}
	}
	return errors.Join(errs...)
}

// same compares as Kubernetes does: an empty list is none, since the API server does not keep the difference.
func same(a, b *discoveryv1.EndpointSlice) bool {
	return equality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) && equality.Semantic.DeepEqual(a.Ports, b.Ports) &&
		maps.Equal(a.Labels, b.Labels) && equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

// endpointSlices translates an import's endpoints: one set of EndpointSlices for each source cluster and family that
// the import has, empty if the cluster has no endpoints there; more where pods listen on different ports.
func endpointSlices(owner *mcs.ServiceImport, im *discovery.Import) map[string]*discoveryv1.EndpointSlice {
	out := map[string]*discoveryv1.EndpointSlice{}
	endpoints := byCluster(im.Endpoints)
	for _, cluster := range im.Clusters {
		for _, f := range im.Families {
			groups := byPorts(endpoints[cluster], f)
			if len(groups) == 0 {
				groups = map[string][]fleet.Endpoint{"": nil}
			}
			for ports, es := range groups {
				buckets := 1
				for buckets*perSlice < len(es) {
					buckets *= 2
				}
				for b := range buckets {
					s := newSlice(owner, im, cluster, f, fmt.Sprintf("%s/%d/%d", ports, b, buckets))
					for _, e := range es {
						if bucket(e, buckets) == b {
							s.Endpoints = append(s.Endpoints, endpoint(e, f))
							s.Ports = listening(e, im.Ports)
						}
					}
					out[s.Name] = s
				}
			}
		}
	}
	return out
}

// byPorts groups the endpoints that have an address of a family by the ports they listen on.
func byPorts(endpoints []fleet.Endpoint, f string) map[string][]fleet.Endpoint {
	out := map[string][]fleet.Endpoint{}
	for _, e := range endpoints {
		if len(addresses(e, f)) == 0 {
			continue
		}
		var key strings.Builder
		for _, name := range slices.Sorted(maps.Keys(e.Ports)) {
			fmt.Fprintf(&key, "%s=%d,", name, e.Ports[name])
		}
		out[key.String()] = append(out[key.String()], e)
	}
	return out
}

func bucket(e fleet.Endpoint, buckets int) int {
	h := fnv.New32a()
	h.Write([]byte(e.Pod + "/" + e.Hostname))
	return int(h.Sum32() % uint32(buckets))
}

// newSlice makes an empty EndpointSlice whose name depends on what it is for alone.
func newSlice(owner *mcs.ServiceImport, im *discovery.Import, cluster, f, part string) *discoveryv1.EndpointSlice {
	sum := sha256.Sum256([]byte(strings.Join([]string{im.Namespace, im.Name, cluster, f, part}, "\x00")))
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: im.Namespace,
			Name:      "seaway-" + im.Name + "-" + hex.EncodeToString(sum[:6]),
			Labels: map[string]string{
				mcs.LabelServiceName:       im.Name,
				mcs.LabelSourceCluster:     cluster,
				discoveryv1.LabelManagedBy: ManagedBy,
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: mcs.GroupVersion.String(), Kind: mcs.ServiceImportKindName, Name: owner.Name, UID: owner.UID,
			}},
		},
		AddressType: discoveryv1.AddressType(f),
		Endpoints:   []discoveryv1.Endpoint{},
		Ports:       []discoveryv1.EndpointPort{},
	}
}

func addresses(e fleet.Endpoint, f string) []string {
	var out []string
	for _, a := range e.Named() {
		if a.Is4() == (f == discovery.IPv4) {
			out = append(out, a.String())
		}
	}
	return out
}

func endpoint(e fleet.Endpoint, f string) discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{Addresses: addresses(e, f), Conditions: discoveryv1.EndpointConditions{Ready: &e.Ready}}
	if len(validation.IsDNS1123Label(e.Hostname)) == 0 {
		out.Hostname = &e.Hostname
	}
	if e.Pod != "" {
		// Informative: the pod is in another cluster's API server, so this names it without its UID.
		out.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: e.Pod}
	}
	return out
}

// listening returns the ports of an import that an endpoint listens on, at the endpoint's numbers.
func listening(e fleet.Endpoint, ports []fleet.Port) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for _, p := range ports {
		number, ok := e.Ports[p.Name]
		if !ok {
			continue
		}
		protocol, n := corev1.Protocol(p.Protocol), int32(number)
		ep := discoveryv1.EndpointPort{Name: &p.Name, Protocol: &protocol, Port: &n}
		if p.AppProtocol != "" {
			ep.AppProtocol = &p.AppProtocol
		}
		out = append(out, ep)
	}
	slices.SortFunc(out, func(a, b discoveryv1.EndpointPort) int {
		return cmp.Or(cmp.Compare(*a.Name, *b.Name), cmp.Compare(*a.Port, *b.Port))
	})
	return out
}
