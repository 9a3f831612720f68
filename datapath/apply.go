package datapath

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"seaway.dev/seaway/datapath/link"
	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Apply makes the kernel what the slices say and removes what they do not say. A pod or a slice that fails does not
// stop the others: it is in the result with its reason. The error is of what concerns all.
func (k *Kernel) Apply(ctx context.Context, want []plan.Slice, how How) (Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	gone, err := k.unwanted(want)
	if err != nil {
		return Result{}, err
	}
	r := &run{k: k, how: how, pods: map[string]*link.Space{}}
	defer r.close()
	for _, s := range want {
		r.open(s, true)
	}
	for _, name := range gone {
		r.open(plan.Slice{Name: name, NetNS: k.path(name)}, false)
	}
	r.find(ctx)
	k.hold(r.slices, r.found)
	r.sweep(ctx)
	for _, s := range r.slices {
		r.detachStale(s)
	}
	for _, s := range r.slices {
		if !s.wanted {
			r.remove(s)
		}
	}
	for _, s := range r.slices {
		if s.wanted && s.err == nil {
			r.apply(s)
		}
	}
	r.probe(ctx)
	r.report()
	return r.result, nil
}

// run is one Apply.
type run struct {
	k      *Kernel
	how    How
	slices []*sliceRun
	found  pod.Found
	pods   map[string]*link.Space // pods' namespaces as read, by UID
	result Result
}

type sliceRun struct {
	plan.Slice
	wanted bool
	ns     *netns.NS
	space  *link.Space
	err    error
	pods   []*podRun
}

type podRun struct {
	plan.Attachment
	reason, message string // why it is not attached, "" so far so good
	trusted         bool   // it is as it was, and was not looked into
}

func (p *podRun) fail(reason, message string) {
	if p.reason == "" {
		p.reason, p.message = reason, message
	}
}

func (r *run) close() {
	for _, s := range r.slices {
		if s.space != nil {
			s.space.Close()
		}
		if s.ns != nil {
			_ = s.ns.Close()
		}
	}
	for _, p := range r.pods {
		p.Close()
	}
}

func (r *run) open(s plan.Slice, wanted bool) {
	sr := &sliceRun{Slice: s, wanted: wanted}
	r.slices = append(r.slices, sr)
	for _, at := range s.Attachments {
		sr.pods = append(sr.pods, &podRun{Attachment: at})
	}
	if wanted {
		var ops int
		sr.ns, ops, sr.err = r.k.namespace(s, r.how)
		r.result.Ops += ops
	} else {
		sr.ns, sr.err = netns.Open(s.NetNS)
	}
	if sr.err == nil {
		sr.space, sr.err = link.Read(sr.ns)
	}
}

// find looks for the sandboxes of all pods that are, or are to be, attached.
func (r *run) find(ctx context.Context) {
	var refs []pod.Ref
	for _, s := range r.slices {
		for _, p := range s.pods {
			refs = append(refs, pod.Ref{UID: p.PodUID, Namespace: p.Namespace, Name: p.Pod, IPs: p.PodIPs})
			if _, ok := r.k.asked[s.Name+" "+p.PodUID]; !ok {
				r.k.asked[s.Name+" "+p.PodUID] = time.Now()
			}
		}
	}
	for _, s := range r.slices {
		for _, l := range r.stale(s) {
			_, uid, _ := link.ParseAlias(l.Alias)
			if !slices.ContainsFunc(refs, func(p pod.Ref) bool { return p.UID == uid }) {
				refs = append(refs, pod.Ref{UID: uid})
			}
		}
	}
	if len(refs) > 0 || r.k.swept {
		r.found = r.k.pods.Find(ctx, refs)
	}
}

// stale lists the links in a slice's namespace that belong to no wanted attachment.
func (r *run) stale(s *sliceRun) []link.Link {
	var out []link.Link
	if s.space == nil {
		return nil
	}
	for _, l := range s.space.Links {
		_, uid, ok := link.ParseAlias(l.Alias)
		if l.Kind != "veth" || ok && slices.ContainsFunc(s.pods, func(p *podRun) bool { return p.PodUID == uid && p.Link == l.Name }) {
			continue
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b link.Link) int { return a.Index - b.Index })
	return out
}

// detachStale removes links to pods that are not, or no longer, on the slice, and everything of ours in those pods.
func (r *run) detachStale(s *sliceRun) {
	for _, l := range r.stale(s) {
		_, uid, _ := link.ParseAlias(l.Alias)
		r.k.log.Info("pod detached", "slice", s.Name, "pod", uid)
		if err := s.space.Remove(l.Name); err != nil {
			r.problem("DetachFailed", "slice "+s.Name, err)
			continue
		}
		r.result.Ops++
		if sb := r.found.Sandboxes[uid]; sb != nil {
			if err := r.clean(uid, sb.NS); err != nil {
				r.problem("DetachFailed", "pod "+uid, err)
			}
		}
	}
}

// clean removes everything of ours from a pod's namespace.
func (r *run) clean(uid string, ns *netns.NS) error {
	sp, err := link.Read(ns)
	if err != nil {
		return err
	}
	defer sp.Close()
	delete(r.pods, uid)
	for _, l := range sp.Links {
		if _, _, ok := link.ParseAlias(l.Alias); ok {
			if err := sp.Remove(l.Name); err != nil {
				return err
			}
			r.result.Ops++
		}
	}
	if err := sp.Reload(); err != nil {
		return err
	}
	ops, errs := sp.Converge(link.Want{})
	r.result.Ops += ops
	return joined(errs)
}

