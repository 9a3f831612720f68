package relay

import (
	"context"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/failover/detect"
	"seaway.dev/seaway/failover/steer"
	"seaway.dev/seaway/fleet"
)

// sending is a message of the prober's own, to be sent once the lock is free.
type sending struct {
	to  *Endpoint
	pkt []byte
}

// nextNumber is the number of this node's next message: rising, and telling when it was made.
func (sw *Switch) nextNumber() uint64 {
	sw.number = max(sw.number+1, sw.epoch+uint64(sw.now()))
	return sw.number
}

// fresh tells whether a number is one that this node gave out lately.
func (sw *Switch) fresh(echo uint64) bool {
	return echo >= sw.epoch && echo <= sw.number && sw.epoch+uint64(sw.now()) < echo+uint64(freshFor)
}

// runProber asks when it is time to, and publishes what came of it, until ctx ends.
func (sw *Switch) runProber(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	housekeeping := time.Duration(0)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-sw.probeKick:
		}
		var out []sending
		sw.mu.Lock()
		now := time.Duration(sw.now())
		wake := now + time.Minute
		keep := now-housekeeping > 10*time.Second
		if keep {
			housekeeping = now
		}
		for _, nb := range sw.neighbors {
			if !nb.watched {
				continue
			}
			if now >= nb.wake {
				out = sw.step(nb, now, out)
			}
			if keep {
				sw.forgetWays(nb, now)
			}
			wake = min(wake, nb.wake)
		}
		sw.nextProbe = wake
		var reach []fleet.Reach
		if sw.reachDirty {
			reach, sw.reachDirty = sw.survey(now), false
		}
		sw.mu.Unlock()
		sw.sendAll(out)
		if reach != nil {
			sw.board.put(reach)
		}
		timer.Reset(max(wake-time.Duration(sw.now()), time.Millisecond))
	}
}

func (sw *Switch) kickProber() {
	select {
	case sw.probeKick <- struct{}{}:
	default:
	}
}

func (sw *Switch) sendAll(out []sending) {
	for _, s := range out {
		if err := sw.write([][]byte{s.pkt}, s.to, false); err != nil {
			sw.t.drops[dropSend].Add(1)
		}
	}
}

// step lets time pass for one neighbor: judge, steer, ask. The caller holds mu and sends what is returned.
func (sw *Switch) step(nb *neighbor, now time.Duration, out []sending) []sending {
	if t := nb.sent.Load(); t > 0 {
		nb.pair.Sending(time.Duration(t))
	}
	asks, wake := nb.pair.Tick(now)
	if sw.steer(nb, now) {
		asks2, _ := nb.pair.Tick(now)
		for _, w := range asks2 {
			if !slices.Contains(asks, w) {
				asks = append(asks, w)
			}
		}
		_, wake = asks2, now+time.Millisecond
	}
	nb.wake = wake
	if nb.pair.Check() {
		sw.prove(nb)
	}
	for _, i := range asks {
		if !sw.askBucket.take(int64(now), askRate, askRate/2) {
			break
		}
		out = append(out, sw.askBy(nb, i, now))
	}
	sw.note(nb, now)
	if nb.wake < sw.nextProbe || sw.reachDirty {
		sw.kickProber()
	}
	return out
}

// askBy makes an ask.
func (sw *Switch) askBy(nb *neighbor, i int, now time.Duration) sending {
	w, d := nb.ways[i], nb.pair.Ways()[i]
	m := probe{kind: kindAsk, way: w.number, from: sw.self, number: sw.nextNumber(), echo: nb.newest,
		rtt: d.RTT, every: nb.pair.Every(i), loss: d.Loss}
	if d.State == detect.Alive {
		m.flags |= flagAlive
	}
	if i == nb.pair.InUse() {
		m.flags |= flagUse
	}
	nb.pair.Sent(i, m.number, now)
	sw.probes.asked.Add(1)
	return sending{w.to, m.seal(nb.key)}
}

// steer chooses the ways of a neighbor's data. It tells whether there is something to ask at once.
func (sw *Switch) steer(nb *neighbor, now time.Duration) (again bool) {
	ds := nb.pair.Ways()
	in := nb.pair.InUse()
	c := steer.Choice{Use: in, Hedge: [2]int{-1, -1}, Ask: -1}
	follows := !nb.lead && in >= 0 && ds[in].State == detect.Alive
	if !follows || ds[in].Hushed() {
		ws := make([]steer.Way, len(ds))
		for i, d := range ds {
			ws[i] = steer.Way{Class: nb.ways[i].class, State: d.State, RTT: d.RTT, Lost: d.Lost(), Seen: d.Seen(), Worse: d.Worse() != "", Hush: d.Hushed()}
		}
		if follows {
			c.Hedge = steer.Hedge(ws, in)
		} else {
			c = nb.steer.Step(ws, now)
		}
	}
	if c.Use != in {
		nb.pair.Use(c.Use)
		again = true
	}
	if c.Ask >= 0 {
		nb.pair.Prompt(c.Ask)
		again = true
	}
	sw.setRoute(nb, c)
	return again
}

