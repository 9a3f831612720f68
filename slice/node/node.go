// Package node is the agent's loop: it hears from its controller what the node should be, makes it so, and reports.
//
//	controller ──intent──▶ [stream] ─▶ compile ─▶ namespaces ─▶ tunnel ─▶ links, rules ─▶ probe ──report──▶ controller
//	                          │
//	                     intent.json: with the controller away, or the node just up, the last intent stands
//
// The loop runs when an intent comes, when the container runtime makes or removes a sandbox, when the tunnel's process
// was restarted, and every few seconds to see that all is still as it was made. It never talks to the Kubernetes API.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/keys"
	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/slice/share"
	"seaway.dev/seaway/tunnel"
)

// Config is what an agent needs to know.
type Config struct {
	Node       string // this node's name in its cluster
	Controller string // the controller's URL, https://…
	// ControllerAddr is where the controller is dialled while its name is not answered: at a cold boot the cluster's DNS
	// comes up after the node. Zero: nowhere.
	ControllerAddr netip.Addr

	CAFile    string // certificates that the controller's is checked against
	TokenFile string // bearer token, read anew for each connection because the kubelet renews it

	RunDir   string // default plan.RunDir
	StateDir string // default plan.StateDir
	HostRoot string // the host's root as seen from here, to remove those folders when leaving; default /proc/1/root

	Addrs []netip.Addr // underlay addresses; default: of the link with the default route
	Port  uint16       // UDP port of the tunnel; default fleet.DefaultPort
	MTU   int          // of the underlay, bytes; default: of the link with the default route

	Tunnel   Tunnel
	Datapath Datapath
	Pods     Pods

	// Names answers the node's DNS until ctx ends; failing is to be told why that cannot be at present, and nil once it
	// can. May be nil.
	Names     func(ctx context.Context, failing func(error)) error
	Metrics   *prometheus.Registry // where the agent's metrics are, and others' of its process; nil: its own
	Scrape    Scrape               // where Metrics are shown, besides the local socket
	OnIntent  func(fleet.Intent)   // called with each new intent, and the saved one at the start; may be nil
	Transport http.RoundTripper    // to the controller; nil: HTTPS with CAFile
	Abroad    Abroad               // where carriers of bulletins meet; nil: the management slice's namespace
	Log       *slog.Logger
	Timing    Timing
}

// Timing is how often the agent does what. Zero values are the defaults.
type Timing struct {
	Check    time.Duration // between checks that all is as it was made: 10 s
	Tunnel   time.Duration // between looks at the tunnel's state: 5 s
	Report   time.Duration // between reports when nothing changes: 60 s
	Debounce time.Duration // between a change and its report: 50 ms
	Silence  time.Duration // after which a silent controller counts as gone: 45 s, three of its heartbeats
	KeepKey  time.Duration // that a slice's key outlives the slice's last pod here, so that replacing a pod is no new key for everybody: 1 min
}

// Tunnel is the tunnel process of this node: a [tunnel.Client], or a test's.
type Tunnel interface {
	EnsureKey(ctx context.Context, slice string) (fleet.Key, error)
	RemoveKey(ctx context.Context, slice string) error
	Put(ctx context.Context, want plan.Tunnel) (tunnel.Result, error)
	Status(ctx context.Context) (tunnel.Status, error)
	// Reach tells what was measured of the other nodes, as soon as that is of another revision than after.
	Reach(ctx context.Context, after uint64) (tunnel.ReachReply, error)
	Purge(ctx context.Context) error
}

// Datapath is the node's kernel: [datapath.Kernel], or a test's.
type Datapath interface {
	Namespaces(ctx context.Context, want []plan.Slice) (ops int, err error)
	Apply(ctx context.Context, want []plan.Slice, how datapath.How) (datapath.Result, error)
	// Steer applies of a plan what depends on who can be reached, beside an Apply and without waiting for it.
	Steer(ctx context.Context, want []plan.Slice) (datapath.Steered, error)
	Purge(ctx context.Context) error
	// Watch calls changed when a tunnel's device comes or goes, until ctx ends.
	Watch(ctx context.Context, changed func()) error
	// Drops counts packets dropped or refused, by slice and rule.
	Drops() map[string]map[string]uint64
}

// Pods tells of new sandboxes: pod.Finder, or a test's.
type Pods interface {
	// Watch calls changed when sandboxes come or go, until ctx ends.
	Watch(ctx context.Context, changed func()) error
	// Ready tells whether any of some pods has a sandbox by now.
	Ready(ctx context.Context, uids []string) bool
}

