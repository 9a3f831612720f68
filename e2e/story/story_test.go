package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/e2e/chaos"
	"seaway.dev/seaway/e2e/stage"
)

// clusters is a lab of one cluster that answers from a table, and counts.
type clusters struct {
	mu      sync.Mutex
	answers map[string]func(call int, c stage.Command) (string, error)
	calls   map[string]int
	log     []string
}

func (c *clusters) Run(ctx context.Context, cmd stage.Command) (string, string, error) {
	line := strings.Join(cmd.Args, " ")
	c.mu.Lock()
	c.log = append(c.log, line)
	var f func(int, stage.Command) (string, error)
	n, longest := 0, ""
	for prefix := range c.answers {
		if strings.HasPrefix(line, prefix) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	if longest != "" {
		f = c.answers[longest]
		c.calls[longest]++
		n = c.calls[longest]
	}
	c.mu.Unlock()
	if f == nil {
		return "", "", nil
	}
	out, err := f(n, cmd)
	return out, "", err
}

func (c *clusters) ran(prefix string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, l := range c.log {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

func says(out string) func(int, stage.Command) (string, error) {
	return func(int, stage.Command) (string, error) { return out, nil }
}

func fails(out string) func(int, stage.Command) (string, error) {
	return func(_ int, c stage.Command) (string, error) {
		return "", &stage.Failed{Args: c.Args, Status: "exit status 1", Output: out}
	}
}

// from the nth call on it works.
func works(nth int, out string) func(int, stage.Command) (string, error) {
	return func(n int, c stage.Command) (string, error) {
		if n < nth {
			return "", errors.New("not yet")
		}
		return out, nil
	}
}

// verdict is what a story told its test.
type verdict struct {
	failed bool
	log    string
	Result
	told string
}

func (v *verdict) Skip(...any)     { panic("skip") }
func (v *verdict) Log(args ...any) { v.log += fmt.Sprint(args...) }
func (v *verdict) FailNow()        { v.failed = true; runtime.Goexit() }
func (v *verdict) Fatal(a ...any)  { v.Log(a...); v.FailNow() }
func (v *verdict) mentions(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if !strings.Contains(v.log, s) {
			t.Errorf("the log does not mention %q:\n%s", s, v.log)
		}
	}
}

const oneCluster = `{"healthy":true,"clusters":[{"name":"hub","machines":[{"name":"hubcp","role":"control-plane","cable":true}]},
 {"name":"c1","machines":[{"name":"c1cp","role":"control-plane","cable":true},{"name":"c1n1","role":"node","cable":true}]}]}`

func play1(t *testing.T, c *clusters, text string) *verdict { return playWith(t, c, text, 1) }

func playWith(t *testing.T, c *clusters, text string, slack float64) *verdict {
	t.Helper()
	c.calls = map[string]int{}
	for k, v := range map[string]string{"lab status": oneCluster, "lab kubeconfig c1": "/k/c1", "lab kubeconfig hub": "/k/hub"} {
		if c.answers[k] == nil {
			c.answers[k] = says(v)
		}
	}
	file := filepath.Join(t.TempDir(), "tale.txtar")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	s := stage.New(stage.Config{Lab: "lab", Seaway: "seaway", Runner: c, Out: io.Discard})
	e := Engine{Stage: s, Artefacts: t.TempDir(), Out: &told, Poll: time.Second, Limit: 5 * time.Minute, Slack: slack}
	v := &verdict{}
	done := make(chan struct{})
	go func() { // FailNow ends the goroutine, as with a real test
		defer close(done)
		e.Play(v, file)
	}()
	<-done
	v.told = told.String()
	if len(e.Results) != 1 {
		t.Fatalf("%d results", len(e.Results))
	}
	v.Result = e.Results[0]
	if v.Passed == v.failed {
		t.Errorf("the result says passed=%v, the test heard failed=%v", v.Passed, v.failed)
	}
	return v
}

type answers = map[string]func(int, stage.Command) (string, error)

func TestEventuallyLooksUntilItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clusters{answers: answers{"lab kubectl c1 get x": works(4, "ready\n")}}
		v := play1(t, c, "# It takes a while.\neventually 10s in c1 kubectl get x shows ready\n")
		if v.failed || c.ran("lab kubectl c1 get x") != 4 {
			t.Fatalf("failed=%v after %d looks\n%s", v.failed, c.ran("lab kubectl c1 get x"), v.log)
		}
	})
}

