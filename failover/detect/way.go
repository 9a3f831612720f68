package detect

import (
	"fmt"
	"math"
	"time"
)

// WayState is what is held of one way.
type WayState string

// The states of a way.
const (
	Fresh WayState = "fresh" // nothing was ever heard by it
	Alive WayState = "alive" // asks are answered
	Doubt WayState = "doubt" // the newest ask is not, or one was missed
	Dead  WayState = "dead"  // many in a row were not
)

// Way is one route to a node and what is known of it.
type Way struct {
	Name  string
	State WayState
	// RTT is the smoothed round trip, 0 before the first measurement. Var is its mean deviation, Loss the share of asks
	// lost lately (0 to 1). After RFC 6298, section 2, with the variance's least value made for asks, not for TCP.
	RTT, Var time.Duration
	Loss     float64

	usual  time.Duration // what RTT has been for long
	n      int           // measurements
	asked  time.Duration // when the last ask left
	asks   []ask         // under way, oldest first
	lost   int           // in a row
	silent time.Duration // when the first ask was sent that nothing has been heard since; 0: none
	seen   time.Duration // last evidence that it works both ways
	heard  time.Duration // last ask of the other end
	data   time.Duration // when anything came by it
	flow   int           // data that came in a row, each close after the one before
	hushed time.Duration // when a steady flow stopped, until an ask since then is answered; 0: it did not
	every  time.Duration // until the other end's next ask, as it said; 0: it does not ask
	expect time.Duration // by when the other end's next ask should be heard; 0: none is expected
	next   time.Duration // when to ask next
	died   time.Duration
	born   time.Duration // when it was first looked at
	streak int           // answers since it was dead
	prompt bool          // ask now, though the other end is to
}

type ask struct {
	number uint64
	at     time.Duration
	late   bool // counted as lost; its answer may still come
}

const maxAsks = 256

// Seen returns when there was last evidence that the way works in both directions.
func (w *Way) Seen() time.Duration { return w.seen }

// Lost returns how many asks in a row were not answered in time.
func (w *Way) Lost() int { return w.lost }

// patience is how long an answer may take before it counts as lost.
func (w *Way) patience() time.Duration {
	if w.n == 0 {
		return 150 * time.Millisecond
	}
	dev := max(4*w.Var, 20*time.Millisecond)
	if w.State == Doubt { // what is asked in doubt is asked so often that one answer which takes longer is not missed
		dev = min(dev, mostDeviation)
	}
	return min(w.RTT+dev+5*time.Millisecond, time.Second)
}

// steady tells whether data come so steadily that their absence says something before the next ask does.
func (w *Way) steady() bool { return w.State == Alive && w.flow >= flowIsSteady }

// Hushed tells whether a steady flow has stopped and it is not yet known why: flows do, but it may be the way.
func (w *Way) Hushed() bool { return w.hushed > 0 }

// evidence notes that the way works in both directions.
func (w *Way) evidence(now time.Duration) {
	w.seen, w.data, w.hushed = now, now, 0
	w.lost, w.silent = 0, 0
	switch w.State {
	case Dead:
		if w.streak++; w.streak < 2 {
			w.next = 0 // at once, to see whether it lasts
			return
		}
		w.asks = nil // those lost meanwhile say nothing about now
	}
	w.State = Alive
	for _, a := range w.asks { // of those still waited for, the oldest begins the next silence
		if !a.late && a.at <= now {
			w.silent = a.at
			break
		}
	}
}

func (w *Way) answered(number uint64, now time.Duration) (rtt time.Duration, ok bool) {
	for i, a := range w.asks {
		if a.number != number {
			continue
		}
		w.asks = append(w.asks[:i], w.asks[i+1:]...)
		rtt = max(now-a.at, time.Microsecond)
		w.measure(rtt)
		w.Loss -= w.Loss / 64
		return rtt, true
	}
	return 0, false
}

// measure smooths a round trip.
func (w *Way) measure(rtt time.Duration) {
	w.n++
	if w.n == 1 {
		w.RTT, w.Var, w.usual = rtt, rtt/2, rtt
		return
	}
	w.Var += (time.Duration(math.Abs(float64(w.RTT-rtt))) - w.Var) / 4
	w.RTT += (rtt - w.RTT) / 8
	// What is usual follows slowly, and slower still while it would take a fault for the usual.
	div := time.Duration(min(w.n, 256))
	if w.Worse() != "" && w.RTT > w.usual {
		div = 4096
	}
	w.usual += (w.RTT - w.usual) / div
}

// told takes the other end's measurements for this end, which does not ask.
func (w *Way) told(h Heard) {
	w.RTT, w.Loss = h.RTT, h.Loss
	w.n = max(w.n, 1)
	if w.usual == 0 {
		w.usual = h.RTT
	}
	w.usual += (w.RTT - w.usual) / 256
}

// lose counts the asks whose answer is overdue.
func (w *Way) lose(now time.Duration) {
	patience := w.patience()
	for i := range w.asks {
		if a := &w.asks[i]; !a.late && now-a.at > patience {
			a.late = true
			w.lost++
		}
	}
	for len(w.asks) > 0 && now-w.asks[0].at > maxLifeOfAsk {
		w.asks = w.asks[1:]
		if w.State != Dead {
			w.Loss += (1 - w.Loss) / 64
		}
	}
}

func (w *Way) die(now time.Duration) { w.State, w.died, w.streak = Dead, now, 0 }

// excuse moves what is waited for by the time that this process itself lost.
func (w *Way) excuse(late, now time.Duration) {
	for i := range w.asks {
		w.asks[i].at += late
	}
	if w.silent > 0 {
		w.silent += late
	}
	if w.expect > 0 {
		w.expect += late
	}
	if w.data > 0 {
		w.data = min(w.data+late, now)
	}
	w.flow = 0
}

// deadline is when the next ask under way will count as lost.
func (w *Way) deadline(now time.Duration) time.Duration {
	next := now + time.Hour
	for _, a := range w.asks {
		if !a.late {
			next = min(next, a.at+w.patience()+time.Millisecond)
			break
		}
	}
	if w.expect > 0 && w.State == Alive {
		next = min(next, max(w.expect, now))
	}
	return next
}

func (w *Way) first(now time.Duration) time.Duration {
	if w.born == 0 {
		w.born = max(now, 1)
	}
	return w.born
}

// Worse says in what respect the way is worse than it usually is: much slower, or lossy. "" if it is not.
func (w *Way) Worse() string {
	switch {
	case w.Loss > 0.15:
		return fmt.Sprintf("%.0f %% loss", 100*w.Loss)
	case w.usual > 0 && w.RTT > w.usual+max(50*time.Millisecond, w.usual):
		return fmt.Sprintf("round trip %v, usually %v", w.RTT.Round(time.Millisecond), w.usual.Round(time.Millisecond))
	}
	return ""
}
