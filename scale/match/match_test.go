package match

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"image"
	"image/png"
	"math"
	"strings"
	"testing"

	"seaway.dev/seaway/scale/sim"
	"seaway.dev/seaway/scale/trace"
)

// day is a made-up load with a daily wave, so many hours long.
func day(hours int) *trace.Load {
	l := &trace.Load{Name: "wave", Rate: make([]float64, hours*3600), Factor: 1, Hold: 1}
	for i := range l.Rate {
		l.Rate[i] = 1500 + 1000*math.Sin(2*math.Pi*float64(i)/86400)
	}
	return l
}

func TestMatch(t *testing.T) {
	conf := sim.Default(sim.Profiles()["slow"])
	conf.Series = true
	rep, err := Run(context.Background(), Spec{Load: day(8), Conf: conf, Policies: []string{"hpa50", "hpa70", "static-20", B0, B1}, Seeds: 3})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]Row{}
	for _, r := range rep.Rows {
		by[r.Policy] = r
	}
	if r := by["hpa70"].Cost; r.Ratio != 1 || r.High-r.Low > 1e-9 {
		t.Errorf("the base against itself is %+v", r)
	}
	if r := by["hpa50"].NodeHours; !(r.Low > 1.1 && r.High < 1.7) {
		t.Errorf("hpa50 over hpa70 is %+v", r)
	}
	b0, b1 := by[B0], by[B1]
	if !(b0.PodHours.Mean < b1.PodHours.Mean*1.05 && b1.PodHours.Mean < by["hpa70"].PodHours.Mean) {
		t.Errorf("pod-hours %.1f, %.1f, %.1f: the bounds are in no order", b0.PodHours.Mean, b1.PodHours.Mean, by["hpa70"].PodHours.Mean)
	}
	for _, b := range []Row{b0, b1} {
		if share := b.BadShare.Mean; share > 0.00101 || share < 0.0003 {
			t.Errorf("%s lets down %.4f %%, want nearly 0.1 %%", b.Policy, 100*share)
		}
	}
	var out strings.Builder
	if err := rep.Table(&out); err != nil {
		t.Fatal(err)
	}
	rep.Chart(&out, 60)
	for _, want := range []string{"hpa50", "b1", "load", "×1.000", "VIOLATIONS"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := rep.SVG(&out, 100); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal([]byte(out.String()), new(struct{})); err != nil {
		t.Errorf("the drawing is no XML: %v", err)
	}
	var pixels bytes.Buffer
	if err := rep.PNG(&pixels, 100); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&pixels)
	if err != nil {
		t.Fatal(err)
	}
	if n := count(img, colour(1)); n < drawWidth/2 {
		t.Errorf("%d points of hpa70's line in the picture", n)
	}
}

// count is how many points of a picture have a colour, wholly.
func count(img image.Image, hex string) (n int) {
	r, g, b, _ := paint(hex).RGBA()
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			if r2, g2, b2, _ := img.At(x, y).RGBA(); r == r2 && g == g2 && b == b2 {
				n++
			}
		}
	}
	return n
}

func TestBestAndFrontier(t *testing.T) {
	pts := []Point{{"a", 0, 200, 0.0001}, {"b", 0, 150, 0.0008}, {"c", 0, 100, 0.02}, {"worse", 0, 180, 0.0009}}
	if got := Best(pts, 0.001); got != "b" {
		t.Errorf("best within 0.1 %% is %s, want b", got)
	}
	if got := Best(pts, 0.00001); got != "a" {
		t.Errorf("best where none keeps it is %s, want the one that lets down fewest", got)
	}
	for _, c := range []struct {
		bad, want float64
		reached   bool
	}{{0.0008, 150, true}, {0.05, 100, true}, {0.00001, 200, false}} {
		if got, reached := CostAt(pts, c.bad); math.Abs(got-c.want) > 1e-6 || reached != c.reached {
			t.Errorf("at %g: %g %v, want %g %v", c.bad, got, reached, c.want, c.reached)
		}
	}
	if got, _ := CostAt(pts, 0.003); !(got > 100 && got < 150) {
		t.Errorf("between two points: %g", got)
	}
}

func TestOneSeedIsJSON(t *testing.T) {
	e := ratio([]*sim.Result{{Bad: 3}}, []*sim.Result{{Bad: 0}}, func(r *sim.Result) float64 { return r.Bad })
	b, err := json.Marshal(e)
	if err != nil || string(b) != `{"high":null,"low":null,"mean":0,"ratio":null}` {
		t.Errorf("%s, %v", b, err)
	}
}

func TestStudent(t *testing.T) {
	for df, want := range map[int]float64{1: 12.706, 4: 2.776, 9: 2.262, 19: 2.093} {
		if got := Student(df); math.Abs(got-want) > 0.005 {
			t.Errorf("%d: %.3f, want %.3f", df, got, want)
		}
	}
}

// TestCostAtTheFloor: where nobody lets down more than what always is, shares differ by rounding only.
func TestCostAtTheFloor(t *testing.T) {
	a := 4.5e-5
	b := math.Nextafter(a, 1)
	points := []Point{{"hpa60", 1, 12, a}, {"hpa70", 1, 10, b}, {"hpa80", 1, 9, 1e-3}}
	for _, bad := range []float64{a, b} {
		if cost, ok := CostAt(points, bad); cost != 10 || !ok {
			t.Errorf("at %g the best HPA costs %g (%v), want 10", bad, cost, ok)
		}
	}
}
