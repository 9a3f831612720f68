package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

const (
	// elementsPerMessage keeps a list of elements below the 64 KiB of a netlink attribute.
	elementsPerMessage = 400
	// socketBuffer holds the largest transactions, bytes: 100,000 elements and as many acknowledgements.
	socketBuffer = 16 << 20
)

// Memo spares reading a table that nobody touched: the kernel counts a namespace's transactions, and while its count
// is the one that we left, the table is what we made it. The zero value knows nothing. One Memo belongs to one
// namespace.
type Memo struct {
	generation uint32
	have       *state
}

// state is a table as the kernel has it.
type state struct {
	chains map[string][]string          // chain → marks of its rules
	sets   map[string]map[string]string // set → key → value
}

// Apply makes the table of a namespace what it should be, in one transaction, and returns how many chains, rules, sets
// and elements were added or removed.
func Apply(ns *netns.NS, want *Table, memo *Memo) (ops int, err error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(ns.FD()), nftables.WithSockOptions(func(n *netlink.Conn) error {
		// As much as the system gives; small transactions need none of it.
		_ = n.SetReadBuffer(socketBuffer)
		_ = n.SetWriteBuffer(socketBuffer)
		return nil
	}))
	if err != nil {
		return 0, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { _ = c.CloseLasting() }()
	before, err := generation(ns)
	if err != nil {
		return 0, err
	}
	d := differ{ns: ns, c: c, table: &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}, want: want, have: memo.have}
	if d.have == nil || memo.generation != before {
		if d.have, err = d.read(); err != nil {
			return 0, err
		}
	}
	*memo = Memo{}
	if err := d.diff(); err != nil {
		return 0, err
	}
	sent := uint32(0)
	if d.ops > 0 {
		sent++
		if err := c.Flush(); err != nil {
			return 0, fmt.Errorf("change nftables' table %s: %w", TableName, err)
		}
		n, err := d.prune()
		if err != nil {
			return d.ops, err
		}
		if n > 0 {
			sent++
		}
		if d.moved {
			if err := forgetFlows(ns, want); err != nil {
				return d.ops, err
			}
		}
	}
	after, err := generation(ns)
	if err != nil {
		return d.ops, err
	}
	if after == before+sent { // else somebody else was at it meanwhile: read again next time
		*memo = Memo{generation: after, have: want.state()}
	}
	return d.ops, nil
}

// state is what the kernel has when the table is what it should be.
func (t *Table) state() *state {
	s := &state{chains: map[string][]string{}, sets: map[string]map[string]string{}}
	for name, c := range t.Chains {
		s.chains[name] = c.marks()
	}
	for name, set := range t.Sets {
		s.sets[name] = set.Elements
	}
	return s
}

func (c *Chain) marks() []string {
	out := make([]string, 0, len(c.Rules))
	for _, r := range c.Rules {
		out = append(out, r.mark())
	}
	return out
}

type differ struct {
	ns    *netns.NS
	c     *nftables.Conn
	table *nftables.Table
	want  *Table
	have  *state
	ops   int
	moved bool // a slot lost its backend
}