func TestEventuallyGivesUpAndSaysWhatItSawLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clusters{answers: answers{"lab kubectl c1 get x": says("pending\n")}}
		v := play1(t, c, "eventually 10s in c1 kubectl get x shows ready\n")
		if !v.failed {
			t.Fatal("passed")
		}
		v.mentions(t, "not within 10s", "ready", "pending")
	})
}

func TestNeverFailsWhenItHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clusters{answers: answers{"lab kubectl c1 get x": works(3, "oh\n")}}
		v := play1(t, c, "never 10s in c1 kubectl get x\n")
		if !v.failed {
			t.Fatal("passed although the third look succeeded")
		}
		v.mentions(t, "never to succeed", "oh")
		c = &clusters{answers: answers{"lab kubectl c1 get x": fails("no")}}
		if v := play1(t, c, "never 10s in c1 kubectl get x\n"); v.failed {
			t.Fatal(v.log)
		}
		if n := c.ran("lab kubectl c1 get x"); n < 10 {
			t.Errorf("looked only %d times in 10 s", n)
		}
	})
}

func TestAMisspeltLineIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for line, want := range map[string]string{
			"eventually 10s frm c1/a/b get x": `no verb "frm"`,
			"never 10s in c1 kubeclt get x":   "want seaway or kubectl",
			"eventually soon in c1 kubectl x": "want a time",
			"! in c1 docker ps":               "want seaway or kubectl", // a misuse is no failure that ! may ask for
			"in c1 kubectl get x shows ((":    "missing closing",
			"in c1 kubectl get x shows":       "at least one regular expression",
			"unchanged y in c1 kubectl get x": "nothing was remembered",
			"finish y":                        "usage: finish NAME",
			"from c1/shop get x":              "want CLUSTER/NAMESPACE/POD",
			"namespace shop":                  "usage: namespace",
			"app web in c1":                   "want NAMESPACE/NAME",
		} {
			c := &clusters{answers: answers{}}
			start := time.Now()
			v := play1(t, c, line+"\n")
			if !v.failed || time.Since(start) > time.Second {
				t.Errorf("%s: failed=%v after %s", line, v.failed, time.Since(start))
			}
			v.mentions(t, want)
		}
	})
}

func TestShowsHidesAndNot(t *testing.T) {
	run := func(line string) *verdict {
		return play1(t, &clusters{answers: answers{
			"lab kubectl c1 good": says("alpha\nbeta\n"), "lab kubectl c1 bad": fails("token expired: make a new one"),
		}}, line+"\n")
	}
	for line, pass := range map[string]bool{
		"in c1 kubectl good":                             true,
		"in c1 kubectl good shows ^beta$ alpha":          true,
		"in c1 kubectl good shows alpha gamma":           false,
		"in c1 kubectl good shows alpha hides gamma":     true,
		"in c1 kubectl good hides alpha":                 false,
		"in c1 kubectl bad":                              false,
		"! in c1 kubectl bad":                            true,
		"! in c1 kubectl bad shows 'token expired'":      true,
		"! in c1 kubectl bad shows 'other words'":        false,
		"! in c1 kubectl good":                           false,
		"try in c1 kubectl bad hides alpha":              true,
		"try in c1 kubectl bad hides expired":            false,
		"try in c1 kubectl good hides alpha":             false,
		"eventually 1s ! in c1 kubectl bad shows expire": true,
	} {
		if v := run(line); v.failed == pass {
			t.Errorf("%s: failed=%v\n%s", line, v.failed, v.log)
		}
	}
}

func TestRememberedThingsAreCompared(t *testing.T) {
	c := &clusters{answers: answers{"lab kubectl c1 get x": func(n int, _ stage.Command) (string, error) {
		return []string{"a\nb\n", "b\na\n", "a\nc\n"}[n-1], nil
	}}}
	v := play1(t, c, `remember x in c1 kubectl get x
unchanged x in c1 kubectl get x
unchanged x in c1 kubectl get x
`)
	if !v.failed || c.ran("lab kubectl c1 get x") != 3 {
		t.Fatal("the third look differs, and nobody noticed")
	}
	v.mentions(t, "- b", "+ c")
}

func TestNamesOfOutputsAndMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clusters{answers: answers{
			"seaway token create": says("seaway1.abc\n"),
			"lab kubectl c1 slow": func(int, stage.Command) (string, error) { time.Sleep(70 * time.Millisecond); return "", nil },
			"lab kubectl c1 took": says("a took 120.5 ms\nb took 80 ms\n"),
		}}
		v := play1(t, c, `let TOKEN in hub seaway token create c1
in c1 seaway join --token $TOKEN
time joined under 1s in c1 kubectl slow
measure attach ms under 300 in c1 kubectl took
! measure attach ms under 100 in c1 kubectl took
! time joined under 10ms in c1 kubectl slow
`)
		if v.failed {
			t.Fatal(v.log)
		}
		if c.ran("seaway join --token seaway1.abc --kubeconfig /k/c1") != 1 {
			t.Errorf("the token was not handed on: %q", c.log)
		}
		if m := v.Measures; len(m) != 4 || m[0] != (Measure{Label: "joined", Value: 70, Unit: "ms"}) || m[1] != (Measure{Label: "attach", Value: 120.5, Unit: "ms", Bar: 300}) {
			t.Errorf("measures %v", m)
		}
	})
}

func TestABusyMachineHasSlackAndTheBarIsToldAllTheSame(t *testing.T) {
	c := &clusters{answers: answers{"lab kubectl c1 took": says("a took 120.5 ms\n")}}
	v := playWith(t, c, "measure attach ms under 100 in c1 kubectl took\n! measure attach ms under 30 in c1 kubectl took\n", 4)
	if v.failed {
		t.Fatal(v.log)
	}
	if m := v.Measures; len(m) != 2 || m[0].Bar != 100 || !strings.Contains(v.told, "attach: 120.5 ms (OVER its bar of 100)") {
		t.Errorf("%v\n%s", m, v.told)
	}
}

func TestTheSummaryTellsWhatPassedItsBarAndWhatFailed(t *testing.T) {
	e := Engine{Results: []Result{
		{Story: "fast", Passed: true, Measures: []Measure{{Label: "dial", Value: 90, Unit: "ms", Bar: 100}}},
		{Story: "slow", Passed: true, Measures: []Measure{{Label: "dial", Value: 120, Unit: "ms", Bar: 100}},
			Records: []any{chaos.Report{Fault: "cut", Verdicts: []chaos.Verdict{{Expect: "f gap p99 <= 1s", Held: true, Over: true, Saw: "2s"}, {Expect: "g", Held: true}}}}},
		{Story: "broken", Seconds: 3, Failure: "no answer"},
	}}
	want := "over its bar: slow: dial 120 ms (100)\nover its bar: slow: cut: f gap p99 <= 1s: 2s\nfailed try: broken after 3 s: no answer\n"
	if got := e.Summary(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBackgroundLinesEndWithTheirInput(t *testing.T) {
	c := &clusters{answers: answers{
		"lab kubectl c1 get pods": says(`{"items":[{"metadata":{"name":"client","namespace":"shop"}}]}`),
		"lab kubectl c1 exec": func(_ int, cmd stage.Command) (string, error) {
			fmt.Fprintln(cmd.Live, "holding")
			b, err := io.ReadAll(cmd.Stdin) // until finish closes it
			return fmt.Sprintf("asked=7 broken=0 %s", b), err
		},
	}}
	v := play1(t, c, "start talk from c1/shop/client hold 10.77.0.1\nin c1 kubectl version\nfinish talk\nstdout broken=0\n")
	if v.failed {
		t.Fatal(v.log)
	}
	if c.ran("lab kubectl c1 exec -n shop client -i -- /probe hold 10.77.0.1") != 1 {
		t.Errorf("%q", c.log)
	}
}

func TestABackgroundLineThatCannotBeginFailsTheStory(t *testing.T) {
	c := &clusters{answers: answers{
		"lab kubectl c1 get pods": says(`{"items":[{"metadata":{"name":"client","namespace":"shop"}}]}`),
		"lab kubectl c1 exec":     fails("i/o timeout"),
	}}
	v := play1(t, c, "start talk from c1/shop/client hold 10.77.0.1\n")
	if !v.failed {
		t.Fatal("nobody noticed that it could not begin")
	}
	v.mentions(t, "talk ended at once", "i/o timeout")
}

func TestAFailedStoryIsCollectedBeforeItIsCleanedUp(t *testing.T) {
	c := &clusters{answers: answers{"lab kubectl c1 get x": fails("boom")}}
	v := play1(t, c, "namespace shop in c1\nin c1 kubectl get x\nin c1 kubectl get y\n")
	if !v.failed || c.ran("lab kubectl c1 get y") != 0 {
		t.Fatal("the story went on after a failure")
	}
	collected, cleaned := -1, -1
	for i, l := range c.log {
		if strings.HasPrefix(l, "lab collect ") {
			collected = i
		}
		if strings.HasPrefix(l, "lab kubectl c1 delete namespace") {
			cleaned = i
		}
	}
	if collected < 0 || cleaned < collected {
		t.Errorf("collected at %d, cleaned at %d: %q", collected, cleaned, c.log)
	}
	if !strings.Contains(v.told, "boom") || !strings.Contains(v.Failure, "boom") {
		t.Errorf("nobody was told why: %s", v.told)
	}
}

func TestACompleteStoryIsCleanedUpWithoutBeingAsked(t *testing.T) {
	c := &clusters{answers: answers{}}
	if v := play1(t, c, "namespace shop in c1\nlab wan cut c1 c1\n"); v.failed {
		t.Fatal(v.log)
	}
	for _, want := range []string{"lab wan clear", "lab kubectl c1 delete namespace"} {
		if c.ran(want) == 0 {
			t.Errorf("no %q in %q", want, c.log)
		}
	}
}

func TestEveryStoryUsesTheLanguage(t *testing.T) {
	files, err := Find("../stories")
	if err != nil {
		t.Fatal(err)
	}
	builtin := map[string]bool{"cmp": true, "stdout": true, "env": true, "skip": true, "stop": true, "exists": true}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(b), "# ") {
			t.Errorf("%s does not begin by saying what it tells", f)
		}
		script, _, _ := strings.Cut(string(b), "\n-- ")
		for i, l := range strings.Split(script, "\n") {
			words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(l), "! "))
			for len(words) > 0 && strings.HasPrefix(words[0], "[") {
				words = words[1:]
			}
			for len(words) > 0 && !strings.HasPrefix(words[0], "#") {
				v, ok := verbs()[words[0]]
				if !ok && !builtin[words[0]] {
					t.Errorf("%s:%d: no verb %q", f, i+1, words[0])
				}
				if !v.wraps {
					break
				}
				words = inner(words)
			}
		}
	}
}

