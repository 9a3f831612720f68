package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/addr"
)

// ledgerKey is the key in a ledger ConfigMap's binaryData.
const ledgerKey = "ledger"

// requestLife is how long a service address stays held after it was asked for although no service has it yet.
const requestLife = time.Minute

// retention is how long a StatefulSet's ordinal keeps its address after it was scaled away or its StatefulSet was
// deleted: long enough for a rollback, a reinstallation, or tonight's scale-up. While a slice has no address left it is
// the ledger's rest.
const retention = 24 * time.Hour

// errFenced says that another replica wrote a ledger: this one must stop leading at once.
var errFenced = errors.New("another replica wrote the addresses: it leads now")

// ledgers keeps a ledger per slice and writes it down before its addresses are used.
//
//	settle (by the loop): take and release in memory ─▶ save: write down ─▶ board.Leases ─▶ the loop looks again
type ledgers struct {
	client    client.Client
	namespace string
	rest      time.Duration
	board     *board
	log       *slog.Logger

	mu       sync.Mutex
	books    map[string]*book                // by slice
	requests map[string]map[string]time.Time // slice → service key → last asked for
	services map[string]map[string]bool      // slice → service keys in use; nil while not known
	used     []fleet.Service                 // what services was made of
	news     bool                            // services or requests changed since everything was settled
	settled  time.Time                       // when it was
	again    time.Time                       // when it is to be again though nothing changes; zero: never
	wake     chan struct{}
}

// book is one slice's ledger and how far it is written down.
type book struct {
	ledger    *addr.Ledger
	saved     uint64 // revision of the ledger that is written down
	version   string // resource version of the ConfigMap, "" if there is none
	exhausted bool
	demand    int
	idle      map[string]time.Time // keys that are kept though nobody is to have them now → since when
	left      time.Time            // since when this cluster is not on the slice; zero while it is
	gone      bool                 // that has lasted: the ConfigMap is to go, too
}

func newLedgers(c client.Client, namespace string, rest time.Duration, b *board, log *slog.Logger) *ledgers {
	return &ledgers{
		client: c, namespace: namespace, rest: rest, board: b, log: log,
		books: map[string]*book{}, requests: map[string]map[string]time.Time{}, wake: make(chan struct{}, 1),
	}
}

