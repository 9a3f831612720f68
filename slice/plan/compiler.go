package plan

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/share"
)

// Compiler compiles the intents of one node one after the other. Its answers are those of [Compile]; what an intent
// shares with the one before, by being the very same list, is not compiled again, so that a change costs about what it
// changes:
//
//	ways       to other nodes         again when slices or clusters are other lists
//	frame      all but services       again when those, pods or policies are other lists, a node's sight changed, or the
//	                                  generations of the node's own keys: ways and fragments know nothing of those
//	fragments  one service's entries  again when that service changed, or a node's sight
//	aliases    on slices with them    always
//
// Values that were returned share parts with those that come. Nobody changes them. The zero Compiler is ready; it is not
// safe for concurrent use.
type Compiler struct {
	in        fleet.Intent // of the frame
	local     Local
	frame     *Node // without services
	problems  []fleet.Problem
	ways      *ways
	fragments map[string]*ledger // by slice

	// Work counts what was compiled so far, for tests and metrics.
	Work Work
}

// Work counts what a Compiler has compiled.
type Work struct{ Frames, Services uint64 }

// Compile is [Compile] of the next intent.
func (k *Compiler) Compile(in fleet.Intent, local Local) (Node, []fleet.Problem) {
	seen := maps.Equal(local.Nodes, k.local.Nodes)
	if k.frame == nil || !seen || !k.sameFrame(&in, local) {
		k.Work.Frames++
		if k.ways == nil || in.Cluster != k.in.Cluster || in.Node != k.in.Node || in.Purge || !fleet.SameList(in.Slices, k.in.Slices) || !fleet.SameList(in.Clusters, k.in.Clusters) {
			k.ways = &ways{paths: map[string][]Path{}}
		}
		frame, problems := compileFrame(in, local, k.ways)
		k.frame, k.problems = &frame, problems
	}
	if !seen || in.Cluster != k.in.Cluster || in.Node != k.in.Node {
		k.fragments = nil
	}
	k.in, k.local = in, local
	k.in.Services = nil
	n := *k.frame
	if in.Purge {
		k.fragments = nil
		return n, slices.Clone(k.problems)
	}
	view := share.View{Cluster: in.Cluster, Node: in.Node, Nodes: local.Nodes}
	old := k.fragments
	k.fragments = map[string]*ledger{}
	n.Slices = slices.Clone(n.Slices)
	names := compiler{in: in}
	for i := range n.Slices {
		s := &n.Slices[i]
		if s.Name == fleet.ManagementSlice {
			continue
		}
		l := old[s.Name].next(s.Name, in.Services, view, &k.Work)
		s.Services, s.Kept = l.balances, l.kept
		k.fragments[s.Name] = l
		if at := slices.IndexFunc(in.Slices, func(o fleet.Slice) bool { return o.Name == s.Name }); at >= 0 {
			s.Aliases = names.aliases(in.Slices[at])
		}
	}
	return n, slices.Clone(k.problems)
}

// sameFrame tells whether an intent has the frame of the one before.
func (k *Compiler) sameFrame(in *fleet.Intent, local Local) bool {
	o := &k.in
	return in.Cluster == o.Cluster && in.Node == o.Node && in.Purge == o.Purge && local.Port == k.local.Port && local.MTU == k.local.MTU &&
		local.NetNS == k.local.NetNS && maps.EqualFunc(local.Generations, k.local.Generations, slices.Equal) &&
		fleet.SameList(in.Slices, o.Slices) && fleet.SameList(in.Clusters, o.Clusters) &&
		fleet.SameList(in.Pods, o.Pods) && fleet.SameList(in.Policies, o.Policies)
}

// ledger is what the services of one slice became.
type ledger struct {
	of        []fleet.Service // that it was made of, of all slices
	fragments []fragment
	balances  []Balance // of all of them, sorted
	kept      []string
}

// fragment is what one service became.
type fragment struct {
	at       int // in the list of services
	balances []Balance
	kept     bool // nobody of it can be reached
}

