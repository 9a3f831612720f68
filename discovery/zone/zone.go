// Package zone turns the services of a cluster into the names that its DNS answers, as one immutable value: the
// multi-cluster DNS schema 1.0.0 (KEP-1645, specification.md), the same under slice.local, and reverse names.
//
//	<svc>.<ns>.svc.clusterset.local                       A AAAA  the service's addresses, or the ready endpoints if headless
//	                                                      SRV     its ports
//	_<port>._<proto>.<svc>.<ns>.svc.clusterset.local      SRV     of each named port
//	<hostname>.<cluster>.<svc>.<ns>.svc.clusterset.local  A AAAA  one pod of a headless service
//	dns-version.clusterset.local                          TXT     "1.0.0"
//	<reversed address>.in-addr.arpa, .ip6.arpa            PTR     service addresses, and pods of headless services;
//	                                                              in the slices' prefixes no others exist
//
// Under slice.local there are also <pod>.<cluster>.<svc>.<ns>, the names that KubeSlice gives pods, for all services.
//
// Endpoints are answered in the order of the service, nearest first (fleet.Endpoint.Rank).
//
// A name that is known never gets NXDOMAIN. A headless service with nobody ready answers with no records, and so does
// a name that only has other types. Whatever is known to exist but not where (a pod of a StatefulSet that has no
// address yet, a service without an address, everything before the first state came) gets SERVFAIL, which resolvers
// and runtimes do not remember. A pod's own name answers whether the pod is ready or not: the address is its for life,
// and StatefulSets find each other before they are ready.
//
// Records are made once, as github.com/miekg/dns has them, with the owner in lower case; nobody may change them, for
// they are shared by all answers. There are no clocks and no sockets here.
package zone

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"seaway.dev/seaway/fleet"
)

// The zones that are served. The second is an alias of the first for people who come from KubeSlice.
const (
	Main  = "clusterset.local."
	Alias = "slice.local."
)

// Version is that of the DNS schema, as answered under dns-version.
const Version = "1.0.0"

// TTL of all records, seconds. Long enough that a resolver's cache helps in a burst; short enough that an address that
// went is not asked for long. Clients that cache names for ever find service addresses, which stay.
const TTL = 5

// negativeTTL is how long a resolver may remember that there is nothing, seconds: names appear while people wait.
const negativeTTL = 1

// Answer is what a zone has to say about a question.
type Answer struct {
	Code int // a response code: dns.RcodeSuccess, NameError, ServerFailure, or Refused for what is not ours
	Set
	// Authority is set where a name of a served zone has no such records: the SOA record that says for how long that may
	// be remembered.
	Authority dns.RR
}

// Set is some records of one name and type.
type Set struct {
	Records []dns.RR
	// Near is how many of the first records are nearer than the others, 0 if all are alike. Those are to be answered
	// first, in any order; a client that takes the first one takes a near one then.
	Near int
	// Extra holds address records for the targets in Records, for the additional section if there is room.
	Extra []dns.RR
}

// Zone is a state of all names. A nil Zone is the state before anything is known. A Zone never changes.
type Zone struct {
	serial     uint32
	unsure     bool                // there may be more services than those
	services   map[string]*service // by "<svc>.<ns>"
	list       []*service          // the same, in the order in which they came
	namespaces map[string]bool
	reverse    directory           // names of addresses
	prefixes   []netip.Prefix      // in which there are no others
	special    [2]map[string]*node // by the labels before Main and Alias: the apex and what is not about services
	soa        [2]dns.RR           // for the authority section
}

// service holds the names of one service, by the labels before <svc>; "" is the service itself.
type service struct {
	of       fleet.Service // what it was built of
	key      string
	names    [2]map[string]*node
	pointers []pointer
}

// pointer says that an address has a name.
type pointer struct {
	addr netip.Addr
	name string
}

// node is one name. An empty one exists because names below it do.
type node struct {
	sets   map[uint16]*Set // by type
	unsure bool            // it exists, and its addresses are not known yet
}

// Build makes the zone that follows old, which may be nil, out of services. What did not change is taken from old, so
// that a change costs what changed. Names that DNS cannot carry (a label over 63 bytes, a name over 255) are left out.
func Build(services []fleet.Service, old *Zone) *Zone {
	if old == nil {
		old = new(Zone)
	}
	z := &Zone{serial: old.serial + 1}
	order := func(a, b fleet.Service) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.Slice, b.Slice))
	}
	if !slices.IsSortedFunc(services, order) {
		services = slices.Clone(services)
		slices.SortStableFunc(services, order)
	}
	became := turn{}
	if !z.follow(services, old, became) {
		z.gather(services, old, became)
	}
	z.reverse = old.reverse.next(became)
	for i, apex := range []string{Main, Alias} {
		z.addSpecial(i, apex)
	}
	return z
}

// Doubt returns the zone of somebody who has not heard of all services yet: names of services that it lacks get SERVFAIL
// instead of NXDOMAIN.
func (z *Zone) Doubt() *Zone {
	out := *z
	out.unsure = true
	return &out
}

// follow takes over the zone before if the services have the names that they had then, which is nearly always so; if not
// it does nothing.
func (z *Zone) follow(services []fleet.Service, old *Zone, became turn) bool {
	if len(services) != len(old.list) || len(services) == 0 {
		return false
	}
	for i := range services {
		if a, b := &old.list[i].of, &services[i]; a.Name != b.Name || a.Namespace != b.Namespace {
			return false
		}
	}
	z.namespaces, z.services, z.list = old.namespaces, maps.Clone(old.services), slices.Clone(old.list)
	for i, was := range old.list {
		if sv := was.next(&services[i], became); sv != was {
			z.list[i], z.services[sv.key] = sv, sv
		}
	}
	return true
}

