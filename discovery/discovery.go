// Package discovery decides what exported services become: it merges what all clusters export under one name into
// what one cluster imports, by the rules of the Multi-Cluster Services API (KEP-1645), and says which conditions the
// exports and the import get. It does no I/O; its packages carry the answer out:
//
//	discovery/kube      reads exports here, writes imports, endpoint slices and conditions
//	discovery/zone      the names to answer, as one immutable value
//	discovery/dns       answers them
//	discovery/corefile  makes the cluster's own DNS ask us
//
// The rules in one place (KEP-1645, "Constraints and Conflict Resolution"):
//
//	exists      while at least one cluster exports the name, wherever its namespace exists and is on the slice
//	precedence  the oldest ServiceExport wins whatever can not be merged; all exports are told of the conflict
//	ports       the union: the same name or the same protocol and number is the same port; the oldest says which
//	endpoints   of all clusters; each only for the ports that its own cluster exposes
//	            and only in the address families that the import has
package discovery

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"seaway.dev/seaway/fleet"
)

// Address families as Kubernetes writes them.
const (
	IPv4 = "IPv4"
	IPv6 = "IPv6"
)

// Input is all that a merge depends on.
type Input struct {
	// Exports of every cluster, this one included, by the cluster's name.
	Exports map[string][]fleet.Export
	// Local tells which slice a namespace of this cluster is on; false if the namespace does not exist here or is on
	// no slice. Exports of the same name on another slice are another network's and are not seen.
	Local func(namespace string) (slice string, ok bool)
	// IPs returns the service addresses that this cluster holds for a name, at most one per family. It is asked for
	// imports that are not headless; none yet means that the import waits.
	IPs func(slice, namespace, name string) []netip.Addr
	// Families returns the address families of a slice, IPv4 and IPv6 as Kubernetes writes them.
	Families func(slice string) []string
}

// Import is a name as this cluster sees it. The embedded service is what nodes balance and answer names from.
type Import struct {
	fleet.Service

	Families    []string          // in the order of the oldest export; Service.IPs follow it
	Labels      map[string]string // exported ones, of the oldest export
	Annotations map[string]string // exported ones, of the oldest export
	Oldest      string            // the cluster whose export wins conflicts
	Conflicts   []Conflict        // sorted as the standard lists the reasons; empty if the exports agree
}

// offer is one cluster's export.
type offer struct {
	cluster string
	fleet.Export
}

// Merge returns the imports of one cluster, sorted by namespace and name. The same exports give the same imports in
// whatever order they come.
func Merge(in Input) []Import {
	groups := map[string][]offer{}
	for cluster, exports := range in.Exports {
		for _, e := range exports {
			slice, ok := in.Local(e.Namespace)
			if !ok || slice != e.Slice {
				continue
			}
			key := e.Namespace + "/" + e.Name
			groups[key] = append(groups[key], offer{cluster, e})
		}
	}
	out := make([]Import, 0, len(groups))
	for _, offers := range groups {
		out = append(out, merge(offers, in))
	}
	slices.SortFunc(out, func(a, b Import) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// merge makes one import of at least one offer of one name on one slice.
func merge(offers []offer, in Input) Import {
	slices.SortFunc(offers, func(a, b offer) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.cluster, b.cluster))
	})
	first := offers[0]
	ports, served := mergePorts(offers)
	families := orderedFamilies(first.Export.Families, in.Families(first.Slice))
	im := Import{
		Service: fleet.Service{
			Namespace: first.Namespace, Name: first.Name, Slice: first.Slice,
			Headless:              first.Headless,
			Ports:                 ports,
			InternalTrafficPolicy: first.InternalTrafficPolicy,
			TrafficDistribution:   first.TrafficDistribution,
		},
		Families:    families,
		Labels:      maps.Clone(first.Labels),
		Annotations: maps.Clone(first.Annotations),
		Oldest:      first.cluster,
	}
	if !im.Headless {
		im.Affinity, im.Timeout = first.Affinity, first.Timeout
		im.IPs = pick(in.IPs(im.Slice, im.Namespace, im.Name), families)
	}
	for i, o := range offers {
		im.Clusters = append(im.Clusters, o.cluster)
		im.Endpoints = append(im.Endpoints, endpoints(o, served[i], families, im.Headless)...)
	}
	slices.Sort(im.Clusters)
	im.Clusters = slices.Compact(im.Clusters)
	slices.SortFunc(im.Endpoints, compareEndpoints)
	im.Conflicts = conflicts(offers, im)
	return im
}

// mergePorts makes the union of the ports: first by name, then by protocol and number, the oldest export first. For
// each offer it also returns which port of the union each of the offer's own ports serves, by name; a port that lost a
// conflict serves none, so that no traffic reaches a cluster that does not expose the port.
func mergePorts(offers []offer) (union []fleet.Port, served []map[string]string) {
	for _, o := range offers {
		names := map[string]string{}
		for _, p := range o.Ports {
			i := slices.IndexFunc(union, func(q fleet.Port) bool { return q.Name == p.Name })
			if i < 0 {
				i = slices.IndexFunc(union, func(q fleet.Port) bool { return q.Protocol == p.Protocol && q.Port == p.Port })
			}
			switch {
			case i < 0:
				union = append(union, p)
				names[p.Name] = p.Name
			case union[i].Protocol == p.Protocol && union[i].Port == p.Port:
				names[p.Name] = union[i].Name
			}
		}
		served = append(served, names)
	}
	return union, served
}

// endpoints returns an offer's endpoints with the ports named as the import names them and the addresses of the
// import's families. Endpoints that keep neither an address nor a name are left out.
func endpoints(o offer, served map[string]string, families []string, headless bool) []fleet.Endpoint {
	out := make([]fleet.Endpoint, 0, len(o.Endpoints))
	for _, e := range o.Endpoints {
		had := len(e.Addrs)
		e.Cluster = o.cluster // nobody speaks for another cluster
		e.Addrs = slices.DeleteFunc(slices.Clone(e.Addrs), func(a netip.Addr) bool {
			return !slices.Contains(families, family(a))
		})
		if !headless {
			e.PodAddrs = nil // nobody is told them
		}
		e.PodAddrs = slices.DeleteFunc(slices.Clone(e.PodAddrs), func(a netip.Addr) bool {
			return !slices.Contains(families, family(a))
		})
		if len(e.Addrs) == 0 && (had > 0 || e.Hostname == "") {
			continue
		}
		ports := make(map[string]uint16, len(e.Ports))
		for name, number := range e.Ports {
			if as, ok := served[name]; ok {
				ports[as] = number
			}
		}
		e.Ports = ports
		out = append(out, e)
	}
	return out
}

// orderedFamilies returns the families of an import: those of the slice that the oldest export wants, in its order.
// An export that wants none of the slice's families gets all of the slice's: a pod on an IPv6 slice is reached there
// even if its cluster knows IPv4 only.
func orderedFamilies(wanted, have []string) []string {
	var out []string
	for _, f := range wanted {
		if slices.Contains(have, f) && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		return slices.Clone(have)
	}
	return out
}

// pick orders addresses by family and drops those of other families.
func pick(addrs []netip.Addr, families []string) []netip.Addr {
	var out []netip.Addr
	for _, f := range families {
		if i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return family(a) == f }); i >= 0 {
			out = append(out, addrs[i])
		}
	}
	return out
}

func family(a netip.Addr) string {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

func compareEndpoints(a, b fleet.Endpoint) int {
	return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Hostname, b.Hostname),
		slices.CompareFunc(a.Addrs, b.Addrs, netip.Addr.Compare), cmp.Compare(a.Node, b.Node))
}
