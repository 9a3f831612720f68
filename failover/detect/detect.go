// Package detect decides, from what is sent to and heard from another node, which ways to it work, whether the node
// can be reached at all, and why not. It is a step machine: what happened and when goes in, asks to send and verdicts
// come out. It has no clock, socket or goroutine.
//
// Two nodes form a [Pair]. A way is one route between them: direct to one of the addresses, or by a gateway that
// relays. On each way asks are sent and answered. One end, the lead, asks often on the way in use and seldom on the
// others; the other end hears the asks, which say what the lead holds of the way, and asks itself only where it misses
// them. So a quiet pair costs one ask and one answer per interval, and both ends notice a loss at the same time.
//
//	          an ask unanswered (lead), or missed (the other)      8 asks lost, and 320 ms silent
//	┌───────┐ ──────────────────────────────────▶ ┌───────┐ ───────────────────────────────▶ ┌──────┐
//	│ alive │                                     │ doubt │ asks every 15 ms, on all ways    │ dead │
//	└───────┘ ◀────────────────────────────────── └───────┘                                  └──────┘
//	    ▲             any answer                                                                │
//	    └──────────────────────── two answers ──────────────────────────────────────────────────┘
//
// Doubt is cheap: it lasts an answer's round trip, and meanwhile data can be sent by two ways at once. So it may be
// wrong often. Dead is expensive, and takes so many lost asks that neither loss of 10 % nor 200 ms of additional delay
// leads there. A node is down when one way is dead, and each other is, too, or has been silent for half as long.
package detect

import (
	"fmt"
	"time"

	"seaway.dev/seaway/fleet"
)

// Config is how fast and how careful a pair is. See [Default].
type Config struct {
	Active      time.Duration // between asks on the way in use
	Standby     time.Duration // between asks on the others
	Burst       time.Duration // between asks in doubt
	Bursts      float64       // asks in doubt that may be so close, on all ways together; then they are Active apart
	Refill      float64       // that come back per second
	Retry       time.Duration // between asks on a dead way, at first
	DeadLost    int           // asks lost in a row until a way may be dead
	DeadAfter   time.Duration // silence, from the first of those and beyond the usual round trip, until it is
	OthersAfter time.Duration // the same for the others once one is dead, until the node is down
	Rise        time.Duration // a node that was down must answer for so long to be up again; doubled each time it falls soon
	RiseMost    time.Duration // the most that this grows to
	GrayAfter   time.Duration // a way that is worse than usual for so long makes the node gray
	GrayClear   time.Duration // and one that is as usual again for so long, up
}

// Default suits paths of up to 150 ms. Its cost: 10 asks and 10 answers per second and pair, of 76 bytes each with
// their headers, are 12 kbit/s, and 2 kbit/s for each way on standby.
//
// DeadAfter is the 200 ms by which a path's delay may jump without being taken for a loss, and room for a busy machine.
// OthersAfter is less, for a path's delay does not jump in the very moment in which another path is lost, unless by what was
// moved to it; and once one has been given the time, no delay has come to all.
// DeadLost at 10 % of loss happens once in 10^8 doubts: 30 years of one pair.
//
// Bursts is two verdicts on five ways. Without it asks in doubt can keep a machine so busy that answers are late, which is
// doubt again: fleets of 8 nodes stayed there for good, with 20,000 packets a second (TestMesh).
func Default() Config {
	return Config{Active: 100 * time.Millisecond, Standby: 2 * time.Second, Burst: 15 * time.Millisecond, Bursts: 300, Refill: 20, Retry: 250 * time.Millisecond,
		DeadLost: 8, DeadAfter: 240 * time.Millisecond, OthersAfter: 120 * time.Millisecond, Rise: 500 * time.Millisecond, RiseMost: 30 * time.Second,
		GrayAfter: 2 * time.Second, GrayClear: 5 * time.Second}
}

const (
	lateLoop      = 10 * time.Millisecond  // a tick later than this says that this process was not given the time
	flapMemory    = time.Minute            // a fall within so long of the last one is flapping
	mostNoise     = 300 * time.Millisecond // that a late tick makes verdicts slower
	dataIsFresh   = 60 * time.Millisecond  // data heard this recently speak for a way
	quietFlow     = 30 * time.Millisecond  // a steady flow that stops for so long is asked after, and hedged meanwhile
	ownPauses     = 30 * time.Millisecond  // who was this late lately takes no pause of a flow for the other end's
	missedAfter   = 40 * time.Millisecond  // an ask of the other end may come so much later than announced
	flowIsBusy    = 20 * time.Millisecond  // data this close together are a busy flow
	flowIsSteady  = 5                      // if so many of them come in a row
	sentLately    = 60 * time.Millisecond  // data sent so lately would be missed if the way were dead
	mostDeviation = 100 * time.Millisecond // of answers, that is waited for in doubt
	maxLifeOfAsk  = 2 * time.Second        // later answers are not waited for
)