// inner is the line that a wrapping verb's line has in it.
func inner(words []string) []string {
	skip := map[string]int{"eventually": 2, "never": 2, "repeat": 2, "time": 2, "measure": 3, "remember": 2, "unchanged": 2, "let": 2, "start": 2, "wire": 2, "search": 3, "try": 1}[words[0]]
	if skip > len(words) {
		return nil
	}
	words = words[skip:]
	if len(words) > 2 && words[0] == "under" {
		words = words[2:]
	}
	if len(words) > 0 && words[0] == "!" {
		words = words[1:]
	}
	return words
}

func TestHelpHasEveryVerb(t *testing.T) {
	h := Help()
	for name, v := range verbs() {
		if !strings.HasPrefix(v.usage, name) || v.does == "" || !strings.Contains(h, v.usage) {
			t.Errorf("%s: usage %q, does %q", name, v.usage, v.does)
		}
	}
}

func TestTheReadmeHasEveryVerb(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range verbs() {
		if !strings.Contains(string(b), "`"+name) {
			t.Errorf("README.md does not mention the verb %s", name)
		}
	}
}

func TestLinesOfAFile(t *testing.T) {
	c := &clusters{answers: answers{
		"lab kubectl c1 get node": says("c1n1"), "lab kubectl c1 get pod": says("it is on c1n1"),
	}}
	v := play1(t, c, `
repeat 3 lines round.txt
-- round.txt --
# which node
let NODE in c1 kubectl get node
in c1 kubectl cordon $NODE
in c1 kubectl get pod shows 'is on' ^it.is.on.$NODE$
`)
	if v.failed || c.ran("lab kubectl c1 cordon c1n1") != 3 {
		t.Errorf("failed %v, ran %d times:\n%s", v.failed, c.ran("lab kubectl c1 cordon c1n1"), v.log)
	}
	v = play1(t, c, `
repeat 3 lines round.txt
-- round.txt --
in c1 kubectl get pod hides c1n1
`)
	if !v.failed {
		t.Error("a line that failed did not fail the story")
	}
	v.mentions(t, "time 1 of 3", "round.txt:1")
}

func TestSplit(t *testing.T) {
	vars := func(n string) string { return map[string]string{"A": "x"}[n] }
	for line, want := range map[string]string{
		"a  b":            "a|b",
		"a 'b c' $A ^$A$": "a|b c|x|^x$",
		"'$A' '' a'b'c":   "$A||abc",
		"'it''s'":         "it's",
	} {
		got, err := split(line, vars)
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%s: %q %v", line, got, err)
		}
	}
	if _, err := split("a 'b", vars); err == nil {
		t.Error("an open quote is no error")
	}
}
