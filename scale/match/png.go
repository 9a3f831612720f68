package match

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// raster draws into pixels. Its letters are of one size: those of basicfont, which need no file.
type raster struct{ img *image.RGBA }

func newPNG(width, height int) *raster {
	c := &raster{image.NewRGBA(image.Rect(0, 0, width, height))}
	draw.Draw(c.img, c.img.Bounds(), image.White, image.Point{}, draw.Src)
	return c
}

// paint reads #rrggbb.
func paint(s string) *image.Uniform {
	c := color.RGBA{A: 255}
	fmt.Sscanf(s, "#%02x%02x%02x", &c.R, &c.G, &c.B)
	return image.NewUniform(c)
}

// fill draws shapes together.
func (c *raster) fill(shapes [][]point, colour string) {
	b := c.img.Bounds()
	z := vector.NewRasterizer(b.Dx(), b.Dy())
	for _, s := range shapes {
		for i, p := range s {
			if i == 0 {
				z.MoveTo(float32(p.x), float32(p.y))
			} else {
				z.LineTo(float32(p.x), float32(p.y))
			}
		}
		z.ClosePath()
	}
	z.Draw(c.img, b, paint(colour), image.Point{})
}

func (c *raster) area(points []point, colour string) { c.fill([][]point{points}, colour) }

// line draws each stretch as a thin quadrangle, all turned the same way so that where they overlap they stay drawn.
func (c *raster) line(points []point, colour string, width float64) {
	var shapes [][]point
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		l := math.Hypot(b.x-a.x, b.y-a.y)
		if l == 0 {
			continue
		}
		dx, dy := (b.x-a.x)/l*width/2, (b.y-a.y)/l*width/2
		shapes = append(shapes, []point{{a.x - dx - dy, a.y - dy + dx}, {b.x + dx - dy, b.y + dy + dx}, {b.x + dx + dy, b.y + dy - dx}, {a.x - dx + dy, a.y - dy - dx}})
	}
	c.fill(shapes, colour)
}

func (c *raster) text(x, y float64, colour, s string, right bool) {
	d := font.Drawer{Dst: c.img, Src: paint(colour), Face: basicfont.Face7x13, Dot: fixed.P(int(x), int(y))}
	if right {
		d.Dot.X -= d.MeasureString(s)
	}
	d.DrawString(s)
}

func (c *raster) write(w io.Writer) error { return png.Encode(w, c.img) }
