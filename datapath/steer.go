package datapath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"seaway.dev/seaway/datapath/flow"
	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/nft"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/slice/plan"
)

// Steered says what Steer did.
type Steered struct {
	Ops   int        // changes of rules
	Ended flow.Ended // sockets of pods whose peers are gone
}

func (s *Steered) add(o Steered) {
	s.Ops += o.Ops
	s.Ended.Add(o.Ended)
}

// Steer applies of a plan what depends on who can be reached: who answers for services, and who is there at all. It does
// so in milliseconds, beside an Apply that may wait for a runtime or for a probe, and an Apply of an older plan does not
// undo it. A slice whose namespace is not there yet waits for Apply.
func (k *Kernel) Steer(_ context.Context, want []plan.Slice) (Steered, error) {
	var all Steered
	var errs []error
	for _, s := range want {
		ns, err := netns.Open(s.NetNS)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace) {
			continue
		}
		if err == nil {
			var done Steered
			done, err = k.rules(s, ns)
			all.add(done)
			_ = ns.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("slice %s: %w", s.Name, err))
		}
	}
	return all, errors.Join(errs...)
}

// rules makes a slice's table what the newest plan says, and ends what talks to hosts that are gone by it.
func (k *Kernel) rules(s plan.Slice, ns *netns.NS) (Steered, error) {
	k.steering.Lock()
	defer k.steering.Unlock()
	if newest, ok := k.newest[s.Name]; ok && newest.Seq > s.Seq && s.Seq > 0 {
		s = newest
	}
	k.newest[s.Name] = s
	var out Steered
	done, err := nft.Apply(ns, s, k.memo(ns))
	out.Ops = done.Ops
	if err != nil {
		return out, err
	}
	out.Ended = k.bury(s, ns, done.Gone)
	return out, done.Forget(ns)
}

// bury ends what the slice's pods have open to hosts that are gone. Sockets come first, for somebody waits there; conntrack's
// table may be long.
func (k *Kernel) bury(s plan.Slice, ns *netns.NS, addrs []netip.Addr) flow.Ended {
	if len(addrs) == 0 {
		return flow.Ended{}
	}
	var pods []flow.Pod
	for key, in := range k.inside {
		if strings.HasPrefix(key, s.Name+" ") {
			pods = append(pods, in)
		}
	}
	gone := set(addrs)
	ended, err := flow.End(ns, pods, gone, set(s.Hosts))
	if err = errors.Join(err, flow.Forget(ns, gone)); err != nil { // the rules stand and refuse whatever is sent; only who is silent waits
		k.log.Warn("connections to what is gone not all ended", "slice", s.Name, "err", err)
	}
	if ended != (flow.Ended{}) {
		k.log.Info("connections ended: their peers are gone", "slice", s.Name, "gone", len(gone), "tcp", ended.TCP, "udp", ended.UDP)
	}
	return ended
}

func set(addrs []netip.Addr) map[netip.Addr]bool {
	in := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		in[a] = true
	}
	return in
}

// hold keeps the namespaces of the pods that are on slices, and lets go of the others'.
func (k *Kernel) hold(want []*sliceRun, found pod.Found) {
	k.steering.Lock()
	defer k.steering.Unlock()
	old := k.inside
	k.inside = make(map[string]flow.Pod, len(old))
	for _, s := range want {
		for _, p := range s.pods {
			key, sb := s.Name+" "+p.PodUID, found.Sandboxes[p.PodUID]
			if sb == nil {
				continue
			}
			in := flow.Pod{Name: p.Namespace + "/" + p.Pod, Addrs: p.Addrs, NS: old[key].NS}
			if in.NS.Same(sb.NS) {
				delete(old, key)
			} else if ns, err := sb.NS.Dup(); err == nil {
				in.NS = ns
			} else {
				continue // its connections are not ended; the rules refuse them
			}
			k.inside[key] = in
		}
	}
	for _, in := range old {
		_ = in.NS.Close()
	}
}

// forget lets go of what is known of a slice that is removed.
func (k *Kernel) forget(slice string) {
	k.steering.Lock()
	defer k.steering.Unlock()
	delete(k.newest, slice)
}
