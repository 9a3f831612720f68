package drill

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/drill/sight"
)

// hands answer a question every 10 ms: well, or as broken says while the fault lasts.
type hands struct {
	last    time.Time
	broken  string // outcome of all questions while injected; "" is ok
	share   int    // of ten questions, so many are broken; 0 is all
	sick    bool   // also before and after
	inject  error
	undo    []error // of the tries
	now     bool    // injected
	undos   int
	started time.Time
	lasted  time.Duration
	clock   time.Duration // by how much the client's clock is ahead
}

func (h *hands) Notes() ([]sight.Note, error) {
	var out []sight.Note
	for i := 0; h.last.Before(time.Now()); i++ {
		h.last = h.last.Add(10 * time.Millisecond)
		n := sight.Note{Flow: "dial", Outcome: "ok", Begin: h.last.Add(h.clock - 3*time.Millisecond), End: h.last.Add(h.clock)}
		if (h.now || h.sick) && h.broken != "" && (h.share == 0 || i%10 < h.share) {
			n.Outcome = h.broken
		}
		out = append(out, n)
	}
	return out, nil
}

func (h *hands) Inject(context.Context) (string, error) {
	h.now, h.started = true, time.Now()
	return "did it", h.inject
}

func (h *hands) Undo(ctx context.Context) (string, error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	h.undos++
	if len(h.undo) >= h.undos && h.undo[h.undos-1] != nil {
		return "", h.undo[h.undos-1]
	}
	if h.now {
		h.now, h.lasted = false, time.Since(h.started)
	}
	return "undid it", nil
}

func drill(ctx context.Context, h *hands, hold time.Duration) (Record, error) {
	h.last = time.Now()
	var rec Record
	err := Run(ctx, &rec, h, Options{Hold: hold, Guard: DefaultGuard})
	return rec, err
}

func TestADrillThatHurtsLittleRunsItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hands{broken: "reset", share: 3}
		rec, err := drill(t.Context(), h, 10*time.Second)
		if err != nil || rec.Aborted != "" || h.now || h.lasted < 10*time.Second {
			t.Fatalf("%v, aborted %q, injected %v, lasted %s", err, rec.Aborted, h.now, h.lasted)
		}
		s := rec.Flows["dial"]
		if s.Resets < 250 || s.Resets > 350 || rec.Recovered < 0 || rec.Recovered > 2*time.Second {
			t.Errorf("%d resets, recovered %s", s.Resets, rec.Recovered)
		}
		text := rec.String()
		for _, want := range []string{"did it", "undid it", "≤ 5ms", "recovered"} {
			if !strings.Contains(text, want) {
				t.Errorf("the record does not say %q:\n%s", want, text)
			}
		}
	})
}

// TestClocksOfTwoMachines: the client's clock is a minute ahead, or behind, and the drill sees the same.
func TestClocksOfTwoMachines(t *testing.T) {
	for _, clock := range []time.Duration{-time.Minute, -2 * time.Second, 0, 2 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			h := &hands{broken: "reset", share: 3, clock: clock}
			rec, err := drill(t.Context(), h, 10*time.Second)
			s := rec.Flows["dial"]
			if err != nil || rec.Aborted != "" || s.Resets < 250 || s.Resets > 350 || rec.Recovered < 0 || rec.Recovered > 2*time.Second {
				t.Errorf("clock %s ahead: %v, aborted %q, %d resets, recovered %s", clock, err, rec.Aborted, s.Resets, rec.Recovered)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			h := &hands{broken: "refused", clock: clock}
			rec, err := drill(t.Context(), h, time.Minute)
			if err != nil || rec.Aborted == "" || h.lasted > 3*time.Second {
				t.Errorf("clock %s ahead: %v, aborted %q after %s", clock, err, rec.Aborted, h.lasted)
			}
		})
	}
}

func TestTheGuardEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hands{broken: "refused"}
		rec, err := drill(t.Context(), h, time.Minute)
		if err != nil || rec.Aborted == "" || h.now || h.lasted > 3*time.Second {
			t.Errorf("%v, aborted %q, still injected %v, lasted %s", err, rec.Aborted, h.now, h.lasted)
		}
	})
}

func TestSilenceBreaksTheGuard(t *testing.T) {
	now := time.Unix(1000, 0)
	if _, broken := DefaultGuard.Broken([]sight.Note{{Outcome: "ok", End: now.Add(-3 * time.Second)}}, now); !broken {
		t.Error("nobody answered for three seconds, and nothing is broken")
	}
	if why, broken := DefaultGuard.Broken([]sight.Note{{Outcome: "reset", End: now}}, now); broken {
		t.Errorf("one error of one question proves nothing: %s", why)
	}
}

func TestNothingIsDoneToWhatFailsAlready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hands{broken: "timeout", sick: true}
		if _, err := drill(t.Context(), h, time.Second); !errors.Is(err, ErrNotCalm) || !h.started.IsZero() {
			t.Errorf("%v, injected at %v", err, h.started)
		}
	})
}

func TestItIsUndoneWhateverHappens(t *testing.T) {
	for name, c := range map[string]struct {
		h      *hands
		cancel time.Duration
		want   string
	}{
		"half injected":         {&hands{inject: errors.New("no right")}, time.Hour, "no right"},
		"interrupted":           {&hands{}, 5 * time.Second, "canceled"},
		"undone at the third":   {&hands{undo: []error{errors.New("a"), errors.New("b")}}, time.Hour, ""},
		"interrupted and hard":  {&hands{undo: []error{errors.New("a")}}, 5 * time.Second, "canceled"},
		"never undone is cried": {&hands{undo: []error{errors.New("x"), errors.New("x"), errors.New("x"), errors.New("x"), errors.New("x")}}, time.Hour, "NOT UNDONE"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(c.cancel, cancel)
			_, err := drill(ctx, c.h, 10*time.Second)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			if c.h.now != (c.want == "NOT UNDONE") {
				t.Errorf("%s: still injected: %v", name, c.h.now)
			}
		})
	}
}

func TestAFaultMayNotStayForEver(t *testing.T) {
	var rec Record
	for _, d := range []time.Duration{0, -1, Longest + 1} {
		if err := Run(t.Context(), &rec, &hands{}, Options{Hold: d}); err == nil {
			t.Errorf("%s was accepted", d)
		}
	}
	if _, err := Find("nonsense"); err == nil || !strings.Contains(err.Error(), "delete-pod") {
		t.Errorf("an unknown drill is told what there is: %v", err)
	}
}
