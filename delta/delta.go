// Package delta says what changed between two values that somebody is told of again and again, and makes the newer
// one from the older one and what changed:
//
//	cluster ── bulletin, then deltas ──▶ clusters      Bulletin, ApplyBulletin
//	controller ── intent, then deltas ──▶ node         Intent, ApplyIntent
//
// A delta is made only of lists that are sorted and name nothing twice; where one is not, there is no delta and the
// whole value is told. So applying a delta gives the writer's value, list for list. Comparing costs a few nanoseconds
// for what is shared between the two values, which unchanged parts are.
//
// Pure: no clock, no I/O. Values given are never changed; results share parts of them.
package delta

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// ErrBase says that a delta builds on another version than the one at hand: the whole value is needed.
var ErrBase = errors.New("the change builds on another version")

// list is how the entries of one list are ordered and compared.
type list[T any] struct {
	order func(a, b T) int
	equal func(a, b T) bool
}

// diff walks two sorted lists. It returns the entries of now that are new or different, those of old that are no more,
// and false if one of the lists is not sorted or names something twice.
func (l list[T]) diff(old, now []T) (put, gone []T, ok bool) {
	if fleet.SameList(old, now) {
		return nil, nil, true
	}
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		if i > 0 && i < len(old) && l.order(old[i-1], old[i]) >= 0 || j > 0 && j < len(now) && l.order(now[j-1], now[j]) >= 0 {
			return nil, nil, false
		}
		c := 0
		switch {
		case i == len(old):
			c = 1
		case j == len(now):
			c = -1
		default:
			c = l.order(old[i], now[j])
		}
		switch {
		case c < 0:
			gone = append(gone, old[i])
			i++
		case c > 0:
			put = append(put, now[j])
			j++
		default:
			if !l.equal(old[i], now[j]) {
				put = append(put, now[j])
			}
			i, j = i+1, j+1
		}
	}
	return put, gone, true
}

// apply returns old with some entries put in and others taken out; both sorted.
func (l list[T]) apply(old, put, gone []T) []T {
	if len(put) == 0 && len(gone) == 0 {
		return old
	}
	out := make([]T, 0, len(old)+len(put))
	i, g := 0, 0
	keep := func(upTo int) {
		for i < upTo && g < len(gone) {
			at, found := slices.BinarySearchFunc(old[i:upTo], gone[g], l.order)
			out = append(out, old[i:i+at]...)
			i += at
			if found {
				i++
			}
			if i >= upTo && !found {
				return // it lies further on
			}
			g++
		}
		if i < upTo {
			out = append(out, old[i:upTo]...)
			i = upTo
		}
	}
	for _, p := range put {
		at, found := slices.BinarySearchFunc(old[i:], p, l.order)
		keep(i + at)
		out = append(out, p)
		if found {
			i++
		}
	}
	keep(len(old))
	if len(out) == 0 {
		return nil
	}
	return out
}

// sorted puts what came from outside in order, the last of two equal entries winning.
func (l list[T]) sorted(in []T) []T {
	out := slices.Clone(in)
	slices.SortStableFunc(out, l.order)
	n := 0
	for i := range out {
		if n > 0 && l.order(out[n-1], out[i]) == 0 {
			n--
		}
		out[n] = out[i]
		n++
	}
	return out[:n]
}

func comparePods(a, b fleet.Pod) int {
	return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

func equalPods(a, b fleet.Pod) bool {
	return a.UID == b.UID && a.Namespace == b.Namespace && a.Name == b.Name && a.Slice == b.Slice && a.Cluster == b.Cluster &&
		a.Node == b.Node && a.Ready == b.Ready && equalAddrs(a.Addrs, b.Addrs) && equalAddrs(a.PodIPs, b.PodIPs) &&
		maps.Equal(a.Labels, b.Labels)
}

func equalAddrs(a, b []netip.Addr) bool { return fleet.SameList(a, b) || slices.Equal(a, b) }

var pods = list[fleet.Pod]{comparePods, equalPods}

// compareEndpoints is the order in which discovery lists them, as far as it is by what names them.
func compareEndpoints(a, b fleet.Endpoint) int {
	return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Pod, b.Pod), strings.Compare(a.Hostname, b.Hostname))
}

func equalEndpoints(a, b fleet.Endpoint) bool {
	return a.Cluster == b.Cluster && a.Node == b.Node && a.Pod == b.Pod && a.Hostname == b.Hostname && a.Ready == b.Ready &&
		a.Weight == b.Weight && a.Rank == b.Rank &&
		equalAddrs(a.Addrs, b.Addrs) && equalAddrs(a.PodAddrs, b.PodAddrs) && maps.Equal(a.Ports, b.Ports)
}

var endpoints = list[fleet.Endpoint]{compareEndpoints, equalEndpoints}

// endpointsGone turns names of endpoints into what apply takes.
func endpointsGone(ids []string) []fleet.Endpoint {
	out := make([]fleet.Endpoint, 0, len(ids))
	for _, id := range ids {
		cluster, rest, _ := strings.Cut(id, "/")
		pod, hostname, _ := strings.Cut(rest, "/")
		out = append(out, fleet.Endpoint{Cluster: cluster, Pod: pod, Hostname: hostname})
	}
	return endpoints.sorted(out)
}

func endpointIDs(es []fleet.Endpoint) []string {
	var out []string
	for _, e := range es {
		out = append(out, e.ID())
	}
	return out
}

func compareNames(ns1, name1, ns2, name2 string) int {
	return cmp.Or(strings.Compare(ns1, ns2), strings.Compare(name1, name2))
}
