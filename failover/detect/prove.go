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
	silent := p.state == fleet.ReachDown || p.mute && now-p.sign() >= muteCheck
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
	patience := time.Second
	for _, w := range p.ways {
		if w.State != Fresh {
			patience = min(patience, w.patience()) // a verdict that waits for the slowest way keeps the dead alive
		}
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