func (c *Config) complete() error {
	var errs []error
	if c.Node == "" {
		errs = append(errs, errors.New("the node's name is missing: pass --node, from spec.nodeName"))
	}
	u, err := url.Parse(c.Controller)
	if err != nil || u.Host == "" || u.Scheme != "https" && c.Transport == nil {
		errs = append(errs, fmt.Errorf("the controller's URL %q is no https:// URL", c.Controller))
	}
	if c.Tunnel == nil || c.Datapath == nil || c.Pods == nil || c.Log == nil {
		errs = append(errs, errors.New("tunnel, data path, pods and log must be given"))
	}
	if c.RunDir == "" {
		c.RunDir = plan.RunDir
	}
	if c.StateDir == "" {
		c.StateDir = plan.StateDir
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.HostRoot == "" {
		c.HostRoot = "/proc/1/root"
	}
	if c.Abroad == nil {
		c.Abroad = newManagement(c.RunDir)
	}
	if c.Port == 0 {
		c.Port = fleet.DefaultPort
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&c.Timing.Check, 10 * time.Second}, {&c.Timing.Tunnel, 5 * time.Second}, {&c.Timing.Report, time.Minute},
		{&c.Timing.Debounce, 50 * time.Millisecond}, {&c.Timing.Silence, 45 * time.Second},
		{&c.Timing.KeepKey, time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("agent's configuration: %w", err)
	}
	return nil
}

// Run runs an agent until ctx ends, and returns when everything it started has stopped.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	a := newAgent(cfg)
	if err := a.underlay(); err != nil {
		return err
	}
	a.restore()
	return a.run(ctx, map[string]func(context.Context) error{
		"loop": a.loop, "stream": a.stream, "reporter": a.reporter, "sandboxes": a.watchSandboxes, "devices": a.watchDevices, "debug": a.debug, "scrape": a.scrape,
		"names": a.names, "bulletins": a.carrier.run, "reach": a.hearReach, "horizon": a.watchHorizon, "memory": a.keep, "telling": a.tellOn,
	})
}

// run runs an agent's parts until one fails or ctx ends.
func (a *agent) run(ctx context.Context, parts map[string]func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	poke(a.dirty)
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for name, part := range parts {
		wg.Go(func() {
			err := part(ctx)
			if err != nil && ctx.Err() == nil {
				once.Do(func() { first = fmt.Errorf("agent's %s: %w", name, err) })
			}
			cancel()
		})
	}
	wg.Wait()
	a.leave()
	return first
}

// names answers the node's DNS. That it cannot is a problem, and no reason to stop the rest.
func (a *agent) names(ctx context.Context) error {
	if a.cfg.Names == nil {
		<-ctx.Done()
		return nil
	}
	return a.cfg.Names(ctx, func(err error) {
		if err == nil {
			a.setProblems("names", time.Now(), nil)
			return
		}
		a.setProblems("names", time.Now(), []fleet.Problem{{
			Reason: "NamesUnanswered", Where: "node " + a.cfg.Node, Message: err.Error(),
			Next: "stop or move what has the port; it is tried again every half minute",
		}})
	})
}

// agent is a running agent. Its parts share what mu guards; values in it are never changed, only replaced.
type agent struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	carrier *carrier

	wake  chan struct{} // something may have to be done
	dirty chan struct{} // something is to be reported
	came  chan struct{} // an intent is applied, and that is all there is to report
	// sighted: something new was heard of who can be reached
	sighted chan struct{}

	planning sync.Mutex // taken before mu: plans are compiled one after the other
	compiler plan.Compiler
	seq      uint64     // of the newest plan
	naming   sync.Mutex // taken before mu: names are told one after the other
	arranger arranger

	looked     chan struct{} // closed after the first round: what is reported from then on is what is there
	lookedOnce sync.Once

	renamed chan struct{} // there is an intent whose names are not told yet
	unsaved chan struct{} // there is an intent that is not saved yet
	saving  sync.Mutex    // one at a time writes the intent down

	mu          sync.Mutex
	intent      *fleet.Intent // the newest, nil if none was ever heard
	sandboxes   time.Time     // when sandboxes last changed
	want        plan.Node     // compiled from intent
	applied     uint64        // Rev of the newest intent fully applied
	keys        map[string]fleet.Key
	tunnel      tunnel.Status
	tunnelDown  bool
	told        *plan.Tunnel          // that the tunnel took without a complaint; nil: to be told again
	peers       []fleet.PeerState     // of all slices, sorted
	unused      map[string]time.Time  // keys of slices that are not here any more, since when
	rings       map[string]*keys.Ring // which generations of keys are held, by slice
	attachments []fleet.Attachment
	problems    map[string][]fleet.Problem // by who found them
	addrs       []netip.Addr
	mtu         int
	purged      bool
	reach       []fleet.Reach          // as last heard from the tunnel
	nodes       map[string]share.Sight // what follows from it
	kept        map[string]int         // how many services nobody can be reached of, by who found that
	connected   bool                   // to the controller
	current     bool                   // intent is what the controller, which is connected, said last
}

func newAgent(cfg Config) *agent {
	a := &agent{
		cfg: cfg, log: cfg.Log, metrics: newMetrics(),
		wake: make(chan struct{}, 1), dirty: make(chan struct{}, 1), came: make(chan struct{}, 1), sighted: make(chan struct{}, 1),
		renamed: make(chan struct{}, 1), unsaved: make(chan struct{}, 1), looked: make(chan struct{}),
		kept: map[string]int{},
		keys: map[string]fleet.Key{}, problems: map[string][]fleet.Problem{}, unused: map[string]time.Time{},
		addrs: cfg.Addrs, mtu: cfg.MTU,
	}
	a.carrier = newCarrier(a)
	return a
}

// poke wakes a part that sleeps on a channel of length one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (a *agent) intentFile() string { return filepath.Join(a.cfg.StateDir, "intent.json") }

// setProblems replaces what one part has to complain of, keeps since when it does, and reports a difference.
func (a *agent) setProblems(who string, now time.Time, ps []fleet.Problem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.problems[who]
	changed := len(old) != len(ps)
	for i := range ps {
		ps[i].Since = now
		found := false
		for _, o := range old {
			if o.Reason == ps[i].Reason && o.Where == ps[i].Where {
				ps[i].Since = o.Since
				found = o.Message == ps[i].Message
			}
		}
		changed = changed || !found
	}
	if changed {
		a.problems[who] = ps
		poke(a.dirty)
	}
}
