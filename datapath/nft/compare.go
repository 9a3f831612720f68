package nft

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/slice/plan"
)

// comparison finds what differs between two plans' services and hosts without looking at what the kernel has, and
// queues it element by element.
type comparison struct {
	d        *differ
	del, add map[string]map[string]string // set → key → value
	more     map[string]int               // balancer → users that came, or went
}

// compare walks two sorted lists of services side by side.
func (d *differ) compare(old, now []plan.Balance) *comparison {
	c := &comparison{d: d, del: map[string]map[string]string{}, add: map[string]map[string]string{}, more: map[string]int{}}
	if len(old) == len(now) && (len(old) == 0 || &old[0] == &now[0]) {
		return c // the same list
	}
	for i, j := 0, 0; i < len(old) || j < len(now); {
		order := 0
		switch {
		case i == len(old):
			order = 1
		case j == len(now):
			order = -1
		default:
			order = compareKeys(&old[i], &now[j])
		}
		switch {
		case order < 0:
			c.service(&old[i], nil)
			c.vip(&old[i], now)
		case order > 0:
			c.service(&now[j], &now[j])
			c.vip(&now[j], now)
		case !sameBalance(&old[i], &now[j]):
			c.service(&now[j], &now[j])
		}
		// Of several with one key the first counts.
		if order <= 0 {
			for k := i; i < len(old) && compareKeys(&old[i], &old[k]) == 0; i++ {
			}
		}
		if order >= 0 {
			for k := j; j < len(now) && compareKeys(&now[j], &now[k]) == 0; j++ {
			}
		}
	}
	return c
}

func compareKeys(a, b *plan.Balance) int {
	return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
}

func sameBalance(a, b *plan.Balance) bool {
	if a.Affinity != b.Affinity || len(a.Backends) != len(b.Backends) {
		return false
	}
	return len(a.Backends) == 0 || &a.Backends[0] == &b.Backends[0] || slices.Equal(a.Backends, b.Backends)
}

func put(m map[string]map[string]string, set, key, value string) {
	if m[set] == nil {
		m[set] = map[string]string{}
	}
	m[set][key] = value
}

// service brings one service port's elements to what they should be; now nil: to nothing.
func (c *comparison) service(of, now *plan.Balance) {
	e, ok := entryOf(of)
	if !ok {
		return
	}
	slot, service := "slot"+e.f.suffix, "service"+e.f.suffix
	had := e.had(c.d.have)
	was := c.d.have.sets[service][e.key]
	var slots []netip.AddrPort
	chain := ""
	if now != nil {
		slots = Slots(now.Backends, e.f.gateway.Is4(), had)
	}
	if len(slots) > 0 {
		chain = "goto " + balancer(len(slots), now.Affinity)
	}
	for i := range max(len(had), len(slots)) {
		switch {
		case i < len(had) && i < len(slots) && had[i] == slots[i]:
			continue
		case i >= len(slots):
			put(c.del, slot, e.slotKey(i), backendValue(had[i]))
		case i >= len(had):
			put(c.add, slot, e.slotKey(i), backendValue(slots[i]))
		default:
			put(c.del, slot, e.slotKey(i), backendValue(had[i]))
			put(c.add, slot, e.slotKey(i), backendValue(slots[i]))
		}
	}
	if was != chain {
		if was != "" {
			put(c.del, service, e.key, was)
			c.more[was[len("goto "):]]--
		}
		if chain != "" {
			put(c.add, service, e.key, chain)
			c.more[chain[len("goto "):]]++
		}
	}
	if slices.ContainsFunc(had, func(a netip.AddrPort) bool { return !slices.Contains(slots, a) }) {
		_, affinity, _ := parseBalancer(was[len("goto "):])
		c.d.forget(affinity)
		c.d.lost.udp = c.d.lost.udp || e.key[e.f.size()] == unix.IPPROTO_UDP
	}
}

// vip brings a service address's own element to what it should be.
func (c *comparison) vip(of *plan.Balance, now []plan.Balance) {
	e, ok := entryOf(of)
	if !ok {
		return
	}
	set, key := "vip"+e.f.suffix, string(regs{}.addr(of.IP))
	at, _ := slices.BinarySearchFunc(now, of.IP, func(b plan.Balance, ip netip.Addr) int { return b.IP.Compare(ip) })
	wanted := false
	for ; at < len(now) && now[at].IP == of.IP && !wanted; at++ {
		_, wanted = entryOf(&now[at])
	}
	switch _, is := c.d.have.sets[set][key]; {
	case is && !wanted:
		put(c.del, set, key, "")
	case !is && wanted:
		put(c.add, set, key, "")
	}
}

