// Package story plays stories: text files that say what happens on real clusters and what must be true then, so that
// somebody who does not program can read them, and check them.
//
//	# Two clusters have the same addresses; a slice lets their pods talk.
//	fleet c1 c2
//	namespace shop in c1 c2
//	app shop/web in c1
//	pod shop/client in c2
//	in hub seaway slice create shop --prefix 10.77.0.0/16 --namespace shop
//	in c1 seaway export web -n shop
//	eventually 30s from c2/shop/client get http://web.shop.svc.clusterset.local:8080/ shows 'cluster=c1'
//
// A story is a script of github.com/rogpeppe/go-internal/testscript; its verbs are in [Help]. Any verb's line may end
// with `shows REGEX…` (each must match what the verb printed) and `hides REGEX…` (none may); a `!` before a verb says
// that it must fail. Nothing sleeps: `eventually` and `never` look at a condition again and again.
//
// Stories share one lab and one installation; what a story made is removed when it ends. When one fails, everything
// for a post-mortem is collected into a folder before that.
package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"seaway.dev/seaway/e2e/autoscale"
	"seaway.dev/seaway/e2e/chaos"
	"seaway.dev/seaway/e2e/stage"
)

// Engine plays stories on a stage.
type Engine struct {
	Stage     *stage.Stage
	Artefacts string            // folder for post-mortems
	Out       io.Writer         // told line by line while a story goes
	Poll      time.Duration     // between two looks at a condition
	Limit     time.Duration     // for one story
	Keep      bool              // leave what a failed story made, to look at
	Vars      map[string]string // $NAME in stories: RUNS, FAULTS
	// Slack is how many times what a bar says a time may take before a story fails for it; 1 judges the bars themselves.
	// What passed a bar is told in any case: two busy cores can be slow, and slow is not broken.
	Slack float64
	// Book is the file that keeps the figures of faults that are played many times, "" for none, and Commit what they are of.
	Book, Commit string

	Results []Result
}

// Result is how one story went.
type Result struct {
	Story    string    `json:"story"`
	Passed   bool      `json:"passed"`
	Seconds  float64   `json:"seconds"`
	Measures []Measure `json:"measures,omitempty"`
	Records  []any     `json:"records,omitempty"` // each round of a verb that plays many
	Said     []string  `json:"said,omitempty"`
	Failure  string    `json:"failure,omitempty"`
}

// Measure is one figure that a story took.
type Measure struct {
	Label string  `json:"label"`
	Value float64 `json:"value"`
	Bar   float64 `json:"bar,omitempty"` // it was to be under this
	Unit  string  `json:"unit"`
}

// T is what the engine needs of a test.
type T interface {
	Skip(...any)
	Fatal(...any)
	Log(...any)
	FailNow()
}

// Play plays the story in a file. It reports to t and adds to e.Results.
func (e *Engine) Play(t T, file string) {
	name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	ctx, cancel := context.WithTimeoutCause(context.Background(), e.Limit, fmt.Errorf("a story may take %s", e.Limit))
	p := &play{engine: e, stage: e.Stage, ctx: ctx, name: name, remembered: map[string]string{}, running: map[string]*running{}, sites: map[string]*autoscale.Site{}}
	r := Result{Story: name}
	start := time.Now()
	shim := &reporter{T: t, play: p}
	defer func() {
		cancel()
		r.Passed = !shim.failed
		r.Seconds = round(time.Since(start).Seconds())
		r.Measures, r.Records, r.Said, r.Failure = p.measures, p.records, p.said, p.failure
		e.Results = append(e.Results, r)
		e.tell("%-8s %s (%.1f s)", map[bool]string{true: "passed", false: "FAILED"}[r.Passed], name, r.Seconds)
	}()
	e.tell("\nstory    %s", name)
	testscript.RunT(shim, testscript.Params{
		Files: []string{file}, Cmds: p.commands(), Condition: p.condition, Setup: p.begin, RequireUniqueNames: true,
	})
}

func round(f float64) float64 { return float64(int(f*10+0.5)) / 10 }

func (e *Engine) tell(format string, args ...any) {
	if e.Out != nil {
		fmt.Fprintf(e.Out, format+"\n", args...)
	}
}

// Summary is what people want to know at the end: the times that passed their bars, and each failure once more.
func (e *Engine) Summary() string {
	var b strings.Builder
	for _, r := range e.Results {
		for _, m := range r.Measures {
			if m.Bar > 0 && m.Value >= m.Bar {
				fmt.Fprintf(&b, "over its bar: %s: %s %g %s (%g)\n", r.Story, m.Label, m.Value, m.Unit, m.Bar)
			}
		}
		for _, rec := range r.Records {
			rep, _ := rec.(chaos.Report)
			for _, v := range rep.Verdicts {
				if v.Over {
					fmt.Fprintf(&b, "over its bar: %s: %s: %s: %s\n", r.Story, rep.Fault, v.Expect, v.Saw)
				}
			}
		}
	}
	for _, r := range e.Results {
		if !r.Passed {
			fmt.Fprintf(&b, "failed try: %s after %.0f s: %s\n", r.Story, r.Seconds, clipLines(r.Failure, 30))
		}
	}
	return b.String()
}

