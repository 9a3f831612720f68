package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

func family(ip netip.Addr) int {
	if ip.Is4() {
		return 4
	}
	return 6
}

// backends lists those who get a share of a service port, in one address family, sorted. Two endpoints with one address
// (a pod seen twice while it moves between slices of its service) count once.
func backends(standings []share.Standing, v4 bool, port string) []Backend {
	var out []Backend
	for i := range standings {
		st := &standings[i]
		if st.Weight == 0 {
			continue
		}
		for _, a := range st.Endpoint.Addrs {
			if a.Is4() == v4 {
				out = append(out, Backend{Addr: netip.AddrPortFrom(a, st.Endpoint.Ports[port]), Weight: st.Weight})
			}
		}
	}
	slices.SortFunc(out, func(a, b Backend) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(b.Weight, a.Weight)) })
	out = slices.CompactFunc(out, func(a, b Backend) bool { return a.Addr == b.Addr })
	common := 0
	for _, b := range out {
		common = gcd(b.Weight, common)
	}
	for i := range out {
		out[i].Weight /= common
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// affinity returns the seconds that a client stays with its backend, 0 for no affinity.
func affinity(s *fleet.Service) int32 {
	switch {
	case !s.Affinity:
		return 0
	case s.Timeout <= 0:
		return share.DefaultSticky
	default:
		return s.Timeout
	}
}