// setRoute tells the data path.
func (sw *Switch) setRoute(nb *neighbor, c steer.Choice) {
	if !nb.Peer {
		return
	}
	if state, _ := nb.pair.State(); c.Use < 0 || state == fleet.ReachDown || nb.pair.Mute() {
		nb.route.Store(nil) // WireGuard's own ways are as good as any: the node may run software without probes now
		return
	}
	w := nb.ways[c.Use]
	r := &route{use: w.to, label: w.label(), relay: w.relay != ""}
	for _, h := range c.Hedge {
		if h >= 0 {
			r.hedge = append(r.hedge, nb.ways[h].to)
		}
	}
	old := nb.route.Load()
	if old == nil || old.use != r.use || !slices.Equal(old.hedge, r.hedge) || old.label != r.label {
		if old != nil && old.label != r.label {
			sw.probes.moves.Add(1)
			sw.log.Info("path", "node", nb.ID, "path", r.label, "was", old.label)
		}
		nb.route.Store(r)
	}
}

// label names a way as fleet.PeerState does.
func (w *way) label() string {
	if w.relay == "" {
		return "direct " + w.to.addr.String()
	}
	return "relay " + w.relay + " " + w.to.addr.String()
}

// probed handles a probe that came in. The caller holds mu and sends what is returned.
func (sw *Switch) probed(p []byte, from *Endpoint, at int64, out []sending) []sending {
	m, ok := parseProbe(p)
	if !ok {
		sw.t.drop(dropGarbage)
		return out
	}
	nb := sw.byID[m.from]
	if nb == nil || m.from == sw.self {
		sw.t.drop(dropStranger)
		return out
	}
	if !genuine(nb.key, p) {
		sw.t.drop(dropForged)
		return out
	}
	now := time.Duration(at)
	if m.kind == kindAnswer {
		nb.newest = max(nb.newest, m.number)
		if !nb.watched || !sw.fresh(m.echo) {
			return out
		}
		if _, _, ok := nb.pair.Answered(m.echo, now); ok {
			sw.probes.answered.Add(1)
			out = sw.step(nb, now, out)
		}
		return out
	}
	return sw.asked(nb, m, from, now, out)
}

// asked handles an ask: it is answered to where it came from, and if it is fresh, and not a copy, it says that the
// neighbor is there.
func (sw *Switch) asked(nb *neighbor, m probe, from *Endpoint, now time.Duration, out []sending) []sending {
	last := nb.seen[m.way]
	fresh := sw.fresh(m.echo) && (m.number > last.number || m.echo > last.echo)
	rate, bucket := answerRate, &nb.answers
	if !fresh {
		rate, bucket = staleRate, &nb.stale
	}
	if !bucket.take(int64(now), rate, rate) {
		sw.t.drop(dropRate)
		return out
	}
	answer := probe{kind: kindAnswer, way: m.way, from: sw.self, number: sw.nextNumber(), echo: m.number}
	out = append(out, sending{from, answer.seal(nb.key)})
	if !fresh {
		return out
	}
	if len(nb.seen) > 64 {
		clear(nb.seen)
	}
	nb.seen[m.way] = remote{m.number, m.echo}
	nb.newest = max(nb.newest, m.number)
	if from.head == nil {
		if nb.heard == nil || nb.heard.addr != from.addr {
			sw.byAddr[from.addr] = nb
		}
		nb.heard, nb.heardAt = from, int64(now)
	}
	if !nb.watched {
		return out
	}
	i := sw.wayBy(nb, from, true)
	if i < 0 {
		return out
	}
	nb.pair.Heard(i, detect.Heard{Alive: m.flags&flagAlive != 0, Every: m.every, RTT: m.rtt, Loss: m.loss}, now)
	if m.flags&flagUse != 0 && !nb.lead && nb.pair.InUse() != i && nb.pair.Follows(i) {
		nb.pair.Use(i)
		nb.steer.Reset(i)
	}
	return sw.step(nb, now, out)
}