// next makes the ledger of other services. A nil ledger knows nothing.
func (l *ledger) next(slice string, services []fleet.Service, view share.View, work *Work) *ledger {
	if l == nil {
		l = &ledger{}
	} else if fleet.SameList(l.of, services) {
		return l
	}
	now := &ledger{of: services, fragments: make([]fragment, 0, len(l.fragments)+1)}
	var changed [][2]fragment // old and new, of one service
	same := true              // as many services as before, in the same order
	j := 0
	for i := range services {
		s := &services[i]
		if s.Slice != slice || s.Headless {
			continue
		}
		for j < len(l.fragments) && compareNames(&l.of[l.fragments[j].at], s) < 0 {
			j, same = j+1, false
		}
		var old *fragment
		if j < len(l.fragments) && compareNames(&l.of[l.fragments[j].at], s) == 0 {
			old = &l.fragments[j]
			j++
		}
		if old != nil && s.Same(&l.of[old.at]) {
			now.fragments = append(now.fragments, fragment{i, old.balances, old.kept})
			continue
		}
		work.Services++
		f := fragmentOf(s, view)
		f.at = i
		now.fragments = append(now.fragments, f)
		if old == nil {
			same = false
		} else {
			changed = append(changed, [2]fragment{*old, f})
		}
	}
	if !same || j < len(l.fragments) || !now.patch(l, changed) {
		now.join()
	}
	return now
}

// fragmentOf turns one service into service addresses and those who answer for them, by the shares that package share
// gives them. A headless service and one without an address yet have nothing to balance. A port that nobody exposes keeps
// its entry without backends, so that new connections are refused at once instead of hanging.
func fragmentOf(s *fleet.Service, view share.View) fragment {
	var f fragment
	for _, ip := range s.IPs {
		for _, p := range s.Ports {
			b := Balance{Service: s.Key(), IP: ip, Protocol: p.Protocol, Port: p.Port, Affinity: affinity(s)}
			r := share.Of(s, view, share.Ask{Port: &p.Name, Family: family(ip)})
			b.Backends = backends(r.Standings, ip.Is4(), p.Name)
			f.kept = f.kept || r.Kept
			f.balances = append(f.balances, b)
		}
	}
	f.kept = f.kept && len(f.balances) > 0
	return f
}

// join makes the lists of all fragments.
func (l *ledger) join() {
	n := 0
	for i := range l.fragments {
		n += len(l.fragments[i].balances)
	}
	if n == 0 {
		return // nil, as with no services
	}
	l.balances = make([]Balance, 0, n)
	for i := range l.fragments {
		f := &l.fragments[i]
		l.balances = append(l.balances, f.balances...)
		if f.kept {
			l.kept = append(l.kept, l.of[f.at].Key())
		}
	}
	slices.SortStableFunc(l.balances, compareBalances)
	slices.Sort(l.kept)
}

// patch makes the lists of an earlier ledger's, if the services that changed have their entries where they were; else it
// returns false.
func (l *ledger) patch(old *ledger, changed [][2]fragment) bool {
	for _, c := range changed {
		if c[0].kept != c[1].kept || len(c[0].balances) != len(c[1].balances) {
			return false
		}
		for i := range c[0].balances {
			if compareBalances(c[0].balances[i], c[1].balances[i]) != 0 {
				return false
			}
		}
	}
	l.balances, l.kept = old.balances, old.kept
	if len(changed) > 0 {
		l.balances = slices.Clone(l.balances)
	}
	for _, c := range changed {
		for _, b := range c[1].balances {
			at, found := slices.BinarySearchFunc(l.balances, b, compareBalances)
			if !found || at+1 < len(l.balances) && compareBalances(l.balances[at+1], b) == 0 {
				return l.clear() // two entries of one key
			}
			l.balances[at] = b
		}
	}
	return true
}

func (l *ledger) clear() bool {
	l.balances, l.kept = nil, nil
	return false
}

func compareBalances(a, b Balance) int {
	return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Service, b.Service))
}

func compareNames(a, b *fleet.Service) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
