package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/drill/sight"
	"seaway.dev/seaway/e2e/logbook"
	"seaway.dev/seaway/e2e/stage"
)

// Namespace is where the load runs. It must be on a slice, in c1, c2 and c3.
const Namespace = "load"

// Player plays faults on a lab with a load.
type Player struct {
	Stage *stage.Stage
	Do    func(ctx context.Context, words []string) (string, error) // plays a line of the stories' language
	Tell  func(string, ...any)
	Slack float64 // see [Fault.Judge]
	Book  *Book   // keeps the figures; nil: nobody does

	logs   *logbook.Folder
	notes  []sight.Note
	vars   map[string]string
	layout stage.Layout
	quiet  time.Time // since when nothing was done to the lab
}

const (
	settling = 90 * time.Second // for everything to work again
	calm     = 2 * time.Second  // how long everything must have worked
)

// Play plays each fault so often, one after the other. What happens in one does not keep the others from being played;
// the error says which did not go as expected. Runs that the book has already are judged together with the new ones.
func (p *Player) Play(ctx context.Context, faults []Fault, runs int, done func(Report)) error {
	var errs []error
	for _, f := range faults {
		r := p.fault(ctx, f, runs)
		done(r)
		if !r.Held() {
			errs = append(errs, fmt.Errorf("%s\n%s", f.Name, r))
		}
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%d of %d faults did not go as expected: %w", len(errs), len(faults), errors.Join(errs...))
	}
	return nil
}

// fault plays one fault's runs. One that cannot be played to its end does not end the series; two of them in a row do.
func (p *Player) fault(ctx context.Context, f Fault, runs int) Report {
	var r Report
	if p.Book != nil {
		r = p.Book.Of(f.Name)
	}
	r.Fault, r.Tells = f.Name, f.Tells
	p.Tell("  fault %s: %s", f.Name, f.Tells)
	if n := len(r.Runs); n > 0 {
		p.Tell("    %d runs of it are kept", n)
	}
	for i, failed := 0, 0; i < runs && failed < 2 && ctx.Err() == nil; i++ {
		err := error(nil)
		if i == 0 || failed > 0 {
			err = p.ready(ctx, f)
		}
		var run Run
		if err == nil {
			run, err = p.run(ctx, f)
		}
		if err == nil {
			failed = 0
			r.Runs = append(r.Runs, run)
			p.Tell("    run %d of %d: %s", i+1, runs, brief(run))
		} else {
			failed++
			r.Errors = append(r.Errors, err.Error())
			p.Tell("    run %d of %d FAILED: %v", i+1, runs, err)
			p.mend(ctx, f)
		}
		p.sum(&r, f)
	}
	if err := p.lines(context.WithoutCancel(ctx), f.After); err != nil {
		r.Errors = append(r.Errors, err.Error())
		p.mend(ctx, f)
		p.sum(&r, f)
	}
	return r
}

// mend undoes what a run that failed has left.
func (p *Player) mend(ctx context.Context, f Fault) {
	ctx = context.WithoutCancel(ctx)
	err := p.lines(ctx, f.After)
	if err := errors.Join(err, p.Stage.Mend(ctx)); err != nil {
		p.Tell("  the lab cannot be mended: %v", err)
	}
	for _, l := range lines(links("heal"), wan("--loss 0% --jitter 0s --delay 10ms")) { // mending clears the links' delay, too
		if err := p.lines(ctx, []string{l}); err != nil {
			p.Tell("  %v", err)
		}
	}
}

// sum sums up a fault's runs, and keeps them.
func (p *Player) sum(r *Report, f Fault) {
	r.Rows = rows(r.Runs)
	if len(r.Runs) > 0 {
		var err error
		if r.Verdicts, err = f.Judge(r.Runs, max(p.Slack, 1)); err != nil {
			r.Errors = append(r.Errors, err.Error())
		}
	}
	if p.Book != nil {
		if err := p.Book.Put(*r); err != nil {
			p.Tell("  %v", err)
		}
	}
}

// ready makes what is given before the fault.
func (p *Player) ready(ctx context.Context, f Fault) error {
	have := p.layout.Machines()
	for _, m := range f.Needs {
		if !slices.Contains(have, m) {
			return fmt.Errorf("the lab has no machine %s: take it down, and start it with `seaway-lab up --config e2e/chaos/lab.yaml`", m)
		}
	}
	if err := p.logs.Empty(); err != nil {
		return err
	}
	if len(f.Given) == 0 {
		return nil // a run settles itself
	}
	if err := p.settle(ctx, true); err != nil {
		return fmt.Errorf("before %s: %w", f.Name, err)
	}
	return p.lines(ctx, f.Given)
}

