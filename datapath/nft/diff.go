package nft

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/slice/plan"
)

// differ queues the changes of one transaction. Their order matters: what is referred to comes before what refers, and
// goes after it.
type differ struct {
	ns    *netns.NS
	c     *nftables.Conn
	table *nftables.Table
	want  *Table // what is compared: the whole table, or the frame and new balancers
	have  *state
	ops   int
	gone  []netip.Addr
	id    uint32 // of the newest set in this transaction
	// lost tells which services lost a backend: UDP flows to it, and clients that stay with it, must be forgotten.
	lost struct {
		udp      bool
		affinity map[int32]bool
	}
	done []func() // brings have up to date once the changes are in the kernel
}

func (d *differ) changes() Changes {
	slices.SortFunc(d.gone, netip.Addr.Compare)
	c := Changes{Ops: d.ops, Gone: d.gone}
	if d.lost.udp && d.ops > 0 {
		c.moved = d.have
	}
	return c
}

func (d *differ) setOf(name string) *Set { return d.want.Sets[name] }

// unknown queues the difference to whatever the kernel has.
func (d *differ) unknown(want plan.Slice) (err error) {
	d.want = frame(want) // for the types of sets
	if d.have, err = d.read(); err != nil {
		return err
	}
	d.want = whole(want, d.have)
	d.addTable()
	d.addChains()
	if err := d.addSets(); err != nil {
		return err
	}
	for _, name := range sortedKeys(d.want.Chains) {
		d.rules(name)
	}
	for _, name := range sortedKeys(d.want.Sets) {
		if err := d.elements(name); err != nil {
			return err
		}
	}
	d.removeChains(func(name string) bool { return d.want.Chains[name] == nil })
	d.removeSets(func(name string) bool { return d.want.Sets[name] == nil })
	next := d.want.state()
	for name := range next.users {
		_, affinity, _ := parseBalancer(name)
		d.forget(affinity)
	}
	d.done = append(d.done, func() { d.have = next })
	return nil
}

// known queues the difference between the plan that the table was made of and the new one.
func (d *differ) known(was *Memo, want plan.Slice) error {
	d.have = was.have
	same := sameFrame(was.made, want)
	if !same {
		was.frame = frame(want)
	}
	d.want = &Table{Chains: map[string]*Chain{}, Sets: was.frame.Sets}
	c := d.compare(was.made.Services, want.Services)
	c.hosts(was.made.Hosts, want.Hosts)
	c.balancers(d.want)
	if !same {
		for name, ch := range was.frame.Chains {
			d.want.Chains[name] = ch
		}
	}
	d.addChains()
	if err := d.addSets(); err != nil {
		return err
	}
	for _, name := range sortedKeys(d.want.Chains) {
		d.rules(name)
	}
	if !same {
		for _, name := range sortedKeys(was.frame.Sets) {
			if grows(name) {
				continue
			}
			if err := d.elements(name); err != nil {
				return err
			}
		}
	}
	if err := c.send(); err != nil {
		return err
	}
	d.removeChains(func(name string) bool {
		if _, _, lb := parseBalancer(name); lb {
			return c.users(name) == 0
		}
		return !same && d.want.Chains[name] == nil
	})
	d.removeSets(func(name string) bool {
		if stay(name) {
			return !c.needed(name)
		}
		return !same && d.want.Sets[name] == nil
	})
	d.done = append(d.done, func() { c.settle(was.frame, same) })
	return nil
}

// grows tells whether a set of the frame grows with the slice and is compared in another way.
func grows(set string) bool {
	return slices.Contains([]string{"host", "vip", "service", "slot"}, strings.TrimRight(set, "46"))
}

func stay(set string) bool { return strings.HasPrefix(set, "stay") }

// send sends the transaction, and after it what can only be done then; it returns how many transactions it made.
func (d *differ) send() (sent uint32, err error) {
	if d.ops > 0 {
		if err := d.c.Flush(); err != nil {
			return 0, fmt.Errorf("change nftables' table %s: %w", TableName, err)
		}
	}
	for _, f := range d.done {
		f()
	}
	if d.ops == 0 {
		return 0, nil
	}
	n, err := d.prune()
	if err != nil {
		return 1, err
	}
	if n > 0 {
		return 2, nil
	}
	return 1, nil
}

func (d *differ) addTable() {
	if len(d.have.chains) == 0 {
		d.c.AddTable(d.table)
	}
}

func (d *differ) addChains() {
	for _, name := range sortedKeys(d.want.Chains) {
		if _, ok := d.have.chains[name]; !ok {
			c := d.want.Chains[name]
			d.c.AddChain(&nftables.Chain{Name: name, Table: d.table, Type: c.Kind, Hooknum: c.Hook, Priority: c.Priority})
			d.ops++
		}
	}
}

func (d *differ) addSets() error {
	for _, name := range sortedKeys(d.want.Sets) {
		if _, ok := d.have.sets[name]; ok {
			continue
		}
		w := d.want.Sets[name]
		set := d.set(name)
		d.id++
		set.ID = d.id // unique in this transaction is enough
		set.KeyType, set.DataType, set.IsMap = w.Key, w.Value, w.Map
		set.Interval = w.Interval
		set.Concatenation = w.Interval
		if w.Dynamic {
			set.Dynamic, set.HasTimeout, set.Size = true, true, 65535
		}
		if err := d.c.AddSet(set, nil); err != nil {
			return fmt.Errorf("add nftables' set %s: %w", name, err)
		}
		d.ops++
	}
	return nil
}

