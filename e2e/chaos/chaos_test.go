package chaos

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/drill/sight"
)

var fault = time.UnixMicro(10_000_000)

// flow writes a client's log: at the given milliseconds after the fault (before it, if negative) an answer, or an error.
func flow(t *testing.T, name string, events ...any) []sight.Note {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(events); i += 2 {
		at := fault.Add(time.Duration(events[i].(int)) * time.Millisecond)
		fmt.Fprintf(&b, "%s %s %d %d c2/web\n", name, events[i+1], at.Add(-5*time.Millisecond).UnixMicro(), at.UnixMicro())
	}
	notes, err := sight.Read(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return notes
}

func steady(from, to int) []any {
	var out []any
	for ms := from; ms < to; ms += 100 {
		out = append(out, ms, "ok")
	}
	return out
}

func TestExpectations(t *testing.T) {
	runs := []Run{
		{Flips: -1, Flows: sight.Look(append(flow(t, "far.stream", append([]any{-10, "ok", 240, "ok"}, steady(300, 2000)...)...), flow(t, "svc1.stream", steady(-100, 2000)...)...), fault, fault.Add(2*time.Second))},
		{Flips: 1, Flows: sight.Look(flow(t, "far.stream", append([]any{-10, "ok", 50, "ok", 60, "reset"}, steady(100, 2000)...)...), fault, fault.Add(2*time.Second))},
	}
	for expect, want := range map[string]bool{
		"far.* gap p50 <= 100ms":         true,
		"far.* gap p99 <= 300ms":         true,
		"far.* gap p99 <= 249ms":         false,
		"far.* gap max >= 250ms":         true,
		"far.stream resets sum = 0":      false,
		"far.stream resets sum = 1":      true,
		"svc1.stream resets sum = 0":     true,
		"svc?.stream mend p99 <= 1ms":    true, // nothing had to mend
		"svc?.stream mend p99 >= 1ms":    false,
		"far.stream,svc* mend p99 <= 1s": true,
		"nobody gap p99 <= 1h":           false, // nobody saw anything
		"nobody resets sum = 0":          false,
		"nobody mend p99 <= 1h":          false,
		"any flips sum = 0":              false,
		"any flips max <= 1":             true,
		"far.stream told p99 <= 250ms":   true, "far.stream told p50 <= 60ms": true, "far.stream told p99 <= 249ms": false,
		"far.stream,svc* stuck sum = 0":       true,
		"far.stream,svc* errors max <= 1":     true,
		"far.stream,svc* errors sum >= 2":     false,
		"far.stream excess max <= 249ms":      false, // there is no control in these runs
		"svc1.stream first p99 <= 1s":         true,
		"svc1.stream clear p99 <= 1ms":        true,
		"far.stream,svc1.stream gap max = 0s": false,
	} {
		e, err := ParseExpectation(expect)
		if err != nil {
			t.Fatal(err)
		}
		if got, saw := e.holds(runs); got != want {
			t.Errorf("%s: %v (saw %s), want %v", expect, got, saw, want)
		}
	}
	for _, bad := range []string{"", "far gap <= 1s", "far gap sum <= 1s", "far resets p99 = 0", "far gap p99 <= fast", "far resets sum = 1s", "far joy max = 1", "[ gap p99 <= 1s", "far gap p99 < 1s"} {
		if _, err := ParseExpectation(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestWhatTheMachineItselfAdds(t *testing.T) {
	end := fault.Add(2 * time.Second)
	notes := append(flow(t, "far.stream", append([]any{-10, "ok", 490, "ok"}, steady(500, 2001)...)...), flow(t, "plain.stream", append([]any{-10, "ok", 390, "ok"}, steady(400, 2001)...)...)...)
	runs := []Run{{Flows: sight.Look(notes, fault, end)}}
	for expect, want := range map[string]bool{"far.stream excess max <= 100ms": true, "far.stream excess max <= 99ms": false, "far.stream gap max <= 499ms": false} {
		e, err := ParseExpectation(expect)
		if err != nil {
			t.Fatal(err)
		}
		if got, saw := e.holds(runs); got != want {
			t.Errorf("%s: %v (saw %s)", expect, got, saw)
		}
	}
	// What was so just before the fault does not count against a limit, and does count where a control wants damage.
	noisy := []Run{{Noise: 400 * time.Millisecond, Flows: runs[0].Flows}}
	for expect, want := range map[string]bool{"far.stream gap max <= 100ms": true, "far.stream gap max <= 99ms": false, "far.stream gap max >= 500ms": true} {
		e, err := ParseExpectation(expect)
		if err != nil {
			t.Fatal(err)
		}
		if got, saw := e.holds(noisy); got != want {
			t.Errorf("%s: %v (saw %s)", expect, got, saw)
		}
	}
	// A client that waits without a word was not told.
	silent := []Run{{Flows: sight.Look(flow(t, "far.stream", -10, "ok"), fault, end)}}
	e, _ := ParseExpectation("far.stream told p99 <= 1s")
	if held, saw := e.holds(silent); held {
		t.Errorf("silence counts as told (%s)", saw)
	}
}

func TestTheCatalogueHolds(t *testing.T) {
	p := &Player{vars: map[string]string{"RELAY": "c2/c2n3", "RELAYNODE": "c2n3", "FARUID": "uid", "C2": "c2cp c2n1"}}
	names := map[string]bool{}
	for _, f := range Catalogue {
		if names[f.Name] || f.Tells == "" || len(f.Expect) == 0 {
			t.Errorf("%s: the name is taken, it tells nothing, or expects nothing", f.Name)
		}
		names[f.Name] = true
		if _, err := f.Judge(nil, 1); err != nil {
			t.Error(err)
		}
		for _, l := range lines(f.Given, f.Inject, f.Undo, f.After) {
			words, err := split(p.expand(l))
			if err != nil || variable.MatchString(strings.Join(words, " ")) {
				t.Errorf("%s: %s: %q %v", f.Name, l, words, err)
			}
		}
		for _, e := range lines(f.Expect, f.Control) {
			e, err := ParseExpectation(e)
			if err != nil {
				t.Error(err)
				continue
			}
			hit := e.Measure == "flips"
			for _, flow := range p.flows() {
				hit = hit || match(e.Flows, flow)
			}
			if !hit {
				t.Errorf("%s: %s: no flow is called so", f.Name, e.text)
			}
		}
	}
	if _, err := Find([]string{"short"}); err != nil {
		t.Error(err)
	}
	if _, err := Find([]string{"nonsense"}); err == nil || !strings.Contains(err.Error(), "gateway-killed") {
		t.Errorf("an unknown name is told what there is: %v", err)
	}
}

// variable is one of the player's; those of shells are in small letters or in brackets.
var variable = regexp.MustCompile(`\$[A-Z]`)

func TestAFaultMayStayLonger(t *testing.T) {
	hub, err := Find([]string{"hub-cut", "tunnel-held", "node-rebooted"})
	if err != nil {
		t.Fatal(err)
	}
	if f := hub[0].Holding(10 * time.Minute); f.Hold != 10*time.Minute || f.Watch > f.Hold {
		t.Errorf("%+v", f)
	}
	for _, f := range hub {
		if got := f.Holding(0); got.Hold != f.Hold || got.Watch != f.Watch {
			t.Errorf("%s: %s, watched for %s", f.Name, got.Hold, got.Watch)
		}
		if got := f.Holding(time.Minute); f.Hold > 0 && got.Hold != time.Minute || f.Hold > 0 && f.Watch > 0 && got.Watch-got.Hold != f.Watch-f.Hold || f.Hold == 0 && got.Hold != 0 {
			t.Errorf("%s: %s, watched for %s", f.Name, got.Hold, got.Watch)
		}
	}
}

func TestWordsAndPaths(t *testing.T) {
	got, err := split(`on c1n1 sh -c 'kill -9 $(pidof x)' ''`)
	if want := []string{"on", "c1n1", "sh", "-c", "kill -9 $(pidof x)", ""}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q %v", got, err)
	}
	if _, err := split("a 'b"); err == nil {
		t.Error("an open quote passed")
	}
	id, node := relay("load c1/c1n2 > c2/c2n1 relay c2/c2n2 1.2.3.4:5\nload c1/c1n1 > c2/c2n1 relay c2/c2n3 1.2.3.4:5\n")
	if id != "c2/c2n3" || node != "c2n3" {
		t.Errorf("relay %q %q", id, node)
	}
	before := map[string]string{}
	for _, step := range []struct {
		paths string
		want  int
	}{{"s a > b direct x\n", 0}, {"s a > b direct x\ns a > c none\n", 0}, {"s a > b relay g y\ns a > c none\n", 1}, {"s a > b relay g y\n", 0}} {
		if got := changed(before, step.paths); got != step.want {
			t.Errorf("%q: %d changes, want %d", step.paths, got, step.want)
		}
	}
}

func TestTheReportNamesWhatBroke(t *testing.T) {
	f := Fault{Name: "x", Tells: "y", Expect: []string{"f gap p99 <= 1ms"}, Control: []string{"f gap p50 >= 1ms"}}
	r := Report{Fault: "x", Runs: []Run{{Flows: sight.Look(flow(t, "f", -10, "ok", 100, "ok"), fault, fault.Add(200*time.Millisecond))}}}
	r.Rows = rows(r.Runs)
	var err error
	if r.Verdicts, err = f.Judge(r.Runs, 1); err != nil {
		t.Fatal(err)
	}
	if out := r.String(); r.Held() || !strings.Contains(out, "BROKEN f gap p99 <= 1ms: 110ms (noise 0s)") || !strings.Contains(out, "held   f gap p50 >= 1ms: 110ms (control)") {
		t.Errorf("held=%v\n%s", r.Held(), out)
	}
}

func TestSlackIsForTimesOnly(t *testing.T) {
	runs := []Run{{Flows: map[string]sight.Sight{"f": {Gap: 900 * time.Millisecond, Resets: 1}}}}
	f := Fault{Name: "x", Expect: []string{"f gap p99 <= 300ms", "f resets sum = 0"}, Control: []string{"f gap p50 >= 1s"}}
	for _, tt := range []struct {
		slack      float64
		held, over bool
	}{{1, false, false}, {2, false, false}, {3, true, true}} {
		v, err := f.Judge(runs, tt.slack)
		if err != nil {
			t.Fatal(err)
		}
		if v[0].Held != tt.held || v[0].Over != tt.over || v[1].Held || v[2].Held {
			t.Errorf("slack %g: %+v", tt.slack, v)
		}
	}
}
