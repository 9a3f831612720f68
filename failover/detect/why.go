package detect

import (
	"fmt"
	"strings"
	"time"

	"seaway.dev/seaway/fleet"
)

// Cause is what a verdict was concluded to come from.
type Cause string

// The causes that are told apart.
const (
	CauseNone     Cause = ""
	CausePath     Cause = "path"     // the way that was in use, or the preferred one, is broken; another one works
	CausePeer     Cause = "peer"     // a witness answers, and does not reach the node either: it is dead
	CauseCut      Cause = "cut"      // no way works, and no witness says whether the node lives
	CauseIsolated Cause = "isolated" // nobody at all answers: this node is cut off
	CauseGray     Cause = "gray"     // it answers, with loss or delay
	CauseMute     Cause = "mute"     // it shakes hands, and answers no probes: something drops them
	CauseControl  Cause = "control"  // the node answers; only the control plane is not heard
)

// Surroundings are what else is known when a pair is explained.
type Surroundings struct {
	Relay   map[string]string // way's name → ID of the gateway it goes by
	Up      map[string]bool   // gateways' IDs that answer on their own
	Others  int               // neighbours, this one not counted, that have ever answered
	Alive   int               // of those, how many answer
	Control bool              // the control plane is heard, or not asked
}

// Explain tells why a pair's node is in its state: which of the causes, and what a person should know.
func (p *Pair) Explain(s Surroundings, now time.Duration) (Cause, string) {
	var broken, working, witnesses []string
	for _, w := range p.ways {
		switch w.State {
		case Dead:
			broken = append(broken, w.Name)
			if g := s.Relay[w.Name]; g != "" && s.Up[g] {
				witnesses = append(witnesses, g)
			}
		case Alive, Doubt:
			working = append(working, w.Name)
		}
	}
	switch {
	case p.mute:
		return CauseMute, "no answer on " + count(len(broken), "path") + ", but WireGuard's handshakes are answered: something drops probes, and a loss is noticed after 15 s only"
	case p.state == fleet.ReachUnknown:
		return CauseNone, "nothing heard yet"
	case p.state == fleet.ReachDown && s.Others > 0 && s.Alive == 0:
		return CauseIsolated, fmt.Sprintf("none of %d nodes answers: this node seems cut off", s.Others+1)
	case p.state == fleet.ReachDown && len(witnesses) > 0:
		return CausePeer, fmt.Sprintf("no answer on %s; %s %s and %s not reach it either", count(len(broken), "path"),
			strings.Join(witnesses, ", "), verb(witnesses, "answers", "answer"), verb(witnesses, "does", "do"))
	case p.state == fleet.ReachDown:
		return CauseCut, fmt.Sprintf("no answer on %s; no third cluster's gateway can tell whether it lives", count(len(broken), "path"))
	case p.state == fleet.ReachGray && p.use >= 0:
		return CauseGray, p.ways[p.use].Worse()
	case len(broken) > 0 && len(working) > 0:
		return CausePath, fmt.Sprintf("%s: no answer; %s: works", strings.Join(broken, ", "), strings.Join(working, ", "))
	case !s.Control:
		return CauseControl, "it answers; the control plane is not heard"
	}
	return CauseNone, ""
}

func verb(subjects []string, one, more string) string {
	if len(subjects) == 1 {
		return one
	}
	return more
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Cluster sums up what is held of a cluster's nodes: down if all that were ever heard are, gray if some are not up.
func Cluster(nodes []fleet.ReachState) fleet.ReachState {
	n := map[fleet.ReachState]int{}
	for _, s := range nodes {
		n[s]++
	}
	known := len(nodes) - n[fleet.ReachUnknown]
	switch {
	case known == 0:
		return fleet.ReachUnknown
	case n[fleet.ReachDown] == known:
		return fleet.ReachDown
	case n[fleet.ReachUp] == known:
		return fleet.ReachUp
	}
	return fleet.ReachGray
}

// Account tells in numbers what a verdict waited for, for logs: per way the round trip with its deviation, and how many asks
// were lost since when; and what was added because this process was late itself, or had used up its asks in doubt.
func (p *Pair) Account(now time.Duration) string {
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	s := fmt.Sprintf("late %d ms, %.0f asks spent", ms(p.noise), p.spent)
	for _, w := range p.ways {
		s += fmt.Sprintf("; %s %s: %d±%d ms", w.Name, w.State, ms(w.RTT), ms(w.Var))
		if w.lost > 0 {
			s += fmt.Sprintf(", %d lost in %d ms", w.lost, ms(now-w.silent))
		}
	}
	return s
}
