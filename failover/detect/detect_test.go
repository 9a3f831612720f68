package detect_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"seaway.dev/seaway/failover/detect"
	"seaway.dev/seaway/fleet"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

const ms = time.Millisecond

func usual(seed uint64) *network {
	n := newNetwork(seed, map[string]time.Duration{"direct": 20 * ms, "near": 22 * ms, "far": 40 * ms}, "direct", "near", "far")
	n.run(5 * time.Second)
	return n
}

// TestTranscripts: what the two ends of a pair hold and do, state by state, when something happens to the ways between
// them.
func TestTranscripts(t *testing.T) {
	for name, story := range map[string]func(n *network){
		"direct-cut": func(n *network) {
			n.cut("direct", true)
			n.run(7 * time.Second)
			n.cut("direct", false)
			n.run(15 * time.Second)
		},
		"one-way-cut": func(n *network) {
			n.cut("direct", true, 1)
			n.run(7 * time.Second)
		},
		"pair-cut": func(n *network) { // third cluster only
			n.cut("direct", true)
			n.cut("near", true)
			n.run(7 * time.Second)
		},
		"node-dead": func(n *network) {
			n.ends[1].asleep = true
			n.run(8 * time.Second)
			n.ends[1].asleep = false
			n.at(n.now, n.ends[1].tick)
			n.run(14 * time.Second)
		},
		"paused": func(n *network) { // our own process did not run: nobody else is to blame
			n.ends[0].asleep = true
			n.run(n.now + 300*ms)
			n.ends[0].asleep = false
			n.at(n.now, n.ends[0].tick)
			n.run(7 * time.Second)
		},
		"flapping": func(n *network) {
			for range 6 {
				n.cut("direct", true)
				n.run(n.now + 5*time.Second)
				n.cut("direct", false)
				n.run(n.now + 5*time.Second)
			}
			n.run(n.now + 60*time.Second)
		},
		"delay": func(n *network) {
			for _, l := range n.all() {
				l.delay[0] += 100 * ms
				l.delay[1] += 100 * ms
			}
			n.run(12 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := usual(1)
			n.log.Reset()
			story(n)
			got, file := n.log.String(), filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (go test ./failover/detect -update rewrites it)\ngot:\n%s\nwant:\n%s", file, got, want)
			}
		})
	}
}

// TestGaps: the longest gap of a stream of data when the way in use dies, over many moments at which it may die.
func TestGaps(t *testing.T) {
	for name, cut := range map[string]func(n *network){
		"way dies":  func(n *network) { n.cut("direct", true) },
		"one way":   func(n *network) { n.cut("direct", true, 0) },
		"other way": func(n *network) { n.cut("direct", true, 1) },
		"pair": func(n *network) {
			n.cut("direct", true)
			n.cut("near", true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var worst time.Duration
			for seed := range uint64(100) {
				n := usual(seed)
				n.stream(10*ms, 8*time.Second)
				at := 5200*ms + time.Duration(seed)*13*ms
				n.run(at)
				cut(n)
				n.run(8 * time.Second)
				for _, e := range n.ends {
					worst = max(worst, e.gap(at-50*ms))
				}
			}
			t.Logf("longest gap of 100: %v", worst)
			limit := 200 * ms
			if name == "pair" {
				limit = 250 * ms
			}
			if worst > limit {
				t.Errorf("longest gap %v, want %v at most", worst, limit)
			}
		})
	}
}

// TestNoFalseVerdict: no schedule of blips, loss and jitter, below the threshold flips a verdict.
func TestNoFalseVerdict(t *testing.T) {
	span, seeds := 2*time.Minute, uint64(8)
	if testing.Short() {
		span, seeds = time.Minute, 5
	}
	for name, harm := range map[string]func(n *network){
		"5 % loss, 50 ms jitter": func(n *network) {
			for _, l := range n.all() {
				l.loss = [2]float64{0.05, 0.05}
				l.jitter = [2]time.Duration{50 * ms, 50 * ms}
			}
		},
		"200 ms extra delay, on and off": func(n *network) {
			on := false
			var flip func()
			flip = func() {
				on = !on
				d := 100 * ms
				if !on {
					d = -d
				}
				for _, l := range n.all() {
					l.delay[0] += d
					l.delay[1] += d
				}
				n.at(n.now+time.Duration(n.rng.Int64N(int64(4*time.Second))), flip)
			}
			n.at(n.now, flip)
		},
		"blips of 200 ms": func(n *network) {
			var blip func()
			blip = func() {
				for _, w := range n.ends[0].ways {
					n.cut(w, true)
				}
				n.at(n.now+time.Duration(n.rng.Int64N(int64(200*ms))), func() {
					for _, w := range n.ends[0].ways {
						n.cut(w, false)
					}
				})
				n.at(n.now+500*ms+time.Duration(n.rng.Int64N(int64(3*time.Second))), blip)
			}
			n.at(n.now, blip)
		},
		"pauses of one end of 200 ms": func(n *network) {
			var pause func()
			pause = func() {
				e := n.ends[n.rng.IntN(2)]
				e.asleep = true
				n.at(n.now+time.Duration(n.rng.Int64N(int64(200*ms))), func() { e.asleep = false; e.tick() })
				n.at(n.now+400*ms+time.Duration(n.rng.Int64N(int64(3*time.Second))), pause)
			}
			n.at(n.now, pause)
		},
		"no time for either end, 300 to 700 ms each": func(n *network) {
			for _, e := range n.ends {
				var again func()
				again = func() {
					d := 300*ms + time.Duration(n.rng.Int64N(int64(400*ms)))
					e.hold(d)
					n.at(n.now+d+time.Duration(n.rng.Int64N(int64(20*ms))), again)
				}
				n.at(n.now, again)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range seeds {
				n := usual(seed)
				harm(n)
				n.run(5*time.Second + span)
				for _, e := range n.ends {
					if e.downs > 0 || len(e.dead) > 0 {
						t.Fatalf("seed %d: %s took the other for down %d times, ways for dead: %v", seed, e.name, e.downs, e.dead)
					}
				}
			}
		})
	}
}

