package controller_test

// What stands in for machines in the bench of discovery: a kernel that is watched, a network in memory, no tunnel.

import (
	"context"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seaway.dev/seaway/bulletin/post"
	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/tunnel"
)

// watchedKernel tells when a plan has been applied.
type watchedKernel struct {
	*datapath.Kernel
	mu       sync.Mutex
	seen     map[string]applied
	counts   map[string]int
	services int
	backends int
	plans    atomic.Int64
	changed  chan struct{}
}

// applied is when a plan came and when the kernel had it.
type applied struct{ began, done time.Time }

func (k *watchedKernel) Apply(ctx context.Context, want []plan.Slice, how datapath.How) (datapath.Result, error) {
	began := time.Now()
	res, err := k.Kernel.Apply(ctx, want, how)
	k.note(want, began)
	return res, err
}

func (k *watchedKernel) Steer(ctx context.Context, want []plan.Slice) (datapath.Steered, error) {
	began := time.Now()
	res, err := k.Kernel.Steer(ctx, want)
	k.note(want, began)
	return res, err
}

func (k *watchedKernel) note(want []plan.Slice, began time.Time) {
	now := applied{began, time.Now()}
	k.plans.Add(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.counts
	k.counts, k.services, k.backends = map[string]int{}, 0, 0
	for _, s := range want {
		for _, b := range s.Services {
			k.services++
			k.backends += len(b.Backends)
			if strings.HasPrefix(b.Service, "shop/c1-") {
				k.counts[b.Service] = len(b.Backends)
			}
		}
	}
	for svc, n := range k.counts {
		if n != was[svc] {
			k.seen[svc] = now
		}
	}
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}

// wait waits until a service has all its backends, or one less, and says since when.
func (k *watchedKernel) wait(t *testing.T, svc string, all int, ready bool) applied {
	t.Helper()
	want := all
	if !ready {
		want--
	}
	limit := time.After(30 * time.Second)
	for {
		k.mu.Lock()
		n, at := k.counts[svc], k.seen[svc]
		if k.changed == nil {
			k.changed = make(chan struct{})
		}
		changed := k.changed
		k.mu.Unlock()
		if n == want {
			return at
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s has %d backends, want %d", svc, n, want)
		}
	}
}

// sea is the management slice of the bench: loopback TCP, with the addresses that carriers have there.
type sea struct {
	mu sync.Mutex
	at map[netip.Addr]*harbour
}

type harbour struct {
	sea  *sea
	self post.Peer
	in   chan net.Conn
	done chan struct{}
}

type voyage struct {
	net.Conn
	peer post.Peer
}

func (v *voyage) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: fleet.ManagementAddr(v.peer.Cluster, v.peer.Node).AsSlice()}
}

func (s *sea) harbour(cluster, node string) *harbour {
	h := &harbour{sea: s, self: post.Peer{Cluster: cluster, Node: node}, in: make(chan net.Conn), done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[fleet.ManagementAddr(cluster, node)] = h
	return h
}

func (s *sea) dry() {
	for _, h := range slices.Collect(maps.Values(s.at)) {
		close(h.done)
	}
}

func (h *harbour) ID() uint64 { return 1 }

func (h *harbour) Listen(uint16) (net.Listener, error) {
	return &quay{h: h, shut: make(chan struct{})}, nil
}

func (h *harbour) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	h.sea.mu.Lock()
	other := h.sea.at[to.Addr()]
	h.sea.mu.Unlock()
	if other == nil {
		return nil, fs.ErrNotExist
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	mine, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	theirs, err := l.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case other.in <- &voyage{theirs, h.self}:
		return mine, nil
	case <-ctx.Done():
	case <-other.done:
	}
	_ = mine.Close()
	_ = theirs.Close()
	return nil, context.Canceled
}

type quay struct {
	h    *harbour
	once sync.Once
	shut chan struct{}
}

func (q *quay) Accept() (net.Conn, error) {
	select {
	case c := <-q.h.in:
		return c, nil
	case <-q.h.done:
	case <-q.shut:
	}
	return nil, net.ErrClosed
}

func (q *quay) Close() error   { q.once.Do(func() { close(q.shut) }); return nil }
func (q *quay) Addr() net.Addr { return &net.TCPAddr{} }

type noTunnel struct{}

func (noTunnel) EnsureKey(context.Context, string) (fleet.Key, error) { return fleet.Key{2, 1}, nil }
func (noTunnel) RemoveKey(context.Context, string) error              { return nil }
func (noTunnel) Put(context.Context, plan.Tunnel) (tunnel.Result, error) {
	return tunnel.Result{}, nil
}
func (noTunnel) Status(context.Context) (tunnel.Status, error) {
	return tunnel.Status{Driver: "none", Keys: map[string]fleet.Key{"seaway": {2, 2}, "pay": {2, 1}}}, nil
}
func (noTunnel) Reach(ctx context.Context, _ uint64) (tunnel.ReachReply, error) {
	<-ctx.Done()
	return tunnel.ReachReply{}, ctx.Err()
}
func (noTunnel) Purge(context.Context) error { return nil }

type noSandboxes struct{}

func (noSandboxes) Watch(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }
func (noSandboxes) Ready(context.Context, []string) bool      { return false }
