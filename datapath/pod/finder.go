package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"seaway.dev/seaway/datapath/netns"
)

// Config is where a Finder looks. Zero values are those of a node's agent that shares the host's process IDs.
type Config struct {
	Sockets []string // of container runtimes, the first that exists counts; default: containerd's, CRI-O's
	Root    string   // the host's root directory as seen from here; default /proc/1/root, or / where that cannot be read
	Proc    string   // default /proc
	Log     *slog.Logger
}

// Finder finds pods' sandboxes and holds their namespaces.
type Finder struct {
	cfg  Config
	host map[uint64]bool // inodes of namespaces that are no pod's

	mu   sync.Mutex
	rt   *runtime
	held map[string]*Sandbox // by pod UID
}

// NewFinder returns a Finder. Close lets go of what it holds.
func NewFinder(cfg Config) (*Finder, error) {
	if len(cfg.Sockets) == 0 {
		cfg.Sockets = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock", "/var/run/crio/crio.sock"}
	}
	if cfg.Root == "" {
		cfg.Root = "/proc/1/root"
		if _, err := os.Stat(cfg.Root + "/."); err != nil {
			cfg.Root = "/" // not in a container, and not allowed to look at process 1
		}
	}
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	f := &Finder{cfg: cfg, host: map[uint64]bool{}, held: map[string]*Sandbox{}}
	own, err := netns.Current() // the agent runs in the host's
	if err != nil {
		return nil, fmt.Errorf("look at the host's network namespace: %w", err)
	}
	f.host[own.Inode()] = true
	_ = own.Close()
	if first, err := netns.Open(filepath.Join(cfg.Proc, "1/ns/net")); err == nil {
		f.host[first.Inode()] = true
		_ = first.Close()
	}
	return f, nil
}

// Close lets go of all namespaces and of the runtime.
func (f *Finder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for uid := range f.held {
		f.release(uid)
	}
	if f.rt != nil {
		return f.rt.close()
	}
	return nil
}

func (f *Finder) release(uid string) {
	if sb := f.held[uid]; sb != nil {
		_ = sb.NS.Close()
		delete(f.held, uid)
	}
}

// Find says where the sandboxes of pods are. What it held for other pods it lets go of.
func (f *Finder) Find(ctx context.Context, refs []Ref) Found {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := Found{Sandboxes: map[string]*Sandbox{}, Refused: map[string]*Refusal{}}
	wanted := map[string]Ref{}
	for _, r := range refs {
		wanted[r.UID] = r
	}
	for uid := range f.held {
		if _, ok := wanted[uid]; !ok {
			f.release(uid)
		}
	}
	if len(refs) == 0 {
		return out
	}
	listed, err := f.list(ctx)
	for _, uid := range slices.Sorted(maps.Keys(wanted)) {
		if why := f.look(ctx, wanted[uid], listed, err); why != nil {
			out.Refused[uid] = why
			continue
		}
		out.Sandboxes[uid] = f.held[uid]
	}
	return out
}

// look brings f.held up to date for one pod, or says why there is nothing to hold.
func (f *Finder) look(ctx context.Context, ref Ref, listed map[string]*cri.PodSandbox, listErr error) *Refusal {
	held := f.held[ref.UID]
	if listErr != nil {
		if held != nil {
			return nil // a runtime that restarts takes no sandbox down
		}
		sb, err := f.scan(ref)
		if err != nil {
			return refusal(ReasonNotFound, fmt.Errorf("%w; and the runtime does not say: %w", err, listErr))
		}
		f.held[ref.UID] = sb
		return nil
	}
	box := listed[ref.UID]
	if box == nil {
		f.release(ref.UID)
		return &Refusal{Reason: ReasonNotFound, Message: "no sandbox of the pod runs on this node; it is attached as soon as there is one"}
	}
	if held != nil && held.ID == box.Id {
		return nil
	}
	sb, err := f.inspect(ctx, box)
	f.release(ref.UID)
	if err != nil {
		return refusal(ReasonNotFound, err)
	}
	f.held[ref.UID] = sb
	return nil
}