// gather makes the zone of services with whatever names, and takes over those that did not change.
func (z *Zone) gather(services []fleet.Service, old *Zone, became turn) {
	z.services, z.namespaces = make(map[string]*service, len(services)), map[string]bool{}
	for i := range services {
		z.add(&services[i], old, became)
	}
	for key, was := range old.services {
		if z.services[key] == nil {
			became.swap(was.pointers, nil)
		}
	}
}

// next is what a service becomes; itself if nothing changed.
func (sv *service) next(s *fleet.Service, became turn) *service {
	if sv.of.Same(s) || reflect.DeepEqual(sv.of, *s) {
		return sv
	}
	now := newService(s, sv.key)
	became.swap(sv.pointers, now.pointers)
	return now
}

// add puts the names of one service into the zone. A namespace is on one slice of a cluster, so that a name belongs to
// one service; should two come, the first stays.
func (z *Zone) add(s *fleet.Service, old *Zone, became turn) {
	name, ok1 := label(s.Name)
	ns, ok2 := label(s.Namespace)
	key := name + "." + ns
	if !ok1 || !ok2 || z.services[key] != nil {
		return
	}
	sv := old.services[key]
	if sv == nil {
		sv = newService(s, key)
		became.swap(nil, sv.pointers)
	} else {
		sv = sv.next(s, became)
	}
	z.services[key], z.namespaces[ns] = sv, true
	z.list = append(z.list, sv)
}

func (z *Zone) addSpecial(i int, apex string) {
	server := "ns.dns." + apex
	soa := func(ttl uint32) *dns.SOA { // refresh, retry, expire: nobody transfers the zone
		return &dns.SOA{Hdr: header(apex, dns.TypeSOA, ttl), Ns: server, Mbox: "hostmaster." + apex,
			Serial: z.serial, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: negativeTTL}
	}
	one := func(rr dns.RR) *Set { return &Set{Records: []dns.RR{rr}} }
	version := &dns.TXT{Hdr: header("dns-version."+apex, dns.TypeTXT, TTL), Txt: []string{Version}}
	z.soa[i] = soa(negativeTTL)
	z.special[i] = map[string]*node{
		"": {sets: map[uint16]*Set{
			dns.TypeSOA: one(soa(TTL)),
			dns.TypeNS:  one(&dns.NS{Hdr: header(apex, dns.TypeNS, TTL), Ns: server}),
		}},
		"dns-version": {sets: map[uint16]*Set{dns.TypeTXT: one(version)}},
		"svc":         {},
		"dns":         {},
		"ns.dns":      {},
	}
}

// Lookup answers a question about a name as people write it, or as package github.com/miekg/dns reads it: in any case,
// with or without the final dot, odd bytes escaped.
func (z *Zone) Lookup(name string, qtype uint16) Answer {
	name = dns.CanonicalName(name)
	if _, ok := dns.IsDomainName(name); !ok {
		return Answer{Code: dns.RcodeRefused}
	}
	apex, i := Main, 0
	switch {
	case dns.IsSubDomain(Main, name):
	case dns.IsSubDomain(Alias, name):
		apex, i = Alias, 1
	default:
		return z.pointer(name, qtype)
	}
	if z == nil {
		return Answer{Code: dns.RcodeServerFailure}
	}
	labels := strings.TrimSuffix(strings.TrimSuffix(name, apex), ".")
	n, exists := z.node(labels, i)
	negative := Answer{Authority: z.soa[i]}
	if !exists && z.unsure && strings.HasSuffix(labels, ".svc") {
		return Answer{Code: dns.RcodeServerFailure}
	}
	if !exists {
		negative.Code = dns.RcodeNameError
		return negative
	}
	if n == nil {
		return negative
	}
	if set := n.set(qtype); set != nil {
		return Answer{Set: *set}
	}
	if n.unsure && (qtype == dns.TypeA || qtype == dns.TypeAAAA || qtype == dns.TypeANY) {
		return Answer{Code: dns.RcodeServerFailure}
	}
	return negative
}

// node finds a name by the labels before the zone's apex. It may be nil and exist: names below it do.
func (z *Zone) node(labels string, i int) (n *node, exists bool) {
	if n, ok := z.special[i][labels]; ok {
		return n, true
	}
	at := dns.Split(labels) // where each label begins
	last := len(at) - 1
	switch {
	case labels[at[last]:] != "svc":
		return nil, false
	case last == 1:
		return nil, z.namespaces[labels[:at[last]-1]]
	}
	sv := z.services[labels[at[last-2]:at[last]-1]]
	if sv == nil {
		return nil, false
	}
	n, exists = sv.names[i][strings.TrimSuffix(labels[:at[last-2]], ".")]
	return n, exists
}

// set returns the records of a type. For ANY it returns some type's, as RFC 8482 allows.
func (n *node) set(qtype uint16) *Set {
	if s := n.sets[qtype]; s != nil || qtype != dns.TypeANY {
		return s
	}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeTXT, dns.TypeSOA} {
		if s := n.sets[t]; s != nil {
			return s
		}
	}
	return nil
}
