package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/slice/plan"
)

func families() [2]family {
	return [2]family{
		{suffix: "4", proto: unix.NFPROTO_IPV4, regs: 1, src: 12, dst: 16, addr: nftables.TypeIPAddr, headers: 40, gateway: plan.Gateway4},
		{suffix: "6", proto: unix.NFPROTO_IPV6, regs: 4, src: 8, dst: 24, addr: nftables.TypeIP6Addr, headers: 60, gateway: plan.Gateway6},
	}
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families()[0]
	}
	return families()[1]
}

// Compile says what the table of a slice should be. It is pure: equal plans give equal tables.
func Compile(s plan.Slice) *Table { return whole(s, nil) }

// whole is the whole table, with services' slots as near to those that there are as possible.
func whole(s plan.Slice, have *state) *Table {
	t := frame(s)
	t.services(s.Services, have)
	for _, a := range s.Hosts {
		t.put("host"+familyOf(a).suffix, regs{}.addr(a), "")
	}
	return t
}

// frame is the table without what grows with the slice: services and hosts.
func frame(s plan.Slice) *Table {
	t := &Table{Chains: map[string]*Chain{}, Sets: map[string]*Set{}}
	for _, f := range families() {
		t.set("pods"+f.suffix, nftables.TypeIFName, f.addr)
		t.set("self"+f.suffix, f.addr, f.addr)
		t.set("host"+f.suffix, f.addr)
		t.set("vip"+f.suffix, f.addr)
		t.mapTo("service"+f.suffix, nftables.TypeVerdict, f.addr, nftables.TypeInetProto, nftables.TypeInetService)
		t.mapTo("slot"+f.suffix, pair(f.addr, nftables.TypeInetService),
			f.addr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeInteger)
		t.mapTo("in"+f.suffix, nftables.TypeVerdict, f.addr)
		t.mapTo("out"+f.suffix, nftables.TypeVerdict, f.addr)
	}
	for _, at := range s.Attachments {
		for _, a := range at.Addrs {
			f := familyOf(a)
			t.put("pods"+f.suffix, regs{}.link(at.Link).addr(a), "")
			t.put("self"+f.suffix, regs{}.addr(a).addr(a), "")
		}
	}
	if len(s.Networks) > 0 {
		for _, f := range families() {
			t.mapTo("alias"+f.suffix, f.addr, f.addr)
		}
		for _, a := range s.Aliases {
			t.put("alias"+familyOf(a.Addr).suffix, regs{}.addr(a.Addr), string(regs{}.addr(a.To)))
		}
	}
	t.rules(s)
	t.policies(s.Policies)
	return t
}

