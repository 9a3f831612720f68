package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/tunnel"
)

// fakeController answers like a controller, without a socket, so that synctest's clock can move.
type fakeController struct {
	mu      sync.Mutex
	away    bool
	streams []*io.PipeWriter
	dials   int
	reports []fleet.Report
}

func (c *fakeController) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		c.dials++
		return nil, errors.New("connection refused")
	}
	resp := &http.Response{StatusCode: 200, Status: "200 OK", Body: http.NoBody, Request: r}
	if r.Method == http.MethodPost {
		var rep fleet.Report
		if err := json.NewDecoder(r.Body).Decode(&rep); err != nil {
			return nil, err
		}
		c.reports = append(c.reports, rep)
		return resp, nil
	}
	c.dials++
	pr, pw := io.Pipe()
	context.AfterFunc(r.Context(), func() { _ = pr.CloseWithError(r.Context().Err()) })
	c.streams = append(c.streams, pw)
	resp.Body = pr
	return resp, nil
}

// say sends a line to the node over the newest stream.
func (c *fakeController) say(t *testing.T, line []byte) {
	t.Helper()
	c.mu.Lock()
	w := c.streams[len(c.streams)-1]
	c.mu.Unlock()
	if _, err := w.Write(append(bytes.TrimSpace(line), '\n')); err != nil {
		t.Fatalf("the node does not listen: %v", err)
	}
}

func (c *fakeController) tell(t *testing.T, in fleet.Intent) {
	t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	c.say(t, b)
}

// counts returns how often it was dialled for a stream, or in vain, and how many reports came.
func (c *fakeController) counts() (dials, reports int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials, len(c.reports)
}

func (c *fakeController) setAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
	if away {
		for _, w := range c.streams {
			_ = w.CloseWithError(io.ErrUnexpectedEOF)
		}
	}
}

// forget forgets who listened and what was reported.
func (c *fakeController) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams, c.reports = nil, nil
}

func (c *fakeController) last(t *testing.T) fleet.Report {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.reports) == 0 {
		t.Fatal("no report came")
	}
	return c.reports[len(c.reports)-1]
}

// fakeTunnel keeps keys and remembers what it was told.
type fakeTunnel struct {
	mu      sync.Mutex
	started time.Time
	keys    map[string]fleet.Key
	puts    []plan.Tunnel
	purged  bool
	down    bool
	slow    time.Duration // before each key
	rev     uint64
	reach   []fleet.Reach
	news    chan struct{} // closed when reach changes
}

// see makes the tunnel measure something else.
func (f *fakeTunnel) see(reach ...fleet.Reach) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	f.reach = reach
	if f.news != nil {
		close(f.news)
	}
	f.news = nil
}

func (f *fakeTunnel) Reach(ctx context.Context, after uint64) (tunnel.ReachReply, error) {
	for {
		f.mu.Lock()
		if f.down {
			defer f.mu.Unlock()
			return tunnel.ReachReply{}, f.check()
		}
		if f.rev != after {
			defer f.mu.Unlock()
			return tunnel.ReachReply{Rev: f.rev, Reach: f.reach}, nil
		}
		if f.news == nil {
			f.news = make(chan struct{})
		}
		news := f.news
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return tunnel.ReachReply{}, ctx.Err()
		case <-news:
		}
	}
}

func (f *fakeTunnel) check() error {
	if f.down {
		return errors.New("tunnel process: connection refused")
	}
	return nil
}

func (f *fakeTunnel) EnsureKey(ctx context.Context, slice string) (fleet.Key, error) {
	wait(ctx, f.slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keys == nil {
		f.keys = map[string]fleet.Key{}
	}
	if _, ok := f.keys[slice]; !ok && !f.down {
		f.keys[slice] = fleet.Key{byte(len(f.keys) + 1)}
	}
	return f.keys[slice], f.check()
}

func (f *fakeTunnel) RemoveKey(_ context.Context, slice string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, slice)
	return f.check()
}

func (f *fakeTunnel) Put(_ context.Context, want plan.Tunnel) (tunnel.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return tunnel.Result{}, f.check()
	}
	f.puts = append(f.puts, want)
	return tunnel.Result{}, nil
}

