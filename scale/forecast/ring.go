package forecast

import "math"

// Ring keeps the newest bins of a signal: means over Step seconds each, NaN where nothing was measured.
type Ring struct {
	Step   int64     // seconds
	Head   int64     // number of the newest whole bin; bin b spans [b Step, (b+1) Step) of Unix time
	Vals   []float32 // oldest first, Cap at most
	Sum, N float64
	Open   int64 // number of the bin being filled
	Cap    int
}

// add takes a value at a time and tells whether a bin was completed by it.
func (r *Ring) add(unix, v float64) bool {
	b := int64(unix) / r.Step
	done := false
	if b > r.Open || r.Open == 0 {
		if r.Open != 0 {
			r.push(b)
			done = true
		}
		r.Open, r.Sum, r.N = b, 0, 0
	}
	if b == r.Open && !math.IsNaN(v) {
		r.Sum, r.N = r.Sum+v, r.N+1
	}
	return done
}

func (r *Ring) push(next int64) {
	v := math.NaN()
	if r.N > 0 {
		v = r.Sum / r.N
	}
	r.Vals = append(r.Vals, float32(v))
	r.Head = r.Open
	for gap := min(next-r.Open-1, int64(r.Cap)); gap > 0; gap-- {
		r.Vals = append(r.Vals, float32(math.NaN()))
	}
	r.Head = next - 1
	if len(r.Vals) > r.Cap {
		n := copy(r.Vals, r.Vals[len(r.Vals)-r.Cap:])
		r.Vals = r.Vals[:n]
	}
}

// rewind forgets what lies after a time: the clock went back.
func (r *Ring) rewind(unix float64) {
	b := int64(unix) / r.Step
	if b >= r.Open {
		return
	}
	gone := min(max(r.Head-b+1, 0), int64(len(r.Vals)))
	r.Vals = r.Vals[:int64(len(r.Vals))-gone]
	r.Head, r.Open, r.Sum, r.N = b-1, b, 0, 0
}

// at is the value of bin b, NaN if it is not known.
func (r *Ring) at(b int64) float64 {
	i := int64(len(r.Vals)) - 1 - (r.Head - b)
	if i < 0 || i >= int64(len(r.Vals)) {
		return math.NaN()
	}
	return float64(r.Vals[i])
}

// smooth is the mean of bins b-k..b+k that are known, NaN if fewer than half are.
func (r *Ring) smooth(b, k int64) float64 {
	s, n := 0., 0.
	for i := b - k; i <= b+k; i++ {
		if v := r.at(i); !math.IsNaN(v) {
			s, n = s+v, n+1
		}
	}
	if 2*n < float64(2*k+1) {
		return math.NaN()
	}
	return s / n
}

// period finds the lag, in bins of every merged bins, at which the signal resembles itself most, among from..to bins,
// and how much (-1 to 1). Two whole cycles must have been seen. 0: there is none.
func (r *Ring) period(from, to, every int64) (lag int64, likeness float64) {
	n := int64(len(r.Vals)) / every
	xs := make([]float64, n)
	mean, count := 0., 0.
	for i := range xs {
		s, k := 0., 0.
		for j := range every {
			if v := float64(r.Vals[int64(len(r.Vals))-n*every+int64(i)*every+j]); !math.IsNaN(v) {
				s, k = s+v, k+1
			}
		}
		if k == 0 {
			xs[i] = math.NaN()
			continue
		}
		xs[i] = math.Log(s/k + 0.1)
		mean, count = mean+xs[i], count+1
	}
	if count < 16 {
		return 0, 0
	}
	mean /= count
	var2 := 0.
	for i, x := range xs {
		if math.IsNaN(x) {
			xs[i] = 0 // the mean: says nothing
			continue
		}
		xs[i] = max(-3, min(3, x-mean))
		var2 += xs[i] * xs[i]
	}
	if var2 < 1e-9 {
		return 0, 0
	}
	to = min(to, n*every/2)
	acf := func(l int64) float64 {
		s := 0.
		for i := l; i < n; i++ {
			s += xs[i] * xs[i-l]
		}
		return s / var2 * float64(n) / float64(n-l)
	}
	prev, cur := acf(from/every), acf(from/every+1)
	dipped := false
	for l := from/every + 1; l < to/every; l++ {
		next := acf(l + 1)
		dipped = dipped || cur < 0.6*likeness || cur < 0.3
		if cur >= prev && cur > next && cur > 0.3 && cur > likeness*1.05 && dipped {
			lag, likeness = l*every, cur
		}
		prev, cur = cur, next
	}
	return lag, min(likeness, 1)
}