// hosts walks two sorted lists of hosts side by side.
func (c *comparison) hosts(old, now []netip.Addr) {
	if len(old) == len(now) && (len(old) == 0 || &old[0] == &now[0]) {
		return
	}
	for i, j := 0, 0; i < len(old) || j < len(now); {
		switch {
		case j == len(now) || i < len(old) && old[i].Less(now[j]):
			put(c.del, "host"+familyOf(old[i]).suffix, string(regs{}.addr(old[i])), "")
			c.d.gone = append(c.d.gone, old[i])
			i++
		case i == len(old) || now[j].Less(old[i]):
			put(c.add, "host"+familyOf(now[j]).suffix, string(regs{}.addr(now[j])), "")
			j++
		default:
			i, j = i+1, j+1
		}
	}
}

// users is how many services use a balancer from now on.
func (c *comparison) users(chain string) int { return c.d.have.users[chain] + c.more[chain] }

// balancers adds those to a table that are needed from now on and were not.
func (c *comparison) balancers(t *Table) {
	sets := make(map[string]*Set, len(t.Sets))
	for name, s := range t.Sets {
		sets[name] = s
	}
	t.Sets = sets // the frame's stays as it is
	for _, name := range sortedKeys(c.more) {
		if c.users(name) > 0 && c.d.have.users[name] == 0 {
			t.balancer(name)
		}
	}
	for name := range c.d.have.sets { // what is there and may be pruned
		if stay(name) && t.Sets[name] == nil {
			f, set := families()[0], &Set{Map: true, Dynamic: true}
			if name[len("stay")] == '6' {
				f = families()[1]
			}
			set.Key = keyType([]nftables.SetDatatype{f.addr, f.addr, nftables.TypeInetProto, nftables.TypeInetService})
			set.Value = pair(f.addr, nftables.TypeInetService)
			t.Sets[name] = set
		}
	}
}

// needed tells whether a balancer that is used fills a map.
func (c *comparison) needed(set string) bool {
	for name := range c.d.have.users {
		if c.fills(name, set) {
			return true
		}
	}
	for name := range c.more {
		if c.fills(name, set) {
			return true
		}
	}
	return false
}

func (c *comparison) fills(chain, set string) bool {
	_, affinity, _ := parseBalancer(chain)
	return affinity > 0 && c.users(chain) > 0 && (set == stayName(families()[0], affinity) || set == stayName(families()[1], affinity))
}

// send queues the elements.
func (c *comparison) send() error {
	for _, name := range []string{"host4", "host6", "vip4", "vip6", "slot4", "slot6", "service4", "service6"} {
		set := c.d.want.Sets[name]
		set = &Set{Key: set.Key, Value: set.Value, Map: set.Map, Elements: c.add[name]}
		var del, add []nftables.SetElement
		for _, k := range sortedKeys(c.del[name]) {
			del = append(del, set.old(k, ""))
		}
		for _, k := range sortedKeys(c.add[name]) {
			add = append(add, set.element(k))
		}
		if err := c.d.change(name, del, add); err != nil {
			return err
		}
	}
	return nil
}

// settle brings the known state up to date with what was sent.
func (c *comparison) settle(frame *Table, same bool) {
	have := c.d.have
	for name, chain := range c.d.want.Chains {
		have.chains[name] = chain.marks()
	}
	for name := range c.d.want.Sets {
		if have.sets[name] == nil {
			have.sets[name] = map[string]string{}
		}
	}
	for set, keys := range c.del {
		for k := range keys {
			delete(have.sets[set], k)
		}
	}
	for set, keys := range c.add {
		for k, v := range keys {
			have.sets[set][k] = v
		}
	}
	if !same {
		for name, set := range frame.Sets {
			if !grows(name) {
				have.sets[name] = set.Elements
			}
		}
	}
	for name := range have.chains {
		if _, _, lb := parseBalancer(name); lb && c.users(name) == 0 || !lb && !same && frame.Chains[name] == nil {
			delete(have.chains, name)
		}
	}
	for name := range have.sets {
		if stay(name) && !c.needed(name) || !stay(name) && !same && frame.Sets[name] == nil {
			delete(have.sets, name)
		}
	}
	for name, n := range c.more {
		if have.users[name] += n; have.users[name] == 0 {
			delete(have.users, name)
		}
	}
	c.more = nil
}
