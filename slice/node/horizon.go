package node

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"time"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
	"seaway.dev/seaway/slice/share"
)

// Who can be reached decides at once, here and by nobody else, where traffic goes:
//
//	tunnel ──reach──▶ [hearReach] ─▶ [watchHorizon] ─ share.Horizon ─▶ compile ─▶ Datapath.Steer: rules, sockets
//	                                                            └────▶ share.Arrange ─▶ names
//
// The controller is not asked, and a round of the loop that waits for something is not waited for.

// hearReach hears what the tunnel has measured of other nodes. While the tunnel does not answer, what was last heard
// stands.
func (a *agent) hearReach(ctx context.Context) error {
	after := uint64(0)
	for ctx.Err() == nil {
		got, err := a.cfg.Tunnel.Reach(ctx, after)
		if err != nil {
			a.log.Debug("reach not heard", "err", err)
			if !wait(ctx, tunnelDownLook) {
				return nil
			}
			continue
		}
		if got.Rev == after {
			continue
		}
		after = got.Rev
		a.mu.Lock()
		a.reach = got.Reach
		a.mu.Unlock()
		poke(a.sighted)
	}
	return nil
}

// watchHorizon turns what was heard into where traffic goes.
func (a *agent) watchHorizon(ctx context.Context) error {
	var h share.Horizon
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.sighted:
		case <-again.C:
		}
		a.mu.Lock()
		reach := a.reach
		a.mu.Unlock()
		now := time.Now()
		nodes, next := h.Step(now, reach)
		if !next.IsZero() {
			again.Reset(next.Sub(now))
		}
		a.mu.Lock()
		changed := !reflect.DeepEqual(nodes, a.nodes) && len(nodes)+len(a.nodes) > 0
		if changed {
			a.logSights(a.nodes, nodes)
			a.nodes = nodes
			poke(a.dirty) // others answer names by it
		}
		a.mu.Unlock()
		if changed {
			a.steer(ctx, now)
		}
	}
}

// logSights says which nodes fell and which came back.
func (a *agent) logSights(old, now map[string]share.Sight) {
	for id, s := range now {
		switch was := old[id]; {
		case s.Down && !s.Back && (!was.Down || was.Back):
			a.log.Warn("node cannot be reached", "peer", id, "why", s.Why)
		case s.Back && !was.Back:
			a.log.Info("node can be reached again: watched for a while before its endpoints are used", "peer", id)
		case was.Down && !s.Down:
			a.log.Info("node in use again", "peer", id)
		}
	}
}

// steer applies what follows from who can be reached.
func (a *agent) steer(ctx context.Context, since time.Time) {
	in, want, _ := a.compile()
	a.tellNames()
	if in == nil || in.Purge {
		return
	}
	done, err := a.cfg.Datapath.Steer(ctx, want.Slices)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		a.log.Warn("not all rules follow who can be reached: tried again by the next round", "err", err)
		poke(a.wake)
	}
	a.metrics.steered(done, time.Since(since))
}

// compile makes a plan of the newest intent and of who can be reached. Plans come one after the other, each newer in
// both, and Seq tells which.
func (a *agent) compile() (*fleet.Intent, plan.Node, []fleet.Problem) {
	a.planning.Lock()
	defer a.planning.Unlock()
	a.mu.Lock()
	in, nodes, generations := a.intent, a.nodes, a.generations()
	a.mu.Unlock()
	if in == nil || in.Purge {
		return in, plan.Node{}, nil
	}
	want, problems := a.compiler.Compile(*in, plan.Local{Port: a.cfg.Port, MTU: a.mtu, NetNS: filepath.Join(a.cfg.RunDir, "netns"), Nodes: nodes,
		Generations: generations})
	a.seq++
	var kept []string
	for i := range want.Slices {
		want.Slices[i].Seq = a.seq
		kept = append(kept, want.Slices[i].Kept...)
	}
	a.mu.Lock()
	a.want = want
	a.mu.Unlock()
	a.complain("services", kept)
	return in, want, problems
}

// tellOn tells the names of each new intent, of those that come while it is at it the newest. Neither the kernel nor the
// next intent waits for it: many names cost their time.
func (a *agent) tellOn(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.renamed:
			a.tellNames()
		}
	}
}

// tellNames gives the node's DNS the newest intent's services, the nearest endpoints first and without those that
// cannot be reached. Without a controller who says what is new, names that are not known may exist.
func (a *agent) tellNames() {
	if a.cfg.OnIntent == nil {
		return
	}
	a.naming.Lock()
	defer a.naming.Unlock()
	a.mu.Lock()
	in, nodes, current := a.intent, a.nodes, a.current
	a.mu.Unlock()
	if in == nil {
		return
	}
	view := viewOf(in, nodes)
	arranged := *in
	arranged.Unsure = in.Unsure || !current
	kept := a.arranger.arrange(&arranged, view)
	a.cfg.OnIntent(arranged)
	a.complain("names of services", kept)
}

// viewOf is what a node knows of where the others are: what it has measured itself and, of nodes that it has nothing to do
// with, what others of its cluster have.
func viewOf(in *fleet.Intent, nodes map[string]share.Sight) share.View {
	return share.View{Cluster: in.Cluster, Node: in.Node, Nodes: nodes}.With(in.Sights)
}

// arranger arranges services as DNS is to answer them. Those that are the very same as in the intent before are not
// arranged again.
type arranger struct {
	view    share.View
	of, out []fleet.Service
	kept    []bool
}

// arrange puts an intent's services in order, and lists those of which nobody can be reached.
func (r *arranger) arrange(in *fleet.Intent, view share.View) (kept []string) {
	old := *r
	same := view.Cluster == old.view.Cluster && view.Node == old.view.Node && maps.Equal(view.Nodes, old.view.Nodes)
	*r = arranger{view: view, of: in.Services, out: make([]fleet.Service, 0, len(in.Services)), kept: make([]bool, 0, len(in.Services))}
	for i := range in.Services {
		s := &in.Services[i]
		// A list changes here and there: what is at the same place, or one further on, is found.
		at := i - len(in.Services) + len(old.of)
		if i < len(old.of) && s.Same(&old.of[i]) {
			at = i
		}
		if same && at >= 0 && at < len(old.of) && s.Same(&old.of[at]) {
			r.out, r.kept = append(r.out, old.out[at]), append(r.kept, old.kept[at])
		} else {
			out, stands := share.Arrange(*s, view)
			r.out, r.kept = append(r.out, out), append(r.kept, stands)
		}
		if r.kept[i] {
			kept = append(kept, s.Key())
		}
	}
	in.Services = r.out
	return kept
}

// mostComplaints bounds how many services are named one by one.
const mostComplaints = 20

// complain says which services nobody can be reached of.
func (a *agent) complain(who string, kept []string) {
	var ps []fleet.Problem
	for i, key := range kept {
		p := fleet.Problem{
			Reason: "ServiceUnreachable", Where: "service " + key,
			Message: "none of its ready endpoints can be reached from node " + a.cfg.Node + "; the last answer stands, and connections are refused",
			Next:    "see `seaway explain service " + key + "` on the node; it ends by itself as soon as one can be reached",
		}
		if i == mostComplaints {
			p.Where, p.Next = fmt.Sprintf("%d more services", len(kept)-i), "look at the paths to the other nodes: `seaway status`"
		}
		if i > mostComplaints {
			break
		}
		ps = append(ps, p)
	}
	a.mu.Lock()
	a.kept[who] = len(kept)
	a.mu.Unlock()
	a.setProblems(who, time.Now(), ps)
}
