package detect

import (
	"time"

	"seaway.dev/seaway/fleet"
)

// A network may drop asks and still pass what WireGuard sends. So before a node is called down for asks without answers
// it is to be shaken hands with, which it can only answer if it lives and is reached; and while it is down, now and then.
// Who shakes hands and does not answer asks is mute: its state is unknown, and its packets are left to WireGuard's own
// ways, which take some 15 s to notice a loss.
const (
	suspectLost  = 3                // asks lost in a row on every way that make it worth a handshake
	suspectOther = 5                // the same where the other end leads, and asks for it first
	checkAgain   = 5 * time.Second  // between two handshakes; WireGuard itself makes none sooner
	checkSoon    = time.Second      // the same at first, while a node is down: the last one may have been too soon for WireGuard
	checkDown    = 30 * time.Second // the most that grows to while a node is down; WireGuard repeats it for 90 s
	shakingTakes = 25 * time.Millisecond
	provenFor    = 2 * time.Second  // a proof this old still speaks against a loss of asks
	stillMute    = time.Second      // a node that is down and proves its life should answer within so long; else it is mute
	muteCheck    = 10 * time.Second // a mute node that says nothing for so long is to be shaken hands with
	recallFor    = time.Second      // who was up before a restart of this process and says nothing for so long is down
	awaitFor     = 10 * time.Second // and who was never heard; it may still be about to hear of us
	muteFor      = 25 * time.Second // and is down if it has said nothing for so long
)

// prover is what a pair knows of its node by other means than asks.
type prover struct {
	mute      bool          // it shakes hands, and answers no asks
	proved    time.Duration // when it last proved its life, 0: never
	checked   time.Duration // when a proof was last asked for
	checks    int           // without a proof since
	check     bool          // a proof is to be asked for now
	verdictAt time.Duration // until then the proof may still come

	patience time.Duration // who was never heard is down after so long; 0: unknown for ever
	began    time.Duration // since when it is waited for
	met      bool          // it has been up
}

// Recall says what was held of the node before this process was restarted. Who was down is down until it answers, and
// who was up is missed soon.
func (p *Pair) Recall(s fleet.ReachState, now time.Duration) {
	if s == fleet.ReachUnknown || p.state != fleet.ReachUnknown {
		return
	}
	p.met, p.patience = true, recallFor
	if s == fleet.ReachDown {
		p.fall(now)
	}
}

// Await says that the node should answer, though nothing was heard of it yet: it is down if it does not for long, nor
// shakes hands. Otherwise it stays unknown.
func (p *Pair) Await() {
	if p.patience == 0 {
		p.patience = awaitFor
	}
}

// first judges a node of which nothing has been heard by any way.
func (p *Pair) first(now time.Duration) {
	switch {
	case p.state != fleet.ReachUnknown || len(p.ways) == 0 || p.patience == 0:
	case p.began == 0:
		p.began = max(now, 1)
	case p.sign() == 0 && now-p.began >= p.patience && p.checks > 0 && now >= p.verdictAt:
		p.fall(now)
	}
}

// awaited tells whether a node of which nothing was heard has had half its time.
func (p *Pair) awaited(now time.Duration) bool {
	return p.state == fleet.ReachUnknown && p.patience > 0 && p.began > 0 && p.sign() == 0 && now-p.began >= p.patience/2
}

// Proof notes that the node has just proved that it lives and is reached: a handshake with it came about.
func (p *Pair) Proof(now time.Duration) { p.proved, p.checks = max(now, 1), 0 }

// Check tells, after Tick, whether to shake hands with the node. It says so once.
func (p *Pair) Check() bool {
	c := p.check
	p.check = false
	return c
}

// Mute tells whether the node lives but answers no asks: something on the way drops them.
func (p *Pair) Mute() bool { return p.mute }

// proven tells whether there is a proof newer than the loss of the asks, by whichever way they were lost last: a
// handshake just before a node died says nothing.
func (p *Pair) proven(now time.Duration) bool {
	var silent time.Duration
	for _, w := range p.ways {
		if w.State != Fresh {
			silent = max(silent, w.silent)
		}
	}
	return p.proved > silent && silent > 0 && now-p.proved < provenFor
}

// provenDown tells whether a node that is down has proved its life and does not answer asks though.
func (p *Pair) provenDown(now time.Duration) bool {
	return p.proved > p.since && now-p.proved >= stillMute && now-p.proved < muteCheck
}

// sign is when the node last gave any sign of life.
func (p *Pair) sign() time.Duration {
	last := p.proved
	for _, w := range p.ways {
		last = max(last, w.data, w.seen)
	}
	return last
}

// suspect decides whether a proof is to be asked for.
func (p *Pair) suspect(now time.Duration) {
	if p.checked > 0 && now < p.checked+p.pause() {
		return
	}
	silent := p.state == fleet.ReachDown || p.awaited(now) || p.mute && now-p.sign() >= muteCheck
	if !silent && !p.mute {
		least := suspectLost
		if !p.lead {
			least = suspectOther
		}
		silent = p.silentBy(least) && !p.proven(now)
	}
	if !silent {
		return
	}
	patience := time.Duration(0)
	for _, w := range p.ways {
		patience = max(patience, w.patience())
	}
	p.check, p.checked, p.checks = true, now, p.checks+1
	p.verdictAt = now + patience + shakingTakes
}

// silentBy tells whether every way that ever worked has lost so many asks in a row.
func (p *Pair) silentBy(lost int) bool {
	any := false
	for _, w := range p.ways {
		switch {
		case w.State == Fresh:
		case w.State == Dead, w.State == Doubt && w.lost >= lost:
			any = true
		default:
			return false
		}
	}
	return any
}

// pause is how long after a handshake was asked for the next one may be.
func (p *Pair) pause() time.Duration {
	switch {
	case p.state == fleet.ReachDown:
		return min(checkSoon<<min(max(p.checks, 1)-1, 8), checkDown)
	case p.mute:
		return muteCheck
	}
	return checkAgain
}

// checkAt is when Tick must be called at the latest for the sake of proofs.
func (p *Pair) checkAt(now time.Duration) time.Duration {
	if p.verdictAt > now {
		return p.verdictAt
	}
	return now + time.Hour
}