// Pair is what one node holds of another. Times are since any fixed start and never go back. Not for concurrent use.
type Pair struct {
	cfg  Config
	lead bool
	ways []*Way
	use  int // index of the way in use, -1 for none

	state  fleet.ReachState
	since  time.Duration // of state
	fell   time.Duration // when it was last down
	falls  int           // in quick succession
	rising time.Duration // since when a node that was down answers, 0 if it does not
	worse  time.Duration // since when the way in use is worse than usual, 0 if it is not
	better time.Duration // since when a gray node's way is as usual, 0 if it is not
	sent   time.Duration // when data were last sent to the node
	wake   time.Duration // when Tick wanted to be called
	ticked time.Duration // when it was
	spent  float64       // of Bursts
	noise  time.Duration // how late it was lately: who gets no time himself is careful with verdicts on others

	prover // what else than answers speaks for the node's life
}

// New returns a pair without ways. One end must be the lead, and the other not.
func New(cfg Config, lead bool) *Pair {
	return &Pair{cfg: cfg, lead: lead, use: -1, state: fleet.ReachUnknown}
}

// SetWays says which ways there are. Those that stay, by name, keep what is known of them.
func (p *Pair) SetWays(names []string) {
	was := ""
	if p.use >= 0 {
		was = p.ways[p.use].Name
	}
	old := map[string]*Way{}
	for _, w := range p.ways {
		old[w.Name] = w
	}
	p.ways, p.use = nil, -1
	for i, n := range names {
		w := old[n]
		if w == nil {
			w = &Way{Name: n, State: Fresh}
		}
		p.ways = append(p.ways, w)
		if n == was {
			p.use = i
		}
	}
}

// SetPace changes how often the way in use and the others are asked on: nodes with many neighbours must bound the sum.
func (p *Pair) SetPace(active, standby time.Duration) { p.cfg.Active, p.cfg.Standby = active, standby }

// Ways returns the ways, in the order they were set.
func (p *Pair) Ways() []*Way { return p.ways }

// InUse returns the index of the way in use, -1 for none.
func (p *Pair) InUse() int { return p.use }

// Use says which way data take now. The ways that are concerned are asked on at once, so that the other end hears of it.
func (p *Pair) Use(way int) {
	if way == p.use {
		return
	}
	for _, i := range []int{p.use, way} {
		if i >= 0 {
			p.ways[i].next = 0
		}
	}
	p.use, p.worse, p.better = way, 0, 0
}

// Follows tells whether to take the way that the lead takes: not if it is known here that it does not work, which the
// lead will see soon. Else the two would pull to and fro with each ask.
func (p *Pair) Follows(way int) bool {
	s := p.ways[way].State
	return s != Doubt && s != Dead
}

// Prompt asks on a way as soon as Tick is called.
func (p *Pair) Prompt(way int) {
	w := p.ways[way]
	if len(w.asks) == 0 || w.asks[len(w.asks)-1].late {
		w.next, w.prompt = 0, true
	}
}

// Every returns how long the other end is to wait for the next ask on a way.
func (p *Pair) Every(way int) time.Duration {
	if way == p.use {
		return p.cfg.Active
	}
	return p.cfg.Standby
}

// Sent notes that an ask left. Its number is any that is not under way.
func (p *Pair) Sent(way int, number uint64, now time.Duration) {
	w := p.ways[way]
	w.asks = append(w.asks, ask{number: number, at: now})
	if len(w.asks) > maxAsks {
		w.asks = w.asks[1:]
	}
	w.asked = now
	if w.silent == 0 {
		w.silent = now
	}
}

// Answered notes that an ask was answered, and returns its round trip; ok is false if no such ask is waited for.
func (p *Pair) Answered(number uint64, now time.Duration) (way int, rtt time.Duration, ok bool) {
	for i, w := range p.ways {
		if rtt, ok = w.answered(number, now); ok {
			hushed := w.hushed
			w.evidence(now)
			if now-rtt < hushed { // it speaks of the time before
				w.hushed = hushed
			}
			p.await(w, now)
			return i, rtt, true
		}
	}
	return -1, 0, false
}

// await sets when the lead's next ask is to be heard, if it asks by this way.
func (p *Pair) await(w *Way, now time.Duration) {
	if !p.lead && w.every > 0 {
		w.expect = now + w.every + max(w.every/4, missedAfter)
	}
}

// Heard is what an ask of the other end says.
type Heard struct {
	Alive bool          // it hears our answers on this way
	Every time.Duration // until its next one
	RTT   time.Duration // as it measured, 0 if it did not
	Loss  float64
}