// run plays a fault once, and undoes it whatever happens.
func (p *Player) run(ctx context.Context, f Fault) (r Run, err error) {
	began := time.Now()
	if err := p.settle(ctx, len(f.Given) == 0); err != nil {
		return r, err
	}
	if err := p.look(ctx, f); err != nil {
		return r, err
	}
	r = Run{Fault: f.Name, Relay: p.vars["RELAY"], Flips: -1}
	r.Settled = time.Since(began)
	watch := p.watch(ctx, f)
	defer watch()
	r.At = time.Now()
	undone := false
	undo := func() error {
		if undone {
			return nil
		}
		undone = true
		return p.lines(context.WithoutCancel(ctx), f.Undo)
	}
	defer func() { err = errors.Join(err, undo()) }()
	if err := p.read(); err != nil {
		return r, err
	}
	r.Noise = p.noise(r.At)
	if err := p.lines(ctx, f.Inject); err != nil {
		return r, err
	}
	made := time.Now() // a busy machine may take seconds for that
	r.Took = made.Sub(r.At)
	if err := p.until(ctx, made.Add(f.Hold)); err != nil {
		return r, err
	}
	end := time.Now()
	if f.Watch > f.Hold {
		if err := undo(); err != nil {
			return r, err
		}
		end = made.Add(f.Watch)
		if now := time.Now(); end.Before(now) {
			end = now
		}
		if err := p.until(ctx, end); err != nil {
			return r, err
		}
	}
	if err := p.until(ctx, time.Now().Add(100*time.Millisecond)); err != nil { // clients write their logs every 25 ms
		return r, err
	}
	r.Flows = sight.Look(p.notes, r.At, end)
	for _, f := range p.flows() {
		if _, any := r.Flows[f]; !any {
			r.Flows[f] = sight.Silent(r.At, end)
		}
	}
	r.Flips = watch()
	err = undo()
	r.Lasted = time.Since(began)
	return r, err
}

// noise is the longest gap of any flow in the calm before a moment; of big questions there are few.
func (p *Player) noise(at time.Time) time.Duration {
	small := slices.DeleteFunc(slices.Clone(p.notes), func(n sight.Note) bool { return strings.HasSuffix(n.Flow, ".big") })
	return sight.Longest(small, at.Add(-calm), at)
}

func brief(r Run) string {
	var hurt []string
	for _, row := range rows([]Run{r}) {
		if row.Mend.N > 0 {
			hurt = append(hurt, fmt.Sprintf("%s %d ms", row.Flow, row.Gap.Max.Milliseconds()))
		}
	}
	busy := fmt.Sprintf("%.1f s: settled in %.1f, made in %.1f; noise %d ms", r.Lasted.Seconds(), r.Settled.Seconds(), r.Took.Seconds(), r.Noise.Milliseconds())
	if len(hurt) == 0 {
		return "no flow was hurt (" + busy + ")"
	}
	return "longest gaps: " + strings.Join(hurt, ", ") + " (" + busy + ")"
}

// lines plays lines, all of them even if one fails.
func (p *Player) lines(ctx context.Context, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	defer func() { p.quiet = time.Now() }()
	var errs []error
	for _, l := range lines {
		words, err := split(p.expand(l))
		if err == nil {
			err = p.line(ctx, words)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l, err))
		}
	}
	return errors.Join(errs...)
}

func (p *Player) line(ctx context.Context, words []string) error {
	switch words[0] {
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			return err
		}
		return p.until(ctx, time.Now().Add(d))
	case "router": // a command in the namespace of the lab's WAN router
		_, _, err := p.Stage.Runner.Run(ctx, stage.Command{Args: append([]string{"ip", "netns", "exec", "seaway-router"}, words[1:]...)})
		return err
	}
	_, err := p.Do(ctx, words)
	return err
}

// expand puts in what is known only now.
func (p *Player) expand(line string) string {
	for _, name := range []string{"RELAYNODE", "RELAY", "FARUID", "C2"} {
		line = strings.ReplaceAll(line, "$"+name, p.vars[name])
	}
	return line
}

// split cuts a line into words; single quotes keep spaces.
func split(line string) ([]string, error) {
	var out []string
	var word strings.Builder
	quoted, any := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, any = !quoted, true
		case r == ' ' && !quoted:
			if any {
				out = append(out, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(r)
			any = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("%q: a quote is open", line)
	}
	if any {
		out = append(out, word.String())
	}
	if len(out) == 0 {
		return nil, errors.New("an empty line")
	}
	return out, nil
}

// until reads what clients note until a moment.
func (p *Player) until(ctx context.Context, end time.Time) error {
	for {
		if err := p.read(); err != nil {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, 100*time.Millisecond)):
		}
	}
}

