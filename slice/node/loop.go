package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/slice/share"
	"seaway.dev/seaway/tunnel"
)

// A sandbox in the making is looked for often while it is likely to be ready any moment, then less.
const (
	eagerLook = 10 * time.Millisecond
	// eagerPart is which part of what it took so far a look may be late: looking costs the runtime something, most of all
	// while it makes many sandboxes at once.
	eagerPart  = 8
	patient    = 100 * time.Millisecond
	patientEnd = 30 * time.Second
)

// savePace is the shortest time between two savings of the intent, saveAgain the time until the next try after one that
// failed: a disk that was full has room again some day, and no new intent may come for long.
const (
	savePace  = time.Second
	saveAgain = 5 * time.Second
)

// restore takes up the intent of the last life.
func (a *agent) restore() {
	in, err := loadIntent(a.intentFile(), a.cfg.Node)
	if err != nil {
		a.log.Warn("saved intent not usable: waiting for the controller", "err", err)
		return
	}
	if in != nil && !in.Purge {
		a.log.Info("saved intent taken up", "rev", in.Rev)
		a.mu.Lock()
		a.keys = ownKeys(in) // stand until the tunnel says otherwise: it may be away
		a.mu.Unlock()
		a.set(in)
		a.tellNames() // before anybody is answered
	}
}

// ownKeys are the node's own keys as its controller knew them.
func ownKeys(in *fleet.Intent) map[string]fleet.Key {
	keys := map[string]fleet.Key{}
	for _, c := range in.Clusters {
		for _, n := range c.Nodes {
			if c.Name == in.Cluster && n.Name == in.Node {
				maps.Copy(keys, n.Keys)
			}
		}
	}
	return keys
}

// accept takes a new intent and has it saved.
func (a *agent) accept(in *fleet.Intent) {
	a.mu.Lock()
	old := a.intent
	in = recall(in, old)
	a.current = true
	a.mu.Unlock()
	if in.Purge {
		_, _ = a.save(in) // before anything is removed; where it cannot be, the controller says so again
	}
	if old == nil || len(old.Slices) != len(in.Slices) || old.Purge != in.Purge {
		a.log.Info("intent", "rev", in.Rev, "slices", len(in.Slices), "pods", len(in.Pods), "purge", in.Purge)
	} else {
		a.log.Debug("intent", "rev", in.Rev, "slices", len(in.Slices), "pods", len(in.Pods))
	}
	a.set(in)
	if !in.Purge {
		poke(a.unsaved)
	}
}

// keep saves the newest intent soon after it came, and if they come in a row now and then: a large one costs its time,
// and saving takes a fiftieth of the agent's life at most. Nobody waits for it; its waiting for a slow disk is not counted.
func (a *agent) keep(ctx context.Context) error {
	for {
		select {
		case <-a.unsaved:
			work, err := a.saveNewest()
			pause := max(savePace, 50*work)
			if err != nil {
				poke(a.unsaved)
				pause = max(pause, saveAgain)
			}
			wait(ctx, pause)
		case <-ctx.Done():
			select {
			case <-a.unsaved:
				_, _ = a.saveNewest() // said already, and nobody is told any more
			default:
			}
			return nil
		}
	}
}

func (a *agent) saveNewest() (work time.Duration, err error) {
	a.mu.Lock()
	in := a.intent
	a.mu.Unlock()
	if in == nil || in.Purge {
		return 0, nil
	}
	return a.save(in)
}

// save writes the newest intent down, or one to purge before that is taken. It returns how long it had to work for that.
func (a *agent) save(in *fleet.Intent) (work time.Duration, err error) {
	a.saving.Lock()
	defer a.saving.Unlock()
	a.mu.Lock()
	if !in.Purge && a.intent != nil {
		in = a.intent
		if in.Purge {
			a.mu.Unlock()
			return 0, nil // it is written down, and perhaps removed again
		}
	}
	a.mu.Unlock()
	work, err = saveIntent(a.intentFile(), in)
	if err != nil && !in.Purge {
		a.setProblems("save", time.Now(), []fleet.Problem{{
			Reason: "StateNotSaved", Where: "node " + a.cfg.Node, Message: err.Error(),
			Next: "make room on, or give write access to, " + a.cfg.StateDir + ": without it the node forgets its slices at a reboot",
		}})
	} else {
		a.setProblems("save", time.Now(), nil)
	}
	return work, err
}

func (a *agent) set(in *fleet.Intent) {
	a.mu.Lock()
	a.intent, a.sandboxes = in, time.Now()
	if !in.Purge {
		a.purged = false
	}
	a.mu.Unlock()
	poke(a.wake)
	poke(a.renamed)
}