// rules are the hooked chains. They depend on the slice's prefixes and MTU, and on whether it has networks, alone.
func (t *Table) rules(s plan.Slice) {
	arrive := t.hook("arrive", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	serve := t.hook("serve", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	refuse := t.hook("refuse", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest+10)
	clamp := t.hook("clamp", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityMangle)
	pass := t.hook("pass", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	hairpin := t.hook("hairpin", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	enter := t.chain("enter")

	for _, own := range []string{plan.TunLink, "lo"} {
		// The tunnel checked the source already, against the peer's key.
		arrive.add("from "+own, linkIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, own), one(accept()))
	}
	six := families()[1]
	arrive.add("link-local chatter: nobody needs it here", six.is(), one(six.load(six.src, reg0)),
		six.masked(expr.CmpOpEq, netip.MustParsePrefix("fe80::/10")), one(&expr.Verdict{Kind: expr.VerdictDrop}))
	arrive.add("unspecified source: nobody needs it here", six.is(), one(six.load(six.src, reg0)),
		six.masked(expr.CmpOpEq, netip.MustParsePrefix("::/128")), one(&expr.Verdict{Kind: expr.VerdictDrop}))
	for _, f := range families() {
		arrive.add("forged "+f.name()+" source", f.is(), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0}, f.load(f.src, reg0+4), in("pods"+f.suffix, true),
		}, drop())
	}

	for _, f := range families() {
		if len(s.Networks) > 0 {
			serve.Rules = append(serve.Rules, f.alias())
		}
		load, _ := f.service(reg0)
		serve.add("services of "+f.name(), f.is(), load, one(verdictOf("service"+f.suffix)))
		refuse.add("no backend, "+f.name()+" TCP", l4proto(unix.IPPROTO_TCP), f.is(), []expr.Any{f.load(f.dst, reg0), in("vip"+f.suffix, false)}, resetTCP())
		refuse.add("no backend, "+f.name(), f.is(), []expr.Any{f.load(f.dst, reg0), in("vip"+f.suffix, false)}, portUnreachable())
		refuse.add("to the next hop itself, "+f.name(), f.is(),
			f.destinationIn(netip.PrefixFrom(f.gateway, f.gateway.BitLen())), one(accept()))
		for _, p := range s.Prefixes {
			if s.Hosts == nil || p.Addr().Is4() != f.gateway.Is4() {
				continue
			}
			gone := join(f.is(), f.destinationIn(p), []expr.Any{f.load(f.dst, reg0), in("host"+f.suffix, true)})
			refuse.add("gone, "+f.name()+" TCP", l4proto(unix.IPPROTO_TCP), gone, resetTCP())
			refuse.add("gone, "+f.name()+" UDP", l4proto(unix.IPPROTO_UDP), gone, portUnreachable())
			refuse.add("gone, "+f.name()+" SCTP", l4proto(unix.IPPROTO_SCTP), gone, portUnreachable())
			refuse.add("gone, "+f.name(), gone, hostUnreachable())
		}
		// Only the management slice's namespace has addresses of its own. To the IPv6 look-up below they are nobody's.
		refuse.add("to the node itself, "+f.name(), f.is(), linkIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, plan.TunLink), ownAddr(), one(accept()))
		refuse.add("nobody there, "+f.name()+" TCP", l4proto(unix.IPPROTO_TCP), f.is(), unroutable(), resetTCP())
		refuse.add("nobody there, "+f.name()+" UDP", l4proto(unix.IPPROTO_UDP), f.is(), unroutable(), portUnreachable())
		refuse.add("nobody there, "+f.name()+" SCTP", l4proto(unix.IPPROTO_SCTP), f.is(), unroutable(), portUnreachable())
		for _, p := range s.Prefixes {
			if p.Addr().Is4() == f.gateway.Is4() {
				refuse.add("to "+p.String(), f.is(), f.destinationIn(p), one(accept()))
			}
		}
		clamp.Rules = append(clamp.Rules, f.clamp(s.MTU))
	}
	for _, own := range []string{plan.TunLink, "lo"} {
		refuse.add("from "+own, linkIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, own), one(accept()))
	}
	refuse.add("outside the slice", prohibited())

	pass.add("known connections", established(), one(accept()))
	pass.add("no transit", linkIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, plan.TunLink),
		linkIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, plan.TunLink), drop())
	for _, f := range families() {
		pass.add("a pod reaches itself, "+f.name(), f.is(),
			[]expr.Any{f.load(f.src, reg0), f.load(f.dst, reg0+f.regs), in("self"+f.suffix, false), accept()})
		pass.add("policies of "+f.name()+" sources", f.is(), []expr.Any{f.load(f.src, reg0), verdictOf("out" + f.suffix)})
		enter.add("policies of "+f.name()+" destinations", f.is(), []expr.Any{f.load(f.dst, reg0), verdictOf("in" + f.suffix)})
		hairpin.Rules = append(hairpin.Rules, f.hairpin())
	}
	pass.add("then the destination's", one(goTo("enter")))
	enter.add("open", one(accept()))
}

func pair(a, b nftables.SetDatatype) nftables.SetDatatype { return nftables.MustConcatSetType(a, b) }

func (t *Table) chain(name string) *Chain {
	c := &Chain{}
	t.Chains[name] = c
	return c
}

func (t *Table) hook(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *Chain {
	c := t.chain(name)
	c.Kind, c.Hook, c.Priority = kind, hook, &priority
	return c
}

func (c *Chain) add(text string, parts ...[]expr.Any) {
	c.Rules = append(c.Rules, Rule{Text: text, Exprs: join(parts...)})
}

func keyType(fields []nftables.SetDatatype) nftables.SetDatatype {
	if len(fields) == 1 {
		return fields[0]
	}
	return nftables.MustConcatSetType(fields...)
}

func (t *Table) set(name string, fields ...nftables.SetDatatype) *Set {
	s := &Set{Key: keyType(fields), Elements: map[string]string{}}
	t.Sets[name] = s
	return s
}

func (t *Table) mapTo(name string, value nftables.SetDatatype, fields ...nftables.SetDatatype) {
	s := t.set(name, fields...)
	s.Map, s.Value = true, value
}

func (t *Table) put(set string, key regs, value string) { t.Sets[set].Elements[string(key)] = value }
