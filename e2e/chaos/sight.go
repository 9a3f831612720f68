package chaos

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"seaway.dev/seaway/e2e/figures"
)

// note is one line of a client's log: a question and what came of it.
type note struct {
	flow, outcome, who string
	begin, end         time.Time
}

// readNotes reads a client's log; the last line may be half.
func readNotes(r io.Reader) ([]note, error) {
	var out []note
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		f := strings.Fields(line)
		if len(f) != 5 {
			return out, fmt.Errorf("client's log: %q: want FLOW OUTCOME BEGIN END WHO", strings.TrimSpace(line))
		}
		begin, err1 := strconv.ParseInt(f[2], 10, 64)
		end, err2 := strconv.ParseInt(f[3], 10, 64)
		if err1 != nil || err2 != nil {
			return out, fmt.Errorf("client's log: %q: bad times", strings.TrimSpace(line))
		}
		out = append(out, note{f[0], f[1], f[4], time.UnixMicro(begin), time.UnixMicro(end)})
	}
}

// Sight is what one flow's client saw of one fault. Times are since the fault, which counts from before the command
// that makes it was started. Nil means that it did not happen.
type Sight struct {
	Gap   time.Duration  `json:"gap"`             // longest time between two good answers
	First *time.Duration `json:"first,omitempty"` // a question asked after the fault has its first good answer
	Told  *time.Duration `json:"told,omitempty"`  // the first error: the client knows
	Clear *time.Duration `json:"clear,omitempty"` // the last question that failed was asked
	Mend  *time.Duration `json:"mend,omitempty"`  // of a flow that was hurt (an error, or a gap over Hurt): the gap
	Good  int            `json:"good"`
	// Resets are connections that broke under the client, Errors all failures including them.
	Resets int  `json:"resets,omitempty"`
	Errors int  `json:"errors,omitempty"`
	Stuck  bool `json:"stuck,omitempty"` // at the end neither answers nor an error, for longer than Patience
}

const (
	// Hurt is a gap that a client calls a failure; on a busy machine of two cores a gap of 100 ms means nothing.
	Hurt = 200 * time.Millisecond
	// Patience is for how long a flow may say nothing at all before it is stuck.
	Patience = 2 * time.Second
)

// look computes what each flow saw between the fault and the end of the watch.
func look(notes []note, fault, end time.Time) map[string]Sight {
	byFlow := map[string][]note{}
	for _, n := range notes {
		if !n.end.After(end) {
			byFlow[n.flow] = append(byFlow[n.flow], n)
		}
	}
	out := map[string]Sight{}
	for flow, list := range byFlow {
		slices.SortStableFunc(list, func(a, b note) int { return a.end.Compare(b.end) })
		out[flow] = sight(list, fault, end)
	}
	return out
}

func sight(list []note, fault, end time.Time) Sight {
	var s Sight
	since := func(t time.Time) *time.Duration { return new(t.Sub(fault)) }
	last, said := fault, fault // the last good answer, the last word of any kind
	for _, n := range list {
		if n.end.Before(fault) {
			if n.outcome == "ok" {
				last = n.end // a gap begins before the fault
			}
			continue
		}
		said = n.end
		if n.outcome == "ok" {
			s.Good++
			s.Gap = max(s.Gap, n.end.Sub(last))
			last = n.end
			if s.First == nil && !n.begin.Before(fault) {
				s.First = since(n.end)
			}
			continue
		}
		s.Errors++
		if n.outcome == "reset" || n.outcome == "closed" {
			s.Resets++
		}
		if s.Told == nil {
			s.Told = since(n.end)
		}
		if s.Clear == nil || n.begin.Sub(fault) > *s.Clear {
			s.Clear = since(n.begin)
		}
	}
	s.Gap = max(s.Gap, end.Sub(last))
	s.Stuck = end.Sub(said) > Patience
	if s.Errors > 0 || s.Gap > Hurt {
		s.Mend = new(s.Gap)
	}
	return s
}

// Run is one run of a fault.
type Run struct {
	Fault string           `json:"fault"`
	At    time.Time        `json:"at"`
	Flows map[string]Sight `json:"flows"`
	// Flips counts how often a node's choice of a path to a peer was seen to change; -1 if nobody looked.
	Flips int    `json:"flips"`
	Relay string `json:"relay,omitempty"` // what $RELAY was
}

func (s Sight) time(measure string) *time.Duration {
	switch measure {
	case "gap":
		return &s.Gap
	case "first":
		return s.First
	case "told":
		return s.Told
	case "clear":
		return s.Clear
	case "mend":
		return s.Mend
	}
	return nil
}

func (s Sight) number(measure string) int {
	switch measure {
	case "resets":
		return s.Resets
	case "errors":
		return s.Errors
	case "stuck":
		if s.Stuck {
			return 1
		}
	}
	return 0
}

// match tells whether a flow is meant; patterns may be joined by commas.
func match(patterns, flow string) bool {
	for p := range strings.SplitSeq(patterns, ",") {
		if ok, _ := path.Match(p, flow); ok {
			return true
		}
	}
	return false
}

func seen(runs []Run, flows string) bool {
	for _, r := range runs {
		for f := range r.Flows {
			if match(flows, f) {
				return true
			}
		}
	}
	return false
}

func times(runs []Run, flows, measure string) []time.Duration {
	var out []time.Duration
	for _, r := range runs {
		for _, f := range slices.Sorted(maps.Keys(r.Flows)) {
			if d := r.Flows[f].time(measure); d != nil && match(flows, f) {
				out = append(out, *d)
			}
		}
	}
	return out
}

func numbers(runs []Run, flows, measure string) []int {
	var out []int
	for _, r := range runs {
		if measure == "flips" {
			if r.Flips >= 0 {
				out = append(out, r.Flips)
			}
			continue
		}
		for _, f := range slices.Sorted(maps.Keys(r.Flows)) {
			if match(flows, f) {
				out = append(out, r.Flows[f].number(measure))
			}
		}
	}
	return out
}

func quantile(list []time.Duration, q string) time.Duration {
	s := figures.Of(list)
	return map[string]time.Duration{"p50": s.P50, "p99": s.P99, "max": s.Max}[q]
}
