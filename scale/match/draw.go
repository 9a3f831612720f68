package match

import (
	"fmt"
	"io"
	"math"

	"seaway.dev/seaway/scale/sim"
)

// canvas is what a drawing is made on; there are an SVG and a PNG. Measures are in points of the drawing, colours are
// #rrggbb.
type canvas interface {
	area(points []point, colour string)
	line(points []point, colour string, width float64)
	// text begins at x, or ends there when it is right.
	text(x, y float64, colour, s string, right bool)
	write(w io.Writer) error
}

type point struct{ x, y float64 }

// colour of the i-th policy's line, told apart also without red and green.
func colour(i int) string {
	all := []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0c808", "#555555"}
	return all[i%len(all)]
}

// Measures of the drawing.
const (
	drawWidth = 1200
	drawTop   = 40
	drawHigh  = 360
	drawLeft  = 90
	drawRight = 20
)

// SVG draws the first seed's runs: the load as an area, each policy's pods as a line, and below, where requests were
// let down. perPod is the requests per second that a pod can serve: the load is drawn in pods.
func (r *Report) SVG(w io.Writer, perPod float64) error {
	return r.draw(w, perPod, func(width, height int) canvas { return newSVG(width, height) })
}

// PNG is the same drawing, in pixels.
func (r *Report) PNG(w io.Writer, perPod float64) error {
	return r.draw(w, perPod, func(width, height int) canvas { return newPNG(width, height) })
}

func (r *Report) draw(w io.Writer, perPod float64, begin func(width, height int) canvas) error {
	var shown []int
	for i, row := range r.Rows {
		if len(row.Runs) > 0 && len(row.Runs[0].Series) > 0 {
			shown = append(shown, i)
		}
	}
	if len(shown) == 0 {
		return fmt.Errorf("nothing to draw: no policy was run with its series kept, or the load is shorter than a minute")
	}
	first := r.Rows[shown[0]].Runs[0].Series
	need := func(m sim.Minute) float64 { return m.Rate / perPod }
	most := max(r.mostPods(), peak(first, need), 1)
	height := drawTop + drawHigh + 24*len(shown) + 60
	c := begin(drawWidth, height)
	y := func(v float64) float64 { return drawTop + drawHigh - v/most*drawHigh }
	c.text(drawLeft, 20, "#000000", fmt.Sprintf("%s, %s nodes, %s balancer: ready pods", r.Trace, r.Profile, r.Balancer), false)
	for i := range 5 {
		v := most * float64(i) / 4
		c.line([]point{{drawLeft, y(v)}, {drawWidth - drawRight, y(v)}}, "#dddddd", 1)
		c.text(drawLeft-6, y(v)+4, "#000000", fmt.Sprintf("%.0f", v), true)
	}
	load := curve(first, func(m sim.Minute) float64 { return y(need(m)) })
	c.area(append(append([]point{{drawLeft, y(0)}}, load...), point{load[len(load)-1].x, y(0)}), "#e8e8e8")
	for n, i := range shown {
		row := r.Rows[i]
		s := row.Runs[0].Series
		c.line(curve(s, func(m sim.Minute) float64 { return y(m.Ready) }), colour(i), 1.3)
		base := float64(drawTop + drawHigh + 24*n + 36)
		c.text(drawLeft-6, base, colour(i), row.Policy, true)
		letDown(c, s, base, colour(i))
	}
	c.text(drawLeft, float64(height-8), "#555555", "grey: the load, in pods at full use; bars below: share of requests that were not good (full height 10 %)", false)
	return c.write(w)
}

// thin is how many minutes go into a point.
func thin(n int) int { return max(1, n/2000) }

func across(i, n int) float64 {
	return drawLeft + float64(i)*(drawWidth-drawLeft-drawRight)/float64(max(1, n-1))
}

// curve is a value over time, in means of some minutes.
func curve(s []sim.Minute, y func(sim.Minute) float64) (out []point) {
	step := thin(len(s))
	for i := 0; i < len(s); i += step {
		v := 0.0
		part := s[i:min(i+step, len(s))]
		for _, m := range part {
			v += y(m) / float64(len(part))
		}
		out = append(out, point{across(i, len(s)), v})
	}
	return out
}

// letDown draws where requests were not good.
func letDown(c canvas, s []sim.Minute, base float64, colour string) {
	step := thin(len(s))
	for i := 0; i < len(s); i += step {
		worst := peak(s[i:min(i+step, len(s))], func(m sim.Minute) float64 { return m.Bad })
		if worst > 0.0005 {
			x := across(i, len(s))
			c.line([]point{{x, base}, {x, base - math.Max(1, 18*math.Min(1, worst*10))}}, colour, 1)
		}
	}
}
