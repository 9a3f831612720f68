package kube

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
	"seaway.dev/seaway/fleet"
)

// read returns the ServiceExport of a name, nil if there is none, and what it exports.
func (r *Reconciler) read(ctx context.Context, key types.NamespacedName) (*mcs.ServiceExport, local, error) {
	object := new(mcs.ServiceExport)
	if err := r.client.Get(ctx, key, object); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, local{}, nil
		}
		return nil, local{}, fmt.Errorf("get ServiceExport %s: %w", key, err)
	}
	if object.DeletionTimestamp != nil {
		return nil, local{}, nil
	}
	service := new(corev1.Service)
	if err := r.client.Get(ctx, key, service); err != nil {
		if apierrors.IsNotFound(err) {
			return object, local{reason: discovery.ReasonNoService}, nil
		}
		return nil, local{}, fmt.Errorf("get Service %s: %w", key, err)
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return object, local{reason: discovery.ReasonInvalidServiceType}, nil
	}
	if len(service.Spec.Ports) > discovery.MaxPorts {
		return object, local{reason: discovery.ReasonTooManyPorts}, nil
	}
	slice, ok := r.cfg.SliceOf(key.Namespace)
	if !ok {
		return object, local{reason: discovery.ReasonNamespaceNotOnSlice}, nil
	}
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(key.Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: key.Name}); err != nil {
		return nil, local{}, fmt.Errorf("list EndpointSlices of Service %s: %w", key, err)
	}
	e := exportOf(object, service, slice)
	pod := func(name string) ([]netip.Addr, bool) { return r.cfg.Pod(key.Namespace, name) }
	e.Endpoints = endpointsOf(list.Items, service, r.cfg.Cluster, pod, r.cfg.Networks(slice))
	if e.Headless {
		like := fleet.Endpoint{Cluster: r.cfg.Cluster, Ports: portsOf(service)}
		e.Endpoints = withExpected(e.Endpoints, like, r.cfg.Expected(key.Namespace, key.Name), pod)
	}
	if weight := weightOf(object); weight > 1 {
		for i := range e.Endpoints {
			e.Endpoints[i].Weight = weight
		}
	}
	return object, local{export: e}, nil
}

// WeightAnnotation on a ServiceExport says how much traffic each endpoint of this cluster gets where several clusters
// share it: a number from 1, which is what all have without it, to 1000.
const WeightAnnotation = "seaway.dev/weight"

// weightOf reads the annotation; what is no such number counts as none.
func weightOf(object *mcs.ServiceExport) int {
	n, err := strconv.Atoi(object.Annotations[WeightAnnotation])
	if err != nil || n < 1 || n > 1000 {
		return 0
	}
	return n
}

// exportOf translates a ServiceExport and its Service, without endpoints.
func exportOf(object *mcs.ServiceExport, service *corev1.Service, slice string) fleet.Export {
	e := fleet.Export{
		Namespace: service.Namespace, Name: service.Name, Slice: slice,
		Created:     object.CreationTimestamp.UTC(),
		Headless:    service.Spec.ClusterIP == corev1.ClusterIPNone,
		Affinity:    service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
		Families:    familiesOf(service),
		Labels:      maps.Clone(object.Spec.ExportedLabels),
		Annotations: maps.Clone(object.Spec.ExportedAnnotations),
	}
	for _, p := range service.Spec.Ports {
		port := fleet.Port{Name: p.Name, Protocol: fleet.Protocol(cmp.Or(p.Protocol, corev1.ProtocolTCP)), Port: uint16(p.Port)}
		if p.AppProtocol != nil {
			port.AppProtocol = *p.AppProtocol
		}
		e.Ports = append(e.Ports, port)
	}
	if c := service.Spec.SessionAffinityConfig; e.Affinity && c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		e.Timeout = *c.ClientIP.TimeoutSeconds
	}
	if p := service.Spec.InternalTrafficPolicy; p != nil {
		e.InternalTrafficPolicy = string(*p)
	}
	if d := service.Spec.TrafficDistribution; d != nil {
		e.TrafficDistribution = *d
	}
	return e
}

// familiesOf returns the address families that a Service wants: those it has, and the other one as well if it asked
// for both where they are to be had. A cluster without IPv6 gives such a service IPv4 only; a slice may have both.
func familiesOf(service *corev1.Service) []string {
	var out []string
	for _, f := range service.Spec.IPFamilies {
		out = append(out, string(f))
	}
	if p := service.Spec.IPFamilyPolicy; len(out) == 1 && p != nil && *p != corev1.IPFamilyPolicySingleStack {
		other := discovery.IPv6
		if out[0] == other {
			other = discovery.IPv4
		}
		out = append(out, other)
	}
	return out
}

// member is a pod behind a service, as its EndpointSlices tell.
type member struct {
	pod      string
	node     string
	hostname string
	ready    bool
	ports    map[string]uint16
	podIPs   map[string]string // by family, as the EndpointSlice writes them
}

