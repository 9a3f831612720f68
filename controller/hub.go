package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/hub/credential"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/kube"
)

// Times of the link to the hub.
const (
	aliveEvery   = 10 * time.Second // renewals of Lease "alive"
	aliveLife    = 40 * time.Second // that the lease claims: three renewals may be lost
	hubTimeout   = 5 * time.Second  // of one request
	hubSyncLimit = 30 * time.Second // for reading everything once
	hubWaitMin   = time.Second
	hubWaitMax   = 5 * time.Second
)

// runHub keeps a session with the hub for as long as the replica leads. The waits between sessions are our own,
// because a watch by itself would wait up to half a minute after the hub is back.
func (l *leader) runHub(ctx context.Context) error {
	wait := hubWaitMin
	for {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		l.status.hub(false, err)
		l.meters.hub.Set(0)
		l.log.Warn("no link to the hub; going on with what is known", "err", err)
		if time.Since(began) > time.Minute {
			wait = hubWaitMin
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(2*wait, hubWaitMax)
	}
}

// hubConfig says how to reach the hub, and keeps the credential fresh until ctx ends.
func (l *leader) hubConfig(ctx context.Context) (*rest.Config, error) {
	if l.cfg.Hub != nil {
		return l.cfg.Hub(ctx)
	}
	member, err := kubernetes.NewForConfig(l.cfg.Member)
	if err != nil {
		return nil, fmt.Errorf("client of this cluster: %w", err)
	}
	src, err := credential.Open(ctx, credential.Config{Store: credential.InSecret(member), Log: l.log})
	if err != nil {
		return nil, err
	}
	if src.Cluster() != l.cfg.Cluster {
		return nil, fmt.Errorf("the hub credential is of cluster %s, this is %s: join again", src.Cluster(), l.cfg.Cluster)
	}
	l.credential.Store(src)
	l.tasks.Go(func() { _ = src.Run(ctx) }) // it retries by itself; it ends with ctx
	return src.Config(), nil
}

// session is one link to the hub, from the first sign of life to the first failure.
func (l *leader) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer l.tasks.Wait()
	defer cancel()
	cfg, err := l.hubConfig(ctx)
	if err != nil {
		return err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	h, err := newHubSession(l, cfg)
	if err != nil {
		return err
	}
	if err := h.beat(ctx); err != nil {
		return err
	}
	if err := h.begin(ctx); err != nil {
		return err
	}
	l.tasks.Go(func() {
		if err := h.cache.Start(ctx); err != nil {
			l.log.Error("watching the hub", "err", err)
		}
	})
	if err := h.watch(ctx); err != nil {
		return err
	}
	l.known.Store(true)
	l.board.touch()
	l.status.hub(true, nil)
	l.meters.hub.Set(1)
	l.log.Info("linked with the hub", "hub", cfg.Host)
	failed := make(chan error, 1)
	l.tasks.Go(func() { failed <- h.write(ctx) })
	return h.stay(ctx, failed)
}

// hubSession is what a session works with.
type hubSession struct {
	l       *leader
	client  client.Client
	cache   cache.Cache
	mailbox string      // namespace
	synced  atomic.Bool // everything was read once
}

func newHubSession(l *leader, cfg *rest.Config) (*hubSession, error) {
	mapper := meta.NewDefaultRESTMapper(nil) // fixed: no discovery round trips
	mapper.Add(v1alpha1.GroupVersion.WithKind("Cluster"), meta.RESTScopeRoot)
	mapper.Add(v1alpha1.GroupVersion.WithKind("Slice"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	mapper.Add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), meta.RESTScopeNamespace)
	http, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client of the hub: %w", err)
	}
	scheme := kube.Scheme()
	c, err := client.New(cfg, client.Options{Scheme: scheme, Mapper: mapper, HTTPClient: http})
	if err != nil {
		return nil, fmt.Errorf("client of the hub: %w", err)
	}
	watched, err := cache.New(cfg, cache.Options{
		Scheme: scheme, Mapper: mapper, HTTPClient: http, DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}: {Field: fields.OneTermEqualSelector("metadata.name", bulletin.Name)},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch the hub: %w", err)
	}
	return &hubSession{l: l, client: c, cache: watched, mailbox: mailboxOf(l.cfg.Cluster)}, nil
}

func mailboxOf(cluster string) string { return "seaway-" + cluster }

// beat shows the hub that this cluster lives.
func (h *hubSession) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hubTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"spec": coordinationv1.LeaseSpec{
		HolderIdentity: &h.l.cfg.Pod, RenewTime: &metav1.MicroTime{Time: time.Now()}, LeaseDurationSeconds: seconds(aliveLife),
	}})
	if err != nil {
		return fmt.Errorf("sign of life: %w", err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: h.mailbox, Name: place.Alive}}
	if err := h.client.Patch(ctx, lease, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("sign of life to the hub: %w", err)
	}
	return nil
}

func seconds(d time.Duration) *int32 {
	s := int32(d / time.Second)
	return &s
}

// begin looks at what the mailbox holds, so that this replica's numbers are later than any that were ever written.
func (h *hubSession) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hubTimeout)
	defer cancel()
	cm := &corev1.ConfigMap{}
	if err := h.client.Get(ctx, client.ObjectKey{Namespace: h.mailbox, Name: bulletin.Name}, cm); err != nil {
		return fmt.Errorf("read this cluster's mailbox on the hub: %w", err)
	}
	seen, err := bulletin.Decode(cm.BinaryData[bulletin.Name])
	if err != nil {
		seen = nil // empty yet, or damaged: it will be written over
	}
	h.l.mailbox.begin(seen)
	return nil
}

