package trace

import (
	"math"
	"time"
)

// Load is a trace made ready to draw arrivals from: the intensity of each second.
type Load struct {
	Name string
	// Rate is the intensity: expected arrivals per second, second by second.
	Rate []float64
	// Wobble is the relative variance of the intensity itself within seconds, beyond what Rate shows and beyond
	// Poisson's: 0 for a plain Poisson process. One value a second, or nil.
	Wobble []float64
	Hold   int // for how many seconds a wobble lasts
	// Masked seconds are played but do not count: nobody knows what happened in them.
	Masked []bool
	// Factor is what the trace's rates were multiplied with.
	Factor float64
}

// Length is the time that the load spans.
func (l *Load) Length() time.Duration { return time.Duration(len(l.Rate)) * time.Second }

// Smoothing bounds: bins are averaged with neighbours that they cannot be told from, until the window holds enough that
// its shot noise, which must not be multiplied with the intensity, is 5 %, but over no more than half an hour. A step in
// the load ends the window, so that flash crowds stay as sudden as they were.
const (
	enough   = 400
	smoothed = 30 * time.Minute
	apart    = 5 // standard deviations of a Poisson count
	// unevenest is the most that counts of a second are taken to vary, over Poisson's: an index of dispersion that was
	// taken over minutes (ServeGen's reaches 10^5, from clients that come in batches) does not hold second by second.
	unevenest = 50
)

// Load makes the load at factor times the trace's intensity. Where the factor is above 1, counts are smoothed before
// they are multiplied and arrivals are drawn anew, so that shot noise is not multiplied; how much more than Poisson's
// the counts varied within the smoothing windows (clusters of requests) is kept. Between the centres of bins the
// intensity is interpolated.
func (t *Trace) Load(factor float64) *Load {
	rate, gap := t.fill()
	l := &Load{Name: t.Name, Factor: factor, Hold: 1}
	bin := t.Bin.Seconds()
	smooth, spread := rate, t.Spread
	if factor > 1 {
		smooth = t.smooth(rate)
		if spread == nil {
			spread = t.excess(rate, smooth, gap)
			l.Hold = max(1, int(bin))
		}
	}
	n := int(t.Length() / time.Second)
	l.Rate, l.Masked = make([]float64, n), make([]bool, n)
	if spread != nil {
		l.Wobble = make([]float64, n)
	}
	for s := range n {
		pos := (float64(s) + 0.5) / bin
		k := min(int(pos), len(rate)-1)
		l.Masked[s] = gap[k]
		l.Rate[s] = factor * t.at(smooth, pos)
		if spread == nil {
			continue
		}
		// counts with mean m have variance spread·m: Poisson's m, and (spread−1)·m of the intensity
		if m := l.Rate[s] * float64(l.Hold); spread[k] > 1 && m > 0 {
			l.Wobble[s] = min(1, (min(spread[k], unevenest)-1)/m)
		}
	}
	return l
}

// smooth averages bins with neighbours that they cannot be told from.
func (t *Trace) smooth(rate []float64) []float64 {
	out := make([]float64, len(rate))
	bin := t.Bin.Seconds()
	most := int(smoothed / t.Bin)
	for i, v := range rate {
		sum, n, lo, hi := v*bin, 1, i-1, i+1
		for sum < enough && n < most && (lo >= 0 || hi < len(rate)) {
			mean := sum / float64(n)
			alike := func(k int) bool {
				return k >= 0 && k < len(rate) && math.Abs(rate[k]*bin-mean) <= apart*math.Sqrt(mean+1)
			}
			left, right := alike(lo), alike(hi)
			if left {
				sum, n, lo = sum+rate[lo]*bin, n+1, lo-1
			} else {
				lo = -1
			}
			if right {
				sum, n, hi = sum+rate[hi]*bin, n+1, hi+1
			} else {
				hi = len(rate)
			}
		}
		out[i] = sum / float64(n) / bin
	}
	return out
}

// at interpolates between the centres of bins; bins of a second and less are taken as they are.
func (t *Trace) at(rate []float64, pos float64) float64 {
	if t.Bin < time.Second { // the mean of the bins within the second
		per := int(time.Second / t.Bin)
		from := max(0, int(pos)-per/2)
		sum, n := 0.0, 0
		for k := from; k < min(len(rate), from+per); k++ {
			sum, n = sum+rate[k], n+1
		}
		return sum / float64(max(1, n))
	}
	if t.Bin == time.Second {
		return rate[min(int(pos), len(rate)-1)]
	}
	c := pos - 0.5
	k := int(math.Floor(c))
	f := c - float64(k)
	return rate[max(0, min(k, len(rate)-1))]*(1-f) + rate[max(0, min(k+1, len(rate)-1))]*f
}

// fill puts something into gaps, so that the load can be played through them: what the record suggests, or a line
// between their ends.
func (t *Trace) fill() (rate []float64, gap []bool) {
	rate, gap = make([]float64, len(t.Rate)), make([]bool, len(t.Rate))
	last := -1
	for i, v := range t.Rate {
		if gap[i] = math.IsNaN(v); gap[i] {
			if t.Filled == nil || math.IsNaN(t.Filled[i]) {
				continue
			}
			v = t.Filled[i]
		}
		rate[i] = v
		for k := last + 1; k < i; k++ {
			from := v
			if last >= 0 {
				from = rate[last]
			}
			rate[k] = from + (v-from)*float64(k-last)/float64(i-last)
		}
		last = i
	}
	for k := last + 1; k < len(rate) && last >= 0; k++ {
		rate[k] = rate[last]
	}
	return rate, gap
}

// excess measures, over stretches of an hour or 60 bins, the variance of the counts around the smoothed ones over that
// of a Poisson process; nil where there was nothing to smooth.
func (t *Trace) excess(rate, smooth []float64, gap []bool) []float64 {
	out := make([]float64, len(rate))
	stretch := max(60, int(time.Hour/t.Bin))
	bin := t.Bin.Seconds()
	any := false
	for from := 0; from < len(rate); from += stretch {
		to := min(from+stretch, len(rate))
		sq, shot := 0.0, 0.0
		for k := from; k < to; k++ {
			if gap[k] || rate[k] == smooth[k] {
				continue
			}
			d := (rate[k] - smooth[k]) * bin
			sq += d * d
			shot += smooth[k] * bin
		}
		if shot <= 0 {
			continue
		}
		for k := from; k < to; k++ {
			out[k] = sq / shot
		}
		any = true
	}
	if !any {
		return nil
	}
	return out
}
