package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// While the cluster's DNS is away the controller is dialled at its address; what else fails is not tried there.
func TestControllerIsFoundWithoutDNS(t *testing.T) {
	known := netip.MustParseAddr("fd96::7")
	const name = "seaway-controller.seaway-system.svc:8443"
	noName := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: "seaway-controller.seaway-system.svc"}}
	refused := errors.New("connection refused")
	for what, c := range map[string]struct {
		known  netip.Addr
		byName error
		dialed []string
		err    error
	}{
		"the name is answered":      {known, nil, []string{name}, nil},
		"the name is not answered":  {known, noName, []string{name, "[fd96::7]:8443"}, nil},
		"it refuses":                {known, refused, []string{name}, refused},
		"no address is known of it": {netip.Addr{}, noName, []string{name}, noName},
	} {
		var dialed []string
		conn, err := nameless(func(_ context.Context, _, address string) (net.Conn, error) {
			dialed = append(dialed, address)
			if address == name && c.byName != nil {
				return nil, c.byName
			}
			return &net.TCPConn{}, nil
		}, c.known)(t.Context(), "tcp", name)
		if !slices.Equal(dialed, c.dialed) || !errors.Is(err, c.err) || (conn == nil) != (err != nil) {
			t.Errorf("%s: dialled %v, %v", what, dialed, err)
		}
	}
}
