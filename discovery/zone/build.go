package zone

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"seaway.dev/seaway/fleet"
)

// builder makes the names of one service under one apex.
type builder struct {
	service *fleet.Service
	base    string // the service's own name
	names   map[string]*node
	seen    map[seen]bool // what each set has: a record is in a set once
}

// seen is a record in a set: an address, or a target and its port.
type seen struct {
	set    *Set
	addr   netip.Addr
	target string
	port   uint16
}

// once tells whether a set does not have a record yet, and that it has it now.
func (b *builder) once(s seen) bool {
	if b.seen[s] {
		return false
	}
	b.seen[s] = true
	return true
}

// newService makes the names of a service. key is "<svc>.<ns>", in lower case.
func newService(s *fleet.Service, key string) *service {
	sv := &service{of: *s, key: key}
	for i, apex := range []string{Main, Alias} {
		b := &builder{service: s, base: key + ".svc." + apex, names: map[string]*node{}, seen: map[seen]bool{}}
		b.build(apex == Alias)
		sv.names[i] = b.names
		if apex == Main {
			sv.pointers = b.pointers()
		}
	}
	return sv
}

// build fills names. pods asks for the names of pods, which the alias zone has for all services.
func (b *builder) build(pods bool) {
	s := b.service
	self := b.at("")
	if s.Headless {
		rank := 0
		for _, e := range s.Endpoints {
			if !e.Ready {
				continue
			}
			if e.Rank != rank {
				self.nearer()
				rank = e.Rank
			}
			b.addresses("", e.Named())
		}
	} else {
		self.unsure = len(s.IPs) == 0
		b.addresses("", s.IPs)
	}
	b.ports()
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if s.Headless || pods {
			b.pod(e.Hostname, e)
		}
		if pods && e.Pod != e.Hostname {
			b.pod(e.Pod, e)
		}
	}
}

// pod gives an endpoint a name <host>.<cluster>. One name may gather several endpoints.
func (b *builder) pod(host string, e *fleet.Endpoint) {
	rel, ok := b.relative(host, e.Cluster)
	if !ok {
		return
	}
	n := b.at(rel)
	n.unsure = n.unsure || len(e.Addrs) == 0
	b.addresses(rel, e.Named())
}

// nearer notes that all records so far are nearer than those to come.
func (n *node) nearer() {
	for _, s := range n.sets {
		s.nearer()
	}
}

func (s *Set) nearer() {
	if s.Near == 0 {
		s.Near = len(s.Records)
	}
}

// ports gives the service's ports their SRV records: under the service's own name (each target and number once), and
// under _<port>._<proto> for those that have a name.
func (b *builder) ports() {
	for _, p := range b.service.Ports {
		b.port("", p)
		if rel, ok := b.relative("_"+p.Name, "_"+strings.ToLower(string(p.Protocol))); ok && p.Name != "" {
			b.port(rel, p)
		}
	}
}

// port adds to a name who answers on a port: the service's own name and number, or, if it is headless, each ready
// endpoint by its name at the number where it listens.
func (b *builder) port(rel string, p fleet.Port) {
	s := b.at(rel).sets[dns.TypeSRV]
	if s == nil {
		s = new(Set)
	}
	if !b.service.Headless {
		b.target(s, b.full(rel), b.base, p.Port, b.service.IPs)
	} else {
		rank := 0
		for i := range b.service.Endpoints {
			e := &b.service.Endpoints[i]
			number, ok := e.Ports[p.Name]
			if !ok || !e.Ready {
				continue
			}
			if e.Rank != rank {
				s.nearer()
				rank = e.Rank
			}
			if host, ok := b.relative(e.Hostname, e.Cluster); ok {
				b.target(s, b.full(rel), b.full(host), number, e.Named())
			}
		}
	}
	if len(s.Records) > 0 {
		b.at(rel).sets[dns.TypeSRV] = s
	}
}

// pointers tells which names the service's addresses stand for.
func (b *builder) pointers() []pointer {
	var out []pointer
	add := func(rel string, addrs []netip.Addr) {
		for _, a := range addrs {
			out = append(out, pointer{a.Unmap().WithZone(""), b.full(rel)})
		}
	}
	if !b.service.Headless {
		add("", b.service.IPs)
		return out
	}
	for i := range b.service.Endpoints {
		e := &b.service.Endpoints[i]
		if rel, ok := b.relative(e.Hostname, e.Cluster); ok {
			add(rel, e.Addrs)
		}
	}
	return out
}

// at returns the node of a name, and makes it and those above it if need be.
func (b *builder) at(rel string) *node {
	n := b.names[rel]
	if n == nil {
		n = &node{sets: map[uint16]*Set{}}
		b.names[rel] = n
		if rel != "" {
			_, up, _ := strings.Cut(rel, ".")
			b.at(up)
		}
	}
	return n
}

// relative joins labels if the whole name is one that DNS can carry.
func (b *builder) relative(labels ...string) (string, bool) {
	for i, l := range labels {
		var ok bool
		if labels[i], ok = label(l); !ok {
			return "", false
		}
	}
	rel := strings.Join(labels, ".")
	_, ok := dns.IsDomainName(b.full(rel))
	return rel, ok
}

// full returns the whole name of some labels before the service's.
func (b *builder) full(rel string) string {
	if rel == "" {
		return b.base
	}
	return rel + "." + b.base
}

// addresses adds address records to a name, each address once.
func (b *builder) addresses(rel string, addrs []netip.Addr) {
	n := b.at(rel)
	for _, a := range addrs {
		rr := address(b.full(rel), a)
		qtype := rr.Header().Rrtype
		s := n.sets[qtype]
		if s == nil {
			s = new(Set)
			n.sets[qtype] = s
		}
		if b.once(seen{set: s, addr: a.Unmap()}) {
			s.Records = append(s.Records, rr)
		}
	}
}

// target adds to a set that a service's port is at a target, and the target's addresses.
func (b *builder) target(s *Set, owner, target string, port uint16, addrs []netip.Addr) {
	if !b.once(seen{set: s, target: target, port: port}) {
		return
	}
	s.Records = append(s.Records, &dns.SRV{Hdr: header(owner, dns.TypeSRV, TTL), Weight: 100, Port: port, Target: target})
	for _, a := range addrs {
		s.Extra = append(s.Extra, address(target, a))
	}
}

// address makes an address record.
func address(owner string, a netip.Addr) dns.RR {
	a = a.Unmap()
	if a.Is4() {
		return &dns.A{Hdr: header(owner, dns.TypeA, TTL), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, TTL), AAAA: a.AsSlice()}
}

func header(owner string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// label returns a label in lower case; false if it is none: empty, over 63 bytes, or not made of letters, digits,
// hyphens and underscores.
func label(s string) (string, bool) {
	odd := strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	})
	return strings.ToLower(s), !odd && len(s) >= 1 && len(s) <= 63
}