// Heard notes that the other end asked.
func (p *Pair) Heard(way int, h Heard, now time.Duration) {
	w := p.ways[way]
	w.heard, w.data = now, now
	w.every = h.Every
	p.await(w, now)
	if !h.Alive {
		if w.State == Alive && !p.lead { // the lead does not hear us by it
			w.State, w.next, w.silent = Doubt, 0, now
		}
		return
	}
	if !p.lead && h.RTT > 0 {
		w.told(h)
	}
	w.evidence(now)
}

// Data notes that data came from the node. It is no proof that it can be reached, but that it lives.
func (p *Pair) Data(way int, now time.Duration) {
	w := p.ways[way]
	if w.flow++; now-w.data > flowIsBusy {
		w.flow = 0
	}
	w.data = now
}

// weary tells whether asks in doubt are used up.
func (p *Pair) weary() bool { return p.spent >= p.cfg.Bursts }

// Sending notes that data go to the node.
func (p *Pair) Sending(now time.Duration) { p.sent = now }

// Tick lets time pass. It returns the ways to ask on now, and when to call it again unless something happens before.
func (p *Pair) Tick(now time.Duration) (ask []int, wake time.Duration) {
	p.noise -= min(p.noise, p.noise/8*min(now-p.ticked, 10*time.Second)/time.Second)
	p.spent = max(0, p.spent-p.cfg.Refill*(now-p.ticked).Seconds())
	p.ticked = now
	if late := now - p.wake; p.wake > 0 && late > lateLoop {
		p.noise = max(p.noise, min(late, mostNoise))
		for _, w := range p.ways {
			w.excuse(late, now)
		}
		if p.verdictAt > 0 {
			p.verdictAt += late
		}
	}
	for i, w := range p.ways {
		w.lose(now)
		p.judge(i, now)
	}
	p.suspect(now)
	p.conclude(now)
	doubt := p.use >= 0 && p.ways[p.use].State == Doubt || p.use < 0 && p.state == fleet.ReachUp
	wake = now + p.cfg.Standby
	for i, w := range p.ways {
		every := p.interval(i, doubt, now)
		if w.next > now+every {
			w.next = now + every
		}
		if p.weary() {
			w.next = max(w.next, w.asked+p.calm(i))
		}
		if now >= w.next && p.asks(i, doubt, now) {
			if now-w.asked < p.calm(i) {
				p.spent++
			}
			ask = append(ask, i)
			w.next = now + every
			wake = min(wake, now+w.patience()+time.Millisecond)
		} else if now >= w.next {
			w.next = now + every // the other end does it
		}
		wake = min(wake, w.next, w.deadline(now))
	}
	if p.use >= 0 && p.ways[p.use].steady() {
		wake = min(wake, p.ways[p.use].data+quietFlow+time.Millisecond)
	}
	p.wake = max(min(wake, p.checkAt(now)), now+time.Millisecond)
	return ask, p.wake
}

// judge moves a way between alive, doubt and dead.
func (p *Pair) judge(i int, now time.Duration) {
	w := p.ways[i]
	switch w.State {
	case Alive:
		missed := w.expect > 0 && now >= w.expect
		if i == p.use && w.steady() && now-w.data > quietFlow {
			w.flow = 0 // once
			if now-p.sent < sentLately && p.noise < ownPauses && !p.weary() {
				w.hushed, w.next, w.prompt = now, 0, true
			}
		}
		if missed { // it may not ask by this way any more
			w.every = min(2*w.every, p.cfg.Standby)
		}
		if w.lost > 0 || missed {
			w.State, w.next, w.expect = Doubt, 0, 0
			if w.silent == 0 {
				w.silent = now
			}
		}
	case Doubt:
		if p.over(w, p.cfg.DeadAfter, now) {
			w.die(now)
		}
	}
}

// over tells whether a way in doubt has lost so many asks, and been silent for so long beyond its usual round trip, that it is dead.
func (p *Pair) over(w *Way, slack, now time.Duration) bool {
	lost, after := p.cfg.DeadLost, w.RTT+min(4*w.Var, mostDeviation)+slack+p.noise
	if now-w.data < dataIsFresh { // it speaks, but does not hear: or its answers wait behind its data
		lost, after = 2*lost, 2*after
	}
	return w.lost >= lost && now-w.silent >= after
}

// interval is how often to ask on a way now.
func (p *Pair) interval(i int, doubt bool, now time.Duration) time.Duration {
	w := p.ways[i]
	switch {
	case w.State == Doubt, doubt && w.State != Dead:
		return p.cfg.Burst
	case w.State == Dead && now-w.died < 10*time.Second, w.State == Fresh && now-w.first(now) < 10*time.Second:
		return p.cfg.Retry
	case i == p.use || p.rising > 0 && w.State == Alive:
		return p.cfg.Active
	}
	return p.cfg.Standby
}

