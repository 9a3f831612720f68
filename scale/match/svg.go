package match

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// svg draws by writing.
type svg struct{ b strings.Builder }

func newSVG(width, height int) *svg {
	c := &svg{}
	fmt.Fprintf(&c.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&c.b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	return c
}

func (c *svg) path(points []point) {
	c.b.WriteString(`<path d="`)
	for i, p := range points {
		with := "L"
		if i == 0 {
			with = "M"
		}
		fmt.Fprintf(&c.b, "%s%.1f,%.1f ", with, p.x, p.y)
	}
}

func (c *svg) area(points []point, colour string) {
	c.path(points)
	fmt.Fprintf(&c.b, `Z" fill="%s"/>`+"\n", colour)
}

func (c *svg) line(points []point, colour string, width float64) {
	c.path(points)
	fmt.Fprintf(&c.b, `" fill="none" stroke="%s" stroke-width="%g"/>`+"\n", colour, width)
}

func (c *svg) text(x, y float64, colour, s string, right bool) {
	anchor := "start"
	if right {
		anchor = "end"
	}
	fmt.Fprintf(&c.b, `<text x="%.1f" y="%.1f" fill="%s" text-anchor="%s">%s</text>`+"\n", x, y, colour, anchor, html.EscapeString(s))
}

func (c *svg) write(w io.Writer) error {
	_, err := io.WriteString(w, c.b.String()+"</svg>\n")
	return err
}