// watch keeps the board up to date with the hub, and returns when everything has been read once.
func (h *hubSession) watch(ctx context.Context) error {
	sync, cancel := context.WithTimeout(ctx, hubSyncLimit)
	defer cancel()
	intent := func() { h.readIntent(ctx) }
	feeds := []struct {
		kind client.Object
		on   func(o any, gone bool)
	}{
		{&v1alpha1.Cluster{}, func(any, bool) { intent() }},
		{&v1alpha1.Slice{}, func(any, bool) { intent() }},
		{&corev1.ConfigMap{}, h.readBulletin},
	}
	var synced []toolscache.InformerSynced
	for _, feed := range feeds {
		inf, err := h.cache.GetInformer(sync, feed.kind)
		if err != nil {
			return fmt.Errorf("watch %T on the hub: %w", feed.kind, err)
		}
		reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { feed.on(o, false) },
			UpdateFunc: func(_, o any) { feed.on(o, false) },
			DeleteFunc: func(o any) { feed.on(o, true) },
		})
		if err != nil {
			return fmt.Errorf("watch %T on the hub: %w", feed.kind, err)
		}
		synced = append(synced, reg.HasSynced)
	}
	if !toolscache.WaitForCacheSync(sync.Done(), synced...) {
		return fmt.Errorf("read the fleet from the hub: not done in %s", hubSyncLimit)
	}
	h.synced.Store(true)
	h.readIntent(ctx)
	h.prune(ctx)
	return nil
}

// readIntent puts clusters and slices on the board, always all of them together: which clusters a slice has depends
// on both. Nothing is read before both are known, lest a slice look empty for a moment.
func (h *hubSession) readIntent(ctx context.Context) {
	if !h.synced.Load() {
		return
	}
	var clusters v1alpha1.ClusterList
	var list v1alpha1.SliceList
	if err := errors.Join(h.cache.List(ctx, &clusters), h.cache.List(ctx, &list)); err != nil {
		return // the session is ending
	}
	members := memberFacts(clusters.Items)
	wishes := wishFacts(list.Items, members)
	h.l.carry.setMembers(members)
	h.l.board.edit(func(f *roster.Facts) bool {
		if reflect.DeepEqual(f.Members, members) && reflect.DeepEqual(f.Slices, wishes) {
			return false
		}
		f.Members, f.Slices = members, wishes
		return true
	})
}

func (h *hubSession) readBulletin(o any, gone bool) {
	if t, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	cm, ok := o.(*corev1.ConfigMap)
	if !ok || cm.Name != bulletin.Name {
		return
	}
	cluster, ok := strings.CutPrefix(cm.Namespace, "seaway-")
	if !ok {
		return
	}
	wire := cm.BinaryData[bulletin.Name]
	if cluster == h.l.cfg.Cluster {
		if !gone {
			h.l.mailbox.observe(wire)
		}
		return
	}
	if gone {
		return // a cluster leaves the fleet when its Cluster is deleted, not when its mailbox is emptied
	}
	if len(wire) == 0 {
		return // it has not said anything yet
	}
	b, err := bulletin.Decode(wire)
	if err == nil && b.Cluster != cluster {
		err = fmt.Errorf("bulletin of cluster %.64q in the mailbox of %s", b.Cluster, cluster)
	}
	h.l.status.refused(cluster, err)
	if err != nil {
		h.l.meters.bulletins.WithLabelValues("refused").Inc()
		h.l.log.Warn("bulletin refused", "peer", cluster, "err", err)
		return
	}
	h.l.meters.bulletins.WithLabelValues("taken").Inc()
	h.l.carry.fromHub(cluster, b, wire, cm.BinaryData[place.SignatureKey])
}

// prune forgets the bulletins of clusters that left the fleet.
func (h *hubSession) prune(context.Context) {
	h.l.board.edit(func(f *roster.Facts) bool {
		n := len(f.Bulletins)
		for name := range f.Bulletins {
			if !slices.ContainsFunc(f.Members, func(m roster.Member) bool { return m.Name == name }) {
				delete(f.Bulletins, name)
			}
		}
		return len(f.Bulletins) != n
	})
}

// write sends the bulletin whenever it changed, at the mailbox's pace.
func (h *hubSession) write(ctx context.Context) error {
	var last time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.l.mailbox.wake:
		case <-timer.C:
		}
		if wait := time.Until(last.Add(h.l.mailbox.pace())); wait > 0 {
			timer.Reset(wait)
			continue
		}
		letter := h.l.mailbox.take()
		if letter == nil {
			continue
		}
		if err := h.send(ctx, letter); err != nil {
			return err
		}
		last = time.Now()
		h.l.mailbox.done(letter)
		h.l.mailbox.kick() // for what changed meanwhile
		h.l.meters.bulletins.WithLabelValues("sent").Inc()
	}
}

func (h *hubSession) send(ctx context.Context, letter *bulletin.Letter) error {
	ctx, cancel := context.WithTimeout(ctx, 2*hubTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"binaryData": map[string][]byte{
		bulletin.Name: letter.Body, place.SignatureKey: letter.Sig[:],
	}})
	if err != nil {
		return fmt.Errorf("write bulletin: %w", err)
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: h.mailbox, Name: bulletin.Name}}
	if err := h.client.Patch(ctx, cm, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("write bulletin to the hub: %w", err)
	}
	return nil
}

// stay shows signs of life until two in a row fail, or writing does, or ctx ends.
func (h *hubSession) stay(ctx context.Context, failed <-chan error) error {
	misses := 0
	wait := aliveEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-time.After(wait):
		}
		err := h.beat(ctx)
		switch {
		case err == nil:
			misses, wait = 0, aliveEvery
			h.prune(ctx)
		case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsNotFound(err):
			return err
		case misses > 0:
			return err
		default:
			misses, wait = misses+1, hubWaitMin
		}
	}
}
