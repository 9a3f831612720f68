package nft

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"

	"seaway.dev/seaway/slice/plan"
)

// A service port in the maps: service4 says where its chain is, slot4 which backend a slot is.
//
//	serve ─ service4[ip.proto.port] ─▶ lb-3      ─ slot4[ip.proto.port.random mod 3] ─▶ dnat
//	                                └▶ lb-3-600  the same after a look into stay4-600[client.ip.proto.port]
//
// There is one chain for each number of slots (and affinity timeout) in use, not for each service.
type entry struct {
	f       family
	key     string // ip.proto.port
	balance *plan.Balance
}

// entryOf is a service port's entry; false if nftables cannot balance it.
func entryOf(b *plan.Balance) (entry, bool) {
	proto, ok := protocol(b.Protocol)
	if !ok || !b.IP.IsValid() {
		return entry{}, false
	}
	return entry{familyOf(b.IP), string(regs{}.addr(b.IP).proto(proto).port(b.Port)), b}, true
}

func (e entry) slotKey(i int) string { return string(append(regs{}, e.key...).number(uint32(i))) }

// had are the slots that the entry has.
func (e entry) had(have *state) []netip.AddrPort {
	if have == nil {
		return nil
	}
	n, _, _ := parseBalancer(strings.TrimPrefix(have.sets["service"+e.f.suffix][e.key], "goto "))
	out := make([]netip.AddrPort, n)
	for i := range n {
		out[i] = e.f.endpoint(have.sets["slot"+e.f.suffix][e.slotKey(i)])
	}
	return out
}

// endpoint reads a map's value; what is none gives the zero AddrPort.
func (f family) endpoint(value string) netip.AddrPort {
	n := int(f.size())
	if len(value) < n+2 {
		return netip.AddrPort{}
	}
	a, _ := netip.AddrFromSlice([]byte(value[:n]))
	return netip.AddrPortFrom(a, uint16(value[n])<<8|uint16(value[n+1]))
}

func backendValue(a netip.AddrPort) string { return string(regs{}.addr(a.Addr()).port(a.Port())) }

// services fill the maps of a whole table. They are sorted as in a plan.
func (t *Table) services(services []plan.Balance, have *state) {
	for i := range services {
		e, ok := entryOf(&services[i])
		if !ok || i > 0 && compareKeys(&services[i-1], &services[i]) == 0 { // of several with one key the first counts
			continue
		}
		t.put("vip"+e.f.suffix, regs{}.addr(e.balance.IP), "")
		slots := Slots(e.balance.Backends, e.f.gateway.Is4(), e.had(have))
		if len(slots) == 0 {
			continue // it reaches refuse
		}
		for i, a := range slots {
			t.put("slot"+e.f.suffix, regs(e.slotKey(i)), backendValue(a))
		}
		name := balancer(len(slots), e.balance.Affinity)
		t.balancer(name)
		t.put("service"+e.f.suffix, regs(e.key), "goto "+name)
	}
}

// balancer names the chain for a number of slots and an affinity in seconds: "lb-3", "lb-3-600".
func balancer(slots int, affinity int32) string {
	if affinity > 0 {
		return fmt.Sprintf("lb-%d-%d", slots, affinity)
	}
	return fmt.Sprintf("lb-%d", slots)
}

func parseBalancer(name string) (slots int, affinity int32, ok bool) {
	rest, ok := strings.CutPrefix(name, "lb-")
	if !ok {
		return 0, 0, false
	}
	n, a, sticky := strings.Cut(rest, "-")
	slots, err := strconv.Atoi(n)
	if err != nil || slots < 0 || slots > maxSlots {
		return 0, 0, false
	}
	if sticky {
		seconds, err := strconv.ParseInt(a, 10, 32)
		if err != nil {
			return 0, 0, false
		}
		affinity = int32(seconds)
	}
	return slots, affinity, true
}

func stayName(f family, affinity int32) string { return fmt.Sprintf("stay%s-%d", f.suffix, affinity) }

// balancer adds the chain of that name and the maps that it fills.
func (t *Table) balancer(name string) {
	slots, affinity, ok := parseBalancer(name)
	if t.Chains[name] != nil || !ok {
		return
	}
	c := t.chain(name)
	for _, f := range families() {
		if affinity <= 0 {
			c.Rules = append(c.Rules, f.balance(slots))
			continue
		}
		timeout := time.Duration(affinity) * time.Second
		set := stayName(f, affinity)
		t.mapTo(set, pair(f.addr, nftables.TypeInetService), f.addr, f.addr, nftables.TypeInetProto, nftables.TypeInetService)
		t.Sets[set].Dynamic = true
		c.Rules = append(c.Rules, f.stay(set, timeout), f.settle(set, slots, timeout))
	}
}

// behind tells for service keys who is behind them, looked up once each.
type behind struct {
	f     family
	have  *state
	known map[string]map[string]bool
}

func (b *behind) has(key, value string) bool {
	if b.known[key] == nil {
		m := map[string]bool{}
		for _, a := range (entry{f: b.f, key: key}).had(b.have) {
			m[backendValue(a)] = true
		}
		if b.known == nil {
			b.known = map[string]map[string]bool{}
		}
		b.known[key] = m
	}
	return b.known[key][value]
}

// stale tells of a client's remembered backend whether it is none of its service's any more.
func (b *behind) stale(key, value string) bool {
	client, service := int(b.f.size()), int(b.f.size())+8
	return len(key) != client+service || !b.has(key[client:], value)
}
