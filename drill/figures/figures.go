// Package figures sums up what many runs measured: p50, p99 and the largest, by nearest rank, so that each is a value
// that was really seen. With fewer than a hundred values p99 is the largest.
package figures

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Summary of a list of times.
type Summary struct {
	N   int           `json:"n"`
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// Of sums up; the list may be in any order and is left alone.
func Of(list []time.Duration) Summary {
	if len(list) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(list))
	return Summary{len(sorted), Quantile(sorted, 0.50), Quantile(sorted, 0.99), sorted[len(sorted)-1]}
}

// Quantile of a sorted list by nearest rank; q is over 0 and at most 1.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)) - 1e-9))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// String is in whole milliseconds: 12/34/56 ms.
func (s Summary) String() string {
	return fmt.Sprintf("%d/%d/%d ms", s.P50.Milliseconds(), s.P99.Milliseconds(), s.Max.Milliseconds())
}
