package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

// balances turns the services of one slice into service addresses and those who answer for them, by the shares that
// package share gives them; kept names the services of which nobody can be reached. Services of other slices, headless
// ones and those without an address yet have nothing to balance. A port that nobody exposes keeps its entry without
// backends, so that new connections are refused at once instead of hanging.
func balances(slice string, services []fleet.Service, view share.View) (out []Balance, kept []string) {
	for i := range services {
		s := &services[i]
		if s.Slice != slice || s.Headless {
			continue
		}
		before := len(out)
		lost := false
		for _, ip := range s.IPs {
			for _, p := range s.Ports {
				b := Balance{Service: s.Key(), IP: ip, Protocol: p.Protocol, Port: p.Port, Affinity: affinity(s)}
				r := share.Of(s, view, share.Ask{Port: &p.Name, Family: family(ip)})
				b.Backends = backends(r.Standings, ip.Is4(), p.Name)
				lost = lost || r.Kept
				out = append(out, b)
			}
		}
		if lost && len(out) > before {
			kept = append(kept, s.Key())
		}
	}
	slices.SortFunc(out, func(a, b Balance) int {
		return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.Service, b.Service))
	})
	slices.Sort(kept)
	return out, kept
}

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