func (d *differ) set(name string) *nftables.Set {
	w := d.want.Sets[name]
	return &nftables.Set{Name: name, Table: d.table, IsMap: w.Map, Interval: w.Interval, Concatenation: w.Interval}
}

// rules replaces a chain's rules if they are not the wanted ones in the wanted order.
func (d *differ) rules(name string) {
	want := d.want.Chains[name]
	have, ok := d.have.chains[name]
	marks := want.marks()
	if ok && slices.Equal(have, marks) {
		return
	}
	chain := &nftables.Chain{Name: name, Table: d.table}
	if len(have) > 0 {
		d.c.FlushChain(chain)
	}
	for i, r := range want.Rules {
		d.c.AddRule(&nftables.Rule{
			Table: d.table, Chain: chain, Exprs: r.Exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, marks[i]),
		})
	}
	d.ops += len(have) + len(want.Rules)
}

// elements compares a whole set.
func (d *differ) elements(name string) error {
	want, have := d.want.Sets[name], d.have.sets[name]
	if want.Dynamic {
		return nil // see prune
	}
	var del, add []nftables.SetElement
	for _, k := range sortedKeys(have) {
		if v, ok := want.Elements[k]; !ok || v != have[k] {
			del = append(del, want.old(k, have[k]))
		}
		if _, ok := want.Elements[k]; !ok && strings.HasPrefix(name, "host") {
			d.leave(k)
		}
	}
	for _, k := range sortedKeys(want.Elements) {
		if v, ok := have[k]; !ok || v != want.Elements[k] {
			add = append(add, want.element(k))
		}
	}
	d.lost.udp = d.lost.udp || len(del) > 0 && strings.HasPrefix(name, "slot")
	return d.change(name, del, add)
}

// forget notes that a service with an affinity lost a backend.
func (d *differ) forget(affinity int32) {
	if affinity <= 0 {
		return
	}
	if d.lost.affinity == nil {
		d.lost.affinity = map[int32]bool{}
	}
	d.lost.affinity[affinity] = true
}

// leave notes a host that leaves.
func (d *differ) leave(key string) {
	if a, ok := netip.AddrFromSlice([]byte(key)); ok {
		d.gone = append(d.gone, a)
	}
}

// old is an element to remove.
func (s *Set) old(key, value string) nftables.SetElement {
	e := nftables.SetElement{Key: []byte(key)}
	if s.Interval {
		e.KeyEnd = []byte(value)
	}
	return e
}

func (s *Set) element(key string) nftables.SetElement {
	e, v := nftables.SetElement{Key: []byte(key)}, s.Elements[key]
	switch {
	case s.verdicts():
		kind, chain, _ := bytes.Cut([]byte(v), []byte(" "))
		e.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: string(chain)}
		if string(kind) == "jump" {
			e.VerdictData.Kind = expr.VerdictJump
		}
	case s.Interval:
		e.KeyEnd = []byte(v)
	case s.Map:
		e.Val = []byte(v)
	}
	return e
}

// prune removes what is stale from the maps that the kernel fills, once no packet can put it there any more.
func (d *differ) prune() (removed int, err error) {
	for _, f := range families() {
		for affinity := range d.lost.affinity {
			name := stayName(f, affinity)
			if _, ok := d.have.sets[name]; !ok {
				continue
			}
			have, err := d.readElements(name)
			if err != nil {
				return 0, err
			}
			current := behind{f: f, have: d.have}
			var del []nftables.SetElement
			for _, k := range sortedKeys(have) {
				if current.stale(k, have[k]) {
					del = append(del, nftables.SetElement{Key: []byte(k)})
				}
			}
			if err := d.change(name, del, nil); err != nil {
				return 0, err
			}
			removed += len(del)
		}
	}
	if removed > 0 {
		if err := d.c.Flush(); err != nil {
			return 0, fmt.Errorf("forget backends that are gone: %w", err)
		}
	}
	return removed, nil
}

func (d *differ) change(name string, del, add []nftables.SetElement) error {
	for part := range slices.Chunk(del, elementsPerMessage) {
		if err := d.c.SetDeleteElements(d.set(name), part); err != nil {
			return fmt.Errorf("remove elements from nftables' set %s: %w", name, err)
		}
	}
	for part := range slices.Chunk(add, elementsPerMessage) {
		if err := d.c.SetAddElements(d.set(name), part); err != nil {
			return fmt.Errorf("add elements to nftables' set %s: %w", name, err)
		}
	}
	d.ops += len(del) + len(add)
	return nil
}

// removeChains empties all first: they may refer to each other.
func (d *differ) removeChains(unwanted func(name string) bool) {
	var gone []*nftables.Chain
	for _, name := range sortedKeys(d.have.chains) {
		if unwanted(name) {
			gone = append(gone, &nftables.Chain{Name: name, Table: d.table})
		}
	}
	for _, c := range gone {
		if len(d.have.chains[c.Name]) > 0 {
			d.c.FlushChain(c)
		}
	}
	for _, c := range gone {
		d.c.DelChain(c)
		d.ops++
	}
}

func (d *differ) removeSets(unwanted func(name string) bool) {
	for _, name := range sortedKeys(d.have.sets) {
		if unwanted(name) {
			d.c.DelSet(&nftables.Set{Name: name, Table: d.table})
			d.ops++
		}
	}
}
