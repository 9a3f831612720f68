package nft

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: sixteen of four bytes. A key is put together from reg0 on; a map's value lands behind it.
const reg0 = unix.NFT_REG32_00

// family is what differs between IPv4 and IPv6 in rules and sets.
type family struct {
	suffix   string // of sets' names
	proto    byte   // NFPROTO_…
	regs     uint32 // registers of an address
	src, dst uint32 // offsets in the header
	addr     nftables.SetDatatype
	headers  int // bytes of IP and TCP headers, for the MSS
	gateway  netip.Addr
}

func (f family) size() uint32 { return 4 * f.regs }

// loads: expressions that fill registers.

func (f family) load(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size()}
}

// service loads destination address, protocol and port from reg on, and returns the register behind.
func (f family) service(reg uint32) ([]expr.Any, uint32) {
	return []expr.Any{
		f.load(f.dst, reg),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg + f.regs},
		destinationPort(reg + f.regs + 1),
	}, reg + f.regs + 2
}

func destinationPort(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// matches: expressions after which a rule goes on, or not.

func (f family) is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{f.proto}},
	}
}

func l4proto(n byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{n}},
	}
}

func linkIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg0},
		&expr.Cmp{Op: op, Register: reg0, Data: regs{}.link(name)},
	}
}

func (f family) destinationIn(p netip.Prefix) []expr.Any {
	return append([]expr.Any{f.load(f.dst, reg0)}, f.masked(expr.CmpOpEq, p)...)
}

func (f family) masked(op expr.CmpOp, p netip.Prefix) []expr.Any {
	mask := net.CIDRMask(p.Bits(), int(8*f.size()))
	return []expr.Any{
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: f.size(), Mask: mask, Xor: make([]byte, f.size())},
		&expr.Cmp{Op: op, Register: reg0, Data: p.Masked().Addr().AsSlice()},
	}
}

func in(set string, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: reg0, SetName: set, Invert: invert}
}

// unroutable matches what the slice has no way for: the kernel's own answer, "host unreachable", is one that TCP (since
// Linux 6.4, as RFC 1122 asks) and UDP sockets only take for a hint, and go on waiting.
func unroutable() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, ResultOIF: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: make([]byte, 4)},
	}
}

// ownAddr matches what goes to an address of the namespace itself.
func ownAddr() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func established() []expr.Any {
	bits := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: bits, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

// statements: what a rule does.

func accept() expr.Any { return &expr.Verdict{Kind: expr.VerdictAccept} }

func drop() []expr.Any { return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }

func jump(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

func goTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

// verdictOf looks the key at reg0 up in a map of verdicts.
func verdictOf(set string) expr.Any {
	return &expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set}
}

func resetTCP() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
}

func portUnreachable() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
}

func hostUnreachable() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_HOST_UNREACH}}
}

func prohibited() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func (f family) dnat(reg uint32) expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: reg, RegProtoMin: reg + f.regs}
}

// alias sends what goes to a pod's own address in another cluster to its slice address; the answers seem to come from
// where the client sent.
func (f family) alias() Rule {
	return Rule{"pods' own addresses of " + f.name(), join(f.is(), []expr.Any{
		f.load(f.dst, reg0),
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0 + f.regs, IsDestRegSet: true, SetName: "alias" + f.suffix},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: reg0 + f.regs},
	})}
}

// slot draws one of n slots of the service whose key begins at reg and loads its backend; it returns the backend's
// register.
func (f family) slot(reg uint32, n int) ([]expr.Any, uint32) {
	load, next := f.service(reg)
	value := next + 1
	return append(load,
		&expr.Numgen{Register: next, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: reg, DestRegister: value, IsDestRegSet: true, SetName: "slot" + f.suffix},
	), value
}

// balance sends a new connection to one of n slots.
func (f family) balance(n int) Rule {
	exprs, value := f.slot(reg0, n)
	return Rule{"to a backend of " + f.name(), join(f.is(), exprs, one(f.dnat(value)))}
}

// stay sends a client's new connection to the backend that it had, and remembers for as long again.
func (f family) stay(set string, timeout time.Duration) Rule {
	load, next := f.service(reg0 + f.regs)
	value := next + 1
	return Rule{"a client stays with its backend of " + f.name(), join(f.is(), one(f.load(f.src, reg0)), load, []expr.Any{
		&expr.Lookup{SourceRegister: reg0, DestRegister: value, IsDestRegSet: true, SetName: set},
		&expr.Dynset{SrcRegKey: reg0, SrcRegData: value, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout},
		f.dnat(value),
	})}
}

// settle sends a new client to one of n slots and remembers which backend it was.
func (f family) settle(set string, n int, timeout time.Duration) Rule {
	exprs, value := f.slot(reg0+f.regs, n)
	return Rule{"a client settles on a backend of " + f.name(), join(f.is(), one(f.load(f.src, reg0)), exprs, []expr.Any{
		&expr.Dynset{SrcRegKey: reg0, SrcRegData: value, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout},
		f.dnat(value),
	})}
}

// clamp lowers the MSS that a SYN offers to what the slice's MTU carries. The kernel never raises it.
func (f family) clamp(mtu int) Rule {
	mss := binary.BigEndian.AppendUint16(nil, uint16(max(mtu-f.headers, 536)))
	return Rule{"MSS fits the MTU of " + f.name(), join(f.is(), l4proto(unix.IPPROTO_TCP), []expr.Any{
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1}, // flags
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 1, Mask: []byte{0x02}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: []byte{0}},
		&expr.Immediate{Register: reg0, Data: mss},
		&expr.Exthdr{SourceRegister: reg0, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}, // option 2: MSS
	})}
}

// hairpin gives a pod that reached itself by a service the service's address as its peer: its own would come in from
// outside, which every kernel drops.
func (f family) hairpin() Rule {
	return Rule{"a pod behind its own service, " + f.name(), join(f.is(), []expr.Any{
		f.load(f.src, reg0), f.load(f.dst, reg0+f.regs), in("self"+f.suffix, false),
		&expr.Ct{Key: expr.CtKeyDST, Direction: 0, Register: reg0}, // as the client sent it
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.proto), RegAddrMin: reg0},
	})}
}

func (f family) name() string { return "IPv" + f.suffix }

func one(e expr.Any) []expr.Any { return []expr.Any{e} }

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
