// Package trace reads and makes records of load: how many requests came to a service, bin by bin or one by one. The
// simulator turns them into arrivals, at another intensity where that is wanted.
//
// A trace says nothing of the time zone, the service or the day it was taken on, and nothing that it knows reaches a
// policy but by the arrivals themselves.
package trace

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Trace is the load of one service over time.
type Trace struct {
	Name string
	Bin  time.Duration
	// Rate is the mean of requests per second in each bin; NaN where nothing is known (a gap in the record).
	Rate []float64
	// Spread is, for each bin, the variance of the arrivals' counts over that of a Poisson process with the same rate;
	// nil where the record does not say.
	Spread []float64
	// Filled is what to put into gaps, where the record has an idea; nil otherwise.
	Filled []float64
	// Events is how many single events the trace was made of; 0 for one that came in bins.
	Events int
}

// Length is the time that the trace spans.
func (t *Trace) Length() time.Duration { return time.Duration(len(t.Rate)) * t.Bin }

// Mean is the mean rate where it is known.
func (t *Trace) Mean() float64 {
	sum, n := 0.0, 0
	for _, v := range t.Rate {
		if !math.IsNaN(v) {
			sum, n = sum+v, n+1
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// Quantile is the rate that a share q of the known bins do not exceed.
func (t *Trace) Quantile(q float64) float64 {
	known := make([]float64, 0, len(t.Rate))
	for _, v := range t.Rate {
		if !math.IsNaN(v) {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		return 0
	}
	slices.Sort(known)
	return known[min(len(known)-1, int(q*float64(len(known))))]
}

// Gaps is the share of the time of which nothing is known.
func (t *Trace) Gaps() float64 {
	n := 0
	for _, v := range t.Rate {
		if math.IsNaN(v) {
			n++
		}
	}
	return float64(n) / float64(max(1, len(t.Rate)))
}

// Slice is the part of the trace between two shares of its length, such as 0 and 0.5 for its first half.
func (t *Trace) Slice(from, to float64) *Trace {
	i, j := int(from*float64(len(t.Rate))), int(to*float64(len(t.Rate)))
	s := *t
	s.Rate = t.Rate[i:j]
	if t.Spread != nil {
		s.Spread = t.Spread[i:j]
	}
	if t.Filled != nil {
		s.Filled = t.Filled[i:j]
	}
	return &s
}

// String says in a line what the trace is.
func (t *Trace) String() string {
	return fmt.Sprintf("%s: %s in bins of %s, mean %.4g/s, 99.5 %% of them up to %.4g/s, %.1f %% gaps",
		t.Name, t.Length(), t.Bin, t.Mean(), t.Quantile(0.995), 100*t.Gaps())
}
