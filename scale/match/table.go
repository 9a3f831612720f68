package match

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"seaway.dev/seaway/scale/sim"
)

// Table writes the report as a table.
func (r *Report) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s: %.4g h, ×%.4g; %s nodes, %s balancer; %d seeds; ratios to %s, 95 %% intervals\n\n", r.Trace, r.Hours, r.Factor, r.Profile, r.Balancer, r.Seeds, r.Base)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tNODE-HOURS\tPOD-HOURS\tCOST\tVIOLATIONS\tOF THEM\tMINUTES >1 %\tACTIONS/H")
	for _, row := range r.Rows {
		name := row.Policy
		if row.Note != "" {
			name += " (" + row.Note + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.4f %%\t%s\t%.3f %%\t%.1f\n", name, row.NodeHours.text(), row.PodHours.text(), row.Cost.text(),
			100*row.BadShare.Mean, row.BadShare.text(), 100*row.BadMinutes, row.ActionsH)
	}
	return t.Flush()
}

// text is a ratio with half its interval.
func (e Estimate) text() string {
	switch {
	case math.IsInf(e.Ratio, 1):
		return "× ∞"
	case math.IsNaN(e.Low):
		return fmt.Sprintf("×%.3f", e.Ratio)
	}
	return fmt.Sprintf("×%.3f ±%.3f", e.Ratio, (e.High-e.Low)/2)
}

// Chart writes, for a terminal, the load and each policy's ready pods over time, and where requests were let down.
func (r *Report) Chart(w io.Writer, width int) {
	width = max(20, min(width, 200))
	for i, row := range r.Rows {
		series := row.Runs[0].Series
		if len(series) == 0 {
			continue
		}
		if i == 0 {
			top := peak(series, func(m sim.Minute) float64 { return m.Rate })
			fmt.Fprintf(w, "%12s %s  up to %.0f/s\n", "load", spark(series, width, top, func(m sim.Minute) float64 { return m.Rate }), top)
		}
		top := r.mostPods()
		fmt.Fprintf(w, "%12s %s  up to %.0f pods\n", row.Policy, spark(series, width, top, func(m sim.Minute) float64 { return m.Ready }),
			peak(series, func(m sim.Minute) float64 { return m.Ready }))
		if peak(series, func(m sim.Minute) float64 { return m.Bad }) > 0.001 {
			fmt.Fprintf(w, "%12s %s  bad\n", "", marks(series, width))
		}
	}
}

func (r *Report) mostPods() (top float64) {
	for _, row := range r.Rows {
		top = max(top, peak(row.Runs[0].Series, func(m sim.Minute) float64 { return m.Ready }))
	}
	return top
}

func peak(s []sim.Minute, get func(sim.Minute) float64) (top float64) {
	for _, m := range s {
		top = max(top, get(m))
	}
	return top
}

// columns calls do with each column's minutes.
func columns(s []sim.Minute, width int, do func([]sim.Minute)) {
	width = min(width, len(s))
	for c := range width {
		do(s[c*len(s)/width : (c+1)*len(s)/width])
	}
}

func spark(s []sim.Minute, width int, top float64, get func(sim.Minute) float64) string {
	bars := []rune(" ▁▂▃▄▅▆▇█")
	var b strings.Builder
	columns(s, width, func(part []sim.Minute) {
		sum := 0.0
		for _, m := range part {
			sum += get(m)
		}
		b.WriteRune(bars[int(min(1, sum/float64(len(part))/max(top, 1e-9))*float64(len(bars)-1)+0.5)])
	})
	return b.String()
}

// marks shows the worst minute of each column: · over 0.1 %, x over 1 %, X over 10 %.
func marks(s []sim.Minute, width int) string {
	var b strings.Builder
	columns(s, width, func(part []sim.Minute) {
		switch worst := peak(part, func(m sim.Minute) float64 { return m.Bad }); {
		case worst > 0.1:
			b.WriteByte('X')
		case worst > 0.01:
			b.WriteByte('x')
		case worst > 0.001:
			b.WriteString("·")
		default:
			b.WriteByte(' ')
		}
	})
	return b.String()
}