// TestAway: an end that was held judges nobody by what it did not listen to, wherever in its doing it was held, and does
// not take its own absence for a round trip.
func TestAway(t *testing.T) {
	for seed := range uint64(50) {
		n := usual(seed)
		n.stream(20*ms, 12*time.Second)
		n.run(5*time.Second + time.Duration(n.rng.Int64N(int64(200*ms))))
		me := n.ends[seed%2]
		away := time.Duration(1+seed%4) * 500 * ms
		me.hold(away)
		n.run(n.now + away + 100*ms)
		if me.downs > 0 || len(me.dead) > 0 {
			t.Fatalf("seed %d: %s was away, and took the other for down %d times, ways for dead: %v\n%s", seed, me.name, me.downs, me.dead, n.log.String())
		}
		if rtt := me.pair.Ways()[0].RTT; me.i == 0 && (rtt < 18*ms || rtt > 25*ms) { // what the other end measured is told by it
			t.Fatalf("seed %d: round trip %v, want 20ms", seed, rtt)
		}
	}
}

// TestLone: a way that is the only one is not given up as soon as one of several.
func TestLone(t *testing.T) {
	for _, c := range []struct {
		ways  []string
		quiet time.Duration
		down  bool
	}{
		{[]string{"direct"}, 500 * ms, false},
		{[]string{"direct"}, 1200 * ms, true},
		{[]string{"direct", "near", "far"}, 500 * ms, true},
	} {
		n := newNetwork(1, map[string]time.Duration{"direct": 2 * ms, "near": 3 * ms, "far": 20 * ms}, c.ways...)
		n.run(5 * time.Second)
		n.ends[1].hold(c.quiet)
		n.run(8 * time.Second)
		if down := n.ends[0].downs > 0; down != c.down {
			t.Errorf("%v, silent for %v: down %v, want %v\n%s", c.ways, c.quiet, down, c.down, n.log.String())
		}
	}
}

// TestFirstVerdict: after a restart, who was down is down still, and who was up but is silent is down soon; who was never
// heard takes longer, and is up as soon as it answers.
func TestFirstVerdict(t *testing.T) {
	for _, c := range []struct {
		was         fleet.ReachState
		early, late time.Duration // when it is not down yet, and when it is
	}{
		{fleet.ReachDown, -1, 0},
		{fleet.ReachUp, 900 * ms, 1200 * ms},
		{fleet.ReachGray, 900 * ms, 1200 * ms},
		{fleet.ReachUnknown, 9 * time.Second, 11 * time.Second},
	} {
		n := newNetwork(1, map[string]time.Duration{"direct": 20 * ms, "near": 22 * ms}, "direct", "near")
		for _, e := range n.ends {
			e.pair.Await()
		}
		n.ends[0].pair.Recall(c.was, n.now)
		n.ends[1].asleep = true
		start := n.now
		state := func() fleet.ReachState { s, _ := n.ends[0].pair.State(); return s }
		if c.early >= 0 {
			if n.run(start + c.early); state() == fleet.ReachDown {
				t.Errorf("was %s: down before %v", c.was, c.early)
			}
		}
		if n.run(start + c.late); state() != fleet.ReachDown {
			t.Errorf("was %s: after %v still %s", c.was, c.late, state())
		}
		n.run(start + 12*time.Second)
		n.ends[1].asleep = false
		n.at(n.now, n.ends[1].tick)
		took := 5 * time.Second
		if c.was == fleet.ReachUnknown {
			took = 2500 * ms // the next ask on standby, and a round trip
		}
		if n.run(n.now + took); state() != fleet.ReachUp && state() != fleet.ReachGray { // half of what was asked lately was lost
			t.Errorf("was %s: there for %v and %s", c.was, took, state())
		}
	}
}

