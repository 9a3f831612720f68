package fleet

// SameList tells whether two lists are one in memory. Lists that are told are never changed in place, so that those are
// equal; false says nothing.
func SameList[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// Same tells, at little cost, that two services are equal: one value passed on, or copies that share their lists. False
// says nothing.
func (s *Service) Same(t *Service) bool {
	return s.SameHead(t) && SameList(s.Endpoints, t.Endpoints)
}

// SameHead is [Service.Same] for all but the endpoints.
func (s *Service) SameHead(t *Service) bool {
	return s.Namespace == t.Namespace && s.Name == t.Name && s.Slice == t.Slice && s.Headless == t.Headless &&
		s.Affinity == t.Affinity && s.Timeout == t.Timeout && SameList(s.IPs, t.IPs) && SameList(s.Ports, t.Ports) &&
		SameList(s.Clusters, t.Clusters) && s.InternalTrafficPolicy == t.InternalTrafficPolicy && s.TrafficDistribution == t.TrafficDistribution
}
