package fleet

import (
	"crypto/sha256"
	"net/netip"
)

// ManagementAddr is a node's address in the management slice: the prefix and 64 bits of a hash of "cluster/node".
// With 10,000 nodes two collide with a chance of about 3 in 10^12.
func ManagementAddr(cluster, node string) netip.Addr {
	sum := sha256.Sum256([]byte(cluster + "/" + node))
	a := ManagementPrefix.Addr().As16()
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}
