package chaos

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/drill/figures"
	"seaway.dev/seaway/drill/sight"
)

// Run is one run of a fault.
type Run struct {
	Fault string                 `json:"fault"`
	At    time.Time              `json:"at"`
	Flows map[string]sight.Sight `json:"flows"`
	// Flips counts how often a node's choice of a path to a peer was seen to change; -1 if nobody looked.
	Flips int    `json:"flips"`
	Relay string `json:"relay,omitempty"` // what $RELAY was
	// Noise is the longest gap of any flow in the two seconds before the fault, Took how long the lines that make the
	// fault did: both tell how busy the machine was.
	Noise time.Duration `json:"noise"`
	Took  time.Duration `json:"took"`
	// Settled is how long everything took to work before the run, Lasted the whole of it.
	Settled time.Duration `json:"settled"`
	Lasted  time.Duration `json:"lasted"`
}

// floor is the smallest of the controls' longest gaps in the same run: packets that cross the same WAN from the same
// machines, and no slice. The control that the fault touches least tells what the machine itself adds to every figure.
func (r Run) floor() time.Duration {
	d := time.Duration(-1)
	for f, s := range r.Flows {
		if strings.HasPrefix(f, "plain") && (d < 0 || s.Gap < d) {
			d = s.Gap
		}
	}
	return max(0, d)
}

func timeOf(s sight.Sight, measure string) *time.Duration {
	switch measure {
	case "gap":
		return &s.Gap
	case "first":
		return s.First
	case "told":
		if s.Told == nil {
			return s.Mend // hurt, and never told: it was left to wait for at least so long
		}
		return s.Told
	case "clear":
		return s.Clear
	case "mend":
		return s.Mend
	}
	return nil
}

func numberOf(s sight.Sight, measure string) int {
	switch measure {
	case "resets":
		return s.Resets
	case "errors":
		return s.Errors
	case "stuck":
		if s.Stuck {
			return 1
		}
	}
	return 0
}

// match tells whether a flow is meant; patterns may be joined by commas.
func match(patterns, flow string) bool {
	for p := range strings.SplitSeq(patterns, ",") {
		if ok, _ := path.Match(p, flow); ok {
			return true
		}
	}
	return false
}

func seen(runs []Run, flows string) bool {
	for _, r := range runs {
		for f := range r.Flows {
			if match(flows, f) {
				return true
			}
		}
	}
	return false
}

// within is times, less each run's noise: for limits, which are the product's and not the machine's.
func within(runs []Run, flows, measure string) []time.Duration {
	var out []time.Duration
	for _, r := range runs {
		for _, d := range times([]Run{r}, flows, measure) {
			out = append(out, max(0, d-r.Noise))
		}
	}
	return out
}

// noise is the largest of all runs.
func noise(runs []Run) time.Duration {
	var d time.Duration
	for _, r := range runs {
		d = max(d, r.Noise)
	}
	return d
}

func times(runs []Run, flows, measure string) []time.Duration {
	var out []time.Duration
	for _, r := range runs {
		for _, f := range slices.Sorted(maps.Keys(r.Flows)) {
			if !match(flows, f) {
				continue
			}
			if measure == "excess" {
				out = append(out, max(0, r.Flows[f].Gap-r.floor()))
			} else if d := timeOf(r.Flows[f], measure); d != nil {
				out = append(out, *d)
			}
		}
	}
	return out
}

func numbers(runs []Run, flows, measure string) []int {
	var out []int
	for _, r := range runs {
		if measure == "flips" {
			if r.Flips >= 0 {
				out = append(out, r.Flips)
			}
			continue
		}
		for _, f := range slices.Sorted(maps.Keys(r.Flows)) {
			if match(flows, f) {
				out = append(out, numberOf(r.Flows[f], measure))
			}
		}
	}
	return out
}

func quantile(list []time.Duration, q string) time.Duration {
	s := figures.Of(list)
	return map[string]time.Duration{"p50": s.P50, "p99": s.P99, "max": s.Max}[q]
}