// clipLines keeps the first n lines.
func clipLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[:min(n, len(lines))], "\n  ")
}

// play is one story while it goes.
type play struct {
	engine     *Engine
	stage      *stage.Stage
	ctx        context.Context
	name       string
	script     *testscript.TestScript // of the line that is being played
	remembered map[string]string
	running    map[string]*running
	sites      map[string]*autoscale.Site // of the autoscaler's stories, by cluster
	measures   []Measure
	records    []any
	said       []string
	failure    string
	dirty      bool // something was made that must be removed
	collected  bool
}

func (p *play) begin(env *testscript.Env) error {
	env.Defer(p.end)
	env.Setenv("IMAGE", p.stage.Image)
	for name, value := range p.engine.Vars {
		env.Setenv(name, value)
	}
	return nil
}

// end leaves the stage as the story found it.
func (p *play) end() {
	for _, r := range p.running {
		r.stop(time.Second)
	}
	if !p.dirty || (p.engine.Keep && p.failure != "") {
		return
	}
	// Of its own time: a story that ran out of it must be cleaned up, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 3*time.Minute)
	defer cancel()
	start := time.Now()
	removed := stage.Each(slices.Collect(maps.Keys(p.sites)), func(c string) error { return autoscale.Remove(ctx, p.stage, c) })
	if err := errors.Join(removed, p.stage.Clean(ctx)); err != nil {
		p.engine.tell("  the story could not be cleaned up: %v", err)
		p.note("clean-up: " + err.Error())
		return
	}
	p.engine.tell("  %6.1fs cleaned up", time.Since(start).Seconds())
}

func (p *play) note(s string) { p.said = append(p.said, s) }

// failed saves what one needs to find out why, before anything is cleaned up.
func (p *play) failed(line string, err error) {
	if p.failure == "" {
		p.failure = line + ": " + err.Error()
	}
	if p.collected || !p.dirty {
		return
	}
	p.collected = true
	dir := filepath.Join(p.engine.Artefacts, p.name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), time.Minute)
	defer cancel()
	os.RemoveAll(dir)
	if cerr := p.stage.Collect(ctx, dir); cerr != nil {
		p.engine.tell("  could not collect everything for a post-mortem: %v", cerr)
	}
	os.WriteFile(filepath.Join(dir, "failure.txt"), []byte(p.failure+"\n"), 0o644)
	p.engine.tell("\nFAILED   %s\n  %s\n\nTo look into it:\n  ls %s\n  %s kubectl c1 get pods -A   (SEAWAY_KEEP=1 leaves the clusters up)\n",
		line, strings.ReplaceAll(err.Error(), "\n", "\n  "), dir, p.stage.Lab)
}

// commands makes testscript's commands of the verbs.
func (p *play) commands() map[string]func(*testscript.TestScript, bool, []string) {
	cmds := map[string]func(*testscript.TestScript, bool, []string){}
	for name := range verbs() {
		cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			words := append([]string{name}, args...)
			if neg {
				words = append([]string{"!"}, words...)
			}
			p.script = ts
			line := strings.Join(words, " ")
			start := time.Now()
			out, err := p.do(p.ctx, words)
			p.engine.tell("  %6.1fs %s", time.Since(start).Seconds(), clip(line, 150))
			fmt.Fprint(ts.Stdout(), out)
			if err != nil {
				p.failed(line, err)
				ts.Fatalf("%v", err)
			}
		}
	}
	return cmds
}

func clip(s string, n int) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// condition answers [sctp] and the like.
func (p *play) condition(cond string) (bool, error) {
	if cond == "sctp" {
		return kernelHasSCTP(), nil
	}
	return false, fmt.Errorf("unknown condition %q: there is sctp", cond)
}

// reporter gives testscript the test to report to. Stories go one after the other: they share the clusters.
type reporter struct {
	T
	play   *play
	failed bool
}

func (r *reporter) Run(_ string, f func(testscript.T)) { f(r) }
func (r *reporter) Parallel()                          {}
func (r *reporter) Verbose() bool                      { return false }

func (r *reporter) FailNow() {
	r.failed = true
	r.T.FailNow()
}

func (r *reporter) Fatal(args ...any) {
	r.failed = true
	r.T.Fatal(args...)
}

// Find lists the stories of a folder: first-slice first (if that fails, the others would), uninstalling last.
func Find(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no stories in %s", dir)
	}
	rank := func(f string) int {
		switch filepath.Base(f) {
		case "first-slice.txtar":
			return 0
		case "uninstall-leaves-nothing.txtar":
			return 2
		}
		return 1
	}
	slices.SortStableFunc(files, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return files, nil
}
