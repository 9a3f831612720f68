// Package zone turns the services of a cluster into the names that its DNS answers, as one immutable value: the
// multi-cluster DNS schema 1.0.0 (KEP-1645, specification.md), the same under slice.local, and reverse names.
//
//	<svc>.<ns>.svc.clusterset.local                       A AAAA  the service's addresses, or the ready endpoints if headless
//	                                                      SRV     its ports
//	_<port>._<proto>.<svc>.<ns>.svc.clusterset.local      SRV     of each named port
//	<hostname>.<cluster>.<svc>.<ns>.svc.clusterset.local  A AAAA  one pod of a headless service
//	dns-version.clusterset.local                          TXT     "1.0.0"
//	<reversed address>.in-addr.arpa, .ip6.arpa            PTR     service addresses, and pods of headless services
//
// Under slice.local there are also <pod>.<cluster>.<svc>.<ns>, the names that KubeSlice gives pods, for all services.
//
// A name that is known never gets NXDOMAIN. A headless service with nobody ready answers with no records, and so does
// a name that only has other types. Whatever is known to exist but not where (a pod of a StatefulSet that has no
// address yet, a service without an address, everything before the first state came) gets SERVFAIL, which resolvers
// and runtimes do not remember. A pod's own name answers whether the pod is ready or not: the address is its for life,
// and StatefulSets find each other before they are ready.
//
// Records are kept as the bytes that go over the wire, so that answering copies and never formats: package dns adds
// header and question. There are no clocks and no sockets here.
package zone

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// The zones that are served. The second is an alias of the first for people who come from KubeSlice.
const (
	Main  = "clusterset.local"
	Alias = "slice.local"
)

// Version is that of the DNS schema, as answered under dns-version.
const Version = "1.0.0"

// TTL of all records, seconds. Long enough that a resolver's cache helps in a burst; short enough that an address that
// went is not asked for long. Clients that cache names for ever find service addresses, which stay.
const TTL = 5

// negativeTTL is how long a resolver may remember that there is nothing, seconds: names appear while people wait.
const negativeTTL = 1

// Record types (RFC 1035, 2782, 3596).
const (
	A    uint16 = 1
	NS   uint16 = 2
	SOA  uint16 = 6
	PTR  uint16 = 12
	TXT  uint16 = 16
	AAAA uint16 = 28
	SRV  uint16 = 33
	ANY  uint16 = 255
)

// Code is a response code (RFC 1035 §4.1.1).
type Code uint8

// The response codes of a zone.
const (
	NoError  Code = 0
	ServFail Code = 2
	NXDomain Code = 3
	Refused  Code = 5 // not ours
)

// Answer is what a zone has to say about a question.
type Answer struct {
	Code Code
	Set  *Set // the records; nil for none
	// Authority is set where a name of a served zone has no such records: the SOA record that says for how long that may
	// be remembered. Its owner is the last Suffix bytes of the name asked for.
	Authority *Set
	Suffix    int
}

// Set is some records as they go over the wire, each beginning with a pointer to the question's name (offset 12) as
// its owner.
type Set struct {
	Wire []byte
	Ends []int // where each record ends in Wire
	// Extra holds address records for the targets in Wire, for the additional section if there is room; their owners
	// are written out.
	Extra  []byte
	Extras int
}

// Len returns the number of records.
func (s *Set) Len() int { return len(s.Ends) }

// Zone is a state of all names. A nil Zone is the state before anything is known. A Zone never changes.
type Zone struct {
	serial     uint32
	services   map[string]*service // by the labels <svc><ns>, in wire form and lower case
	namespaces map[string]bool     // by the label <ns>
	reverse    map[string]*Set     // by the whole name
	special    [2]map[string]*node // by the labels before Main and Alias: the apex and what is not about services
	soa        [2]*Set
}

// service holds the names of one service, by the labels before <svc>; "" is the service itself.
type service struct {
	of       fleet.Service // what it was built of
	names    [2]map[string]*node
	pointers []pointer
}

// pointer says that an address has a name, in wire form.
type pointer struct {
	addr netip.Addr
	name string
}

// node is one name. An empty one exists because names below it do.
type node struct {
	sets   map[uint16]*Set
	unsure bool // it exists, and its addresses are not known yet
}

// Build makes the zone that follows old, which may be nil, out of services. What did not change is taken from old, so
// that a change costs what changed. Names that DNS cannot carry (a label over 63 bytes, a name over 255) are left out.
func Build(services []fleet.Service, old *Zone) *Zone {
	z := &Zone{
		serial:     1,
		services:   make(map[string]*service, len(services)),
		namespaces: map[string]bool{},
		reverse:    map[string]*Set{},
	}
	if old != nil {
		z.serial = old.serial + 1
	}
	services = slices.Clone(services)
	slices.SortStableFunc(services, func(a, b fleet.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Slice, b.Slice))
	})
	pointers := map[netip.Addr][]string{}
	for i := range services {
		z.add(&services[i], old, pointers)
	}
	for addr, names := range pointers {
		z.reverse[string(reverseName(addr))] = pointerSet(names)
	}
	for i, apex := range []string{Main, Alias} {
		z.addSpecial(i, apex)
	}
	return z
}

