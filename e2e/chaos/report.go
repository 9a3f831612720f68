package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/drill/figures"
)

// Report is everything about one fault: what was expected, each run, and what the runs come to.
type Report struct {
	Fault    string    `json:"fault"`
	Tells    string    `json:"tells"`
	Runs     []Run     `json:"runs"`
	Rows     []Row     `json:"rows"`
	Verdicts []Verdict `json:"verdicts"`
	Errors   []string  `json:"errors,omitempty"` // of runs that could not be played to their end
}

// Row is one flow over all runs of a fault.
type Row struct {
	Flow   string          `json:"flow"`
	Gap    figures.Summary `json:"gap"`
	First  figures.Summary `json:"first"`
	Told   figures.Summary `json:"told"`
	Clear  figures.Summary `json:"clear"`
	Mend   figures.Summary `json:"mend"`
	Resets int             `json:"resets"`
	Errors int             `json:"errors"`
	Stuck  int             `json:"stuck"`
}

// Held tells whether all expectations and controls hold.
func (r Report) Held() bool {
	return len(r.Errors) == 0 && !slices.ContainsFunc(r.Verdicts, func(v Verdict) bool { return !v.Held })
}

// rows sums up runs by flow.
func rows(runs []Run) []Row {
	flows := map[string]bool{}
	for _, r := range runs {
		for f := range r.Flows {
			flows[f] = true
		}
	}
	var out []Row
	for _, f := range slices.Sorted(maps.Keys(flows)) {
		row := Row{Flow: f}
		for measure, into := range map[string]*figures.Summary{"gap": &row.Gap, "first": &row.First, "told": &row.Told, "clear": &row.Clear, "mend": &row.Mend} {
			*into = figures.Of(times(runs, f, measure))
		}
		for measure, into := range map[string]*int{"resets": &row.Resets, "errors": &row.Errors, "stuck": &row.Stuck} {
			for _, n := range numbers(runs, f, measure) {
				*into += n
			}
		}
		out = append(out, row)
	}
	return out
}

// String is the table that people read: times are p50/p99/max in milliseconds, "-" where nothing happened.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", r.Fault, r.Tells)
	fmt.Fprintf(&b, "  times are p50/p99/max in ms; noise before the fault up to %d ms\n", noise(r.Runs).Milliseconds())
	fmt.Fprintf(&b, "  %-14s %20s %20s %20s %20s %6s %6s %5s\n", fmt.Sprintf("%d runs", len(r.Runs)), "longest gap", "first good", "told", "last failure", "resets", "errors", "stuck")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "  %-14s %20s %20s %20s %20s %6d %6d %5d\n", row.Flow, show(row.Gap), show(row.First), show(row.Told), show(row.Clear), row.Resets, row.Errors, row.Stuck)
	}
	for _, v := range r.Verdicts {
		word, kind := "held  ", ""
		switch {
		case !v.Held:
			word = "BROKEN"
		case v.Over:
			word = "over  "
		}
		if v.Control {
			kind = " (control)"
		}
		fmt.Fprintf(&b, "  %s %s: %s%s\n", word, v.Expect, v.Saw, kind)
	}
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "  FAILED %s\n", e)
	}
	return b.String()
}

func show(s figures.Summary) string {
	if s.N == 0 {
		return "-"
	}
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	return fmt.Sprintf("%d/%d/%d", ms(s.P50), ms(s.P99), ms(s.Max))
}