// sweep cleans pods that an earlier life attached and that are on no slice any more: once, at the first Apply.
func (r *run) sweep(ctx context.Context) {
	if r.k.swept {
		return
	}
	all, err := r.k.pods.All(ctx)
	if err != nil {
		r.problem("SandboxesUnknown", "node", err)
		return
	}
	for _, sb := range all {
		wanted := slices.ContainsFunc(r.slices, func(s *sliceRun) bool {
			return slices.ContainsFunc(s.pods, func(p *podRun) bool { return p.PodUID == sb.UID })
		})
		if !wanted {
			if err := r.clean(sb.UID, sb.NS); err != nil {
				r.problem("DetachFailed", "pod "+sb.UID, err)
			}
		}
		_ = sb.NS.Close()
	}
	r.k.swept = true
}

// remove takes a slice's namespace away. Its links went before.
func (r *run) remove(s *sliceRun) {
	r.k.log.Info("slice removed", "slice", s.Name)
	r.k.unwatch(s.Name)
	r.k.forget(s.Name)
	if err := netns.Remove(s.NetNS); err != nil {
		r.problem("DetachFailed", "slice "+s.Name, err)
		return
	}
	r.result.Ops++
}

// apply makes one slice: first its rules, so that no packet ever passes unchecked, then links, then routes.
func (r *run) apply(s *sliceRun) {
	if err := r.k.watch(s.Name, s.ns); err != nil {
		r.problem("SliceFailed", "slice "+s.Name, err)
	}
	done, err := r.k.rules(s.Slice, s.ns)
	r.result.Ops += done.Ops
	r.result.Ended.Add(done.Ended)
	if err != nil {
		s.err = err
		return
	}
	for _, p := range s.pods {
		r.attach(s, p)
	}
	if s.err = s.space.Reload(); s.err != nil {
		return
	}
	ops, errs := s.space.Converge(r.sliceWant(s))
	r.result.Ops += ops
	for _, p := range s.pods {
		if e := errs[p.Link]; e != nil {
			p.fail("LinkFailed", e.Error())
			delete(errs, p.Link)
		}
	}
	if e := errs[plan.TunLink]; e != nil && s.space.Index(plan.TunLink) == 0 {
		r.result.Problems = append(r.result.Problems, fleet.Problem{
			Reason: "TunnelMissing", Where: "slice " + s.Name,
			Message: "the tunnel's device is not there: the slice reaches no other node",
			Next:    "look at the tunnel's pod on this node (DaemonSet seaway-tunnel)",
		})
		delete(errs, plan.TunLink)
	}
	s.err = joined(errs)
}

// attach makes the pod's link if it is not there whole, and converges the pod's side of it.
func (r *run) attach(s *sliceRun, p *podRun) {
	if ref := r.found.Refused[p.PodUID]; ref != nil {
		p.fail(ref.Reason, ref.Message)
		return
	}
	sb := r.found.Sandboxes[p.PodUID]
	if sb == nil {
		p.fail(pod.ReasonNotFound, "no sandbox of the pod runs on this node; it is attached as soon as there is one")
		return
	}
	key, now := s.Name+" "+p.PodUID, seen{netns: sb.NS.Inode(), mtu: s.MTU, at: p.Attachment}
	near := s.space.Links[p.Link]
	if r.how == Quick && near.Carrier && near.MTU == s.MTU && reflect.DeepEqual(r.k.found[key], now) {
		p.trusted = true
		return
	}
	delete(r.k.found, key)
	if err := r.attachTo(s, p, sb); err != nil {
		p.fail("LinkFailed", err.Error())
	} else if p.reason == "" {
		r.k.found[key] = now
	}
}

func (r *run) attachTo(s *sliceRun, p *podRun, sb *pod.Sandbox) error {
	sp, err := link.Read(sb.NS)
	if err != nil {
		return err
	}
	r.pods[p.PodUID] = sp
	for _, a := range p.Addrs {
		if slices.Contains(sp.Foreign(), a) {
			p.fail("AddressConflict", fmt.Sprintf("the pod has the address %s from its CNI as well; "+
				"recreate the pod, or give the slice another prefix", a))
			return nil
		}
	}
	alias := link.Alias(s.Name, p.PodUID)
	near, far := s.space.Links[p.Link], sp.Links[plan.PodLink]
	if near.Index == 0 || far.Index == 0 || far.Alias != alias || near.Peer != far.Index || far.Peer != near.Index {
		if far.Index != 0 {
			if _, _, ok := link.ParseAlias(far.Alias); !ok && far.Alias != "" || far.Kind != "veth" {
				return fmt.Errorf("the pod has a link %s that is not ours: rename or remove it", plan.PodLink)
			}
			if err := sp.Remove(plan.PodLink); err != nil {
				return err
			}
			r.result.Ops++
			if near.Peer == far.Index {
				delete(s.space.Links, p.Link)
			}
		}
		if near.Index != 0 {
			if err := s.space.Remove(p.Link); err != nil {
				return err
			}
			r.result.Ops++
		}
		if err := s.space.Veth(p.Link, s.MTU, plan.PodLink, sb.NS); err != nil {
			return err
		}
		r.result.Ops++
		r.k.log.Info("pod attached", "slice", s.Name, "pod", p.Namespace+"/"+p.Pod, "netns", sb.NS.Inode())
		if err := sp.Reload(); err != nil {
			return err
		}
	}
	ops, errs := sp.Converge(podWant(s.Slice, p.Attachment, sp.Foreign()))
	r.result.Ops += ops
	return joined(errs)
}

func (r *run) problem(reason, where string, err error) {
	r.result.Problems = append(r.result.Problems, fleet.Problem{
		Reason: reason, Where: where, Message: err.Error(), Next: "it is tried again by itself; if it stays, see the agent's log",
	})
}

func joined(errs map[string]error) error {
	var all []error
	for _, e := range errs {
		all = append(all, e)
	}
	return errors.Join(all...)
}
