package autoscaler

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// loop steps every target once a round. It implements manager.Runnable; only the leader runs it.
type loop struct {
	conf    Config
	client  client.Client
	events  record.EventRecorder
	read    reader
	meters  *meters
	wishes  *wishes
	log     *slog.Logger
	targets map[types.NamespacedName]*target
	leads   atomic.Bool
	pulse   pulse

	heard   fleet.Heard // of other clusters, as read from version
	heardAs string      // of the ConfigMap
	room    room        // on the nodes, at
	roomAt  time.Time
	said    []fleet.Scaling // to them, at
	saidAt  time.Time
}

// echo lets a replica that does not lead know what is wanted, from what the leader tells in the Autoscalers' status, so
// that it can answer KEDA as well.
type echo struct{ *loop }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (e echo) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (e echo) Start(ctx context.Context) error {
	tick := time.NewTicker(e.conf.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !e.leads.Load() {
			e.hear(ctx)
		}
	}
}

func (e echo) hear(ctx context.Context) {
	var list v1alpha1.AutoscalerList
	if err := e.client.List(ctx, &list); err != nil {
		e.log.Warn("cannot list Autoscalers", "err", err)
		return
	}
	seen := map[types.NamespacedName]bool{}
	for i := range list.Items {
		as := &list.Items[i]
		if as.Status.Wants > 0 {
			seen[client.ObjectKeyFromObject(as)] = true
			e.wishes.set(client.ObjectKeyFromObject(as), int(as.Status.Wants))
		}
	}
	e.wishes.keep(seen)
}

// reader reads what a source says now; what it does not know is NaN.
type reader func(context.Context, v1alpha1.MetricSource) (reading, error)

func newLoop(conf Config, c client.Client, events record.EventRecorder, read reader) *loop {
	if conf.Every <= 0 {
		conf.Every = time.Second
	}
	if conf.Days <= 0 {
		conf.Days = 3
	}
	return &loop{conf: conf, client: c, events: events, read: read, meters: newMeters(), wishes: newWishes(), log: conf.Log,
		targets: map[types.NamespacedName]*target{}}
}

// Start implements manager.Runnable.
func (l *loop) Start(ctx context.Context) error {
	tick := time.NewTicker(l.conf.Every)
	defer tick.Stop()
	l.leads.Store(true)
	defer l.leads.Store(false)
	var beats sync.WaitGroup
	beats.Go(func() { l.pulse.beat(ctx) })
	defer beats.Wait()
	l.adopt(ctx)
	for {
		if now := time.Now(); l.pulse.steady(now) {
			l.round(ctx, now)
		} else {
			l.log.Warn("stood still: nothing is scaled until it is known who leads")
		}
		select {
		case <-ctx.Done():
			l.keepAll()
			return nil
		case <-tick.C:
		}
	}
}

// round steps every target, several at a time. A target whose API server or Prometheus is slow delays the round by its
// own time limit at most.
func (l *loop) round(ctx context.Context, now time.Time) {
	var list v1alpha1.AutoscalerList
	if err := l.client.List(ctx, &list); err != nil {
		l.log.Warn("cannot list Autoscalers", "err", err)
		return
	}
	l.hearWords(ctx, now, list.Items)
	seen := map[types.NamespacedName]bool{}
	var group errgroup.Group
	group.SetLimit(16)
	for i := range list.Items {
		as := &list.Items[i]
		key := client.ObjectKeyFromObject(as)
		seen[key] = true
		t := l.targets[key]
		if t == nil {
			t = &target{loop: l, key: key, log: l.log.With("autoscaler", key.String())}
			l.targets[key] = t
		}
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			t.step(ctx, now, as)
			return nil
		})
	}
	_ = group.Wait()
	for key, t := range l.targets {
		if !seen[key] {
			t.handOver(ctx)
			delete(l.targets, key)
			l.meters.forget(key)
			l.wishes.forget(key)
		}
	}
	l.say(ctx, now)
}

// keepAll writes down what every target has learnt, before the role ends.
func (l *loop) keepAll() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, t := range l.targets {
		t.keep(ctx)
	}
}

// wishes are the counts that KEDA asks for.
type wishes struct {
	mu      sync.Mutex
	wants   map[types.NamespacedName]int
	changed chan struct{} // closed and replaced at every change
}

func newWishes() *wishes {
	return &wishes{wants: map[types.NamespacedName]int{}, changed: make(chan struct{})}
}

func (w *wishes) set(key types.NamespacedName, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old, ok := w.wants[key]; !ok || old != n {
		w.wants[key] = n
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

func (w *wishes) forget(key types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wants, key)
}

// keep forgets all but those.
func (w *wishes) keep(these map[types.NamespacedName]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.wants {
		if !these[key] {
			delete(w.wants, key)
		}
	}
}

// get returns what is wanted, whether anything is known, and what is closed when any wish changes.
func (w *wishes) get(key types.NamespacedName) (n int, ok bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok = w.wants[key]
	return n, ok, w.changed
}