func (p *Player) read() error {
	more, err := p.logs.More()
	if err != nil {
		return err
	}
	for name, text := range more {
		list, err := sight.Read(strings.NewReader(text))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.notes = append(p.notes, list...)
	}
	return nil
}

// settle waits until every flow has worked for a while without a fault. That while begins when the last fault was undone:
// what went unnoticed need not be waited for. The controls past the slice are waited for only if they can work.
func (p *Player) settle(ctx context.Context, plain bool) error {
	from, old := p.quiet, time.Now().Add(-2*calm)
	p.notes = slices.DeleteFunc(p.notes, func(n sight.Note) bool { return n.End.Before(old) })
	ctx, cancel := context.WithTimeoutCause(ctx, settling, fmt.Errorf("waited %s", settling))
	defer cancel()
	return stage.Eventually(ctx, 100*time.Millisecond, func() error {
		if err := p.read(); err != nil {
			return err
		}
		now := time.Now()
		if now.Sub(from) < calm {
			return errors.New("not yet calm")
		}
		flows := sight.Look(p.notes, now.Add(-calm), now)
		var errs []error
		for _, f := range p.flows() {
			if !plain && strings.HasPrefix(f, "plain") {
				continue
			}
			if s := flows[f]; s.Good < 5 || s.Errors > 0 || s.Gap > calm*3/4 {
				errs = append(errs, fmt.Errorf("%s: %d good answers, %d errors, a gap of %s in the last %s", f, s.Good, s.Errors, s.Gap.Round(time.Millisecond), calm))
			}
		}
		return errors.Join(errs...)
	})
}

// look learns what the lines of a fault may name.
func (p *Player) look(ctx context.Context, f Fault) error {
	text := strings.Join(lines(f.Inject, f.Undo), " ")
	if strings.Contains(text, "$RELAY") {
		err := stage.Await(ctx, 30*time.Second, func() error {
			out, err := p.Do(ctx, []string{"paths", "c1"})
			if err != nil {
				return err
			}
			p.vars["RELAY"], p.vars["RELAYNODE"] = relay(out)
			if p.vars["RELAY"] == "" {
				return fmt.Errorf("no gateway relays from c1n1 to c2n1:\n%s", out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if strings.Contains(text, "$FARUID") {
		out, err := p.Stage.Kubectl(ctx, "c2", "get", "pod", "far", "-n", Namespace, "-o", "jsonpath={.metadata.uid}")
		if err != nil {
			return err
		}
		p.vars["FARUID"] = strings.TrimSpace(out)
	}
	return nil
}

// relay finds in what the verb `paths` prints the gateway between the client and far.
func relay(paths string) (id, node string) {
	for l := range strings.Lines(paths) {
		f := strings.Fields(l) // SLICE NODE > PEER relay GATEWAY ADDRESS
		if len(f) >= 6 && f[0] == Namespace && f[1] == "c1/c1n1" && f[3] == "c2/c2n1" && f[4] == "relay" {
			_, node, _ := strings.Cut(f[5], "/")
			return f[5], node
		}
	}
	return "", ""
}

// watch counts changes of paths, as c1's nodes tell them, for faults that expect none. The function that it returns
// ends the watch and may be called again.
func (p *Player) watch(ctx context.Context, f Fault) func() int {
	if !slices.ContainsFunc(f.Expect, func(e string) bool { return strings.Contains(e, " flips ") }) {
		return func() int { return -1 }
	}
	ctx, cancel := context.WithCancel(ctx)
	count := make(chan int, 1)
	go func() {
		flips, before := 0, map[string]string{}
		for ctx.Err() == nil {
			if out, err := p.Do(ctx, []string{"paths", "c1"}); err == nil {
				flips += changed(before, out)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		count <- flips
	}()
	result, ended := 0, false
	return func() int {
		cancel()
		if !ended {
			result, ended = <-count, true
		}
		return result
	}
}

// changed counts and remembers how many pairs have another path than before.
func changed(before map[string]string, paths string) int {
	n := 0
	for l := range strings.Lines(paths) {
		pair, path, ok := strings.Cut(strings.TrimSpace(l), " > ")
		peer, path, _ := strings.Cut(path, " ")
		if !ok {
			continue
		}
		key := pair + " > " + peer
		if was, known := before[key]; known && was != path {
			n++
		}
		before[key] = path
	}
	return n
}
