package sight

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

var fault = time.UnixMicro(10_000_000)

// flow writes a client's log: at the given milliseconds after the fault (before it, if negative) an answer, or an error.
func flow(t *testing.T, name string, events ...any) []Note {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(events); i += 2 {
		at := fault.Add(time.Duration(events[i].(int)) * time.Millisecond)
		fmt.Fprintf(&b, "%s %s %d %d c2/web\n", name, events[i+1], at.Add(-5*time.Millisecond).UnixMicro(), at.UnixMicro())
	}
	notes, err := Read(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return notes
}

func TestWhatAFlowSaw(t *testing.T) {
	ms := func(n int) *time.Duration { return new(time.Duration(n) * time.Millisecond) }
	end := fault.Add(5 * time.Second)
	for name, c := range map[string]struct {
		events []any
		want   Sight
	}{
		"unhurt": {[]any{-10, "ok", 60, "ok", 160, "ok", 4990, "ok"},
			Sight{Gap: 4830 * time.Millisecond, First: ms(60), Mend: ms(4830), Good: 3}},
		"a gap that began before the fault": {[]any{-100, "ok", 4900, "ok"},
			Sight{Gap: 5000 * time.Millisecond, First: ms(4900), Mend: ms(5000), Good: 1}},
		"told, and mended": {append([]any{-10, "ok", 700, "reset", 720, "refused", 800, "ok"}, steady(900, 5000)...),
			Sight{Gap: 810 * time.Millisecond, First: ms(800), Told: ms(710), Clear: ms(20), Mend: ms(810), Good: 42, Resets: 1, Errors: 2}},
		"stuck": {[]any{-10, "ok"},
			Sight{Gap: 5010 * time.Millisecond, Mend: ms(5010), Stuck: true}},
		"errors to the end are no hang": {[]any{-10, "ok", 1000, "timeout", 2000, "timeout", 3000, "timeout", 4000, "timeout"},
			Sight{Gap: 5010 * time.Millisecond, Told: ms(1010), Clear: ms(3000), Mend: ms(5010), Errors: 4}},
		"an answer to a question asked before the fault": {[]any{-10, "ok", 2, "ok", 100, "ok", 5000, "ok"},
			Sight{Gap: 4900 * time.Millisecond, First: ms(100), Mend: ms(4900), Good: 3}},
	} {
		got := Look(flow(t, "f", c.events...), fault, end)["f"]
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", name, text(got), text(c.want))
		}
	}
}

func text(s Sight) string {
	show := func(d *time.Duration) string {
		if d == nil {
			return "-"
		}
		return d.String()
	}
	return fmt.Sprintf("gap %s first %s told %s clear %s mend %s good %d resets %d errors %d stuck %v",
		s.Gap, show(s.First), show(s.Told), show(s.Clear), show(s.Mend), s.Good, s.Resets, s.Errors, s.Stuck)
}

func steady(from, to int) []any {
	var out []any
	for ms := from; ms < to; ms += 100 {
		out = append(out, ms, "ok")
	}
	return out
}

func FuzzParse(f *testing.F) {
	f.Add("a ok 1 2 c1/p\n")
	f.Add("a b c d e")
	f.Add("")
	f.Fuzz(func(t *testing.T, line string) {
		n, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(n.String())
		if err != nil || !reflect.DeepEqual(n, again) {
			t.Errorf("%q: %+v, again %+v (%v)", line, n, again, err)
		}
	})
}

func TestSilenceIsTheWorst(t *testing.T) {
	if s := Silent(fault, fault.Add(5*time.Second)); s.Gap != 5*time.Second || !s.Stuck || s.Mend == nil || s.Good != 0 {
		t.Error(text(s))
	}
}

func TestWhatTheMachineAdds(t *testing.T) {
	notes := append(flow(t, "a", -900, "ok", -500, "ok", -480, "reset", -200, "ok", 900, "ok"), flow(t, "b", -100, "ok")...)
	if got := Longest(notes, fault.Add(-time.Second), fault); got != 400*time.Millisecond {
		t.Errorf("%s", got)
	}
}