// read reads the table; without one everything is empty.
func (d *differ) read() (*state, error) {
	s := &state{chains: map[string][]string{}, sets: map[string]map[string]string{}}
	chains, err := d.c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables' chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name == TableName {
			s.chains[ch.Name] = []string{}
		}
	}
	if len(s.chains) == 0 {
		return s, nil
	}
	rules, err := listRules(d.ns)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		s.chains[r.Chain] = append(s.chains[r.Chain], r.Text)
	}
	sets, err := d.c.GetSets(d.table)
	if err != nil {
		return nil, fmt.Errorf("list nftables' sets: %w", err)
	}
	for _, set := range sets {
		if set.Anonymous {
			continue
		}
		if s.sets[set.Name], err = d.readElements(set.Name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (d *differ) readElements(set string) (map[string]string, error) {
	elems, err := d.c.GetSetElements(&nftables.Set{Name: set, Table: d.table})
	if err != nil {
		return nil, fmt.Errorf("list elements of nftables' set %s: %w", set, err)
	}
	have := make(map[string]string, len(elems))
	for _, e := range elems {
		have[string(e.Key)] = value(d.want.Sets[set], e)
	}
	return have, nil
}

// value is an element's value in the form of Set.Elements.
func value(set *Set, e nftables.SetElement) string {
	switch {
	case set == nil:
		return ""
	case set.verdicts():
		return verdict(e.Val)
	case set.Interval:
		return string(e.KeyEnd)
	}
	return string(e.Val)
}

// verdict reads "goto chain" from the attributes of a verdict.
func verdict(b []byte) string {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return "?"
	}
	ad.ByteOrder = binary.BigEndian
	kind, chain := int32(0), ""
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			kind = int32(ad.Uint32())
		case unix.NFTA_VERDICT_CHAIN:
			chain = ad.String()
		}
	}
	switch {
	case ad.Err() != nil:
		return "?"
	case kind == int32(expr.VerdictGoto):
		return "goto " + chain
	case kind == int32(expr.VerdictJump):
		return "jump " + chain
	}
	return "?"
}

// diff queues the changes. Their order matters within the transaction: what is referred to comes before what refers,
// and goes after it.
func (d *differ) diff() error {
	if len(d.have.chains) == 0 {
		d.c.AddTable(d.table)
	}
	for _, name := range sortedKeys(d.want.Chains) {
		if _, ok := d.have.chains[name]; !ok {
			c := d.want.Chains[name]
			d.c.AddChain(&nftables.Chain{Name: name, Table: d.table, Type: c.Kind, Hooknum: c.Hook, Priority: c.Priority})
			d.ops++
		}
	}
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
	d.removeChains()
	for _, name := range sortedKeys(d.have.sets) {
		if d.want.Sets[name] == nil {
			d.c.DelSet(&nftables.Set{Name: name, Table: d.table})
			d.ops++
		}
	}
	return nil
}

func (d *differ) addSets() error {
	id := uint32(0)
	for _, name := range sortedKeys(d.want.Sets) {
		id++
		if _, ok := d.have.sets[name]; ok {
			continue
		}
		w := d.want.Sets[name]
		set := d.set(name)
		set.ID = id // unique in this transaction is enough
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

func (d *differ) elements(name string) error {
	want, have := d.want.Sets[name], d.have.sets[name]
	if want.Dynamic {
		return nil // see prune
	}
	var del, add []nftables.SetElement
	for _, k := range sortedKeys(have) {
		if v, ok := want.Elements[k]; !ok || v != have[k] {
			e := nftables.SetElement{Key: []byte(k)}
			if want.Interval {
				e.KeyEnd = []byte(have[k])
			}
			del = append(del, e)
		}
	}
	for _, k := range sortedKeys(want.Elements) {
		if v, ok := have[k]; !ok || v != want.Elements[k] {
			add = append(add, want.element(k))
		}
	}
	d.moved = d.moved || len(del) > 0 && strings.HasPrefix(name, "slot")
	return d.change(name, del, add)
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
	for _, name := range sortedKeys(d.want.Sets) {
		set := d.want.Sets[name]
		if !set.Dynamic {
			continue
		}
		have, err := d.readElements(name)
		if err != nil {
			return 0, err
		}
		var del []nftables.SetElement
		for _, k := range sortedKeys(have) {
			if set.Stale([]byte(k), []byte(have[k])) {
				del = append(del, nftables.SetElement{Key: []byte(k)})
			}
		}
		if err := d.change(name, del, nil); err != nil {
			return 0, err
		}
		removed += len(del)
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
func (d *differ) removeChains() {
	var gone []*nftables.Chain
	for _, name := range sortedKeys(d.have.chains) {
		if d.want.Chains[name] == nil {
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
