package trace

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is read: beyond them a file is not a trace but an accident.
const (
	maxRows = 50_000_000
	maxBins = 20_000_000
	maxLine = 1 << 16
)

// Error says where in a file something is wrong.
type Error struct {
	Name   string
	Line   int    // from 1; 0: the file as a whole
	Column string // its name in the header, if it is about one
	Text   string
}

// Error implements error.
func (e *Error) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %s", e.Name, e.Text)
	case e.Column == "":
		return fmt.Sprintf("%s: line %d: %s", e.Name, e.Line, e.Text)
	}
	return fmt.Sprintf("%s: line %d, column %q: %s", e.Name, e.Line, e.Column, e.Text)
}

// ReadFile reads a trace from a .csv or .csv.gz file.
func ReadFile(path string) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	defer f.Close()
	name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".gz"), ".csv")
	return Read(f, name)
}

// Read reads a trace: CSV with a header line, gzipped or not. The first column is the time in seconds; the others are
// known by their names:
//
//	requests, count, mentions, …          arrivals in the bin       (any bin width, the same in the whole file)
//	rps, rate, rate_rps, …                arrivals per second
//	neither                               each row is one arrival   (other columns, such as tokens, are not used)
//	idi                                   how uneven the arrivals are (variance over Poisson's), optional
//	rate_filled_rps, gap                  what to put into gaps, and which bins are gaps (1), optional
//
// Bins that are missing, empty or NaN are gaps.
func Read(r io.Reader, name string) (*Trace, error) {
	in := bufio.NewReaderSize(r, maxLine)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, &Error{Name: name, Text: "is not whole gzip: " + err.Error()}
		}
		in = bufio.NewReaderSize(z, maxLine)
	}
	d := &reader{name: name}
	for {
		line, err := in.ReadSlice('\n')
		d.line++
		if err != nil && !errors.Is(err, io.EOF) {
			if errors.Is(err, bufio.ErrBufferFull) {
				return nil, d.fail("", "longer than %d characters", maxLine)
			}
			return nil, d.fail("", "%v", err)
		}
		if bad := d.take(strings.TrimSpace(string(line))); bad != nil {
			return nil, bad
		}
		if err != nil {
			break
		}
	}
	return d.finish()
}

// reader holds what has been read.
type reader struct {
	name  string
	line  int
	names []string // the header
	// columns by what they mean; -1 where there is none
	count, rate, spread, filled, gap int

	at      []float64
	lines   []int32 // where each row came from
	value   []float64
	spreads []float64
	fills   []float64
}

func (d *reader) fail(column, format string, args ...any) error {
	return &Error{Name: d.name, Line: d.line, Column: column, Text: fmt.Sprintf(format, args...)}
}

func (d *reader) take(line string) error {
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	fields := strings.Split(line, ",")
	if d.names == nil {
		return d.header(fields)
	}
	if len(fields) != len(d.names) {
		return d.fail("", "%d columns, but the header has %d (%s)", len(fields), len(d.names), strings.Join(d.names, ","))
	}
	if len(d.at) >= maxRows {
		return d.fail("", "more than %d rows; cut the trace or put it into wider bins", maxRows)
	}
	t, err := d.number(fields, 0)
	if err != nil {
		return err
	}
	if math.IsNaN(t) {
		return d.fail(d.names[0], "no time")
	}
	if n := len(d.at); n > 0 && (t < d.at[n-1] || (t == d.at[n-1] && !d.events())) {
		return d.fail(d.names[0], "%s does not come after %s of the row before: rows go forward in time", fields[0], trim(d.at[n-1]))
	}
	d.at, d.lines = append(d.at, t), append(d.lines, int32(d.line))
	if d.events() {
		return nil
	}
	return d.values(fields)
}

func (d *reader) events() bool { return d.count < 0 && d.rate < 0 }

func (d *reader) values(fields []string) error {
	col := d.rate
	if col < 0 {
		col = d.count
	}
	for _, c := range []struct {
		col  int
		into *[]float64
	}{{col, &d.value}, {d.spread, &d.spreads}, {d.filled, &d.fills}} {
		if c.col < 0 {
			continue
		}
		v, err := d.number(fields, c.col)
		if err != nil {
			return err
		}
		if v < 0 {
			return d.fail(d.names[c.col], "%s is negative", fields[c.col])
		}
		*c.into = append(*c.into, v)
	}
	if d.gap >= 0 {
		v, err := d.number(fields, d.gap)
		if err != nil {
			return err
		}
		if v != 0 {
			d.value[len(d.value)-1] = math.NaN()
		}
	}
	return nil
}

