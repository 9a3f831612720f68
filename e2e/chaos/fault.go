// Package chaos plays faults on the lab under load, again and again, and holds what clients saw against what was said
// beforehand. A fault is data ([Catalogue]): what to do, how long, how to undo it, and what must be true. Clients ask
// every 20 ms, by connections that stay, connections of their own and datagrams, over the slice and, as a control, past
// it; they note each answer with its time, and everything here is computed from those notes.
package chaos

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is one thing that goes wrong.
type Fault struct {
	Name  string
	Tells string // what must happen, for people
	// Given, Inject and Undo are lines of the stories' language; besides, `wait TIME`. $RELAY is the gateway that carries
	// client to far when the fault begins, $RELAYNODE its machine, $C2 all machines of cluster c2. What Given made is undone
	// by After.
	Given, Inject, Undo, After []string
	Hold                       time.Duration // from the fault to its undoing
	Watch                      time.Duration // from the fault on; 0 is Hold. More than Hold sees the return, too
	Needs                      []string      // machines that the default layout may not have
	Expect                     []string      // see Expectation
	Control                    []string      // must hold as well: without protection it is as bad as this
	Short                      bool          // part of `make test`
}

// Expectation is one line of what must be true: FLOWS MEASURE [QUANTILE] OP VALUE, as in
//
//	far.* gap p99 <= 300ms
//	*.stream resets sum = 0
//
// An upper limit is for what the fault did: the noise of the run, which is the longest gap of any flow just before the
// fault, does not count against it; tables and JSON have every figure as it was measured. FLOWS is a pattern of flows. For times the quantile is p50, p99 or max, over all runs and all flows that match; for
// counts it is sum or max. The measures are those of [sight.Sight], flips, and excess: the gap beyond that of the controls
// in the same run, for faults that do not touch these.
type Expectation struct {
	Flows, Measure, Quantile, Op string
	Time                         time.Duration
	Count                        int
	text                         string
}

var (
	timeMeasures  = []string{"gap", "excess", "first", "told", "clear", "mend"}
	countMeasures = []string{"resets", "errors", "stuck", "flips"}
	expectation   = regexp.MustCompile(`^(\S+) ([a-z]+) (p50|p99|max|sum) (<=|>=|=) (\S+)$`)
)

// ParseExpectation reads a line.
func ParseExpectation(text string) (Expectation, error) {
	m := expectation.FindStringSubmatch(text)
	if m == nil {
		return Expectation{}, fmt.Errorf("expectation %q: want FLOWS MEASURE p50|p99|max|sum <=|>=|= VALUE", text)
	}
	e := Expectation{Flows: m[1], Measure: m[2], Quantile: m[3], Op: m[4], text: text}
	if _, err := path.Match(e.Flows, ""); err != nil {
		return e, fmt.Errorf("expectation %q: flows: %w", text, err)
	}
	var err error
	switch {
	case slices.Contains(timeMeasures, e.Measure) && e.Quantile != "sum":
		e.Time, err = time.ParseDuration(m[5])
	case slices.Contains(countMeasures, e.Measure) && (e.Quantile == "sum" || e.Quantile == "max"):
		e.Count, err = strconv.Atoi(m[5])
	default:
		err = fmt.Errorf("there is no %s of %s (times: %v; counts: %v)", e.Quantile, e.Measure, timeMeasures, countMeasures)
	}
	if err != nil {
		return e, fmt.Errorf("expectation %q: %w", text, err)
	}
	return e, nil
}

// Verdict is what became of an expectation.
type Verdict struct {
	Expect  string `json:"expect"`
	Control bool   `json:"control,omitempty"`
	Held    bool   `json:"held"`
	Over    bool   `json:"over,omitempty"` // it held with slack only
	Saw     string `json:"saw"`
}

// Judge holds the runs of a fault against what it expects. An expectation about flows that nobody saw does not hold:
// nothing was shown. Upper limits of times may be passed so many times as slack says (1: not at all): a busy machine is
// slow, and still tells a fault that lasts from one that is over.
func (f Fault) Judge(runs []Run, slack float64) ([]Verdict, error) {
	var out []Verdict
	for i, text := range slices.Concat(f.Expect, f.Control) {
		e, err := ParseExpectation(text)
		if err != nil {
			return nil, fmt.Errorf("fault %s: %w", f.Name, err)
		}
		held, saw := e.holds(runs)
		over := false
		if !held && e.Time > 0 && e.Op == "<=" {
			e.Time = time.Duration(float64(e.Time) * slack)
			held, _ = e.holds(runs)
			over = held
		}
		out = append(out, Verdict{Expect: text, Control: i >= len(f.Expect), Held: held, Over: over, Saw: saw})
	}
	return out, nil
}

func (e Expectation) holds(runs []Run) (bool, string) {
	if slices.Contains(timeMeasures, e.Measure) {
		list := times(runs, e.Flows, e.Measure)
		if len(list) == 0 {
			// Nothing had to mend, nothing was told: the best there is, and no answer to "at least".
			return e.Op == "<=" && e.Measure != "gap" && seen(runs, e.Flows), "nothing"
		}
		saw := quantile(list, e.Quantile).Round(time.Millisecond)
		if e.Op != "<=" || e.Measure == "excess" {
			return compare(int64(saw), e.Op, int64(e.Time)), saw.String()
		}
		return quantile(within(runs, e.Flows, e.Measure), e.Quantile) <= e.Time, fmt.Sprintf("%s (noise %s)", saw, noise(runs).Round(time.Millisecond))
	}
	list := numbers(runs, e.Flows, e.Measure)
	if len(list) == 0 {
		return false, "nothing"
	}
	saw := slices.Max(list)
	if e.Quantile == "sum" {
		saw = 0
		for _, n := range list {
			saw += n
		}
	}
	return compare(int64(saw), e.Op, int64(e.Count)), strconv.Itoa(saw)
}

func compare(a int64, op string, b int64) bool {
	switch op {
	case "<=":
		return a <= b
	case ">=":
		return a >= b
	}
	return a == b
}

// Find picks faults by their names; "short" and "all" are lists of names.
func Find(names []string) ([]Fault, error) {
	var out []Fault
	for _, n := range names {
		found := false
		for _, f := range Catalogue {
			if n == "all" || n == "short" && f.Short || n == f.Name {
				out, found = append(out, f), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no fault %q; there are %s", n, strings.Join(Names(), ", "))
		}
	}
	return out, nil
}

// Holding returns a fault that stays so long. One that is over with its making stays as it is.
func (f Fault) Holding(d time.Duration) Fault {
	if f.Hold == 0 || d <= 0 {
		return f
	}
	if f.Watch > 0 {
		f.Watch += d - f.Hold
	}
	f.Hold = d
	return f
}

// Names of all faults.
func Names() []string {
	var out []string
	for _, f := range Catalogue {
		out = append(out, f.Name)
	}
	return out
}
