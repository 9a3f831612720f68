package match

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"

	"seaway.dev/seaway/scale/sim"
)

// colours of the policies' lines, told apart also without red and green.
func colour(i int) string {
	all := []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0c808", "#555555"}
	return all[i%len(all)]
}

// SVG draws the first seed's runs: the load as an area, each policy's pods as a line, and below, where requests were
// let down. perPod is the requests per second that a pod can serve: the load is drawn in pods.
func (r *Report) SVG(w io.Writer, perPod float64) error {
	const width, top, high, left = 1200, 40, 360, 60
	var b strings.Builder
	most := r.mostPods()
	var first []sim.Minute
	rows := 0
	for _, row := range r.Rows {
		if s := row.Runs[0].Series; len(s) > 0 {
			if rows++; first == nil {
				first = s
			}
		}
	}
	if first == nil {
		return fmt.Errorf("nothing to draw: no policy was run with its series kept")
	}
	need := func(m sim.Minute) float64 { return m.Rate / perPod }
	most = max(most, peak(first, need), 1)
	height := top + high + 24*rows + 60
	x := func(i, n int) float64 { return left + float64(i)*(width-left-20)/float64(max(1, n-1)) }
	y := func(v float64) float64 { return top + high - v/most*high }
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="20" font-size="14">%s, %s nodes, %s balancer: ready pods</text>`+"\n",
		width, height, left, html.EscapeString(r.Trace), html.EscapeString(r.Profile), html.EscapeString(r.Balancer))
	for i := range 5 {
		v := most * float64(i) / 4
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left, width-20, y(v), y(v), left-6, y(v)+4, v)
	}
	fmt.Fprintf(&b, `<path d="M%d,%d %s L%d,%d Z" fill="#e8e8e8"/>`+"\n", left, top+high, line(first, x, func(m sim.Minute) float64 { return y(need(m)) }, "L"), width-20, top+high)
	n := 0
	for i, row := range r.Rows {
		s := row.Runs[0].Series
		if len(s) == 0 {
			continue
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.3"/>`+"\n", line(s, x, func(m sim.Minute) float64 { return y(m.Ready) }, "M"), colour(i))
		base := float64(top + high + 24*n + 36)
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" fill="%s" text-anchor="end">%s</text>`+"\n", left-6, base, colour(i), html.EscapeString(row.Policy))
		bad(&b, s, x, base, colour(i))
		n++
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#555">grey: the load, in pods at full use; bars below: share of requests that were not good (full height 10 %%)</text>`+"\n</svg>\n", left, height-8)
	_, err := io.WriteString(w, b.String())
	return err
}

// thin is how many minutes go into a point.
func thin(n int) int { return max(1, n/2000) }

func line(s []sim.Minute, x func(i, n int) float64, y func(sim.Minute) float64, begin string) string {
	var b strings.Builder
	step := thin(len(s))
	for i := 0; i < len(s); i += step {
		v := 0.0
		part := s[i:min(i+step, len(s))]
		for _, m := range part {
			v += y(m) / float64(len(part))
		}
		fmt.Fprintf(&b, "%s%.1f,%.1f ", begin, x(i, len(s)), v)
		begin = "L"
	}
	return b.String()
}

func bad(b *strings.Builder, s []sim.Minute, x func(i, n int) float64, base float64, colour string) {
	step := thin(len(s))
	for i := 0; i < len(s); i += step {
		worst := peak(s[i:min(i+step, len(s))], func(m sim.Minute) float64 { return m.Bad })
		if worst > 0.0005 {
			fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s"/>`, x(i, len(s)), x(i, len(s)), base, base-math.Max(1, 18*math.Min(1, worst*10)), colour)
		}
	}
	b.WriteByte('\n')
}
