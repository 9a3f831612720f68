// Package nft keeps one nftables table, inet seaway, in each slice's namespace.
//
// [Compile] turns a slice's plan into a [Table]: a value that says which chains, rules and sets there should be.
// [Apply] compares it with the kernel's, or the plan with the one that the kernel's is known to have been made of, and
// sends the difference as one transaction. Rules are few and the same for
// every size of slice; what varies lies in sets and maps, whose elements are added and removed one by one, so that a
// change costs what it changes, however many services there are.
//
//	packet from a pod or from wg0
//	  arrive   raw        forged sources are dropped
//	  serve    dstnat     a pod's own address in another cluster → its slice address, where the slice has such;
//	                      service address → a backend, by slot maps
//	  refuse   after it   a service port without backends, a host that is gone, or an address outside the slice: refused
//	                      at once
//	  clamp    mangle     MSS fits the slice's MTU
//	  pass     filter     policy of the source pod, then of the destination pod
//	  hairpin  srcnat     a pod that reaches itself by a service sees the service's address, not its own
//
// There is no nft program at run time: everything goes over netlink.
package nft

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"seaway.dev/seaway/fleet"
)

// TableName is the table's name; its family is inet.
const TableName = "seaway"

// Table is what the table should be.
type Table struct {
	Chains map[string]*Chain
	Sets   map[string]*Set
}

// Chain is a chain and its rules in order.
type Chain struct {
	Kind     nftables.ChainType // "" unless the chain is hooked
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Rules    []Rule
}

// Rule is a rule. Its comment in the kernel is Text and a hash of the expressions: by that it is recognised.
type Rule struct {
	Text  string
	Exprs []expr.Any
}

// maxComment is what nft(8) shows of a comment, bytes.
const maxComment = 128

// mark is the comment that identifies the rule.
func (r Rule) mark() string {
	h := fnv.New64a()
	for _, e := range r.Exprs {
		b, err := json.Marshal(e)
		if err != nil {
			panic(fmt.Sprintf("an nftables expression is plain data: %v", err)) // broken invariant
		}
		fmt.Fprintf(h, "%T%s;", e, b)
	}
	sum := hex.EncodeToString(h.Sum(nil))[:8]
	text := r.Text
	if len(text) > maxComment-10 {
		text = text[:maxComment-10]
	}
	return text + " #" + sum
}

// Set is a set or map and its elements.
type Set struct {
	Key      nftables.SetDatatype
	Value    nftables.SetDatatype // of a map
	Map      bool
	Interval bool              // of a concatenation: elements have an end
	Dynamic  bool              // filled by the kernel: elements are not compared, see differ.prune
	Elements map[string]string // key → value, both as in registers; "jump x" or "goto x" in a map of verdicts
}

func (s *Set) verdicts() bool { return s.Map && s.Value.Name == nftables.TypeVerdict.Name }

// bytes of a concatenation as they lie in registers: each field padded to 4.
type regs []byte

func (r regs) addr(a netip.Addr) regs { return append(r, a.AsSlice()...) }

func (r regs) proto(n byte) regs { return append(r, n, 0, 0, 0) }

func (r regs) port(p uint16) regs { return append(r, byte(p>>8), byte(p), 0, 0) }

func (r regs) number(n uint32) regs { return binary.NativeEndian.AppendUint32(r, n) }

func (r regs) link(name string) regs {
	var b [16]byte
	copy(b[:], name)
	return append(r, b[:]...)
}

// protocol numbers of the transports (IANA).
func protocol(p fleet.Protocol) (byte, bool) {
	switch p {
	case fleet.TCP:
		return 6, true
	case fleet.UDP:
		return 17, true
	case fleet.SCTP:
		return 132, true
	}
	return 0, false
}

// String prints the table, sorted: the form of goldens.
func (t *Table) String() string {
	var b strings.Builder
	for _, name := range sortedKeys(t.Chains) {
		c := t.Chains[name]
		fmt.Fprintf(&b, "chain %s", name)
		if c.Hook != nil {
			fmt.Fprintf(&b, " %s hook %d priority %d", c.Kind, *c.Hook, *c.Priority)
		}
		b.WriteByte('\n')
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "  %s\n", r.Text)
		}
	}
	for _, name := range sortedKeys(t.Sets) {
		s := t.Sets[name]
		fmt.Fprintf(&b, "set %s %s", name, s.Key.Name)
		if s.Map {
			fmt.Fprintf(&b, " : %s", s.Value.Name)
		}
		b.WriteByte('\n')
		for _, k := range sortedKeys(s.Elements) {
			v := s.Elements[k]
			if s.Map && !s.verdicts() {
				v = hex.EncodeToString([]byte(v))
			} else if s.Interval {
				v = "to " + hex.EncodeToString([]byte(v))
			}
			fmt.Fprintf(&b, "  %s %s\n", hex.EncodeToString([]byte(k)), v)
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
