package relay

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/fleet"
)

// isProbe tells a probe, relayed or not.
func isProbe(p []byte) bool {
	return p[0] == typeProbe || p[0] == typeRelayed && p[sizeHead] == typeProbe
}

// lose makes the router lose what is chosen.
func (r *router) setLoss(lose func(from, to netip.AddrPort, p []byte) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose = lose
}

// states follows what a node holds of another until stop is called, which returns the states in order.
func states(t *testing.T, h *host, node string) (stop func() []fleet.ReachState) {
	end, done := make(chan struct{}), make(chan []fleet.ReachState)
	go func() {
		var all []fleet.ReachState
		for {
			_, list, news := h.sw.Reach()
			for _, r := range list {
				if r.Node == node && (len(all) == 0 || all[len(all)-1] != r.State) {
					all = append(all, r.State)
				}
			}
			select {
			case <-news:
			case <-end:
				done <- all
				return
			}
		}
	}()
	return func() []fleet.ReachState {
		synctest.Wait() // for what is being published
		close(end)
		return <-done
	}
}

// TestProbesBlocked: a network begins to drop probes and passes WireGuard. Nobody is called dead, quiet or talking; what
// is lost then is noticed at WireGuard's pace; and a node that dies then is down all the same.
func TestProbesBlocked(t *testing.T) {
	for name, talks := range map[string]bool{"quiet": false, "talking": true} {
		t.Run(name, func(t *testing.T) {
			network(t, func(t *testing.T, r *router) {
				a, b, g, w, _ := triangle(t, r)
				for _, h := range []*host{a, b, g, w} {
					defer h.halt()
				}
				ofB, ofA := states(t, a, "c2/b"), states(t, b, "c1/a")
				var s *steady
				if talks {
					s = stream(a, b)
				}
				r.setLoss(func(_, _ netip.AddrPort, p []byte) bool { return isProbe(p) })
				time.Sleep(15 * time.Second)
				if talks {
					if gap := s.end(); gap > 100*time.Millisecond {
						t.Errorf("the stream had a gap of %v", gap)
					}
				}
				time.Sleep(30 * time.Second)
				there(t, a, b)
				back(t, a, b)
				for what, got := range map[string][]fleet.ReachState{"a of b": ofB(), "b of a": ofA()} {
					for _, s := range got {
						if s == fleet.ReachDown {
							t.Errorf("%s: %v", what, got)
							break
						}
					}
				}
				if got := reach(t, a, "c2/b"); got.State != fleet.ReachUnknown || !strings.Contains(got.Why, "drops probes") {
					t.Errorf("%+v", got)
				}
				r.setLoss(func(from, to netip.AddrPort, p []byte) bool { return isProbe(p) || from == b.addr || to == b.addr })
				time.Sleep(40 * time.Second)
				if got := reach(t, a, "c2/b"); got.State != fleet.ReachDown {
					t.Errorf("dead for 40 s: %+v", got)
				}
				r.setLoss(func(_, _ netip.AddrPort, p []byte) bool { return isProbe(p) })
				time.Sleep(40 * time.Second)
				if got := reach(t, a, "c2/b"); got.State != fleet.ReachUnknown {
					t.Errorf("back for 40 s, without probes: %+v", got)
				}
				there(t, a, b)
				r.setLoss(nil)
				time.Sleep(5 * time.Second)
				if got := reach(t, a, "c2/b"); got.State != fleet.ReachUp {
					t.Errorf("probes pass again: %+v", got)
				}
			})
		})
	}
}