func refusal(reason string, err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Reason: reason, Message: err.Error()}
}

// All lists every pod's sandbox on the node, except those on the host's network and those that cannot be looked into.
// The caller closes their namespaces.
func (f *Finder) All(ctx context.Context) ([]*Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	listed, err := f.list(ctx)
	if err != nil {
		return nil, err
	}
	var out []*Sandbox
	for _, box := range listed {
		if sb, err := f.inspect(ctx, box); err == nil {
			out = append(out, sb)
		}
	}
	return out, nil
}

// Ready tells whether the runtime has a ready sandbox for each of some pods that Find did not find: a look that costs
// next to nothing, for the moments in which a new sandbox is being made.
func (f *Finder) Ready(ctx context.Context, uids []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	listed, err := f.list(ctx)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(uids, func(uid string) bool { return listed[uid] != nil })
}

// list returns the ready sandboxes by pod UID, the youngest of each pod.
func (f *Finder) list(ctx context.Context) (map[string]*cri.PodSandbox, error) {
	if f.rt == nil {
		rt, err := dial(f.cfg)
		if err != nil {
			return nil, err
		}
		f.rt = rt
	}
	boxes, err := f.rt.sandboxes(ctx)
	if err != nil {
		// Another runtime may answer next time.
		_ = f.rt.close()
		f.rt = nil
		return nil, err
	}
	out := map[string]*cri.PodSandbox{}
	for _, b := range boxes {
		uid := b.GetMetadata().GetUid()
		if old := out[uid]; uid != "" && (old == nil || old.CreatedAt < b.CreatedAt) {
			out[uid] = b
		}
	}
	return out, nil
}

// inspect opens a sandbox's namespace.
func (f *Finder) inspect(ctx context.Context, box *cri.PodSandbox) (*Sandbox, error) {
	st, err := f.rt.status(ctx, box.Id)
	if err != nil {
		return nil, err
	}
	if st.hostNetwork {
		return nil, hostNetwork()
	}
	if name := unsupported(st.info); name != "" {
		return nil, &Refusal{ReasonNotSupported, "the pod runs under " + name + ", which reads its links once, at its start; " +
			"run it under an ordinary runtime class to put it on a slice"}
	}
	ns, err := f.open(st.info)
	if err != nil {
		return nil, fmt.Errorf("sandbox %.13s: %w", box.Id, err)
	}
	if f.host[ns.Inode()] {
		_ = ns.Close()
		return nil, hostNetwork()
	}
	return &Sandbox{UID: box.Metadata.Uid, ID: box.Id, NS: ns, Born: time.Unix(0, box.CreatedAt)}, nil
}

func hostNetwork() *Refusal {
	return &Refusal{ReasonHostNetwork, "the pod uses its node's network, so it cannot have an address on a slice; " +
		"run it without hostNetwork to put it on one"}
}

// unsupported names a runtime whose pods do not see links that come later (gvisor#2280, kata-containers#3164).
func unsupported(i info) string {
	for _, s := range []string{i.RuntimeHandler, i.RuntimeType} {
		for _, mark := range []string{"kata", "runsc", "gvisor"} {
			if strings.Contains(strings.ToLower(s), mark) {
				return s
			}
		}
	}
	return ""
}

// open opens the namespace that the runtime names, by its path or, failing that, through the sandbox's process.
func (f *Finder) open(i info) (*netns.NS, error) {
	var errs []error
	if path := i.netns(); path != "" {
		ns, err := openIn(f.cfg.Root, path)
		if err == nil {
			return ns, nil
		}
		errs = append(errs, err)
	}
	if i.Pid > 0 {
		ns, err := openProcess(f.cfg.Proc, i.Pid)
		if err == nil {
			return ns, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, errors.New("the runtime names neither its network namespace nor its process")
	}
	return nil, errors.Join(errs...)
}
