package relay

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// Auto is the endpoint to give to a WireGuard peer whose whereabouts WireGuard need not know: the switch sends its
// handshake initiations over the peer's paths, and the answer's source becomes the endpoint.
const Auto = "auto"

// Endpoint is where a packet came from and, for answers, the local address that it had been sent to, so that a node
// with several addresses answers from the one that was dialled. It implements [conn.Endpoint].
type Endpoint struct {
	addr    netip.AddrPort  // zero means Auto
	head    *[sizeHead]byte // put before each message: addr is a relay, and this says for whom; nil: none
	local   netip.Addr      // zero: the kernel chooses
	cleared atomic.Bool     // local is not to be used any more
}

var _ conn.Endpoint = (*Endpoint)(nil)

// At returns an endpoint for an address, the kernel choosing the local one.
func At(addr netip.AddrPort) *Endpoint {
	return &Endpoint{addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}
}

// ClearSrc implements [conn.Endpoint]: forget the local address.
func (e *Endpoint) ClearSrc() { e.cleared.Store(true) }

// SrcIP implements [conn.Endpoint].
func (e *Endpoint) SrcIP() netip.Addr {
	if e.cleared.Load() {
		return netip.Addr{}
	}
	return e.local
}

// SrcToString implements [conn.Endpoint].
func (e *Endpoint) SrcToString() string { return e.SrcIP().String() }

// DstIP implements [conn.Endpoint].
func (e *Endpoint) DstIP() netip.Addr { return e.addr.Addr() }

// DstToString implements [conn.Endpoint].
func (e *Endpoint) DstToString() string {
	if !e.addr.IsValid() {
		return Auto
	}
	if e.head != nil {
		return fmt.Sprintf("%s/%x", e.addr, e.head[4:])
	}
	return e.addr.String()
}

// DstToBytes implements [conn.Endpoint]: what WireGuard's cookies are bound to.
func (e *Endpoint) DstToBytes() []byte {
	b, _ := e.addr.MarshalBinary() // never fails
	if e.head != nil {
		b = append(b, e.head[4:]...)
	}
	return b
}
