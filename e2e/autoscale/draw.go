package autoscale

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Draw writes the load, in pods' worth, and each curve's replicas as an SVG.
func Draw(w io.Writer, title string, load []float64, curves map[string][]int, order []string) error {
	const width, height, left, top = 1000, 380, 50, 40
	colours := []string{"#e69f00", "#0072b2", "#009e73"}
	most := 1.
	for _, c := range curves {
		for _, n := range c {
			most = max(most, float64(n))
		}
	}
	for _, r := range load {
		most = max(most, r/PerPod)
	}
	x := func(i, n int) float64 { return left + float64(i)*(width-left-20)/float64(max(1, n-1)) }
	y := func(v float64) float64 { return top + (height-top-40)*(1-v/most) }
	path := func(n int, v func(i int) float64) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				fmt.Fprintf(&b, " H%.1f", x(i, n))
			}
			fmt.Fprintf(&b, " %s%.1f,%.1f", map[bool]string{true: "M", false: "L"}[i == 0], x(i, n), y(v(i)))
		}
		return b.String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12"><rect width="%d" height="%d" fill="white"/><text x="%d" y="20" font-size="14">%s</text>`+"\n", width, height, width, height, left, html.EscapeString(title))
	for i := range 5 {
		v := most * float64(i) / 4
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.1f</text>`+"\n", left, width-20, y(v), y(v), left-6, y(v)+4, v)
	}
	fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="#bbb"/><text x="%d" y="%d" fill="#999">load, in pods' worth</text>`+"\n", path(len(load), func(i int) float64 { return load[i] / PerPod }), left, height-10)
	for i, name := range order {
		c := curves[name]
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.6"/><text x="%d" y="%d" fill="%[2]s">%[5]s</text>`+"\n",
			path(len(c), func(j int) float64 { return float64(c[j]) }), colours[i%len(colours)], left+200+260*i, height-10, name)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
