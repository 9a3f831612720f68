package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"seaway.dev/seaway/fleet"
)

// defaultAffinity is how long a client stays with its backend when the service does not say: Kubernetes' default for
// sessionAffinityConfig.clientIP.timeoutSeconds, in seconds.
const defaultAffinity = 10800

// balances turns the services of one slice into service addresses and those who answer for them: the ready endpoints
// of all clusters with the address's family that expose the port, each with the same weight. Services of other
// slices, headless ones and those without an address yet have nothing to balance. A port that nobody exposes keeps
// its entry without backends, so that new connections are refused at once instead of hanging.
func balances(slice string, services []fleet.Service) []Balance {
	var out []Balance
	for i := range services {
		s := &services[i]
		if s.Slice != slice || s.Headless {
			continue
		}
		for _, ip := range s.IPs {
			for _, p := range s.Ports {
				out = append(out, Balance{
					Service:  s.Key(),
					IP:       ip,
					Protocol: p.Protocol,
					Port:     p.Port,
					Backends: backends(s.Endpoints, ip.Is4(), p.Name),
					Affinity: affinity(s),
				})
			}
		}
	}
	slices.SortFunc(out, func(a, b Balance) int {
		return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.Service, b.Service))
	})
	return out
}

// backends lists the ready endpoints that expose a service port by its name, in one address family, sorted. Two
// endpoints with one address (a pod seen twice while it moves between slices of its service) count once.
func backends(endpoints []fleet.Endpoint, v4 bool, port string) []Backend {
	var out []Backend
	for i := range endpoints {
		e := &endpoints[i]
		number, ok := e.Ports[port]
		if !e.Ready || !ok {
			continue
		}
		for _, a := range e.Addrs {
			if a.Is4() == v4 {
				out = append(out, Backend{Addr: netip.AddrPortFrom(a, number), Weight: 1})
			}
		}
	}
	slices.SortFunc(out, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(out, func(a, b Backend) bool { return a.Addr == b.Addr })
}

// affinity returns the seconds that a client stays with its backend, 0 for no affinity.
func affinity(s *fleet.Service) int32 {
	switch {
	case !s.Affinity:
		return 0
	case s.Timeout <= 0:
		return defaultAffinity
	default:
		return s.Timeout
	}
}
