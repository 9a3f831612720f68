package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// read reads the table; without one everything is empty.
func (d *differ) read() (*state, error) {
	s := &state{chains: map[string][]string{}, sets: map[string]map[string]string{}, users: map[string]int{}}
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
		have[string(e.Key)] = value(d.setOf(set), e)
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
