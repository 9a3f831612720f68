package detect_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
			limit := 200 * ms // one end hears as ever, and learns of it by an ask that is not answered
			switch name {
			case "way dies":
				limit = 100 * ms
			case "pair":
				limit = 130 * ms
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

// TestOthersAreSlower: the way in use is lost, and the others get slower: in the same moment by 150 ms, or later by 350 ms. The
// node lives.
func TestOthersAreSlower(t *testing.T) {
	falls := func(later, slower time.Duration) (n int) {
		for seed := range uint64(50) {
			net := usual(seed)
			net.run(10*time.Second + time.Duration(net.rng.Int64N(int64(time.Second))))
			net.cut("direct", true)
			net.run(net.now + later)
			for _, w := range []string{"near", "far"} {
				for i := range 2 {
					net.links[w].delay[i] += slower / 2
				}
			}
			net.run(net.now + 5*time.Second)
			n += net.ends[0].downs + net.ends[1].downs
		}
		return n
	}
	for later, slower := range map[time.Duration]time.Duration{0: 150 * ms, 10 * time.Second: 350 * ms} {
		if n := falls(later, slower); n > 0 {
			t.Errorf("%v later %v slower: called down %d times in 50", later, slower, n)
		}
		if falls(later, 800*ms) == 0 {
			t.Error("control: with 800 ms nobody was called down: this test sees nothing")
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

// TestMuteStaysMute: a node that is mute since no way works is not up again because this process was late just then.
func TestMuteStaysMute(t *testing.T) {
	for late := 20 * ms; late <= 100*ms; late += 20 * ms {
		n := usual(1)
		e := n.ends[0]
		for _, w := range e.ways {
			n.cut(w, true)
		}
		n.run(n.now + 200*ms)
		e.pair.Proof(n.now)
		for end := n.now + time.Second; !e.pair.Mute() && n.now < end; {
			n.run(n.now + ms)
		}
		if _, text := e.pair.Explain(detect.Surroundings{}, n.now); !strings.HasPrefix(text, "no answer on 3 paths") {
			t.Errorf("mute: %q", text)
		}
		e.asleep = true
		n.run(n.now + late)
		e.asleep = false
		n.at(n.now, e.tick)
		for end := n.now + time.Second; n.now < end; n.run(n.now + ms) {
			if s, _ := e.pair.State(); s != fleet.ReachUnknown {
				t.Fatalf("late by %v: mute, then %s\n%s", late, s, n.log.String())
			}
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

// TestSlowWitnesses: ways on standby whose answers vary by 0.2 s, as they do on a machine that was just very busy, do not keep a
// node alive that died.
func TestSlowWitnesses(t *testing.T) {
	const deaths = 50
	for _, c := range []struct{ vary, want time.Duration }{{0, 340 * ms}, {50 * ms, 440 * ms}, {100 * ms, 530 * ms}, {200 * ms, 750 * ms}} {
		var total time.Duration
		for seed := range uint64(deaths) {
			n := usual(seed)
			for _, w := range []string{"near", "far"} {
				n.links[w].jitter = [2]time.Duration{c.vary, c.vary}
			}
			n.run(30*time.Second + time.Duration(n.rng.Int64N(int64(time.Second))))
			n.ends[1].asleep = true
			at, other := n.now, n.ends[0]
			for other.downs == 0 && n.now < at+3*time.Second {
				n.run(n.now + 5*ms)
			}
			total += n.now - at
		}
		if mean := total / deaths; mean > c.want {
			t.Errorf("answers of witnesses vary by %v: a node's death was known after %v on average, want %v at most", c.vary, mean, c.want)
		} else {
			t.Logf("answers of witnesses vary by %v: known after %v on average", c.vary, mean)
		}
	}
}

// TestAccount: the log's line tells of a loss only where there is one.
func TestAccount(t *testing.T) {
	n := usual(1)
	p := n.ends[0].pair
	if account := p.Account(n.now); strings.Contains(account, "lost") {
		t.Errorf("all is well: %s", account)
	}
	n.ends[1].asleep = true
	n.run(n.now + time.Second)
	if account := p.Account(n.now); strings.Count(account, " lost in ") != 3 {
		t.Errorf("asleep for a second, by three ways: %s", account)
	}
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
		cause, text := p.Explain(detect.Surroundings{Relay: relay, Up: c.up, Others: c.others, Alive: c.alive, Control: true}, n.now)
		if cause != c.want || text != c.text {
			t.Errorf("%v: %s %q, want %s %q", c, cause, text, c.want, c.text)
		}
	}
	n = usual(1)
	if cause, _ := n.ends[0].pair.Explain(detect.Surroundings{}, n.now); cause != detect.CauseControl {
		t.Errorf("control plane not heard: %q", cause)
	}
	n.cut("direct", true)
	n.run(7 * time.Second)
	if cause, text := n.ends[0].pair.Explain(detect.Surroundings{Control: true}, n.now); cause != detect.CausePath || text != "direct: no answer; near, far: works" {
		t.Errorf("direct path cut: %q %q", cause, text)
	}
	for _, c := range []struct{ nodes, want string }{
		{"", "unknown"}, {"unknown", "unknown"}, {"down unknown", "down"}, {"down up", "gray"}, {"up up unknown", "up"},
	} {
		var in []fleet.ReachState
		var s fleet.ReachState
		for rest := c.nodes; ; {
			k, _ := fmt.Sscan(rest, &s)
			if k == 0 {
				break
			}
			in = append(in, s)
			rest = rest[min(len(rest), len(s)+1):]
		}
		if got := detect.Cluster(in); string(got) != c.want {
			t.Errorf("cluster of %q: %s, want %s", c.nodes, got, c.want)
		}
	}
}
