package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/controller/roster"
)

// passing is how long a state that should end by itself may last before the pod shows it.
const passing = 3 * time.Second

// markWorkers is how many pods are marked at a time.
const markWorkers = 4

// marks shows on each pod how it stands on its slice: a condition, an annotation with its addresses, an event when it
// changes. All goes through pods/status: the controller has no right to change a pod itself.
type marks struct {
	client client.Client
	events record.EventRecorder
	log    *slog.Logger
	count  prometheus.Counter
	queue  workqueue.TypedRateLimitingInterface[string]

	mu    sync.Mutex
	want  map[string]mark      // by namespace/name
	wrote map[string]mark      // what was written last, until the watch shows it
	since map[string]time.Time // of passing states
}

// mark is what a pod is to show, and what it showed when that was decided.
type mark struct {
	uid        string
	condition  roster.Condition
	annotation string
	had        roster.Condition
	passing    bool
}

func newMarks(c client.Client, events record.EventRecorder, log *slog.Logger, count prometheus.Counter) *marks {
	return &marks{
		client: c, events: events, log: log, count: count,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 30*time.Second)),
		want:  map[string]mark{}, wrote: map[string]mark{}, since: map[string]time.Time{},
	}
}

// offer says what pods are to show; pods are what they show now.
func (m *marks) offer(states []roster.PodState, pods map[string]*roster.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := make(map[string]mark)
	for _, s := range states {
		key := s.Namespace + "/" + s.Name
		p := pods[key]
		if p == nil || p.UID != s.UID {
			continue
		}
		mk := mark{uid: s.UID, condition: s.Condition, annotation: s.Annotation, had: p.Condition, passing: s.Passing}
		if p.Condition == s.Condition && p.Annotation == s.Annotation {
			delete(m.wrote, key)
			delete(m.since, key)
			continue
		}
		if w, ok := m.wrote[key]; ok && w.same(mk) {
			continue // written; the watch is late
		}
		want[key] = mk
		if !mk.passing {
			delete(m.since, key)
		}
		if old, ok := m.want[key]; ok && old.same(mk) {
			continue // queued
		}
		m.enqueue(key, mk)
	}
	m.want = want
	for key := range m.wrote {
		if pods[key] == nil {
			delete(m.wrote, key)
		}
	}
	for key := range m.since {
		if pods[key] == nil {
			delete(m.since, key)
		}
	}
}

// enqueue has a pod marked: at once, or, if its state is passing, when that has lasted.
func (m *marks) enqueue(key string, mk mark) {
	if !mk.passing {
		m.queue.Add(key)
		return
	}
	if m.since[key].IsZero() {
		m.since[key] = time.Now()
	}
	m.queue.AddAfter(key, time.Until(m.since[key].Add(passing)))
}

func (a mark) same(b mark) bool {
	return a.uid == b.uid && a.condition == b.condition && a.annotation == b.annotation && a.passing == b.passing
}

// run marks pods until ctx ends.
func (m *marks) run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range markWorkers {
		workers.Go(func() {
			for m.step(ctx) {
			}
		})
	}
	<-ctx.Done()
	m.queue.ShutDown()
	workers.Wait()
	return nil
}

// step marks one pod; false when there will be no more.
func (m *marks) step(ctx context.Context) bool {
	key, down := m.queue.Get()
	if down {
		return false
	}
	defer m.queue.Done(key)
	m.mu.Lock()
	mk, ok := m.want[key]
	var early time.Duration
	if mk.passing {
		early = time.Until(m.since[key].Add(passing))
	}
	m.mu.Unlock()
	switch {
	case !ok:
		m.queue.Forget(key)
		return true
	case early > 0: // a wait for an earlier state ended: the queue keeps one wait for each pod
		m.queue.AddAfter(key, early)
		return true
	}
	err := m.write(ctx, key, mk)
	switch {
	case err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err): // gone, or another pod of that name
		m.queue.Forget(key)
		m.mu.Lock()
		if m.want[key].same(mk) {
			delete(m.want, key)
			m.wrote[key] = mk
		}
		m.mu.Unlock()
	case ctx.Err() == nil:
		m.log.Warn("pod not marked; trying again", "pod", key, "err", err)
		m.queue.AddRateLimited(key)
	}
	return true
}

// write patches one pod's status.
func (m *marks) write(ctx context.Context, key string, mk mark) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ns, name, _ := strings.Cut(key, "/")
	patch, err := markPatch(mk, time.Now())
	if err != nil {
		return err
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(mk.uid)}}
	if err := m.client.Status().Patch(ctx, pod, client.RawPatch(types.StrategicMergePatchType, patch)); err != nil {
		return fmt.Errorf("mark pod %s: %w", key, err)
	}
	m.count.Inc()
	if mk.condition.Status != "" && (mk.condition.Status != mk.had.Status || mk.condition.Reason != mk.had.Reason) {
		kind := corev1.EventTypeWarning
		if mk.condition.Status == "True" {
			kind = corev1.EventTypeNormal
		}
		text := mk.condition.Message
		if mk.annotation != "" {
			text = "slice address " + mk.annotation + ": " + text
		}
		m.events.Event(pod, kind, mk.condition.Reason, text)
	}
	return nil
}

// markPatch is a strategic merge patch, which leaves other conditions alone. The UID in it makes the API server refuse
// it with a conflict if the name is another pod's by now.
func markPatch(mk mark, now time.Time) ([]byte, error) {
	meta := map[string]any{"uid": mk.uid, "annotations": map[string]any{roster.AddressAnnotation: nil}}
	if mk.annotation != "" {
		meta["annotations"] = map[string]any{roster.AddressAnnotation: mk.annotation}
	}
	cond := map[string]any{"type": roster.ConditionType}
	if mk.condition.Status == "" {
		cond["$patch"] = "delete"
	} else {
		cond["status"], cond["reason"], cond["message"] = mk.condition.Status, mk.condition.Reason, mk.condition.Message
		if mk.condition.Status != mk.had.Status {
			cond["lastTransitionTime"] = now.UTC().Format(time.RFC3339)
		}
	}
	return json.Marshal(map[string]any{"metadata": meta, "status": map[string]any{"conditions": []any{cond}}})
}

// settled tells whether every pod shows what it should.
func (m *marks) settled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.want) == 0
}
