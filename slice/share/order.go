package share

import "seaway.dev/seaway/fleet"

// Arrange returns a service as DNS is to answer it: the endpoints of a headless service with the nearest first and
// their Rank set, those that cannot be reached as not ready, so that they leave the service's own name and keep
// theirs. With nobody reachable they stay. Other services come back as they are: their name is an address.
func Arrange(s fleet.Service, v View) (out fleet.Service, kept bool) {
	if !s.Headless || len(s.Endpoints) == 0 {
		return s, false
	}
	r := Of(&s, v, Ask{})
	s.Endpoints = make([]fleet.Endpoint, 0, len(r.Standings))
	for i := range r.Standings {
		st := &r.Standings[i]
		e := st.Endpoint
		e.Ready = r.usable(st)
		e.Rank = st.Ring
		s.Endpoints = append(s.Endpoints, e)
	}
	return s, r.Kept
}