// endpointsOf translates the EndpointSlices of a Service. Endpoints that are no pods of the slice are left out:
// nobody could reach them over it. A pod with a name of its own in DNS stays even before it has an address. networks are
// those whose addresses a headless service's pods are told of.
func endpointsOf(list []discoveryv1.EndpointSlice, service *corev1.Service, cluster string, pod func(name string) ([]netip.Addr, bool), networks []netip.Prefix) []fleet.Endpoint {
	headless := service.Spec.ClusterIP == corev1.ClusterIPNone
	var out []fleet.Endpoint
	for _, m := range members(list) {
		addrs, attached := pod(m.pod)
		if len(addrs) == 0 && (!headless || m.hostname == "") {
			continue
		}
		e := fleet.Endpoint{Cluster: cluster, Node: m.node, Pod: m.pod, Hostname: m.hostname,
			Addrs: addrs, Ready: m.ready && attached && len(addrs) > 0, Ports: m.ports}
		if headless {
			e.PodAddrs = m.within(networks)
		}
		if !headless || m.hostname != "" {
			out = append(out, e)
			continue
		}
		out = append(out, nameless(e, m)...)
	}
	slices.SortFunc(out, func(a, b fleet.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Hostname, b.Hostname))
	})
	return out
}

// withExpected adds the pods that StatefulSets give to a headless service and that Kubernetes does not list, because
// they are not there yet, or just now not: they keep their names and addresses and are not ready.
func withExpected(endpoints []fleet.Endpoint, like fleet.Endpoint, expected []string, pod func(name string) ([]netip.Addr, bool)) []fleet.Endpoint {
	listed := map[string]bool{}
	for _, e := range endpoints {
		listed[e.Pod] = true
	}
	for _, name := range expected {
		if listed[name] {
			continue
		}
		listed[name] = true
		addrs, _ := pod(name)
		e := like
		e.Pod, e.Hostname, e.Addrs = name, name, addrs
		endpoints = append(endpoints, e)
	}
	slices.SortFunc(endpoints, func(a, b fleet.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Hostname, b.Hostname))
	})
	return endpoints
}

// portsOf tells where a Service's pods listen as far as it says so by number; ports that it names are known only once
// there is a pod.
func portsOf(service *corev1.Service) map[string]uint16 {
	out := map[string]uint16{}
	for _, p := range service.Spec.Ports {
		switch {
		case p.TargetPort.Type == intstr.String:
		case p.TargetPort.IntVal == 0:
			out[p.Name] = uint16(p.Port)
		default:
			out[p.Name] = uint16(p.TargetPort.IntVal)
		}
	}
	return out
}

// within returns the pod's own addresses that are in some networks, one a family, IPv4 first.
func (m *member) within(networks []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, f := range []string{discovery.IPv4, discovery.IPv6} {
		a, err := netip.ParseAddr(m.podIPs[f])
		if err == nil && slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, a)
		}
	}
	return out
}

// nameless gives a headless service's pod that has no hostname the name that Kubernetes' DNS gives it: its pod IP with
// dashes. A pod with two pod IPs gets two such names, each for the slice address of that family.
func nameless(e fleet.Endpoint, m *member) []fleet.Endpoint {
	dashed := strings.NewReplacer(".", "-", ":", "-")
	var out []fleet.Endpoint
	for _, f := range []string{discovery.IPv4, discovery.IPv6} {
		ip, ok := m.podIPs[f]
		if !ok {
			continue
		}
		one := e
		one.Hostname = dashed.Replace(ip)
		if len(m.podIPs) == 2 {
			other := func(a netip.Addr) bool { return a.Is4() != (f == discovery.IPv4) }
			one.Addrs, one.PodAddrs = slices.DeleteFunc(slices.Clone(e.Addrs), other), slices.DeleteFunc(slices.Clone(e.PodAddrs), other)
		}
		if len(one.Addrs) > 0 {
			out = append(out, one)
		}
	}
	return out
}

// members gathers the endpoints of a service's EndpointSlices by pod. While a pod moves between two of them, either
// may say that it is ready.
func members(list []discoveryv1.EndpointSlice) []*member {
	byPod := map[string]*member{}
	for i := range list {
		es := &list[i]
		if _, imported := es.Labels[mcs.LabelSourceCluster]; imported || es.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for j := range es.Endpoints {
			ep := &es.Endpoints[j]
			if ep.TargetRef == nil || ep.TargetRef.Kind != "Pod" || len(ep.Addresses) == 0 {
				continue
			}
			m := byPod[ep.TargetRef.Name]
			if m == nil {
				m = &member{pod: ep.TargetRef.Name, ports: map[string]uint16{}, podIPs: map[string]string{}}
				byPod[m.pod] = m
			}
			m.add(es, ep)
		}
	}
	return slices.SortedFunc(maps.Values(byPod), func(a, b *member) int { return cmp.Compare(a.pod, b.pod) })
}

func (m *member) add(es *discoveryv1.EndpointSlice, ep *discoveryv1.Endpoint) {
	if ep.NodeName != nil {
		m.node = *ep.NodeName
	}
	if ep.Hostname != nil {
		m.hostname = *ep.Hostname
	}
	m.ready = m.ready || ep.Conditions.Ready == nil || *ep.Conditions.Ready
	m.podIPs[string(es.AddressType)] = ep.Addresses[0]
	for _, p := range es.Ports {
		if p.Port == nil || *p.Port <= 0 || *p.Port > 65535 {
			continue
		}
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		m.ports[name] = uint16(*p.Port)
	}
}
