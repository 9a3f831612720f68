package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"seaway.dev/seaway/drill/sight"
)

// Hands do what a drill says. They are the field's, or a test's.
type Hands interface {
	// Notes returns what the client has noted since it was last asked.
	Notes() ([]sight.Note, error)
	// Inject makes the fault and says what it did. It may have done half of it when it fails.
	Inject(ctx context.Context) (string, error)
	// Undo undoes it, also if only half of it was done, or nothing. It is called until it succeeds, a few times.
	Undo(ctx context.Context) (string, error)
}

// Options of a run.
type Options struct {
	Hold  time.Duration // how long the fault stays
	Guard Guard
	Tell  func(string) // progress; nil is nobody
}

const (
	glance   = 100 * time.Millisecond // between two looks at the notes
	calm     = 3 * time.Second        // everything must work for so long before, and a third of it after
	patience = 60 * time.Second       // for everything to work again
	undoing  = 20 * time.Second       // for one try at undoing
	tries    = 5
)

// ErrNotCalm says that nothing was done, because something is wrong already.
var ErrNotCalm = errors.New("something fails already, so nothing was done")

type run struct {
	Options
	hands Hands
	notes []sight.Note
	rec   *Record
	lag   time.Duration // see read
	heard bool          // lag is known
}

// Run runs a drill. What it did is in the record, whatever the error; the fault is undone in any case, also when ctx
// ends meanwhile.
func Run(ctx context.Context, rec *Record, h Hands, o Options) error {
	if o.Hold <= 0 || o.Hold > Longest {
		return fmt.Errorf("a fault of %s: it may stay for up to %s", o.Hold, Longest)
	}
	if o.Tell == nil {
		o.Tell = func(string) {}
	}
	r := &run{Options: o, hands: h, rec: rec}
	rec.Began, rec.Recovered = time.Now(), -1
	if err := r.calm(ctx); err != nil {
		return err
	}
	rec.Fault = time.Now()
	did, err := h.Inject(ctx)
	r.did(did)
	if err == nil {
		err = r.hold(ctx)
	}
	undone := r.undo(context.WithoutCancel(ctx))
	rec.Undone = time.Now()
	if undone == nil && ctx.Err() == nil {
		r.recover(ctx)
	}
	rec.Flows = sight.Look(r.notes, rec.Fault, time.Now())
	rec.Answers = Histogram(r.notes, rec.Fault)
	return errors.Join(err, undone)
}

func (r *run) did(what string) {
	if what != "" {
		r.rec.Did = append(r.rec.Did, what)
		r.Tell(what)
	}
}

// read takes the newest notes and puts them into this machine's time. The client runs on a node, this command perhaps on
// a laptop, and their clocks differ: a note comes a moment after it was taken, so the shortest time from its end to its
// coming is by how much. What was read before is put right when a shorter one is seen.
func (r *run) read() error {
	more, err := r.hands.Notes()
	now, lag := time.Now(), r.lag
	for _, n := range more {
		if late := now.Sub(n.End); !r.heard || late < lag {
			lag, r.heard = late, true
		}
	}
	for i := range more {
		more[i] = moved(more[i], lag)
	}
	if lag != r.lag && len(r.notes) > 0 {
		for i := range r.notes {
			r.notes[i] = moved(r.notes[i], lag-r.lag)
		}
	}
	r.lag, r.notes = lag, append(r.notes, more...)
	return err
}

func moved(n sight.Note, by time.Duration) sight.Note {
	n.Begin, n.End = n.Begin.Add(by), n.End.Add(by)
	return n
}

// calm watches before anything is done: a drill on something that fails already proves nothing and does harm.
func (r *run) calm(ctx context.Context) error {
	if err := r.watch(ctx, calm, func() bool { return false }); err != nil {
		return err
	}
	for flow, s := range sight.Look(r.notes, time.Now().Add(-calm/2), time.Now()) {
		if s.Errors > 0 || s.Good == 0 {
			return fmt.Errorf("%w: %s had %d good answers and %d errors in the last %s", ErrNotCalm, flow, s.Good, s.Errors, calm/2)
		}
	}
	if len(r.notes) == 0 {
		return fmt.Errorf("%w: the client had no answer at all", ErrNotCalm)
	}
	return nil
}

// hold lets the fault stay until its time is over or the guard is broken.
func (r *run) hold(ctx context.Context) error {
	return r.watch(ctx, r.Hold, func() bool {
		why, broken := r.Guard.Broken(r.notes, time.Now())
		if broken {
			r.rec.Aborted = why
			r.did("aborted: " + why)
		}
		return broken
	})
}

func (r *run) undo(ctx context.Context) error {
	var err error
	for range tries {
		one, cancel := context.WithTimeout(ctx, undoing)
		var did string
		did, err = r.hands.Undo(one)
		cancel()
		r.did(did)
		if err == nil {
			return nil
		}
		r.did("undoing failed, tried again: " + err.Error())
		time.Sleep(time.Second)
	}
	return fmt.Errorf("NOT UNDONE after %d tries: %w", tries, err)
}

// recover watches until every flow has worked for a while.
func (r *run) recover(ctx context.Context) {
	err := r.watch(ctx, patience, func() bool {
		now := time.Now()
		if now.Sub(r.rec.Undone) < calm/3 {
			return false
		}
		flows := sight.Look(r.notes, now.Add(-calm/3), now)
		for _, s := range flows {
			if s.Errors > 0 || s.Good == 0 || s.Gap > calm/6 {
				return false
			}
		}
		if len(flows) > 0 {
			r.rec.Recovered = now.Add(-calm / 3).Sub(r.rec.Undone)
		}
		return len(flows) > 0
	})
	if err != nil {
		r.did("the client's notes ended: " + err.Error())
	}
}

// watch reads notes for a time, or until f says that it is enough.
func (r *run) watch(ctx context.Context, d time.Duration, f func() bool) error {
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(glance):
		}
		if err := r.read(); err != nil {
			return err
		}
		if f() {
			return nil
		}
	}
	return nil
}