// number is a field as a number: NaN when it is empty or says so.
func (d *reader) number(fields []string, col int) (float64, error) {
	s := strings.TrimSpace(fields[col])
	if s == "" || strings.EqualFold(s, "nan") || strings.EqualFold(s, "null") {
		return math.NaN(), nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(v, 0) || math.Abs(v) > 1e15 {
		if len(s) > 40 {
			s = s[:40] + "…"
		}
		return 0, d.fail(d.names[col], "%q is no number that a trace can hold", s)
	}
	return v, nil
}

func (d *reader) header(fields []string) error {
	d.count, d.rate, d.spread, d.filled, d.gap = -1, -1, -1, -1, -1
	for i, f := range fields {
		f = strings.ToLower(strings.Trim(strings.TrimSpace(f), "\"\ufeff"))
		fields[i] = f
		if f == "" {
			return d.fail("", "the header's column %d has no name", i+1)
		}
		if i == 0 {
			continue
		}
		switch f {
		case "requests", "count", "counts", "mentions", "arrivals", "hits", "value":
			d.count = i
		case "rps", "rate", "rate_rps", "qps", "requests_per_second":
			d.rate = i
		case "idi", "dispersion":
			d.spread = i
		case "rate_filled_rps":
			d.filled = i
		case "gap":
			d.gap = i
		}
	}
	if _, err := strconv.ParseFloat(fields[0], 64); err == nil {
		return d.fail("", "the first line is the header, such as t_s,requests (bins) or t_s,rps or t_s (one row an arrival); found %q", strings.Join(fields, ","))
	}
	switch fields[0] {
	case "t_s", "t", "time", "time_s", "timestamp", "seconds", "offset_s":
	default:
		return d.fail(fields[0], "the first column is the time in seconds, by the name t_s")
	}
	if d.count >= 0 && d.rate >= 0 {
		d.count = -1 // a rate is what a count would become
	}
	d.names = fields
	return nil
}

func (d *reader) finish() (*Trace, error) {
	d.line = 0
	if d.names == nil {
		return nil, d.fail("", "is empty: a trace has a header line such as t_s,requests and rows below it")
	}
	if len(d.at) < 2 {
		return nil, d.fail("", "has %d rows: a trace has two at least", len(d.at))
	}
	if d.events() {
		return d.fromEvents()
	}
	return d.fromBins()
}

// fromEvents puts single arrivals into bins of one second.
func (d *reader) fromEvents() (*Trace, error) {
	first, last := d.at[0], d.at[len(d.at)-1]
	if last-first >= maxBins {
		return nil, d.fail("", "spans %s s: more than %d one-second bins", trim(last-first), maxBins)
	}
	t := &Trace{Name: d.name, Bin: time.Second, Rate: make([]float64, int(last-first)+1), Events: len(d.at)}
	for _, at := range d.at {
		t.Rate[int(at-first)]++
	}
	return t, nil
}

func (d *reader) fromBins() (*Trace, error) {
	steps := make([]float64, len(d.at)-1)
	for i := range steps {
		steps[i] = d.at[i+1] - d.at[i]
	}
	slices.Sort(steps)
	width := steps[len(steps)/2]
	if width < 1e-3 || width > 366*86400 {
		return nil, d.fail("", "its bins are %s s wide: between a millisecond and a year is possible", trim(width))
	}
	n := math.Round((d.at[len(d.at)-1]-d.at[0])/width) + 1
	if n > maxBins {
		return nil, d.fail("", "spans %.0f bins of %s s: %d at most", n, trim(width), maxBins)
	}
	t := &Trace{Name: d.name, Bin: time.Duration(width * float64(time.Second)), Rate: nans(int(n))}
	if d.spread >= 0 {
		t.Spread = nans(int(n))
	}
	if d.filled >= 0 {
		t.Filled = nans(int(n))
	}
	per := 1.0
	if d.rate < 0 {
		per = width
	}
	for i, at := range d.at {
		pos := (at - d.at[0]) / width
		k := int(math.Round(pos))
		if math.Abs(pos-float64(k)) > 0.25 {
			return nil, &Error{Name: d.name, Line: int(d.lines[i]), Column: d.names[0], Text: fmt.Sprintf("%s is no multiple of the bins' %s s after the first", trim(at), trim(width))}
		}
		if t.Rate[k] = d.value[i] / per; t.Spread != nil {
			t.Spread[k] = d.spreads[i]
		}
		if t.Filled != nil {
			t.Filled[k] = d.fills[i]
		}
	}
	if t.Gaps() == 1 {
		return nil, d.fail("", "has no bin with a value")
	}
	return t, nil
}

func nans(n int) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = math.NaN()
	}
	return s
}

func trim(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