// watchSandboxes notes that sandboxes come and go.
func (a *agent) watchSandboxes(ctx context.Context) error {
	return a.keepWatching(ctx, "new sandboxes", a.cfg.Pods.Watch, func() {
		a.mu.Lock()
		a.sandboxes = time.Now()
		a.mu.Unlock()
		poke(a.wake)
	})
}

// watchDevices notes that the tunnel's devices come and go.
func (a *agent) watchDevices(ctx context.Context) error {
	return a.keepWatching(ctx, "tunnel devices", a.cfg.Datapath.Watch, func() {
		a.retell()
		poke(a.wake)
	})
}

// retell has the tunnel told everything again by the next round, whatever it was told before.
func (a *agent) retell() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = nil
}

// keepWatching watches until ctx ends, again if it breaks. Without it things are seen at the next check: later, not
// never.
func (a *agent) keepWatching(ctx context.Context, what string, watch func(context.Context, func()) error, changed func()) error {
	for attempt := 0; ; attempt++ {
		err := watch(ctx, changed)
		if ctx.Err() != nil {
			return nil
		}
		a.log.Warn("not seen at once", "what", what, "err", err)
		if !wait(ctx, backoff(attempt)) {
			return nil
		}
	}
}

// loop makes the node what the intent says, whenever there is a reason to look.
func (a *agent) loop(ctx context.Context) error {
	check := time.NewTimer(0)
	defer check.Stop()
	look := time.NewTimer(a.cfg.Timing.Tunnel)
	defer look.Stop()
	for {
		how := datapath.Quick
		var soon <-chan time.Time
		if d := a.eager(time.Now()); d > 0 {
			soon = time.After(d)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-soon:
			if !a.cfg.Pods.Ready(ctx, a.missing()) {
				continue
			}
		case <-look.C:
			again := a.lookAtTunnel(ctx)
			look.Reset(a.nextLook())
			if !again {
				continue
			}
			a.retell()
		case <-a.wake:
		case <-check.C:
			how = datapath.Thorough
		}
		a.reconcile(ctx, how)
		a.lookedOnce.Do(func() { close(a.looked) })
		if soon := a.nextLook(); soon < a.cfg.Timing.Tunnel {
			look.Reset(soon)
		}
		if how == datapath.Quick {
			continue // the next thorough one comes when it was to come
		}
		check.Reset(a.cfg.Timing.Check - rand.N(a.cfg.Timing.Check/5))
	}
}

// missing lists the pods that have no sandbox yet.
func (a *agent) missing() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var uids []string
	for _, at := range a.attachments {
		if at.Reason == pod.ReasonNotFound {
			uids = append(uids, at.PodUID)
		}
	}
	return uids
}

// eager says in how long to look for missing sandboxes again; 0: not before the next check.
func (a *agent) eager(now time.Time) time.Duration {
	if len(a.missing()) == 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	since := now.Sub(a.sandboxes)
	if since >= patientEnd {
		return 0
	}
	return min(max(since/eagerPart, eagerLook), patient)
}

// reconcile is one round: compile, tunnel, kernel.
func (a *agent) reconcile(ctx context.Context, how datapath.How) {
	a.mu.Lock()
	in := a.intent
	a.mu.Unlock()
	if in == nil {
		// Others need this node's whereabouts and its key on the management slice before anybody tells it anything.
		if err := a.ensureKeys(ctx, &fleet.Intent{}); err != nil {
			a.setProblems("round", time.Now(), []fleet.Problem{{
				Reason: "TunnelDown", Where: "node " + a.cfg.Node, Message: err.Error(), Next: tunnelNext,
			}})
		}
		return
	}
	started := time.Now()
	defer func() { a.metrics.rounds.Observe(time.Since(started).Seconds()) }()
	if in.Purge {
		a.purge(ctx)
		return
	}
	var problems []fleet.Problem
	fail := func(reason, next string, err error) {
		problems = append(problems, fleet.Problem{Reason: reason, Where: "node " + a.cfg.Node, Message: err.Error(), Next: next})
	}
	held := a.turn(ctx, in)
	newest, want, unplanned := a.compile()
	if newest != in { // it came just now
		held = errors.Join(held, a.turn(ctx, newest))
		newest, want, unplanned = a.compile()
	}
	if newest.Purge {
		poke(a.wake)
		return
	}
	in = newest
	problems = append(problems, unplanned...)
	if held != nil {
		fail("TunnelDown", tunnelNext, held)
		a.mu.Lock()
		a.tunnelDown = true
		a.mu.Unlock()
	} else {
		problems = append(problems, a.tellTunnel(ctx, in, want, how)...)
	}
	res, err := a.cfg.Datapath.Apply(ctx, want.Slices, how)
	if err != nil {
		fail("SliceFailed", "see the agent's log", err)
	}
	problems = append(problems, res.Problems...)
	a.metrics.ops.Add(float64(res.Ops))
	a.metrics.ended(res.Ended)
	if ctx.Err() != nil {
		return // half a round says nothing
	}
	a.setProblems("round", time.Now(), problems)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.metrics.attached(a.attachments, res.Attachments)
	if !reflect.DeepEqual(a.attachments, res.Attachments) {
		poke(a.dirty)
	}
	a.attachments = res.Attachments
	if len(problems) == 0 {
		if a.applied != in.Rev {
			poke(a.came)
		}
		a.applied = in.Rev
	}
	if res.Ops > 0 {
		a.log.Info("applied", "rev", in.Rev, "ops", res.Ops, "took", time.Since(started), "problems", len(problems))
	}
}

