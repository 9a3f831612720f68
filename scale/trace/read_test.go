package trace

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func gz(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.String()
}

func TestRead(t *testing.T) {
	nan := math.NaN()
	for name, c := range map[string]struct {
		in     string
		bin    time.Duration
		rate   []float64
		spread []float64
		events int
	}{
		"counts":           {"t_s,requests\n0,30\n60,60\n120,0\n", time.Minute, []float64{0.5, 1, 0}, nil, 0},
		"gzip":             {gz("t_s,requests\n0,30\n60,60\n"), time.Minute, []float64{0.5, 1}, nil, 0},
		"rates":            {"t_s,rps\r\n0,3\r\n1,4.5\r\n", time.Second, []float64{3, 4.5}, nil, 0},
		"no last newline":  {"t_s,rps\n0,3\n1,4", time.Second, []float64{3, 4}, nil, 0},
		"rows are missing": {"t_s,rps\n0,1\n1,1\n2,1\n5,2\n", time.Second, []float64{1, 1, 1, nan, nan, 2}, nil, 0},
		"values missing":   {"t_s,rps\n0,1\n1,\n2,NaN\n3,4\n", time.Second, []float64{1, nan, nan, 4}, nil, 0},
		"gaps told":        {"t_s,rate_rps,idi,rate_filled_rps,gap\n0,10,2,10,0\n600,0,3,11,1\n1200,12,4,12,0\n", 10 * time.Minute, []float64{10, nan, 12}, []float64{2, 3, 4}, 0},
		"events":           {"t_s,context_tokens\n0.0,3\n0.5,4\n0.5,4\n2.25,1\n", time.Second, []float64{3, 0, 1}, nil, 4},
		"begins later":     {"t_s,requests\n7200,10\n7210,20\n", 10 * time.Second, []float64{1, 2}, nil, 0},
		"comments":         {"# made up\nt_s,rps\n0,1\n# more\n1,2\n", time.Second, []float64{1, 2}, nil, 0},
		"narrow bins":      {"t_s,requests\n0,1\n0.1,2\n0.2,3\n", 100 * time.Millisecond, []float64{10, 20, 30}, nil, 0},
	} {
		got, err := Read(strings.NewReader(c.in), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Bin != c.bin || got.Events != c.events || !same(got.Rate, c.rate) || !same(got.Spread, c.spread) {
			t.Errorf("%s: %s %v %v, want %s %v %v", name, got.Bin, got.Rate, got.Spread, c.bin, c.rate, c.spread)
		}
	}
}

func same(a, b []float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.IsNaN(a[i]) != math.IsNaN(b[i]) || math.Abs(a[i]-b[i]) > 1e-9 {
			return false
		}
	}
	return true
}

// TestWhereItIsWrong: an error names the line and the column, and what would be right.
func TestWhereItIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":           {"", "is empty"},
		"no header":       {"0,1\n1,2\n", "line 1: the first line is the header"},
		"no time":         {"when,rps\n0,1\n1,2\n", `line 1, column "when": the first column is the time`},
		"words":           {"t_s,rps\n0,1\n1,many\n", `line 3, column "rps": "many" is no number`},
		"columns":         {"t_s,rps\n0,1\n1\n", "line 3: 1 columns, but the header has 2"},
		"backwards":       {"t_s,rps\n0,1\n5,2\n4,2\n", `line 4, column "t_s": 4 does not come after 5`},
		"twice":           {"t_s,rps\n0,1\n0,2\n", `line 3, column "t_s"`},
		"negative":        {"t_s,requests\n0,1\n1,-2\n", `line 3, column "requests": -2 is negative`},
		"off the grid":    {"# a\nt_s,rps\n0,1\n10,1\n20,1\n34,2\n", `line 6, column "t_s": 34 is no multiple of the bins' 10 s`},
		"one row":         {"t_s,rps\n0,1\n", "has 1 rows"},
		"nothing known":   {"t_s,rps\n0,\n1,\n", "no bin with a value"},
		"infinite":        {"t_s,rps\n0,1\n1,inf\n", `column "rps"`},
		"cut gzip":        {gz("t_s,rps\n0,1\n1,2\n")[:25], "unexpected EOF"},
		"half an hour":    {"t_s,rps\n0,1\n1e14,1\n", "wide"},
		"too many events": {"t_s\n0\n1e12\n", "more than"},
	} {
		_, err := Read(strings.NewReader(c.in), name)
		var at *Error
		if err == nil || !errors.As(err, &at) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"t_s,requests\n0,30\n60,60\n", "t_s,rps\n0,3\n1,4.5\n", "t_s,rate_rps,idi,gap\n0,1,2,0\n600,,3,1\n", "t_s\n0\n0.5\n", gz("t_s,rps\n0,1\n1,2\n")} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := Read(bytes.NewReader(b), "fuzz")
		if err != nil {
			var at *Error
			if !errors.As(err, &at) {
				t.Fatalf("an error that names no place: %v", err)
			}
			return
		}
		if tr.Bin <= 0 || len(tr.Rate) == 0 || len(tr.Rate) > 100_000 || tr.Length() > 1e6*time.Second {
			return
		}
		l := tr.Load(3)
		for s, v := range l.Rate {
			if math.IsNaN(v) || v < 0 || math.IsInf(v, 0) {
				t.Fatalf("second %d has intensity %g", s, v)
			}
		}
	})
}

func TestLoadKeepsLevelsAndSteps(t *testing.T) {
	tr := &Trace{Bin: 10 * time.Second, Rate: make([]float64, 2000)}
	for i := range tr.Rate {
		tr.Rate[i] = 1 + 0.3*float64(i%3-1)
		if i >= 1000 {
			tr.Rate[i] += 20
		}
	}
	l := tr.Load(10)
	for _, c := range []struct {
		s    int
		want float64
	}{{5000, 10}, {9900, 10}, {10100, 210}, {15000, 210}} {
		if math.Abs(l.Rate[c.s]/c.want-1) > 0.1 {
			t.Errorf("second %d: %.1f, want %.1f: a step stays where it was", c.s, l.Rate[c.s], c.want)
		}
	}
	if one := tr.Load(1); math.Abs(one.Rate[5]-tr.Rate[0]) > 0.05 {
		t.Errorf("times 1 changes %g into %g", tr.Rate[0], one.Rate[5])
	}
}

func TestGapsArePlayedAndMasked(t *testing.T) {
	nan := math.NaN()
	tr := &Trace{Bin: time.Minute, Rate: []float64{10, nan, nan, nan, 50, 50}}
	l := tr.Load(1)
	if l.Masked[30] || !l.Masked[90] || !l.Masked[200] || l.Masked[270] {
		t.Error("the gap is not what is masked")
	}
	if l.Rate[150] < 20 || l.Rate[150] > 40 {
		t.Errorf("in the middle of the gap %g, want about 30", l.Rate[150])
	}
}

func TestGenerate(t *testing.T) {
	for _, kind := range Kinds() {
		a, err := Generate(kind, 1)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := Generate(kind, 1)
		if a.Length() != 8*24*time.Hour || !same(a.Rate, b.Rate) || !(a.Mean() > 0) {
			t.Errorf("%s: %s", kind, a)
		}
	}
	if _, err := Generate("nothing", 1); err == nil || !strings.Contains(err.Error(), "diurnal") {
		t.Errorf("an unknown kind: %v", err)
	}
}