// TestProof: a handshake after asks were lost says that the node lives; one before that says nothing.
func TestProof(t *testing.T) {
	for _, c := range []struct {
		at   time.Duration // of the proof, from the loss on
		want fleet.ReachState
	}{{-time.Second, fleet.ReachDown}, {-10 * ms, fleet.ReachDown}, {200 * ms, fleet.ReachUnknown}} {
		n := usual(1)
		p := n.ends[0].pair
		if c.at < 0 {
			n.run(n.now + time.Second + c.at)
			p.Proof(n.now)
			n.run(n.now - c.at)
		}
		for _, w := range n.ends[0].ways {
			n.cut(w, true)
		}
		if c.at > 0 {
			n.run(n.now + c.at)
			p.Proof(n.now)
		}
		n.run(n.now + time.Second)
		if got, _ := p.State(); got != c.want || c.at < 0 && !p.Check() {
			t.Errorf("a proof %v after the loss: %s, want %s\n%s", c.at, got, c.want, n.log.String())
		}
	}
}

// TestRealLossIsAlwaysSeen: whatever the quality was before, a node that is gone is down within a second, and one that
// is back is up again.
func TestRealLossIsAlwaysSeen(t *testing.T) {
	var slowest time.Duration
	for seed := range uint64(200) {
		n := usual(seed)
		for _, l := range n.all() {
			l.loss = [2]float64{n.rng.Float64() * 0.1, n.rng.Float64() * 0.1}
			l.jitter = [2]time.Duration{time.Duration(n.rng.Int64N(int64(50 * ms))), time.Duration(n.rng.Int64N(int64(50 * ms)))}
		}
		n.run(10*time.Second + time.Duration(n.rng.Int64N(int64(time.Second))))
		dead := n.ends[seed%2]
		dead.asleep = true
		at, other := n.now, n.ends[1-seed%2]
		for other.downs == 0 && n.now < at+2*time.Second {
			n.run(n.now + 5*ms)
		}
		slowest = max(slowest, n.now-at)
		if n.now-at > time.Second {
			t.Fatalf("seed %d: not down after %v:\n%s", seed, n.now-at, n.log.String())
		}
		n.run(n.now + 3*time.Second)
		dead.asleep = false
		n.at(n.now, dead.tick)
		n.run(n.now + 5*time.Second)
		if s, _ := other.pair.State(); s != fleet.ReachUp && s != fleet.ReachGray {
			t.Fatalf("seed %d: back for 5 s and still %s", seed, s)
		}
	}
	t.Logf("slowest of 200: %v", slowest)
}

// TestCost: a quiet pair asks so seldom that it stays below 20 kbit/s, both directions and all ways together.
func TestCost(t *testing.T) {
	n := usual(1)
	was := n.ends[0].asks + n.ends[1].asks
	n.run(n.now + 60*time.Second)
	asks := float64(n.ends[0].asks+n.ends[1].asks-was) / 60
	const bits = 8 * (48 + 28)
	t.Logf("%.1f asks/s, %.1f kbit/s", asks, 2*asks*bits/1000)
	if 2*asks*bits > 20000 {
		t.Errorf("%.1f asks/s are more than 20 kbit/s", asks)
	}
}

func TestExplain(t *testing.T) {
	n := usual(1)
	relay := map[string]string{"near": "c2/g", "far": "c3/g"}
	n.ends[1].asleep = true
	n.run(7 * time.Second)
	p := n.ends[0].pair
	for _, c := range []struct {
		up     map[string]bool
		others int
		alive  int
		want   detect.Cause
		text   string
	}{
		{map[string]bool{"c3/g": true}, 5, 4, detect.CausePeer, "no answer on 3 paths; c3/g answers and does not reach it either"},
		{map[string]bool{"c3/g": true, "c2/g": true}, 5, 4, detect.CausePeer, "no answer on 3 paths; c2/g, c3/g answer and do not reach it either"},
		{nil, 5, 4, detect.CauseCut, "no answer on 3 paths; no third cluster's gateway can tell whether it lives"},
		{nil, 5, 0, detect.CauseIsolated, "none of 6 nodes answers: this node seems cut off"},
	} {
		cause, text := p.Explain(detect.Surroundings{Relay: relay, Up: c.up, Others: c.others, Alive: c.alive}, n.now)
		if cause != c.want || text != c.text {
			t.Errorf("%v: %s %q, want %s %q", c, cause, text, c.want, c.text)
		}
	}
	n = usual(1)
	n.cut("direct", true)
	n.run(7 * time.Second)
	if cause, text := n.ends[0].pair.Explain(detect.Surroundings{}, n.now); cause != detect.CausePath || text != "direct: no answer; near, far: works" {
		t.Errorf("direct path cut: %q %q", cause, text)
	}
}
