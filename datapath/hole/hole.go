// Package hole drops Seaway's packets to and from other nodes for a drill. The kernel itself forgets each address when
// its time is over, so a hole closes even if whoever opened it is killed: what stays then is a table that does nothing,
// which the next [Close] removes.
package hole

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Longest is how long a hole may stay.
const Longest = 5 * time.Minute

// Table is the name of the table, in the family inet.
const Table = "seaway_drill"

// Open drops, for a while, all UDP between this network namespace and these addresses and port of other nodes, both
// ways. A hole that is open already is replaced.
func Open(peers []netip.AddrPort, d time.Duration) error {
	if d <= 0 || d > Longest {
		return fmt.Errorf("a hole of %s: it may stay for up to %s", d, Longest)
	}
	if len(peers) == 0 {
		return errors.New("a hole needs the addresses of a peer")
	}
	if err := Close(); err != nil {
		return err
	}
	c := &nftables.Conn{}
	t := c.AddTable(&nftables.Table{Name: Table, Family: nftables.TableFamilyINet})
	for _, way := range []struct {
		name         string
		hook         *nftables.ChainHook
		addr4, addr6 uint32 // offset of the other node's address
		port         uint32 // of its port
	}{
		{"in", nftables.ChainHookPrerouting, 12, 8, 0},
		{"out", nftables.ChainHookOutput, 16, 24, 2},
	} {
		chain := c.AddChain(&nftables.Chain{Name: way.name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: way.hook, Priority: nftables.ChainPriorityRaw})
		for _, v6 := range []bool{false, true} {
			set, elements := elementsOf(t, way.name, peers, v6, d)
			if len(elements) == 0 {
				continue
			}
			if err := c.AddSet(set, elements); err != nil {
				return fmt.Errorf("set %s: %w", set.Name, err)
			}
			offset := way.addr4
			if v6 {
				offset = way.addr6
			}
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: drop(set, v6, offset, way.port)})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("open the hole: %w", err)
	}
	return nil
}

// elementsOf makes the set of one chain and family: address and port, each with its time.
func elementsOf(t *nftables.Table, chain string, peers []netip.AddrPort, v6 bool, d time.Duration) (*nftables.Set, []nftables.SetElement) {
	kind, name := nftables.TypeIPAddr, chain+"4"
	if v6 {
		kind, name = nftables.TypeIP6Addr, chain+"6"
	}
	set := &nftables.Set{Table: t, Name: name, KeyType: nftables.MustConcatSetType(kind, nftables.TypeInetService), Concatenation: true, HasTimeout: true, Timeout: d}
	var out []nftables.SetElement
	for _, p := range peers {
		if p.Addr().Unmap().Is4() == v6 {
			continue
		}
		key := append(p.Addr().Unmap().AsSlice(), append(binaryutil.BigEndian.PutUint16(p.Port()), 0, 0)...)
		out = append(out, nftables.SetElement{Key: key, Timeout: d})
	}
	return set, out
}

func drop(set *nftables.Set, v6 bool, addr, port uint32) []expr.Any {
	proto, size, words := byte(unix.NFPROTO_IPV4), uint32(4), uint32(1)
	if v6 {
		proto, size, words = unix.NFPROTO_IPV6, 16, 4
	}
	const reg = unix.NFT_REG32_00
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: size},
		&expr.Payload{DestRegister: reg + words, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// Close removes the table, if it is there.
func Close() error {
	c := &nftables.Conn{}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("close the hole: %w", err)
	}
	for _, t := range tables {
		if t.Name == Table {
			c.DelTable(t)
			if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("close the hole: %w", err)
			}
		}
	}
	return nil
}
