package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"seaway.dev/seaway/fleet"
)

// policies fill the chains that in4, in6, out4 and out6 lead to. A policy has a chain for each direction it governs,
// with one rule per family that looks its allowances up in a set of ranges; pods with the same policies share a chain
// that tries them in turn and drops what none allows:
//
//	pass ─ out4[source] ─▶ out.<policies> ─▶ policy chains ─ allowed ─▶ enter ─ in4[destination] ─▶ in.<policies> …
func (t *Table) policies(policies []fleet.Policy) {
	in, out := map[netip.Addr][]string{}, map[netip.Addr][]string{}
	used := map[string]bool{}
	for _, p := range policies {
		id := digest(p.Name)
		for n := 2; used[id]; n++ {
			id = digest(fmt.Sprintf("%s %d", p.Name, n))
		}
		used[id] = true
		if p.Ingress {
			t.policy("in-"+id, p.Name, p.AllowIn, true)
		}
		if p.Egress {
			t.policy("out-"+id, p.Name, p.AllowOut, false)
		}
		for _, a := range p.Pods {
			if p.Ingress {
				in[a] = append(in[a], "in-"+id)
			}
			if p.Egress {
				out[a] = append(out[a], "out-"+id)
			}
		}
	}
	t.lead("in", in)
	t.lead("out", out)
}

// lead leads each selected pod to the chain of its policies.
func (t *Table) lead(direction string, pods map[netip.Addr][]string) {
	for a, chains := range pods {
		slices.Sort(chains)
		chains = slices.Compact(chains)
		name := direction + "." + digest(strings.Join(chains, " "))
		if t.Chains[name] == nil {
			c := t.chain(name)
			for _, p := range chains {
				c.add("try "+p, one(jump(p)))
			}
			c.add("no policy allows it", drop())
		}
		t.put(direction+familyOf(a).suffix, regs{}.addr(a), "goto "+name)
	}
}

// policy makes one policy's chain and sets for one direction.
func (t *Table) policy(chain, name string, rules []fleet.PolicyRule, ingress bool) {
	c := t.chain(chain)
	for _, f := range families() {
		set := chain + "-" + f.suffix
		s := t.set(set, f.addr, nftables.TypeInetProto, nftables.TypeInetService)
		s.Interval = true
		for _, b := range boxes(rules, f.gateway.Is4()) {
			s.Elements[string(regs{}.addr(b.from).proto(b.proto[0]).port(b.port[0]))] =
				string(regs{}.addr(b.to).proto(b.proto[1]).port(b.port[1]))
		}
		peer, allowed := f.dst, goTo("enter")
		if ingress {
			peer, allowed = f.src, accept()
		}
		c.add(fmt.Sprintf("%s, %s", name, f.name()), f.is(), []expr.Any{
			f.load(peer, reg0),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0 + f.regs},
			destinationPort(reg0 + f.regs + 1),
			in(set, false), allowed,
		})
	}
}

// digest shortens a name to what a chain can be called.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// box is a range of peers with a range of protocols and a range of ports. Protocols without ports (ICMP) have bytes
// of their own where others have the port: they match only a box of all ports.
type box struct {
	from, to netip.Addr
	proto    [2]byte
	port     [2]uint16
}

// boxes turns rules, which may overlap as they like, into boxes that do not: the kernel's set of ranges refuses
// overlaps. The peers' ranges are cut at all their borders; each piece allows the union of what its rules allow.
func boxes(rules []fleet.PolicyRule, v4 bool) []box {
	type span struct {
		from, to netip.Addr
		ports    []fleet.PolicyPort
		all      bool
	}
	var spans []span
	var cuts []netip.Addr // beginnings of pieces
	for _, r := range rules {
		peers := r.Peers
		if len(peers) == 0 {
			peers = []netip.Prefix{everyone(v4)}
		}
		for _, p := range peers {
			if !p.IsValid() || p.Addr().Is4() != v4 {
				continue
			}
			s := span{from: p.Masked().Addr(), to: lastOf(p), ports: r.Ports, all: len(r.Ports) == 0}
			spans = append(spans, s)
			cuts = append(cuts, s.from)
			if next := s.to.Next(); next.IsValid() {
				cuts = append(cuts, next)
			}
		}
	}
	slices.SortFunc(cuts, netip.Addr.Compare)
	cuts = slices.Compact(cuts)
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var out []box
	var active []span
	next := 0
	for i, from := range cuts {
		to := lastOf(everyone(v4))
		if i+1 < len(cuts) {
			to = cuts[i+1].Prev()
		}
		active = slices.DeleteFunc(active, func(s span) bool { return s.to.Less(from) })
		for next < len(spans) && spans[next].from == from {
			active = append(active, spans[next])
			next++
		}
		if len(active) == 0 {
			continue
		}
		var ports []fleet.PolicyPort
		all := false
		for _, s := range active {
			ports = append(ports, s.ports...)
			all = all || s.all
		}
		for _, b := range portBoxes(ports, all) {
			b.from, b.to = from, to
			out = append(out, b)
		}
	}
	return merged(out)
}

// portBoxes is the union of ports, transport by transport.
func portBoxes(ports []fleet.PolicyPort, all bool) []box {
	if all {
		return []box{{proto: [2]byte{0, 255}, port: [2]uint16{0, 65535}}}
	}
	var out []box
	for _, p := range ports {
		n, ok := protocol(p.Protocol)
		if !ok {
			continue
		}
		b := box{proto: [2]byte{n, n}, port: [2]uint16{p.First, max(p.First, p.Last)}}
		if p.First == 0 {
			b.port = [2]uint16{0, 65535}
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b box) int {
		return cmp.Or(cmp.Compare(a.proto[0], b.proto[0]), cmp.Compare(a.port[0], b.port[0]))
	})
	var union []box
	for _, b := range out {
		if n := len(union); n > 0 && union[n-1].proto == b.proto && int(b.port[0]) <= int(union[n-1].port[1])+1 {
			union[n-1].port[1] = max(union[n-1].port[1], b.port[1])
			continue
		}
		union = append(union, b)
	}
	return union
}

// merged joins neighbouring pieces that allow the same.
func merged(in []box) []box {
	type ports struct {
		proto [2]byte
		port  [2]uint16
	}
	last := map[ports]int{} // where in out the box that a neighbour would continue is
	var out []box
	for _, b := range in {
		k := ports{b.proto, b.port}
		if i, ok := last[k]; ok && out[i].to.Next() == b.from {
			out[i].to = b.to
			continue
		}
		last[k] = len(out)
		out = append(out, b)
	}
	return out
}

func everyone(v4 bool) netip.Prefix {
	if v4 {
		return netip.MustParsePrefix("0.0.0.0/0")
	}
	return netip.MustParsePrefix("::/0")
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