// calm is how often a way is asked on when asks in doubt are used up. Those that come sooner use them up.
func (p *Pair) calm(i int) time.Duration {
	if i == p.use {
		return p.cfg.Active - p.cfg.Active/8
	}
	return p.cfg.Retry
}

// asks tells whether this end has to ask.
func (p *Pair) asks(i int, doubt bool, now time.Duration) bool {
	w := p.ways[i]
	if p.lead || doubt || w.State != Alive || w.prompt {
		w.prompt = false
		return true
	}
	return now-w.heard > p.cfg.Standby+p.cfg.Standby/2 // the lead may not know this way
}

// conclude judges the node by its ways.
func (p *Pair) conclude(now time.Duration) {
	works, dead, speaks := 0, 0, false
	var died time.Duration // the last way that did
	for _, w := range p.ways {
		if w.State == Dead {
			dead, died = dead+1, max(died, w.died)
		}
	}
	for _, w := range p.ways {
		given := w.State == Doubt && died > w.silent // another way was given all the time, in this silence
		if w.State == Alive || w.State == Doubt && !(given && p.over(w, p.cfg.OthersAfter, now)) {
			works++
		}
		speaks = speaks || w.data > 0 && now-w.data < p.cfg.DeadAfter+w.RTT
	}
	p.mute = p.mute && works == 0
	switch {
	case p.state == fleet.ReachDown && works == 0 && p.provenDown(now), p.state != fleet.ReachDown && works == 0 && dead > 0 && !p.mute && p.proven(now):
		p.mute = true
		p.bury(now)
		p.become(fleet.ReachUnknown, now)
	case p.state == fleet.ReachDown:
		p.rise(works > 0, now)
	case works+dead == 0:
	case p.mute:
		if now-p.sign() >= muteFor {
			p.mute = false
			p.fall(now)
		}
	case works == 0 && !speaks:
		if now >= p.verdictAt {
			p.fall(now)
		}
	case p.state == fleet.ReachUnknown:
		if works > 0 {
			p.become(fleet.ReachUp, now)
		}
	default:
		p.shade(now)
	}
}

// bury makes all ways dead that are in doubt, when it is concluded that none works: else the next late tick gives them more
// time, and takes the verdict back.
func (p *Pair) bury(now time.Duration) {
	for _, w := range p.ways {
		if w.State == Doubt {
			w.die(now)
		}
	}
}

// fall makes the node down.
func (p *Pair) fall(now time.Duration) {
	p.bury(now)
	p.become(fleet.ReachDown, now)
	if p.fell > 0 && now-p.fell < flapMemory+p.riseTime() {
		p.falls++
	} else {
		p.falls = 0
	}
	p.fell, p.rising = now, 0
}

// riseTime is how long a node that was down must answer until it is up.
func (p *Pair) riseTime() time.Duration {
	return min(p.cfg.Rise<<min(p.falls, 16), p.cfg.RiseMost)
}

func (p *Pair) rise(alive bool, now time.Duration) {
	switch {
	case !alive:
		p.rising = 0
	case p.rising == 0:
		p.rising = now
	case now-p.rising >= p.riseTime():
		p.become(fleet.ReachUp, now)
		p.rising = 0
	}
}

// shade tells up and gray apart.
func (p *Pair) shade(now time.Duration) {
	if p.use < 0 {
		return
	}
	bad := p.ways[p.use].Worse() != ""
	mark := func(t *time.Duration, on bool) bool {
		switch {
		case !on:
			*t = 0
		case *t == 0:
			*t = now
		}
		return on
	}
	if mark(&p.worse, bad) && p.state == fleet.ReachUp && now-p.worse >= p.cfg.GrayAfter {
		p.become(fleet.ReachGray, now)
	}
	if mark(&p.better, !bad) && p.state == fleet.ReachGray && now-p.better >= p.cfg.GrayClear {
		p.become(fleet.ReachUp, now)
	}
}

func (p *Pair) become(s fleet.ReachState, now time.Duration) { p.state, p.since = s, now }

// State returns what is held of the node, and since when.
func (p *Pair) State() (fleet.ReachState, time.Duration) { return p.state, p.since }

// Silence says for how long nothing at all was heard of the node.
func (p *Pair) Silence(now time.Duration) time.Duration {
	last := time.Duration(0)
	for _, w := range p.ways {
		last = max(last, w.data, w.seen)
	}
	return now - last
}

// String describes the pair in one line, for transcripts.
func (p *Pair) String() string {
	s := string(p.state)
	for i, w := range p.ways {
		mark := ""
		if i == p.use {
			mark = "*"
		}
		s += fmt.Sprintf(" %s%s=%s", w.Name, mark, w.State)
	}
	return s
}
