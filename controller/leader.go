package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"seaway.dev/seaway/controller/roster"
	discoverykube "seaway.dev/seaway/discovery/kube"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/credential"
)

// pace is the shortest time between two rosters: changes that come together are told together.
const pace = 20 * time.Millisecond

// leader is the leading replica. It implements manager.LeaderElectionRunnable.
type leader struct {
	cfg      Config
	log      *slog.Logger
	client   client.Client // straight to the API server, past the cache
	cache    cache.Cache
	events   record.EventRecorder
	board    *board
	ledgers  *ledgers
	discover *discoverykube.Reconciler
	streams  *streams
	mailbox  *mailbox
	carry    *carry
	marks    *marks
	memory   *memory
	status   *statusBoard
	scaling  *scaling
	meters   *meters
	epoch    uint64

	roster atomic.Pointer[roster.Roster] // the newest; nil until everything is known once
	known  atomic.Bool                   // the fleet is known, from the hub or from memory

	tasks      sync.WaitGroup                    // of the session with the hub
	credential atomic.Pointer[credential.Source] // of that session; nil before the first one

	speaking atomic.Bool // the loop tells discovery, and hears it afterwards
	again    time.Time   // when addresses are to be looked at again; of the loop

	leaving chan struct{} // holds one element once the cluster is to leave the fleet
	clear   atomic.Bool   // having left, nothing of ours is on pods and services

	mu      sync.Mutex
	exports map[string][]fleet.Export // of the other clusters
	held    bool                      // they are still to be waited for
	doubt   doubt
}

func newLeader(cfg Config, mgr manager.Manager) (*leader, error) {
	c, err := client.New(mgr.GetConfig(), client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient()})
	if err != nil {
		return nil, fmt.Errorf("client of this cluster: %w", err)
	}
	l := assemble(cfg, c, mgr.GetEventRecorderFor(controllerField))
	l.cache = mgr.GetCache()
	l.discover = discoverykube.New(mgr.GetClient(), discoverykube.Config{
		Cluster: cfg.Cluster, SliceOf: l.sliceOf, Direct: l.client, Families: l.families, Networks: l.networks, Pod: l.pod, Expected: l.expected, IPs: l.serviceIPs,
		Remote: l.remoteExports, Changed: l.discovered, Log: cfg.Log,
	})
	if err := l.discover.SetupWithManager(mgr); err != nil {
		return nil, fmt.Errorf("service discovery: %w", err)
	}
	return l, nil
}

