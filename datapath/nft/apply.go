package nft

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/slice/plan"
)

const (
	// elementsPerMessage keeps a list of elements below the 64 KiB of a netlink attribute.
	elementsPerMessage = 400
	// socketBuffer holds the largest transactions, bytes: 100,000 elements and as many acknowledgements.
	socketBuffer = 16 << 20
)

// Memo spares reading a table that nobody touched: the kernel counts a namespace's transactions, and while its count
// is the one that we left, the table is what we made it. Then only what differs between the plan that it was made of
// and the new one is looked at, so that a change costs what it changes. The zero value knows nothing. One Memo belongs
// to one namespace.
type Memo struct {
	generation uint32
	have       *state     // changed in place
	made       plan.Slice // what have was made of
	frame      *Table     // of made
}

// state is a table as the kernel has it.
type state struct {
	chains map[string][]string          // chain → marks of its rules
	sets   map[string]map[string]string // set → key → value
	users  map[string]int               // balancer's chain → how many services use it
}

// Changes says what Apply did.
type Changes struct {
	Ops int // chains, rules, sets and elements that were added or removed
	// Gone are the addresses that were among the slice's hosts and are no more.
	Gone  []netip.Addr
	moved *state // what the kernel has now, if a service lost a backend for UDP; else nil
}

// Apply makes the table of a slice's namespace what it should be, in one transaction.
func Apply(ns *netns.NS, want plan.Slice, memo *Memo) (Changes, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(ns.FD()), nftables.WithSockOptions(func(n *netlink.Conn) error {
		// As much as the system gives; small transactions need none of it.
		_ = n.SetReadBuffer(socketBuffer)
		_ = n.SetWriteBuffer(socketBuffer)
		return nil
	}))
	if err != nil {
		return Changes{}, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { _ = c.CloseLasting() }()
	before, err := generation(ns)
	if err != nil {
		return Changes{}, err
	}
	d := differ{ns: ns, c: c, table: &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}}
	was := *memo
	*memo = Memo{}
	if was.have != nil && was.generation == before {
		err = d.known(&was, want)
	} else {
		was.frame = frame(want)
		err = d.unknown(want)
	}
	if err != nil {
		return Changes{}, err
	}
	sent, err := d.send()
	if err != nil {
		return d.changes(), err
	}
	after, err := generation(ns)
	if err != nil {
		return d.changes(), err
	}
	if after == before+sent { // else somebody else was at it meanwhile: read again next time
		*memo = Memo{generation: after, have: d.have, made: want, frame: was.frame}
	}
	return d.changes(), nil
}

// sameFrame tells whether two plans have the same frame.
func sameFrame(a, b plan.Slice) bool {
	return a.MTU == b.MTU && (a.Hosts == nil) == (b.Hosts == nil) && slices.Equal(a.Prefixes, b.Prefixes) &&
		slices.Equal(a.Networks, b.Networks) && slices.Equal(a.Aliases, b.Aliases) &&
		reflect.DeepEqual(a.Attachments, b.Attachments) && reflect.DeepEqual(a.Policies, b.Policies)
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
	s.count()
	return s
}

// count counts the users of each balancer.
func (s *state) count() {
	s.users = map[string]int{}
	for _, f := range families() {
		for _, v := range s.sets["service"+f.suffix] {
			s.users[v[len("goto "):]]++
		}
	}
}

func (c *Chain) marks() []string {
	out := make([]string, 0, len(c.Rules))
	for _, r := range c.Rules {
		out = append(out, r.mark())
	}
	return out
}