// load reads all ledgers that are written down.
func (l *ledgers) load(ctx context.Context) error {
	var list corev1.ConfigMapList
	if err := l.client.List(ctx, &list, client.InNamespace(l.namespace), client.MatchingLabels{ledgerLabel: "true"}); err != nil {
		return fmt.Errorf("read the address ledgers: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range list.Items {
		cm := &list.Items[i]
		slice := cm.Labels[sliceLabel]
		if slice == "" || cm.Name != LedgerPrefix+slice {
			continue
		}
		b := &book{ledger: addr.NewLedger(l.rest), version: cm.ResourceVersion}
		if err := readLedger(cm.BinaryData[ledgerKey], b.ledger); err != nil {
			// Leading without it would take running pods off the slice. Not leading leaves every node as it is.
			return fmt.Errorf("address ledger ConfigMap %s/%s cannot be read: %w; restore it from a backup of etcd, or delete it: "+
				"pods then get new addresses; until then the controller does not lead and every node stays as it is", l.namespace, cm.Name, err)
		}
		b.saved = b.ledger.Rev()
		l.books[slice] = b
		l.publish(slice, b.ledger.Leases())
	}
	return nil
}

// Labels of a ledger's ConfigMap.
const (
	ledgerLabel = "seaway.dev/ledger"
	sliceLabel  = "seaway.dev/slice"
)

func (l *ledgers) publish(slice string, leases map[string][]netip.Addr) {
	l.board.edit(func(f *roster.Facts) bool {
		if leases == nil {
			delete(f.Leases, slice)
		} else {
			f.Leases[slice] = leases
		}
		return true
	})
}

// settle leases what a roster asks for and releases what nobody holds. It returns when it should be called again
// although nothing changed: the first moment at which an address that somebody waits for may be free.
func (l *ledgers) settle(r *roster.Roster, leaving bool, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.news, l.settled = false, now
	var again time.Time
	seen := map[string]bool{}
	for _, s := range r.Slices() {
		seen[s.Name] = true
		again = sooner(again, l.settleSlice(r, s, now))
	}
	for name, b := range l.books {
		again = sooner(again, b.age(seen[name], leaving, now, l.rest))
		if b.gone || b.saved != b.ledger.Rev() {
			l.kick()
		}
	}
	l.again = again
	return again
}

// settleEvery is how often everything is settled though nothing here changed: requests may have lapsed.
const settleEvery = 5 * time.Second

// calm tells whether there is nothing to settle, as far as it does not come of the roster.
func (l *ledgers) calm(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.news && now.Sub(l.settled) < settleEvery && (l.again.IsZero() || now.Before(l.again))
}

// unsettled tells whether services or requests changed since everything was settled.
func (l *ledgers) unsettled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

// age decides whether a ledger is to go: when this cluster has not been on the slice for a whole rest. A slice that
// is gone for a moment (an object deleted by mistake and applied again) gives every pod its address back. It returns
// when to look again.
func (b *book) age(on, leaving bool, now time.Time, rest time.Duration) time.Time {
	switch {
	case on:
		b.left, b.gone = time.Time{}, false
		return time.Time{}
	case b.left.IsZero():
		b.left = now
	}
	b.gone = leaving || now.Sub(b.left) >= rest
	if b.gone {
		return time.Time{}
	}
	return b.left.Add(rest)
}

func (l *ledgers) settleSlice(r *roster.Roster, s fleet.Slice, now time.Time) time.Time {
	b := l.books[s.Name]
	if b == nil {
		b = &book{ledger: addr.NewLedger(l.rest)}
		l.books[s.Name] = b
	}
	services := l.serviceKeys(s.Name, now)
	pods := r.Keys(s.Name)
	short := b.exhausted
	b.exhausted, b.demand = false, len(pods)+len(services)
	blocks := r.Blocks(s.Name)
	// Without blocks nothing can be leased, but nothing is taken away either: a hub that lost its status must not
	// take addresses from running pods.
	if len(blocks) == 0 {
		b.exhausted = len(blocks) == 0
		return time.Time{}
	}
	b.ledger.SetBlocks(s.Prefixes, blocks)
	b.ledger.Shun(r.InUse(s.Name))
	limit := l.patience(short)
	b.ledger.Settle(b.idling(func(key string) bool { return r.Wants(s.Name, key) || services[key] || l.kept(key) },
		func(key string) bool { return r.Keeps(s.Name, key) }, limit, now), now)
	waiting := 0
	lease := func(key string, take func(string, time.Time) ([]netip.Addr, error)) {
		if _, err := take(key, now); err != nil {
			b.exhausted = true
			waiting++
		}
	}
	for _, key := range pods {
		lease(key, b.ledger.Take)
	}
	for _, key := range slices.Sorted(maps.Keys(services)) {
		lease(key, b.ledger.TakeVirtual)
	}
	h4, r4, _ := b.ledger.Held(false)
	h6, r6, _ := b.ledger.Held(true)
	b.demand = max(h4+r4, h6+r6) + waiting + min(b.ledger.Shunned(), fairShare(s))
	again := l.lapse(s.Name)
	for _, since := range b.idle {
		again = sooner(again, since.Add(l.patience(b.exhausted)))
	}
	if b.exhausted {
		again = sooner(again, b.ledger.NextFree(now))
	}
	return again
}

// patience is how long a lease stays that nobody is to have now.
func (l *ledgers) patience(exhausted bool) time.Duration {
	if exhausted {
		return l.rest
	}
	return retention
}

// idling tells which leases stay: those that are wanted, and for a while those that may be wanted again. It notes since
// when the latter are idle.
func (b *book) idling(wanted, kept func(key string) bool, limit time.Duration, now time.Time) func(key string) bool {
	before := b.idle
	b.idle = map[string]time.Time{}
	return func(key string) bool {
		if wanted(key) || !kept(key) {
			return wanted(key)
		}
		since, ok := before[key]
		if !ok {
			since = now
		}
		if now.Sub(since) >= limit {
			return false
		}
		b.idle[key] = since
		return true
	}
}

// sooner is the earlier of two times; a zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// fairShare bounds what a cluster may ask for in place of addresses that it uses itself: a quarter of its even share
// of the IPv4 prefix. A cluster whose own addresses fill the prefix would else be given all of it, in vain.
func fairShare(s fleet.Slice) int {
	for _, p := range s.Prefixes {
		if p.Addr().Is4() {
			return (1 << (32 - p.Bits())) / (4 * max(len(s.Clusters), 1))
		}
	}
	return 0
}

// kept tells whether a service's key is kept because it is not known yet which services there are.
func (l *ledgers) kept(key string) bool { return l.services == nil && isService(key) }

func isService(key string) bool {
	return len(key) > 4 && key[:4] == "svc/" && strings.Count(key, "/") == 2
}

// serviceKeys lists the services that hold an address of a slice: those in use, and those just asked for.
func (l *ledgers) serviceKeys(slice string, now time.Time) map[string]bool {
	keys := maps.Clone(l.services[slice])
	if keys == nil {
		keys = map[string]bool{}
	}
	for key, asked := range l.requests[slice] {
		if now.Sub(asked) > requestLife {
			delete(l.requests[slice], key)
			continue
		}
		keys[key] = true
	}
	return keys
}

// lapse is when the first request lapses that no service came of; zero if there is none.
func (l *ledgers) lapse(slice string) (first time.Time) {
	for key, asked := range l.requests[slice] {
		if !l.services[slice][key] {
			first = sooner(first, asked.Add(requestLife))
		}
	}
	return first
}

// use says which services there are.
func (l *ledgers) use(services []fleet.Service) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.used
	l.used = services
	if l.services != nil && slices.EqualFunc(old, services, func(a, b fleet.Service) bool {
		return a.Name == b.Name && a.Namespace == b.Namespace && a.Slice == b.Slice && a.Headless == b.Headless
	}) {
		return
	}
	l.services, l.news = map[string]map[string]bool{}, true
	for _, s := range services {
		if s.Headless {
			continue
		}
		if l.services[s.Slice] == nil {
			l.services[s.Slice] = map[string]bool{}
		}
		l.services[s.Slice]["svc/"+s.Namespace+"/"+s.Name] = true
	}
}

