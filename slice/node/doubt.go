package node

import (
	"cmp"
	"slices"

	"seaway.dev/seaway/fleet"
)

// What a node knows may be old: it was saved before the node went down, or the controller that could say better is away.
// And a controller that has just taken over begins with what was written down a while ago. None of that is a reason to
// forget a name, or to deny one:
//
//	saved, or the controller away   what is known is answered; a name that is not known may exist (SERVFAIL)
//	the controller is unsure        what it lacks and was known before stays, until it is sure
//	the controller is sure          what it does not name does not exist (NXDOMAIN)

// recall adds to an intent of a controller that does not know all services yet those that were known before: services,
// their addresses and their endpoints. Of what both know, the new intent's is taken.
func recall(in, before *fleet.Intent) *fleet.Intent {
	if !in.Unsure || in.Purge || before == nil || before.Purge || len(before.Services) == 0 {
		return in
	}
	known := make(map[string]fleet.Service, len(before.Services))
	for _, s := range before.Services {
		known[s.Key()] = s
	}
	out := *in
	out.Services = make([]fleet.Service, 0, max(len(in.Services), len(before.Services)))
	for _, s := range in.Services {
		if old, had := known[s.Key()]; had && old.Slice == s.Slice && old.Headless == s.Headless {
			s = recallService(s, old)
		}
		delete(known, s.Key())
		out.Services = append(out.Services, s)
	}
	for _, s := range before.Services {
		if _, lacking := known[s.Key()]; lacking {
			out.Services = append(out.Services, s)
		}
	}
	slices.SortStableFunc(out.Services, func(a, b fleet.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return &out
}

func recallService(s, old fleet.Service) fleet.Service {
	if len(s.IPs) == 0 {
		s.IPs = old.IPs
	}
	has := make(map[string]bool, len(s.Endpoints))
	for _, e := range s.Endpoints {
		has[e.ID()] = true
	}
	ends := slices.Clone(s.Endpoints)
	for _, e := range old.Endpoints {
		if !has[e.ID()] {
			ends = append(ends, e)
		}
	}
	if len(ends) > len(s.Endpoints) {
		s.Endpoints = ends
	}
	return s
}