const tunnelNext = "slices on this node keep what the tunnel last knew; look at the tunnel's pod (DaemonSet seaway-tunnel)"

// tellTunnel makes the tunnel what the plan says, and the namespaces that it needs. A Quick round passes over it when the
// tunnel was told the same before: a pod that comes waits for nothing that is not about it.
func (a *agent) tellTunnel(ctx context.Context, in *fleet.Intent, want plan.Node, how datapath.How) (problems []fleet.Problem) {
	a.mu.Lock()
	told := a.told
	a.told = nil
	a.mu.Unlock()
	if how == datapath.Quick && told != nil && reflect.DeepEqual(*told, want.Tunnel) {
		a.mu.Lock()
		a.told = told
		a.mu.Unlock()
		return nil
	}
	fail := func(reason, next string, err error) {
		problems = append(problems, fleet.Problem{Reason: reason, Where: "node " + a.cfg.Node, Message: err.Error(), Next: next})
	}
	if err := a.ensureKeys(ctx, in); err != nil {
		fail("TunnelDown", tunnelNext, err)
	}
	if _, err := a.cfg.Datapath.Namespaces(ctx, want.Slices); err != nil {
		fail("SliceFailed", "see the agent's log", err)
	}
	done, err := a.cfg.Tunnel.Put(ctx, want.Tunnel)
	if err != nil {
		fail("TunnelDown", tunnelNext, err)
		a.mu.Lock()
		a.tunnelDown = true
		a.mu.Unlock()
	} else {
		a.dropKeys(ctx, in)
	}
	problems = append(problems, done.Problems...)
	if len(problems) == 0 {
		a.mu.Lock()
		a.told = &want.Tunnel
		a.mu.Unlock()
	}
	return problems
}

// ensureKeys has a key for each slice, and one for the management slice.
func (a *agent) ensureKeys(ctx context.Context, in *fleet.Intent) error {
	keys := map[string]fleet.Key{}
	names := []string{fleet.ManagementSlice}
	a.mu.Lock()
	for _, s := range in.Slices {
		if r := a.rings[s.Name]; r != nil {
			for _, g := range r.Held() {
				names = append(names, fleet.KeyName(s.Name, g))
			}
		}
	}
	a.mu.Unlock()
	var failed error
	for _, name := range names {
		// Asked each time: a tunnel whose state was lost has a new key, and the others must hear of it.
		key, err := a.cfg.Tunnel.EnsureKey(ctx, name)
		if err != nil {
			failed = fmt.Errorf("get the node's key on slice %s: %w", name, err)
			break
		}
		keys[name] = key
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if failed != nil {
		for _, n := range names {
			if k, ok := a.keys[n]; ok && keys[n].IsZero() {
				keys[n] = k
			}
		}
	}
	if !maps.Equal(keys, a.keys) {
		a.keys = keys
		poke(a.dirty)
	}
	return failed
}

// dropKeys deletes the keys of slices that have had no pod here for a while: a node holds keys only of slices that it
// hosts. The while is for pods that are replaced: everybody would have to learn a new key for nothing.
func (a *agent) dropKeys(ctx context.Context, in *fleet.Intent) {
	a.mu.Lock()
	held, now := a.tunnel.Keys, time.Now()
	var drop []string
	for name := range held {
		slice, generation := fleet.SplitKeyName(name)
		hosted := name == fleet.ManagementSlice || slices.ContainsFunc(in.Slices, func(s fleet.Slice) bool { return s.Name == slice })
		since, waiting := a.unused[name]
		ring := a.rings[slice]
		switch {
		case hosted && ring != nil && !slices.Contains(ring.Held(), generation):
			drop = append(drop, name) // it was changed
		case hosted:
			delete(a.unused, name)
		case !waiting:
			a.unused[name] = now
		case now.Sub(since) >= a.cfg.Timing.KeepKey:
			drop = append(drop, name)
		}
	}
	a.mu.Unlock()
	for _, name := range drop {
		if err := a.cfg.Tunnel.RemoveKey(ctx, name); err != nil {
			a.log.Warn("key of a slice that is gone stays", "slice", name, "err", err)
			continue
		}
		a.log.Info("key removed", "slice", name)
		a.mu.Lock()
		delete(a.unused, name)
		a.mu.Unlock()
	}
}

// lookAtTunnel reads the tunnel's state and tells whether it needs to be told everything again.
func (a *agent) lookAtTunnel(ctx context.Context) (again bool) {
	st, err := a.cfg.Tunnel.Status(ctx)
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		again = !a.tunnelDown // to say so
		a.tunnelDown = true
		return again
	}
	peers := peersOf(st.Devices)
	a.mu.Lock()
	defer a.mu.Unlock()
	again = a.tunnelDown || !a.tunnel.Started.IsZero() && !a.tunnel.Started.Equal(st.Started)
	a.tunnelDown = false
	if a.tunnel.Driver != st.Driver || !slices.EqualFunc(a.peers, peers, samePath) {
		poke(a.dirty)
	}
	a.tunnel, a.peers = st, peers
	if a.intent != nil && a.step(a.intent, time.Now()) {
		again = true
	}
	return again
}