func (f *fakeTunnel) Status(context.Context) (tunnel.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return tunnel.Status{Driver: "fake", Started: f.started, Keys: maps.Clone(f.keys)}, f.check()
}

func (f *fakeTunnel) Purge(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.purged, f.keys = true, nil
	return f.check()
}

// fakeKernel attaches the pods whose sandboxes run.
type fakeKernel struct {
	mu      sync.Mutex
	want    []plan.Slice
	steered []plan.Slice // the newest
	steers  int
	applies int
	purged  bool
	running map[string]bool
	changed func()
	at      map[string]time.Time // when a pod was attached
}

func (f *fakeKernel) Steer(_ context.Context, want []plan.Slice) (datapath.Steered, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steered, f.steers = want, f.steers+1
	return datapath.Steered{Ops: 1}, nil
}

func (f *fakeKernel) Namespaces(context.Context, []plan.Slice) (int, error) { return 0, nil }

func (f *fakeKernel) Apply(_ context.Context, want []plan.Slice, _ datapath.How) (datapath.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want = want
	f.applies++
	var res datapath.Result
	for _, s := range want {
		for _, at := range s.Attachments {
			a := fleet.Attachment{PodUID: at.PodUID, Pod: at.Pod, Slice: s.Name, Reason: pod.ReasonNotFound}
			if f.running[at.PodUID] {
				a.Attached, a.Reason = true, "Attached"
				if f.at[at.PodUID].IsZero() {
					f.at[at.PodUID] = time.Now()
				}
			}
			res.Attachments = append(res.Attachments, a)
		}
	}
	return res, nil
}

func (f *fakeKernel) Purge(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.purged = true
	return nil
}

func (f *fakeKernel) Drops() map[string]map[string]uint64 { return nil }

func (f *fakeKernel) Watch(ctx context.Context, changed func()) error {
	f.mu.Lock()
	f.changed = changed
	f.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (f *fakeKernel) Ready(_ context.Context, uids []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(uids, func(u string) bool { return f.running[u] })
}

func (f *fakeKernel) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applies
}

// bench is an agent among fakes.
type bench struct {
	controller fakeController
	tunnel     fakeTunnel
	kernel     fakeKernel
	cfg        Config
}

func newBench(t *testing.T) *bench {
	b := &bench{}
	b.kernel.running, b.kernel.at = map[string]bool{}, map[string]time.Time{}
	b.tunnel.started = time.Now()
	dir := t.TempDir()
	b.cfg = Config{
		Node: "n1", Controller: "http://controller", RunDir: dir + "/run", StateDir: dir + "/state", HostRoot: "/",
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, MTU: 1500,
		Tunnel: &b.tunnel, Datapath: &b.kernel, Pods: &b.kernel, Transport: &b.controller,
		Log: slog.New(slog.DiscardHandler),
	}
	return b
}

// start runs an agent without its local socket, until the test's bubble ends.
func (b *bench) start(t *testing.T) *agent {
	t.Helper()
	if err := b.cfg.complete(); err != nil {
		t.Fatal(err)
	}
	a := newAgent(b.cfg)
	a.restore()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- a.run(ctx, map[string]func(context.Context) error{
			"loop": a.loop, "memory": a.keep, "stream": a.stream, "reporter": a.reporter, "sandboxes": a.watchSandboxes,
			"reach": a.hearReach, "horizon": a.watchHorizon, "telling": a.tellOn,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
	return a
}

func intent(rev uint64, pods ...string) fleet.Intent {
	in := fleet.Intent{Version: fleet.WireVersion, Epoch: 1, Rev: rev, Cluster: "c1", Node: "n1"}
	if len(pods) == 0 {
		return in
	}
	p := netip.MustParsePrefix("10.77.0.0/16")
	in.Slices = []fleet.Slice{{Name: "pay", Prefixes: []netip.Prefix{p}}}
	a := p.Addr()
	for _, uid := range pods {
		a = a.Next()
		in.Pods = append(in.Pods, fleet.Pod{
			UID: uid, Namespace: "shop", Name: uid, Slice: "pay", Cluster: "c1", Node: "n1", Addrs: []netip.Addr{a},
		})
	}
	return in
}
