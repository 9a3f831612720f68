// Package sight computes what clients of an application saw of a fault from notes that they took: one line for each
// question, with what came of it and when. It is pure: the same notes give the same figures.
package sight

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Note is one line of a client's log, `FLOW OUTCOME BEGIN END WHO`: a question and what came of it. Times are in
// microseconds of Unix time. The outcomes are ok, reset, refused, unreachable, timeout, closed and error.
type Note struct {
	Flow, Outcome, Who string
	Begin, End         time.Time
}

// String is the line of a log.
func (n Note) String() string {
	who := n.Who
	if who == "" {
		who = "-"
	}
	return fmt.Sprintf("%s %s %d %d %s", n.Flow, n.Outcome, n.Begin.UnixMicro(), n.End.UnixMicro(), who)
}

// Read reads a client's log; the last line may be half.
func Read(r io.Reader) ([]Note, error) {
	var out []Note
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		n, err := Parse(line)
		if err != nil {
			return out, err
		}
		out = append(out, n)
	}
}

// Parse reads one line.
func Parse(line string) (Note, error) {
	f := strings.Fields(line)
	if len(f) != 5 {
		return Note{}, fmt.Errorf("client's log: %q: want FLOW OUTCOME BEGIN END WHO", strings.TrimSpace(line))
	}
	begin, err1 := strconv.ParseInt(f[2], 10, 64)
	end, err2 := strconv.ParseInt(f[3], 10, 64)
	if err1 != nil || err2 != nil {
		return Note{}, fmt.Errorf("client's log: %q: bad times", strings.TrimSpace(line))
	}
	return Note{f[0], f[1], f[4], time.UnixMicro(begin), time.UnixMicro(end)}, nil
}

// Sight is what one flow's client saw of one fault. How long the command took that made the fault does not matter to
// any figure but First, because the others are between things that the client saw. Nil means that it did not happen.
type Sight struct {
	Gap   time.Duration  `json:"gap"`             // longest time between two good answers
	First *time.Duration `json:"first,omitempty"` // since the fault: a question asked after it has its first good answer
	Told  *time.Duration `json:"told,omitempty"`  // from the last good answer to the first error: the client knows
	Clear *time.Duration `json:"clear,omitempty"` // from the first question that failed to the last, by when they were asked
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

// Look computes what each flow saw between the fault and the end of the watch.
func Look(notes []Note, fault, end time.Time) map[string]Sight {
	byFlow := map[string][]Note{}
	for _, n := range notes {
		if !n.End.After(end) {
			byFlow[n.Flow] = append(byFlow[n.Flow], n)
		}
	}
	out := map[string]Sight{}
	for flow, list := range byFlow {
		slices.SortStableFunc(list, func(a, b Note) int { return a.End.Compare(b.End) })
		out[flow] = one(list, fault, end)
	}
	return out
}

// Silent is what a flow saw that noted nothing at all.
func Silent(fault, end time.Time) Sight { return one(nil, fault, end) }

func one(list []Note, fault, end time.Time) Sight {
	var s Sight
	since := func(t time.Time) *time.Duration { return new(t.Sub(fault)) }
	last, said := fault, fault // the last good answer, the last word of any kind
	var failing, failed time.Time
	for _, n := range list {
		if n.End.Before(fault) {
			if n.Outcome == "ok" {
				last = n.End // a gap begins before the fault
			}
			continue
		}
		said = n.End
		if n.Outcome == "ok" {
			s.Good++
			s.Gap = max(s.Gap, n.End.Sub(last))
			last = n.End
			if s.First == nil && !n.Begin.Before(fault) {
				s.First = since(n.End)
			}
			continue
		}
		s.Errors++
		if n.Outcome == "reset" || n.Outcome == "closed" {
			s.Resets++
		}
		if s.Told == nil {
			s.Told = new(n.End.Sub(last))
		}
		if failing.IsZero() || n.Begin.Before(failing) {
			failing = n.Begin
		}
		if n.Begin.After(failed) {
			failed = n.Begin
		}
	}
	if s.Errors > 0 {
		s.Clear = new(failed.Sub(failing))
	}
	s.Gap = max(s.Gap, end.Sub(last))
	s.Stuck = end.Sub(said) > Patience
	if s.Errors > 0 || s.Gap > Hurt {
		s.Mend = new(s.Gap)
	}
	return s
}

// Longest is the longest gap between two good answers of any flow, both between two moments: with nothing happening,
// what the machine itself adds to every figure.
func Longest(notes []Note, from, to time.Time) time.Duration {
	var longest time.Duration
	last := map[string]time.Time{}
	sorted := slices.SortedStableFunc(slices.Values(notes), func(a, b Note) int { return a.End.Compare(b.End) })
	for _, n := range sorted {
		if n.Outcome != "ok" || n.End.Before(from) || n.End.After(to) {
			continue
		}
		if l, ok := last[n.Flow]; ok {
			longest = max(longest, n.End.Sub(l))
		}
		last[n.Flow] = n.End
	}
	return longest
}
