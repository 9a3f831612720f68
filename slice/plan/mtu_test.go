package plan

import (
	"net/netip"
	"testing"

	"seaway.dev/seaway/fleet"
)

// TestMTU: a full inner packet fits the underlay by every kind of path: headers of the underlay, WireGuard's, and the
// name that a gateway is told.
func TestMTU(t *testing.T) {
	const wireguard, udp, v4, v6 = 32, 8, 20, 40
	for _, c := range []struct {
		name  string
		addrs []string
		mtu   int
		ip    int // header of the underlay
	}{
		{"IPv4", []string{"192.0.2.1"}, 1500, v4},
		{"IPv6", []string{"2001:db8::1"}, 1500, v6},
		{"both", []string{"192.0.2.1", "2001:db8::1"}, 1500, v6},
		{"jumbo", []string{"2001:db8::1"}, 9000, v6},
	} {
		var addrs []netip.Addr
		for _, a := range c.addrs {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		nodes := []fleet.Node{{Name: "n1", Cluster: "c1", MTU: c.mtu, Addrs: addrs, Keys: map[string]fleet.Key{"pay": {1}}}}
		k := compiler{in: fleet.Intent{Clusters: []fleet.Cluster{{Name: "c1", Nodes: nodes}}}, local: Local{MTU: c.mtu}}
		if got := k.mtu("pay"); got+wireguard+relayHead+udp+c.ip > c.mtu {
			t.Errorf("%s: %d inside makes %d by a gateway, over %d", c.name, got, got+wireguard+relayHead+udp+c.ip, c.mtu)
		}
	}
}
