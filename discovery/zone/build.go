package zone

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// builder makes the names of one service under one apex.
type builder struct {
	service *fleet.Service
	apex    string
	names   map[string]*node
	seen    map[seen]bool // what each set has: a record is in a set once
}

type seen struct {
	set  *Set
	data string
}

// add appends a record to a set unless it is there, and tells whether it did.
func (b *builder) add(s *Set, qtype uint16, data []byte) bool {
	k := seen{s, string(data)}
	if b.seen[k] {
		return false
	}
	b.seen[k] = true
	s.add(qtype, TTL, data)
	return true
}

// newService makes the names of a service.
func newService(s *fleet.Service) *service {
	sv := &service{of: *s}
	for i, apex := range []string{Main, Alias} {
		b := &builder{service: s, apex: apex, names: map[string]*node{}, seen: map[seen]bool{}}
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
	addrs := s.IPs
	if s.Headless {
		addrs = nil
		for _, e := range s.Endpoints {
			if e.Ready {
				addrs = append(addrs, e.Addrs...)
			}
		}
	} else {
		self.unsure = len(s.IPs) == 0
	}
	b.addresses(self, addrs)
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
	b.addresses(n, e.Addrs)
}

// ports gives the service's ports their SRV records: under the service's own name (each target and number once), and
// under _<port>._<proto> for those that have a name.
func (b *builder) ports() {
	all := new(Set)
	for _, p := range b.service.Ports {
		one := new(Set)
		b.targets(p, one, all)
		if rel, ok := b.relative("_"+p.Name, "_"+strings.ToLower(string(p.Protocol))); ok && p.Name != "" {
			b.at(rel).put(SRV, one)
		}
	}
	b.at("").put(SRV, all)
}

// targets appends who answers on a port to some sets: the service's own name and number, or, if it is headless, each
// ready endpoint by its name at the number where it listens.
func (b *builder) targets(p fleet.Port, sets ...*Set) {
	add := func(rel string, number uint16, addrs []netip.Addr) {
		target, ok := b.full(rel)
		if !ok {
			return
		}
		for _, s := range sets {
			b.target(s, number, target, addrs)
		}
	}
	if !b.service.Headless {
		add("", p.Port, b.service.IPs)
		return
	}
	for i := range b.service.Endpoints {
		e := &b.service.Endpoints[i]
		number, ok := e.Ports[p.Name]
		if !ok || !e.Ready {
			continue
		}
		if rel, ok := b.relative(e.Hostname, e.Cluster); ok {
			add(rel, number, e.Addrs)
		}
	}
}

// pointers tells which names the service's addresses stand for.
func (b *builder) pointers() []pointer {
	var out []pointer
	add := func(rel string, addrs []netip.Addr) {
		name, ok := b.full(rel)
		if !ok {
			return
		}
		for _, a := range addrs {
			out = append(out, pointer{a.Unmap(), string(name)})
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
	if n := b.names[rel]; n != nil {
		return n
	}
	n := &node{sets: map[uint16]*Set{}}
	b.names[rel] = n
	for up := rel; up != ""; {
		up = up[1+int(up[0]):]
		if b.names[up] == nil {
			b.names[up] = &node{sets: map[uint16]*Set{}}
		}
	}
	return n
}

// relative returns labels in wire form if the whole name is one that DNS can carry.
func (b *builder) relative(labels ...string) (string, bool) {
	var w []byte
	for _, l := range labels {
		var ok bool
		if w, ok = appendLabel(w, l); !ok {
			return "", false
		}
	}
	_, ok := b.full(string(w))
	return string(w), ok
}

// full returns the whole name of some labels before the service's.
func (b *builder) full(rel string) ([]byte, bool) {
	w := []byte(rel)
	for _, l := range []string{b.service.Name, b.service.Namespace, "svc"} {
		var ok bool
		if w, ok = appendLabel(w, l); !ok {
			return nil, false
		}
	}
	w = append(w, mustName(b.apex)...)
	return w, len(w) <= 255
}

// addresses adds address records to a name, each address once.
func (b *builder) addresses(n *node, addrs []netip.Addr) {
	for _, a := range addrs {
		a = a.Unmap()
		qtype := AAAA
		if a.Is4() {
			qtype = A
		}
		s := n.sets[qtype]
		if s == nil {
			s = new(Set)
			n.sets[qtype] = s
		}
		b.add(s, qtype, a.AsSlice())
	}
}

func (n *node) put(qtype uint16, s *Set) {
	if s.Len() > 0 {
		n.sets[qtype] = s
	}
}

// add appends a record whose owner is the question's name.
func (s *Set) add(qtype uint16, ttl uint32, data []byte) {
	s.Wire = append(s.Wire, 0xc0, 12)
	s.Wire = appendRecord(s.Wire, qtype, ttl, data)
	s.Ends = append(s.Ends, len(s.Wire))
}

// target appends an SRV record (RFC 2782: no compression in it) and its target's addresses.
func (b *builder) target(s *Set, port uint16, target []byte, addrs []netip.Addr) {
	data := binary.BigEndian.AppendUint16([]byte{0, 0, 0, 100}, port) // priority 0, weight 100
	if !b.add(s, SRV, append(data, target...)) {
		return
	}
	for _, a := range addrs {
		a = a.Unmap()
		qtype := AAAA
		if a.Is4() {
			qtype = A
		}
		s.Extra = append(s.Extra, target...)
		s.Extra = appendRecord(s.Extra, qtype, TTL, a.AsSlice())
		s.Extras++
	}
}

// appendRecord appends a record from its type on.
func appendRecord(w []byte, qtype uint16, ttl uint32, data []byte) []byte {
	w = binary.BigEndian.AppendUint16(w, qtype)
	w = append(w, 0, 1) // IN
	w = binary.BigEndian.AppendUint32(w, ttl)
	w = binary.BigEndian.AppendUint16(w, uint16(len(data)))
	return append(w, data...)
}

func pointerSet(names []string) *Set {
	slices.Sort(names)
	s := new(Set)
	for _, n := range slices.Compact(names) {
		s.add(PTR, TTL, []byte(n))
	}
	return s
}

// reverseName returns the name under in-addr.arpa or ip6.arpa of an address (RFC 1035 §3.5, RFC 3596 §2.5).
func reverseName(a netip.Addr) []byte {
	const hex = "0123456789abcdef"
	var w []byte
	b := a.AsSlice()
	slices.Reverse(b)
	if a.Is4() {
		for _, v := range b {
			w, _ = appendLabel(w, itoa(v)) // at most three digits
		}
		return append(w, reverse4...)
	}
	for _, v := range b {
		w = append(w, 1, hex[v&15], 1, hex[v>>4])
	}
	return append(w, reverse6...)
}

func itoa(v byte) string {
	switch {
	case v >= 100:
		return string([]byte{'0' + v/100, '0' + v/10%10, '0' + v%10})
	case v >= 10:
		return string([]byte{'0' + v/10, '0' + v%10})
	}
	return string([]byte{'0' + v})
}

// appendLabel appends one label in lower case; false if it is none: empty, over 63 bytes, or not made of letters,
// digits, hyphens and underscores.
func appendLabel(w []byte, label string) ([]byte, bool) {
	if len(label) == 0 || len(label) > 63 {
		return w, false
	}
	w = append(w, byte(len(label)))
	for _, c := range []byte(label) {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return w, false
		}
		w = append(w, c)
	}
	return w, true
}

// appendName appends a whole name with its final zero.
func appendName(w []byte, name string) ([]byte, bool) {
	start := len(w)
	for l := range strings.SplitSeq(name, ".") {
		var ok bool
		if w, ok = appendLabel(w, l); !ok {
			return w, false
		}
	}
	w = append(w, 0)
	return w, len(w)-start <= 255
}

// mustName is for the names of this package, which are well formed.
func mustName(name string) []byte {
	w, ok := appendName(nil, name)
	if !ok {
		panic("zone: bad name " + name)
	}
	return w
}
