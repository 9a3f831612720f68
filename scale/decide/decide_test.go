package decide

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestSolveIsExact compares with trying every path.
func TestSolveIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		steps, n := 1+r.IntN(4), 1+r.IntN(5)
		p := Problem{Low: r.IntN(3), Up: r.Float64(), Down: r.Float64(), Once: r.Float64()}
		p.Now = p.Low + r.IntN(n)
		for s := range steps {
			row := make([]float64, n)
			for i := range row {
				row[i] = 3 * r.Float64()
			}
			p.Stage = append(p.Stage, row)
			p.Limit = append(p.Limit, max(p.Now, p.Low+r.IntN(n)+s))
		}
		got, want := Solve(p), brute(p, 0, p.Now)
		if math.Abs(got.Cost-want) > 1e-9 {
			t.Fatalf("%+v: cost %v, the best is %v", p, got.Cost, want)
		}
		if c := cost(p, got.Pods); math.Abs(c-want) > 1e-9 {
			t.Fatalf("%+v: the path %v costs %v, not %v", p, got.Pods, c, want)
		}
	}
}

func brute(p Problem, s, at int) float64 {
	if s == len(p.Stage) {
		return 0
	}
	best := math.Inf(1)
	for i := range p.Stage[s] {
		n := p.Low + i
		if n <= p.Limit[s] {
			best = math.Min(best, change(p, at, n)+p.Stage[s][i]+brute(p, s+1, n))
		}
	}
	return best
}

func cost(p Problem, path []int) float64 {
	c, at := 0., p.Now
	for s, n := range path {
		c, at = c+change(p, at, n)+p.Stage[s][n-p.Low], n
	}
	return c
}

func change(p Problem, a, b int) float64 {
	switch {
	case b > a:
		return p.Once + p.Up*float64(b-a)
	case b < a:
		return p.Once + p.Down*float64(a-b)
	}
	return 0
}

func TestHold(t *testing.T) {
	var k Keep
	for i, c := range []struct {
		now        int64
		want, hold int
	}{{0, 5, 5}, {10, 9, 9}, {20, 4, 9}, {60, 6, 9}, {71, 3, 6}, {125, 3, 3}, {126, 12, 12}} {
		if got := k.Hold(c.now, c.want, 60); got != c.hold {
			t.Errorf("%d: wants %d, holds %d, not %d", i, c.want, got, c.hold)
		}
	}
	if len(k.Wants) > 3 {
		t.Errorf("keeps %d", len(k.Wants))
	}
}

func BenchmarkSolve(b *testing.B) {
	p := Problem{Low: 1, Now: 40, Up: 1, Once: 0.5}
	for range 20 {
		row := make([]float64, 200)
		for i := range row {
			row[i] = math.Abs(float64(i) - 70)
		}
		p.Stage, p.Limit = append(p.Stage, row), append(p.Limit, 200)
	}
	for b.Loop() {
		Solve(p)
	}
}
