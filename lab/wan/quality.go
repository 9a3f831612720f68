// Package wan makes the network between the clusters as bad as a test wants it:
// delay, jitter, loss, rate, reordering and cuts, per direction. The kernel's own
// emulator is not needed; packets are held in an NFQUEUE by a process of ours.
// Where nothing is set, nothing is in the packets' way.
package wan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Quality of one direction of a path.
type Quality struct {
	// Delay of every packet.
	Delay time.Duration `json:"delay,omitempty"`
	// Jitter varies the delay evenly between Delay-Jitter and Delay+Jitter; it
	// never reorders, as on a real path.
	Jitter time.Duration `json:"jitter,omitempty"`
	// Loss is the share of packets that are lost, 0 to 1, each by itself.
	Loss float64 `json:"loss,omitempty"`
	// Rate in bits per second; 0 is unlimited.
	Rate int64 `json:"rate,omitempty"`
	// Reorder is the share of packets, 0 to 1, that overtake those being delayed.
	Reorder float64 `json:"reorder,omitempty"`
}

// Perfect says that nothing is wrong.
func (q Quality) Perfect() bool { return q == Quality{} }

// Check the values against each other.
func (q Quality) Check() error {
	var errs []error
	if q.Delay < 0 || q.Delay > time.Minute {
		errs = append(errs, fmt.Errorf("delay %s: must be 0 to 1m", q.Delay))
	}
	if q.Jitter < 0 || q.Jitter > q.Delay {
		errs = append(errs, fmt.Errorf("jitter %s: must not be more than the delay (%s)", q.Jitter, q.Delay))
	}
	for _, s := range []struct {
		name string
		v    float64
	}{{"loss", q.Loss}, {"reorder", q.Reorder}} {
		if s.v < 0 || s.v > 1 {
			errs = append(errs, fmt.Errorf("%s %s: must be 0%% to 100%%", s.name, FormatShare(s.v)))
		}
	}
	if q.Reorder > 0 && q.Delay == 0 {
		errs = append(errs, errors.New("reorder needs a delay: a packet can only overtake others that are being held"))
	}
	if q.Rate < 0 || q.Rate > 0 && q.Rate < 8000 {
		errs = append(errs, fmt.Errorf("rate %s: must be at least 8kbit", FormatRate(q.Rate)))
	}
	return errors.Join(errs...)
}

// ParseShare reads "1%" or "0.5%".
func ParseShare(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || v < 0 || v > 100 {
		return 0, fmt.Errorf("%q is no share; write a percentage such as 1%%", s)
	}
	return v / 100, nil
}

// FormatShare is ParseShare's inverse.
func FormatShare(v float64) string { return strconv.FormatFloat(v*100, 'g', 6, 64) + "%" }

var rateUnits = []struct {
	suffix string
	factor int64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// ParseRate reads "100mbit"; "0" is unlimited.
func ParseRate(s string) (int64, error) {
	if s == "0" {
		return 0, nil
	}
	for _, u := range rateUnits {
		if n, ok := strings.CutSuffix(strings.ToLower(s), u.suffix); ok {
			if v, err := strconv.ParseFloat(n, 64); err == nil && v >= 0 {
				return int64(v * float64(u.factor)), nil
			}
			break
		}
	}
	return 0, fmt.Errorf("%q is no rate; write for example 100mbit, 1gbit or 512kbit", s)
}

// FormatRate is ParseRate's inverse.
func FormatRate(bps int64) string {
	for _, u := range rateUnits {
		if bps >= u.factor {
			return strconv.FormatFloat(float64(bps)/float64(u.factor), 'g', 6, 64) + u.suffix
		}
	}
	return "0"
}
