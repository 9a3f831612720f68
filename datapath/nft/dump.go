package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netns"
)

// listed is a rule as the kernel lists it, as far as it matters here. The library's own reader stumbles over some
// expressions (ct with a direction, rt), and asks chain by chain.
type listed struct {
	Chain   string
	Text    string // the comment
	Packets uint64 // that reached its counter
	Counted bool   // it has one
}

// listRules lists the table's rules, chain after chain, each in order.
func listRules(ns *netns.NS) ([]listed, error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: []byte(TableName + "\x00")}})
	if err != nil {
		return nil, fmt.Errorf("list nftables' rules: %w", err)
	}
	msgs, err := ask(ns, unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, netlink.Dump, attrs)
	if err != nil {
		return nil, fmt.Errorf("list nftables' rules: %w", err)
	}
	var out []listed
	for _, m := range msgs {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return nil, fmt.Errorf("read nftables' rules: %w", err)
		}
		var r listed
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_RULE_CHAIN:
				r.Chain = ad.String()
			case unix.NFTA_RULE_USERDATA:
				r.Text, _ = userdata.GetString(ad.Bytes(), userdata.TypeComment)
			case unix.NFTA_RULE_EXPRESSIONS:
				r.Packets, r.Counted = counted(ad.Bytes())
			}
		}
		if err := ad.Err(); err != nil {
			return nil, fmt.Errorf("read nftables' rules: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}

// counted finds the counter among a rule's expressions.
func counted(list []byte) (packets uint64, ok bool) {
	nested(list, func(_ uint16, elem []byte) {
		name, data := "", []byte(nil)
		nested(elem, func(typ uint16, b []byte) {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				name = string(b)
			case unix.NFTA_EXPR_DATA:
				data = b
			}
		})
		if name != "counter\x00" {
			return
		}
		ok = true
		nested(data, func(typ uint16, b []byte) {
			if typ == unix.NFTA_COUNTER_PACKETS && len(b) == 8 {
				packets = binary.BigEndian.Uint64(b)
			}
		})
	})
	return packets, ok
}

func nested(b []byte, each func(typ uint16, b []byte)) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return
	}
	for ad.Next() {
		each(ad.Type(), ad.Bytes())
	}
}

// Drops returns how many packets each of the table's counting rules has caught, by the rule's text.
func Drops(ns *netns.NS) (map[string]uint64, error) {
	rules, err := listRules(ns)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for _, r := range rules {
		if r.Counted {
			out[unmarked(r.Text)] += r.Packets
		}
	}
	return out, nil
}

// unmarked is a rule's text without the hash behind it.
func unmarked(mark string) string {
	if n := len(mark) - len(" #12345678"); n > 0 {
		return mark[:n]
	}
	return mark
}

// generation is the count of nftables' transactions in a namespace.
func generation(ns *netns.NS) (uint32, error) {
	msgs, err := ask(ns, unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, 0, nil)
	if err != nil {
		return 0, fmt.Errorf("ask nftables' generation: %w", err)
	}
	if len(msgs) != 1 || len(msgs[0].Data) < 4 {
		return 0, errors.New("ask nftables' generation: no answer")
	}
	ad, err := netlink.NewAttributeDecoder(msgs[0].Data[4:])
	if err != nil {
		return 0, fmt.Errorf("read nftables' generation: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if ad.Type() == unix.NFTA_GEN_ID {
			return ad.Uint32(), nil
		}
	}
	return 0, errors.New("read nftables' generation: it is missing")
}

// ask sends one request to a namespace's nftables.
func ask(ns *netns.NS, kind uint16, family byte, flags netlink.HeaderFlags, attrs []byte) ([]netlink.Message, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { _ = c.Close() }()
	return c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
}