// carried handles a relayed message that came in. What was forwarded to here comes out as a message and where it came
// from; what is to be forwarded is changed in place, and comes out as where it goes. The caller holds mu.
//
// No message can go in a circle: a message that was forwarded is never forwarded again, whether by name or as a packet
// of a relayed session, and none carries another.
func (sw *Switch) carried(p []byte, from *Endpoint, now int64) (inner []byte, at *Endpoint, to *Endpoint) {
	id, forwarded, inner, ok := parseRelayed(p)
	if !ok {
		sw.t.drop(dropGarbage)
		return nil, nil, nil
	}
	by, other := sw.byAddr[from.addr], sw.byID[id]
	if by == nil || other == nil {
		sw.t.drop(dropStranger)
		return nil, nil, nil
	}
	if forwarded {
		at := other.behind[from.addr]
		if at == nil || at.local != from.local || at.cleared.Load() {
			if len(other.behind) > 64 {
				clear(other.behind)
			}
			at = &Endpoint{addr: from.addr, local: from.local, head: headFor(id)}
			other.behind[from.addr] = at
		}
		return inner, at, nil
	}
	if !sw.relaying || by == other {
		sw.t.drop(dropLoop)
		return nil, nil, nil
	}
	to = other.whereabouts(now)
	switch {
	case to == nil:
		sw.t.drop(dropUnreachable)
		return nil, nil, nil
	case to.addr == from.addr:
		sw.t.drop(dropLoop)
		return nil, nil, nil
	}
	readdress(p, by.id)
	return nil, nil, to
}

// note marks what is published of a neighbor as outdated, if it is.
func (sw *Switch) note(nb *neighbor, now time.Duration) {
	state, _ := nb.pair.State()
	r := &nb.reach
	path, rtt, loss := "none", time.Duration(0), 0.0
	if i := nb.pair.InUse(); i >= 0 {
		d := nb.pair.Ways()[i]
		path, rtt, loss = nb.ways[i].label(), d.RTT, d.Loss
	}
	moved := func(share float64) bool {
		return differ(float64(rtt), float64(r.RTT), share, float64(2*time.Millisecond)) || differ(loss, r.Loss, share, 0.02)
	}
	matters := moved(0.25) && now-nb.reportAt > reportEvery || moved(0.05) && now-nb.reportAt > 10*reportEvery
	dead := uint64(0)
	for i, d := range nb.pair.Ways() {
		if d.State == detect.Dead && i < 64 {
			dead |= 1 << i
		}
	}
	if dead != nb.dead { // it is another story then
		nb.dead, sw.reachDirty = dead, true
	}
	if state != r.State || path != r.Path || matters {
		if state != r.State && (state == fleet.ReachDown || r.State == fleet.ReachDown) {
			sw.log.Info("reach", "node", nb.ID, "state", state, "was", r.State, "account", nb.pair.Account(now))
		}
		r.State, r.Path, r.RTT, r.Loss = state, path, rtt, loss
		nb.reportAt = now
		sw.reachDirty = true
	}
}

// differ tells whether one of two measurements is larger than the other by a share of it and something besides.
func differ(a, b, share, least float64) bool { return max(a, b) > min(a, b)*(1+share)+least }

// survey lists what is held of all neighbors that are watched. The caller holds mu.
func (sw *Switch) survey(now time.Duration) []fleet.Reach {
	out := []fleet.Reach{}
	up := map[string]bool{}
	ever, alive := 0, 0
	for _, nb := range sw.neighbors {
		if !nb.watched {
			continue
		}
		switch s, _ := nb.pair.State(); s {
		case fleet.ReachUp, fleet.ReachGray:
			up[nb.ID] = true
			ever++
			alive++
		case fleet.ReachDown:
			ever++
		}
	}
	wall := time.Now()
	for _, nb := range sw.neighbors {
		if !nb.watched {
			continue
		}
		state, since := nb.pair.State()
		s := detect.Surroundings{Relay: map[string]string{}, Up: up, Others: ever, Alive: alive, Control: true}
		for _, w := range nb.ways {
			s.Relay[w.name] = w.relay
		}
		if state != fleet.ReachUnknown {
			s.Others--
		}
		if up[nb.ID] {
			s.Alive--
		}
		r := nb.reach
		r.Node, r.State = nb.ID, state
		if state != fleet.ReachUnknown {
			r.Since = wall.Add(since - now).Truncate(time.Millisecond)
		}
		_, r.Why = nb.pair.Explain(s, now)
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b fleet.Reach) int { return strings.Compare(a.Node, b.Node) })
	return out
}