// ask returns a service's addresses as far as they are written down, and has them leased if there are none.
func (l *ledgers) ask(slice, namespace, name string, leases map[string]map[string][]netip.Addr) []netip.Addr {
	key := "svc/" + namespace + "/" + name
	l.mu.Lock()
	if l.requests[slice] == nil {
		l.requests[slice] = map[string]time.Time{}
	}
	_, known := l.requests[slice][key]
	l.news = l.news || !known
	l.requests[slice][key] = time.Now()
	l.mu.Unlock()
	have := leases[slice][key]
	if !known && len(have) == 0 {
		l.board.touch()
	}
	return have
}

func (l *ledgers) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// save writes down what changed, until ctx ends or another replica writes, too.
func (l *ledgers) save(ctx context.Context) error {
	const pause = time.Second // after an error of the API server
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
		failed := false
		for _, slice := range l.unsaved() {
			err := l.saveOne(ctx, slice)
			switch {
			case errors.Is(err, errFenced):
				return fmt.Errorf("addresses of slice %s: %w", slice, err)
			case err != nil && ctx.Err() == nil:
				failed = true
				l.log.Error("addresses not written down, so not used; trying again", "slice", slice, "err", err)
			}
		}
		if failed {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
				l.kick()
			}
		}
	}
}

func (l *ledgers) unsaved() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for slice, b := range l.books {
		if b.gone || b.saved != b.ledger.Rev() {
			out = append(out, slice)
		}
	}
	slices.Sort(out)
	return out
}

// saveOne writes one ledger down and then lets its addresses be used. An unused slice's is removed.
func (l *ledgers) saveOne(ctx context.Context, slice string) error {
	l.mu.Lock()
	b := l.books[slice]
	rev, leases, gone, version := b.ledger.Rev(), b.ledger.Leases(), b.gone, b.version
	data, err := writeLedger(b.ledger)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.namespace, Name: LedgerPrefix + slice, ResourceVersion: version,
			Labels: map[string]string{componentLabel: componentValue, ledgerLabel: "true", sliceLabel: slice},
		},
		BinaryData: map[string][]byte{ledgerKey: data},
	}
	switch {
	case gone && version == "":
		err = nil
	case gone:
		err = l.client.Delete(ctx, cm, client.Preconditions{ResourceVersion: &version})
		err = client.IgnoreNotFound(err)
	case version == "":
		err = l.client.Create(ctx, cm)
	default:
		err = l.client.Update(ctx, cm)
		if apierrors.IsNotFound(err) { // somebody deleted it: what is in memory is still true
			cm.ResourceVersion = ""
			err = l.client.Create(ctx, cm)
		}
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return errFenced
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if gone {
		if b.gone {
			delete(l.books, slice)
		} else {
			b.version, b.saved = "", 0 // it came back meanwhile
			l.kick()
		}
		l.publish(slice, nil)
		return nil
	}
	b.version, b.saved = cm.ResourceVersion, rev
	l.publish(slice, leases)
	return nil
}

// needs is how many addresses this cluster tells the hub that it needs. Of a slice that it is not on these are the ones
// which pods and services would have back if the slice came again: nobody waits for one, and the rest of those given up
// is of no use, as another slice of that name may be much smaller.
func (b *book) needs() int {
	if b.left.IsZero() {
		return b.demand
	}
	h4, _, _ := b.ledger.Held(false)
	h6, _, _ := b.ledger.Held(true)
	return max(h4, h6)
}

// state lists the slices that have no address left, and demand how many addresses each needs.
func (l *ledgers) state() (exhausted map[string]bool, demand map[string]int, problems []fleet.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	exhausted, demand = map[string]bool{}, map[string]int{}
	for slice, b := range l.books {
		if b.gone {
			continue
		}
		if n := b.needs(); n > 0 {
			demand[slice] = n
		}
		if b.exhausted && b.demand > 0 && b.left.IsZero() {
			exhausted[slice] = true
		}
	}
	for _, slice := range slices.Sorted(maps.Keys(exhausted)) {
		problems = append(problems, fleet.Problem{
			Reason: roster.ReasonAddressesExhausted, Where: "slice " + slice,
			Message: fmt.Sprintf("this cluster needs %d addresses of the slice and its blocks have too few", demand[slice]),
			Next:    "the hub adds blocks by itself while the prefix has room; if this lasts, make the slice's prefix larger",
		})
	}
	return exhausted, demand, problems
}

// usage tells how many addresses of a slice are held and rest, of the fuller family.
func (l *ledgers) usage(slice string) (held, resting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[slice]
	if b == nil {
		return 0, 0
	}
	h4, r4, _ := b.ledger.Held(false)
	h6, r6, _ := b.ledger.Held(true)
	if h6+r6 > h4+r4 {
		return h6, r6
	}
	return h4, r4
}
