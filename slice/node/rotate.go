package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/keys"
	"seaway.dev/seaway/tunnel"
)

// changingLook is how often the tunnel is looked at while keys are changed.
const changingLook = time.Second

// turn decides which generations of keys the node is to hold on the slices of an intent, from what is known of the
// tunnel's sessions. A slice that is new here begins with the keys that the tunnel has of it. It fails if that cannot
// be asked; then the tunnel must not be told anything, lest it drop keys that are still needed.
func (a *agent) turn(ctx context.Context, in *fleet.Intent) error {
	a.mu.Lock()
	fresh := slices.ContainsFunc(in.Slices, func(s fleet.Slice) bool { return a.rings[s.Name] == nil })
	a.mu.Unlock()
	if fresh {
		st, err := a.cfg.Tunnel.Status(ctx)
		if err != nil {
			return fmt.Errorf("ask for the keys that the node has: %w", err)
		}
		a.mu.Lock()
		a.begin(in, st)
		a.mu.Unlock()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.step(in, time.Now())
	return nil
}

// begin makes rings for the slices of an intent that have none, and forgets those of slices that are not in it. The
// caller holds mu.
func (a *agent) begin(in *fleet.Intent, st tunnel.Status) {
	rings := map[string]*keys.Ring{}
	for _, s := range in.Slices {
		if rings[s.Name] = a.rings[s.Name]; rings[s.Name] == nil {
			rings[s.Name] = keys.NewRing(fleet.Node{Keys: st.Keys}.Generations(s.Name), time.Now())
		}
	}
	a.rings = rings
}

// step lets the rings take in what is known now and tells whether any is another. The caller holds mu.
func (a *agent) step(in *fleet.Intent, now time.Time) (changed bool) {
	for _, s := range in.Slices {
		ring := a.rings[s.Name]
		if ring == nil {
			continue
		}
		v := keys.View{Now: now, Target: s.KeyGeneration, Heard: map[uint64]uint64{}, Single: a.tunnel.Driver == "kernel"}
		live := map[string]map[uint64]bool{}
		for _, d := range a.tunnel.Devices {
			if d.Slice != s.Name {
				continue
			}
			for _, p := range d.Peers {
				v.Heard[d.Generation] += p.RxBytes
				if live[p.Peer] == nil {
					live[p.Peer] = map[uint64]bool{}
				}
				live[p.Peer][d.Generation] = live[p.Peer][d.Generation] || !p.Handshake.IsZero()
			}
		}
		for _, c := range in.Clusters {
			for _, n := range c.Nodes {
				if gens := n.Generations(s.Name); len(gens) > 0 && (n.Name != in.Node || c.Name != in.Cluster) {
					v.Peers = append(v.Peers, keys.Peer{Published: gens, Live: live[n.ID()]})
				}
			}
		}
		if ring.Step(v) {
			changed = true
			a.log.Info("keys change", "slice", s.Name, "generations", ring.Held(), "target", s.KeyGeneration)
		}
	}
	return changed
}

// generations lists what is held, by slice. The caller holds mu.
func (a *agent) generations() map[string][]uint64 {
	out := map[string][]uint64{}
	for s, r := range a.rings {
		out[s] = r.Held()
	}
	return out
}

// changing tells whether keys of any slice are being changed. The caller holds mu.
func (a *agent) changing() bool {
	for _, r := range a.rings {
		if r.Changing() {
			return true
		}
	}
	return false
}

// peersOf lists the peers of all devices, once each: of two devices of a slice, the newer one that has a session counts.
func peersOf(devices []tunnel.DeviceStatus) []fleet.PeerState {
	type id struct{ slice, peer string }
	at := map[id]int{}
	var out []fleet.PeerState
	for _, d := range devices {
		for _, p := range d.Peers {
			i, there := at[id{p.Slice, p.Peer}]
			if !there {
				at[id{p.Slice, p.Peer}] = len(out)
				out = append(out, p)
				continue
			}
			rx, tx := out[i].RxBytes+p.RxBytes, out[i].TxBytes+p.TxBytes
			if !p.Handshake.IsZero() {
				out[i] = p
			}
			out[i].RxBytes, out[i].TxBytes = rx, tx
		}
	}
	slices.SortFunc(out, func(x, y fleet.PeerState) int {
		return cmp.Or(cmp.Compare(x.Slice, y.Slice), cmp.Compare(x.Peer, y.Peer))
	})
	return out
}