// assemble makes a leader without what needs a manager.
func assemble(cfg Config, c client.Client, events record.EventRecorder) *leader {
	l := &leader{cfg: cfg, log: cfg.Log, client: c, events: events, board: newBoard(cfg.Cluster, cfg.Software), leaving: make(chan struct{}, 1), meters: newMeters()}
	l.ledgers = newLedgers(c, cfg.Namespace, cfg.Rest, l.board, cfg.Log)
	l.streams = newStreams(l)
	l.mailbox = newMailbox(cfg.Cluster)
	l.mailbox.log = cfg.Log
	l.carry = newCarry(l)
	l.marks = newMarks(c, events, cfg.Log, l.meters.marks)
	l.memory = newMemory(c, cfg.Namespace, cfg.Log)
	l.status = newStatusBoard(l)
	l.scaling = newScaling(l)
	return l
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (l *leader) NeedLeaderElection() bool { return true }

// Start leads until ctx ends. It implements manager.Runnable.
func (l *leader) Start(ctx context.Context) error {
	l.epoch = uint64(time.Now().UnixNano())
	l.log.Info("leading", "cluster", l.cfg.Cluster, "pod", l.cfg.Pod)
	if err := l.remember(ctx); err != nil {
		return err
	}
	if err := l.ledgers.load(ctx); err != nil {
		return err
	}
	if err := l.carry.open(ctx); err != nil {
		return err
	}
	tls, err := newAuthority(l.client, l.cfg.Namespace, l.log).open(ctx)
	if err != nil {
		return err
	}
	if err := watch(ctx, l.cache, l.cfg.Namespace, l.board); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	run := func(name string, fn func(context.Context) error) {
		g.Go(func() error {
			if err := fn(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	run("addresses", l.ledgers.save)
	run("conditions", l.marks.run)
	run("memory", l.memory.run)
	run("status", l.status.run)
	run("scaling", l.scaling.run)
	run("certificate", tls.run)
	run("hub", l.runHub)
	run("bulletins", l.carry.run)
	run("leader's label", l.label)
	run("leave", l.leave)
	run("roster", l.loop)
	run("streams", func(ctx context.Context) error { return serve(ctx, l, tls) })
	err = g.Wait()
	l.log.Info("leading no more", "err", err)
	return err
}

// remember puts what was last known of the fleet on the board.
func (l *leader) remember(ctx context.Context) error {
	m, err := l.memory.load(ctx)
	if err != nil {
		return err
	}
	if m == nil {
		return nil
	}
	l.board.edit(func(f *roster.Facts) bool {
		f.Members, f.Slices = m.Members, m.Slices
		for name, b := range m.Bulletins {
			f.Bulletins[name] = b
		}
		for name, rep := range m.Reports {
			f.Reports[name] = rep
		}
		f.Exports, f.Services = m.Exports, m.Services // and not Named: there may be more by now
		return true
	})
	l.mu.Lock()
	l.doubt = doubt{began: time.Now()}
	for _, name := range slices.Sorted(maps.Keys(m.Bulletins)) {
		if name != l.cfg.Cluster && slices.ContainsFunc(m.Members, func(o roster.Member) bool { return o.Name == name }) {
			l.doubt.clusters = append(l.doubt.clusters, name)
		}
	}
	l.mu.Unlock()
	l.carry.setMembers(m.Members)
	l.known.Store(true)
	l.log.Info("remembering the fleet as last known", "slices", len(m.Slices), "clusters", len(m.Members))
	return nil
}

// loop makes a new roster whenever the facts have changed, and tells everybody.
func (l *leader) loop(ctx context.Context) error {
	var again time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		if !again.IsZero() {
			wait = max(time.Until(again), pace)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-l.board.dirty:
		case <-timer.C:
		}
		if !l.known.Load() && !l.board.left() {
			continue // the hub's link touches the board when it knows
		}
		began := time.Now()
		again = l.turn(began)
		took := time.Since(began)
		l.meters.turn.Observe(took.Seconds())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(pace, took)): // a large cluster in turmoil costs half a core and no more
		}
	}
}

// turn makes one roster and hands it out. It returns when to do so again although nothing changes.
func (l *leader) turn(now time.Time) time.Time {
	held, _, _ := l.hearDiscovery(now)
	f := l.board.snapshot()
	before := l.roster.Load()
	r := roster.Next(f, before)
	here := r.SameHere(before)
	if !here || !l.ledgers.calm(now) {
		l.again = l.ledgers.settle(r, f.Leaving, now)
	}
	r.Share(before)
	l.roster.Store(r)
	l.tellDiscovery(before, r, held)
	_, unsure, telling := l.hearDiscovery(now) // what it has made of that: nobody waits for the next turn
	f, r = l.refine(f, r)
	if l.ledgers.unsettled() {
		l.board.touch()
	}
	exhausted, demand, problems := l.ledgers.state()
	if telling || f.Leaving {
		b := r.Bulletin()
		b.Demand = demand
		l.mailbox.offer(b)
	}
	l.streams.wakeAll()
	l.marks.offer(r.PodStates(exhausted), f.Pods)
	again := l.again
	if next := now.Add(doubtPace); (unsure || !telling) && (again.IsZero() || next.Before(again)) {
		again = next
	}
	l.memory.offer(f)
	l.status.offer(f, r, problems)
	l.scaling.offer(r)
	if f.Leaving {
		select {
		case l.leaving <- struct{}{}:
		default:
		}
	}
	return again
}

// refine puts into a roster what discovery has made of it meanwhile.
func (l *leader) refine(f *roster.Facts, r *roster.Roster) (*roster.Facts, *roster.Roster) {
	l.board.mu.Lock()
	exports, services, named := l.board.facts.Exports, l.board.facts.Services, l.board.facts.Named
	l.board.mu.Unlock()
	if same(exports, f.Exports) && same(services, f.Services) && named == f.Named {
		return f, r
	}
	now := *f
	now.Exports, now.Services, now.Named = exports, services, named
	r = r.With(exports, services, named)
	l.roster.Store(r)
	return &now, r
}

// same tells whether two lists are one.
func same[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// discovered has the loop hear discovery; when it is about to, nothing needs to be done.
func (l *leader) discovered() {
	if !l.speaking.Load() {
		l.board.touch()
	}
}

// hearDiscovery puts what discovery has worked out on the board. It returns what doubt.at does, and whether this
// cluster's own exports are known: telling others those that were written down would take away what came since.
func (l *leader) hearDiscovery(now time.Time) (held, unsure, telling bool) {
	l.mu.Lock()
	d := l.doubt
	l.mu.Unlock()
	held, unsure = d.at(now, l.carry.store.Have(), l.carry.met.Load())
	if l.discover == nil {
		return held, unsure, true
	}
	exports, known := l.discover.Exports()
	services, all := l.discover.Services()
	l.noteDiscovery(exports, known, services, all, unsure)
	return held, unsure, known || d.began.IsZero() || now.Sub(d.began) >= settleLast
}

func (l *leader) noteDiscovery(exports []fleet.Export, known bool, services []fleet.Service, all, unsure bool) {
	l.board.mu.Lock()
	old := l.board.facts.Services
	l.board.mu.Unlock()
	if all && (len(services) == 0 || !same(old, services)) {
		// Before the board's lock: a ledger that is written down publishes on the board with its own lock held.
		l.ledgers.use(services)
	}
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	if known && !same(exports, l.board.facts.Exports) && !reflect.DeepEqual(exports, l.board.facts.Exports) {
		l.board.facts.Exports = exports
	}
	l.board.facts.Named = l.board.facts.Named || all && !unsure
	if all { // the same list until something changes
		l.board.facts.Services = services
	}
}

// tellDiscovery has discovery look again at what changed between two rosters. held: others' exports are to be waited for.
func (l *leader) tellDiscovery(before, now *roster.Roster, held bool) {
	if l.discover == nil {
		return
	}
	l.speaking.Store(true)
	defer l.speaking.Store(false)
	exports := map[string][]fleet.Export{}
	others, _ := now.Others()
	for name, b := range others {
		exports[name] = b.Exports
	}
	l.mu.Lock()
	first := l.exports == nil
	changed := first || l.held != held || !reflect.DeepEqual(l.exports, exports)
	l.exports, l.held = exports, held
	l.mu.Unlock()
	if changed {
		l.discover.RemoteChanged()
	}
	if before == nil {
		l.discover.LocalChanged()
		return
	}
	moved := compareFootprints(before, now)
	if len(moved.namespaces) > 0 {
		l.discover.LocalChanged(moved.namespaces...)
	}
	if len(moved.pods) > 0 {
		l.discover.PodsChanged(moved.pods...)
	}
	if len(moved.services) > 0 {
		l.discover.NamesChanged(moved.services...)
	}
}

// What discovery asks.

func (l *leader) sliceOf(namespace string) (string, bool) {
	r := l.roster.Load()
	if r == nil {
		return "", false
	}
	return r.SliceOf(namespace)
}

func (l *leader) families(slice string) []string {
	r := l.roster.Load()
	if r == nil {
		return nil
	}
	return r.Families(slice)
}

func (l *leader) networks(slice string) []netip.Prefix {
	r := l.roster.Load()
	if r == nil {
		return nil
	}
	return r.Networks(slice)
}

func (l *leader) pod(namespace, name string) (addrs []netip.Addr, attached bool) {
	r := l.roster.Load()
	if r == nil {
		return nil, false
	}
	return r.PodAddrs(namespace, name), r.Attached(namespace, name)
}

func (l *leader) expected(namespace, service string) []string {
	r := l.roster.Load()
	if r == nil {
		return nil
	}
	return r.Expected(namespace, service)
}

func (l *leader) serviceIPs(slice, namespace, name string) []netip.Addr {
	l.board.mu.Lock()
	leases := maps.Clone(l.board.facts.Leases)
	l.board.mu.Unlock()
	return l.ledgers.ask(slice, namespace, name, leases)
}

func (l *leader) remoteExports() (map[string][]fleet.Export, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exports, l.exports != nil && !l.held
}
