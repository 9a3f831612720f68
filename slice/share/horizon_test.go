package share

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
)

// TestHorizon is a transcript: what is measured when, and what follows.
func TestHorizon(t *testing.T) {
	var h Horizon
	start := time.Unix(1000, 0)
	var got []string
	step := func(at time.Duration, state fleet.ReachState, rtt time.Duration) {
		nodes, again := h.Step(start.Add(at), []fleet.Reach{{Node: "c2/n1", State: state, RTT: rtt}})
		s := nodes["c2/n1"]
		line := fmt.Sprintf("%v %s: down %v back %v distance %d", at, state, s.Down, s.Back, s.Distance)
		if !again.IsZero() {
			line += fmt.Sprintf(" again at %v", again.Sub(start))
		}
		got = append(got, line)
	}
	const ms = time.Millisecond
	step(0, fleet.ReachUnknown, 0)
	step(100*ms, fleet.ReachUp, 20*ms)
	step(200*ms, fleet.ReachUp, 38*ms) // within the margin of its class
	step(300*ms, fleet.ReachUp, 41*ms) // clearly another
	step(400*ms, fleet.ReachDown, 0)
	step(900*ms, fleet.ReachUp, 20*ms) // back, and watched
	step(1500*ms, fleet.ReachDown, 0)  // fell while watched
	step(2*time.Second, fleet.ReachUp, 20*ms)
	step(3*time.Second, fleet.ReachUp, 20*ms)
	step(4*time.Second, fleet.ReachUp, 20*ms)
	step(5*time.Minute, fleet.ReachDown, 0) // long ago: forgiven
	step(6*time.Minute, fleet.ReachUp, 20*ms)
	want := `0s unknown: down false back false distance 0
100ms up: down false back false distance 5
200ms up: down false back false distance 5
300ms up: down false back false distance 6
400ms down: down true back false distance 6
900ms up: down true back true distance 6 again at 1.9s
1.5s down: down true back false distance 6
2s up: down true back true distance 6 again at 4s
3s up: down true back true distance 6 again at 4s
4s up: down false back false distance 5
5m0s down: down true back false distance 5
6m0s up: down true back true distance 5 again at 6m1s`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// TestDistanceDoesNotFlap: a round trip that wobbles by 10 % around anything changes its class at most once; one that
// doubles for good always does.
func TestDistanceDoesNotFlap(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 6))
		base := time.Duration(1+r.IntN(300_000)) * time.Microsecond
		was, changes := class(base, 0), 0
		for range 200 {
			now := class(time.Duration(float64(base)*(0.9+0.2*r.Float64())), was)
			if now != was {
				changes++
			}
			was = now
		}
		if changes > 1 {
			t.Errorf("seed %d: around %v the class changed %d times", seed, base, changes)
		}
		if base > shortest && class(2*base, was) == was && class(base/2, was) == was {
			t.Errorf("seed %d: %v is of class %d, and so are its double and its half", seed, base, was)
		}
	}
}
