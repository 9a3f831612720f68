package ctl

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seaway.dev/seaway/scale/match"
)

func writeTrace(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "load.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSimMistakes: what is wrong with a file is told by line and column, and what is wrong with the flags by what there
// is to choose from.
func TestSimMistakes(t *testing.T) {
	good := writeTrace(t, "t_s,rps\n0,10\n60,20\n")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{}, "which load? --trace"},
		{[]string{"--trace", "/does/not/exist.csv"}, "no file /does/not/exist.csv"},
		{[]string{"--trace", writeTrace(t, "t_s,rps\n0,10\n60,ten\n")}, `line 3, column "rps": "ten" is no number`},
		{[]string{"--trace", writeTrace(t, "t_s,rps\n0,10\n60,20\n30,20\n")}, `line 4, column "t_s"`},
		{[]string{"--trace", good, "--profile", "glacial"}, "fast, managed, slow"},
		{[]string{"--trace", good, "--policy", "hpa700"}, `no policy "hpa700"`},
		{[]string{"--trace", good, "--balancer", "magic"}, "random and least"},
		{[]string{"--trace", good, "--score", "third"}, "all, first or second"},
		{[]string{"--trace", good, "--chart", "o.jpg"}, "an .svg or a .png"},
		{[]string{"--trace", good, "--seeds", "0"}, "between 1 and 1000"},
		{[]string{"--trace", good, "--good", "99.9"}, "a share between 0 and 1"},
	} {
		_, errs, code := run(t, append([]string{"sim", "run"}, c.args...)...)
		if code != ExitUsage || !strings.Contains(errs, c.says) {
			t.Errorf("sim run %v: exit code %d, %s\nwant it to say %q", c.args, code, errs, c.says)
		}
	}
}

func TestSimRun(t *testing.T) {
	var b strings.Builder
	b.WriteString("t_s,requests\n")
	for i := range 180 {
		fmt.Fprintf(&b, "%d,%d\n", i*60, int(60*(50+40*math.Sin(float64(i)/30))))
	}
	path, dir := writeTrace(t, b.String()), t.TempDir()
	out, errs, code := run(t, "sim", "run", "--trace", path, "--policy", "hpa50,hpa70,static,keda,b0", "--seeds", "2",
		"--json", filepath.Join(dir, "o.json"), "--chart", filepath.Join(dir, "o.svg"))
	if code != ExitOK {
		t.Fatal(errs)
	}
	for _, want := range []string{"NODE-HOURS", "VIOLATIONS", "hpa70", "×1.000", "static", "load"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "o.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rep match.Report
	if err := json.Unmarshal(raw, &rep); err != nil || len(rep.Rows) != 5 || rep.Rows[0].PodHours.Mean <= rep.Rows[1].PodHours.Mean {
		t.Errorf("the JSON: %v, %+v", err, rep)
	}
	if svg, err := os.ReadFile(filepath.Join(dir, "o.svg")); err != nil || !strings.HasPrefix(string(svg), "<svg") {
		t.Errorf("the drawing: %v", err)
	}
	out, errs, code = run(t, "sim", "traces", path)
	if code != ExitOK || !strings.Contains(out, "3h0m0s") {
		t.Errorf("sim traces: %d, %s%s", code, out, errs)
	}
}