// add puts the names of one service into the zone. A namespace is on one slice of a cluster, so that a name belongs to
// one service; should two come, the first stays.
func (z *Zone) add(s *fleet.Service, old *Zone, pointers map[netip.Addr][]string) {
	name, ok1 := appendLabel(nil, s.Name)
	ns, ok2 := appendLabel(nil, s.Namespace)
	key := string(name) + string(ns)
	if !ok1 || !ok2 || z.services[key] != nil {
		return
	}
	var sv *service
	if old != nil {
		sv = old.services[key]
	}
	if sv == nil || !reflect.DeepEqual(sv.of, *s) {
		sv = newService(s)
	}
	z.services[key] = sv
	z.namespaces[string(ns)] = true
	for _, p := range sv.pointers {
		pointers[p.addr] = append(pointers[p.addr], p.name)
	}
}

func (z *Zone) addSpecial(i int, apex string) {
	suffix := mustName(apex)
	server := append(mustName("ns.dns")[:7], suffix...)
	var soa []byte
	soa = append(soa, server...)
	soa = append(soa, append(mustName("hostmaster")[:11], suffix...)...)
	for _, v := range []uint32{z.serial, 7200, 1800, 86400, negativeTTL} { // refresh, retry, expire: nobody transfers the zone
		soa = binary.BigEndian.AppendUint32(soa, v)
	}
	z.soa[i] = new(Set)
	z.soa[i].add(SOA, negativeTTL, soa)
	apexSOA, ns, version := new(Set), new(Set), new(Set)
	apexSOA.add(SOA, TTL, soa)
	ns.add(NS, TTL, server)
	version.add(TXT, TTL, append([]byte{byte(len(Version))}, Version...))
	z.special[i] = map[string]*node{
		"":                {sets: map[uint16]*Set{SOA: apexSOA, NS: ns}},
		"\x0bdns-version": {sets: map[uint16]*Set{TXT: version}},
		"\x03svc":         {},
		"\x03dns":         {},
		"\x02ns\x03dns":   {},
	}
}

// The zones' names in wire form.
const (
	mainWire  = "\x0aclusterset\x05local\x00"
	aliasWire = "\x05slice\x05local\x00"
	svcWire   = "\x03svc"
	reverse4  = "\x07in-addr\x04arpa\x00"
	reverse6  = "\x03ip6\x04arpa\x00"
)

// Find answers a question. name is in wire form, in lower case, and well formed (as package dns reads it): labels with
// their lengths, and a zero at the end.
func (z *Zone) Find(name []byte, qtype uint16) Answer {
	i, suffix := 0, len(mainWire)
	switch {
	case hasSuffix(name, mainWire):
	case hasSuffix(name, aliasWire):
		i, suffix = 1, len(aliasWire)
	case z != nil && (hasSuffix(name, reverse4) || hasSuffix(name, reverse6)):
		// Only addresses that are ours: the prefix of a slice may be anybody's elsewhere.
		if set := z.reverse[string(name)]; set != nil {
			if qtype == PTR || qtype == ANY {
				return Answer{Set: set}
			}
			return Answer{}
		}
		return Answer{Code: Refused}
	default:
		return Answer{Code: Refused}
	}
	if z == nil {
		return Answer{Code: ServFail}
	}
	n, exists := z.node(name[:len(name)-suffix], i)
	negative := Answer{Authority: z.soa[i], Suffix: suffix}
	if !exists {
		negative.Code = NXDomain
		return negative
	}
	if n == nil {
		return negative
	}
	if set := n.set(qtype); set != nil {
		return Answer{Set: set}
	}
	if n.unsure && (qtype == A || qtype == AAAA || qtype == ANY) {
		return Answer{Code: ServFail}
	}
	return negative
}

// node finds a name by the labels before the zone's apex. It may be nil and exist: names below it do.
func (z *Zone) node(labels []byte, i int) (n *node, exists bool) {
	if n, ok := z.special[i][string(labels)]; ok {
		return n, true
	}
	if !hasSuffix(labels, svcWire) {
		return nil, false
	}
	labels = labels[:len(labels)-len(svcWire)]
	ns, svc := lastTwo(labels)
	if svc < 0 {
		return nil, ns == 0 && z.namespaces[string(labels)]
	}
	sv := z.services[string(labels[svc:])]
	if sv == nil {
		return nil, false
	}
	n, exists = sv.names[i][string(labels[:svc])]
	return n, exists
}

// set returns the records of a type. For ANY it returns some type's, as RFC 8482 allows.
func (n *node) set(qtype uint16) *Set {
	if s := n.sets[qtype]; s != nil || qtype != ANY {
		return s
	}
	for _, t := range []uint16{A, AAAA, SRV, TXT, SOA} {
		if s := n.sets[t]; s != nil {
			return s
		}
	}
	return nil
}

// hasSuffix tells whether a name ends with the labels of suffix. Lengths are part of the comparison, but a label may
// hold any byte, so the suffix must begin where a label begins.
func hasSuffix(name []byte, suffix string) bool {
	at := len(name) - len(suffix)
	if at < 0 || string(name[at:]) != suffix {
		return false
	}
	i := 0
	for i < at {
		i += 1 + int(name[i])
	}
	return i == at
}

// lastTwo returns where the last label begins and where the one before it does, -1 if there is none.
func lastTwo(labels []byte) (last, before int) {
	last, before = -1, -1
	for i := 0; i < len(labels); i += 1 + int(labels[i]) {
		last, before = i, last
	}
	return last, before
}

// Lookup answers a question about a name as people write it, with or without the final dot. It is for explain and
// tests; the server uses Find.
func (z *Zone) Lookup(name string, qtype uint16) Answer {
	wire, ok := appendName(nil, strings.ToLower(strings.TrimSuffix(name, ".")))
	if !ok {
		return Answer{Code: Refused}
	}
	return z.Find(wire, qtype)
}