// nextLook says in how long to look at the tunnel: soon, while it is down.
func (a *agent) nextLook() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tunnelDown {
		return min(a.cfg.Timing.Tunnel, tunnelDownLook)
	}
	if a.changing() {
		return min(a.cfg.Timing.Tunnel, changingLook)
	}
	return a.cfg.Timing.Tunnel
}

// tunnelDownLook is how often a tunnel that is down is looked for. Its devices went with it, so each moment counts.
const tunnelDownLook = 250 * time.Millisecond

// samePath tells whether nothing but counters moved.
func samePath(x, y fleet.PeerState) bool {
	return x.Slice == y.Slice && x.Peer == y.Peer && x.Path == y.Path && x.State == y.State && x.Handshake.IsZero() == y.Handshake.IsZero()
}

// purge removes every trace of Seaway from the node, as far as an agent can that still has to say so.
func (a *agent) purge(ctx context.Context) {
	a.mu.Lock()
	done := a.purged
	a.mu.Unlock()
	if done {
		return
	}
	var problems []fleet.Problem
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"links, rules and namespaces", a.cfg.Datapath.Purge},
		{"the tunnel's devices and keys", a.cfg.Tunnel.Purge},
		{"the saved intent", func(context.Context) error {
			a.saving.Lock()
			defer a.saving.Unlock()
			return removeIfThere(a.intentFile())
		}},
	} {
		if err := step.do(ctx); err != nil {
			problems = append(problems, fleet.Problem{
				Reason: "PurgeFailed", Where: "node " + a.cfg.Node, Message: fmt.Sprintf("remove %s: %v", step.what, err),
				Next: "it is tried again by itself; if it stays, remove by hand what the message names",
			})
		}
	}
	a.setProblems("round", time.Now(), problems)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attachments, a.want, a.keys = nil, plan.Node{}, map[string]fleet.Key{}
	a.tunnel, a.peers, a.told, a.rings = tunnel.Status{}, nil, nil, nil
	a.purged = len(problems) == 0
	if a.purged {
		a.applied = a.intent.Rev
		a.log.Info("node purged")
	}
	poke(a.dirty)
}

// leave removes the agent's folders from a purged node, once nothing is in them: the tunnel's process, which is told to
// end at the same moment, has its socket there until it has ended. The host's view of them is used: here they are mounts.
func (a *agent) leave() {
	a.mu.Lock()
	purged := a.purged
	a.mu.Unlock()
	if !purged {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
	defer cancel()
	for _, dir := range []string{a.cfg.RunDir, a.cfg.StateDir} {
		err := os.Remove(filepath.Join(a.cfg.HostRoot, dir))
		for err != nil && !os.IsNotExist(err) && wait(ctx, leavePause) {
			err = os.Remove(filepath.Join(a.cfg.HostRoot, dir))
		}
		if err != nil && !os.IsNotExist(err) {
			a.log.Info("folder stays", "dir", dir, "err", err)
		}
	}
}

// How long an agent that leaves waits for the tunnel to end: less than its pod's grace of 10 s.
const (
	leaveWait  = 7 * time.Second
	leavePause = 100 * time.Millisecond
)

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// state is the report as of now.
func (a *agent) state() fleet.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := fleet.Report{
		Version: fleet.WireVersion, Node: a.cfg.Node, IntentRev: a.applied,
		Addrs: a.addrs, Port: a.cfg.Port, MTU: a.mtu, Keys: a.keys,
		Driver: a.tunnel.Driver, Peers: a.peers, Attachments: a.attachments, Purged: a.purged,
		Carrying: a.carrier.state(), Sights: share.View{Nodes: a.nodes}.Sights(),
	}
	for _, who := range slices.Sorted(maps.Keys(a.problems)) {
		r.Problems = append(r.Problems, a.problems[who]...)
	}
	return r
}
