package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/e2e/chaos"
	"seaway.dev/seaway/e2e/stage"
	"seaway.dev/seaway/e2e/story"
)

// TestStory plays every story, on one lab. It wants root and SEAWAY_E2E=1, because it starts clusters.
//
//	SEAWAY_E2E=1         play
//	SEAWAY_KEEP=1        leave the lab up, and what a failed story made
//	SEAWAY_ONCE=1        no second try for a story that failed
//	SEAWAY_BIN           the product's program instead of one built from this tree
//	SEAWAY_LAB_BIN       the lab's
//	SEAWAY_IMAGE         the image to install, which is in the nodes already
//	SEAWAY_SLACK         how many times its bar a time may be before a story fails for it (4); 1 judges the bars themselves
//	OUT                  write the results as JSON to this file
//	RUNS, FAULTS, HOLD   $RUNS (1), $FAULTS (a few short ones) and $HOLD (each its own time) in stories that play many rounds
//	BOOK, COMMIT         keep the figures of faults in this file, together with those it has of the same commit
//	MOVES, LOSSES        $MOVES and $LOSSES in story identity; a tenth and a twentieth of RUNS, at least 1
func TestStory(t *testing.T) {
	if os.Getenv("SEAWAY_E2E") != "1" {
		t.Skip("SKIPPED: stories start real clusters; SEAWAY_E2E=1 plays them (or make e2e)")
	}
	if os.Geteuid() != 0 {
		t.Fatal("stories start clusters of namespaces: run them as root")
	}
	conf, err := stage.Config{Out: os.Stdout, Seaway: os.Getenv("SEAWAY_BIN"), Lab: os.Getenv("SEAWAY_LAB_BIN"), Image: os.Getenv("SEAWAY_IMAGE")}.Here()
	if err != nil {
		t.Fatal(err)
	}
	keep := os.Getenv("SEAWAY_KEEP") == "1"
	once := os.Getenv("SEAWAY_ONCE") == "1"
	s := stage.New(conf)
	ctx := context.Background()
	if err := s.Build(ctx); err != nil {
		t.Fatal(err)
	}
	e := &story.Engine{
		Stage: s, Out: os.Stdout, Poll: 300 * time.Millisecond, Limit: 6 * time.Minute, Keep: keep,
		Artefacts: filepath.Join(conf.Cache, "artefacts"),
	}
	if e.Slack, err = strconv.ParseFloat(cmp.Or(os.Getenv("SEAWAY_SLACK"), "4"), 64); err != nil || e.Slack < 1 {
		t.Fatalf("SEAWAY_SLACK=%s: want a number from 1 on", os.Getenv("SEAWAY_SLACK"))
	}
	e.Book, e.Commit = os.Getenv("BOOK"), cmp.Or(os.Getenv("COMMIT"), "unknown")
	e.Vars = map[string]string{"RUNS": cmp.Or(os.Getenv("RUNS"), "1"), "FAULTS": cmp.Or(os.Getenv("FAULTS"), "short")}
	if _, err := chaos.Find(strings.Split(e.Vars["FAULTS"], ",")); err != nil { // now, and not after two minutes
		t.Fatalf("FAULTS: %v", err)
	}
	if e.Book != "" {
		if _, err := chaos.OpenBook(e.Book, e.Commit); err != nil {
			t.Fatal(err)
		}
	}
	e.Vars["HOLD"] = cmp.Or(os.Getenv("HOLD"), "0s")
	e.Vars["RESTARTS"] = cmp.Or(os.Getenv("RUNS"), "2")
	n, _ := strconv.Atoi(e.Vars["RESTARTS"]) // of no number it is said below
	e.Vars["MOVES"] = cmp.Or(os.Getenv("MOVES"), strconv.Itoa(max(n/10, 1)))
	e.Vars["LOSSES"] = cmp.Or(os.Getenv("LOSSES"), strconv.Itoa(max(n/20, 1)))
	e.Vars["ETCD_ROUNDS"] = cmp.Or(os.Getenv("RUNS"), "3") // each kind of fault once
	if n, err := strconv.Atoi(e.Vars["RUNS"]); err != nil || n < 1 {
		t.Fatalf("RUNS=%s: want how often", e.Vars["RUNS"])
	} else if n > 1 || os.Getenv("FAULTS") != "" {
		e.Limit = 12 * time.Hour // of many rounds, each has limits of its own
	}
	files, err := story.Find("stories")
	if err != nil {
		t.Fatal(err)
	}
	played := 0
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			played++
			if once {
				e.Play(t, f)
				return
			}
			first := &attempt{t: t}
			if first.play(e, f) {
				return
			}
			// Two busy cores can make a deadline miss. A second try, on a lab of its own so that nothing is left of the first,
			// tells that from a fault; both are in the results, and the first is told loudly.
			t.Logf("FAILED AT THE FIRST TRY, played again on a new lab: %s", filepath.Base(f))
			if err := s.Down(ctx); err != nil {
				t.Fatalf("take the lab down: %v", err)
			}
			e.Play(t, f)
		})
	}
	if played > 0 && !keep {
		if err := s.Down(ctx); err != nil {
			t.Errorf("take the lab down: %v", err)
		}
	}
	t.Cleanup(func() { fmt.Print(e.Summary()) })
	if out := os.Getenv("OUT"); out != "" {
		b, err := json.MarshalIndent(e.Results, "", "  ")
		if err == nil {
			err = os.WriteFile(out, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// attempt is a try whose failure is not yet the test's.
type attempt struct {
	t      *testing.T
	failed bool
}

func (a *attempt) play(e *story.Engine, file string) (passed bool) {
	done := make(chan struct{})
	go func() { // FailNow ends the goroutine it is called in
		defer close(done)
		e.Play(a, file)
	}()
	<-done
	return !a.failed
}

func (a *attempt) Log(args ...any)   { a.t.Log(args...) }
func (a *attempt) Skip(args ...any)  { a.t.Log(args...); runtime.Goexit() }
func (a *attempt) Fatal(args ...any) { a.t.Log(args...); a.FailNow() }
func (a *attempt) FailNow()          { a.failed = true; runtime.Goexit() }
