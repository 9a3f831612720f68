// Package record holds what the autoscaler says about each of its decisions: what it looked at and how old that was,
// what it expected and how surely, what bound it, and what HPA would have done. The same record becomes an event, a
// metric, a line of `seaway explain autoscaler` and JSON.
package record

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/scale/placement"
)

// Record explains one decision.
type Record struct {
	At         time.Time          `json:"at"`
	From       int                `json:"from"` // replicas before
	To         int                `json:"to"`
	Wanted     int                `json:"wanted"` // before the guard rails
	HPA        int                `json:"hpa"`    // what HPA would have
	Why        string             `json:"why"`    // the binding constraint
	Rail       string             `json:"rail,omitempty"`
	Mode       string             `json:"mode,omitempty"`
	SampleAge  float64            `json:"sampleAgeSeconds"`
	Rate       float64            `json:"rate"`       // requests per second, newest sample
	WorkMillis float64            `json:"workMillis"` // core-milliseconds a request
	Ready      int                `json:"ready"`
	Nodes      int                `json:"nodes,omitempty"`
	Horizon    float64            `json:"horizonSeconds"` // for which the following holds
	Expect     float64            `json:"expect"`         // requests per second, median
	Low        float64            `json:"low"`            // 0.075 quantile
	High       float64            `json:"high"`           // 0.95 quantile
	Experts    map[string]float64 `json:"experts,omitempty"`
	PodLead    float64            `json:"podLeadSeconds"`
	NodeLead   float64            `json:"nodeLeadSeconds,omitempty"`
	Starts     float64            `json:"starts"`     // pod starts behind PodLead
	CostWith   float64            `json:"costWith"`   // per hour
	CostHPA    float64            `json:"costHPA"`    // per hour
	BadWith    float64            `json:"badWith"`    // expected share of requests
	BadWithout float64            `json:"badWithout"` // were the replicas left as they are
	BadHPA     float64            `json:"badHPA"`
	Arm        string             `json:"arm,omitempty"`   // what the learner has chosen
	Place      *placement.Plan    `json:"place,omitempty"` // how the pods are divided between clusters; nil: they are not
}

// String is the record in one line.
func (r Record) String() string {
	s := fmt.Sprintf("%d → %d replicas: %s (%.4g req/s now, %.4g to %.4g expected in %s; HPA would have %d)",
		r.From, r.To, r.Why, r.Rate, r.Expect, r.High, time.Duration(r.Horizon*float64(time.Second)).Round(time.Second), r.HPA)
	if r.Rail != "" {
		s += "; guard: " + r.Rail
	}
	if r.Place != nil {
		s += "; " + r.Place.String()
	}
	return s
}

// Lines is the record at length, as name and value.
func (r Record) Lines() [][2]string {
	pc := func(x float64) string { return fmt.Sprintf("%.3g %%", 100*x) }
	var experts []string
	for _, e := range slices.SortedFunc(maps.Keys(r.Experts), func(a, b string) int {
		if r.Experts[a] > r.Experts[b] {
			return -1
		} else if r.Experts[a] < r.Experts[b] {
			return 1
		}
		return strings.Compare(a, b)
	}) {
		experts = append(experts, fmt.Sprintf("%s %.0f %%", e, 100*r.Experts[e]))
	}
	out := [][2]string{
		{"Decision", fmt.Sprintf("%d → %d replicas at %s", r.From, r.To, r.At.UTC().Format(time.RFC3339))},
		{"Because", r.Why},
	}
	if r.Rail != "" {
		out = append(out, [2]string{"Guard rail", fmt.Sprintf("%s (the policy alone: %d)", r.Rail, r.Wanted)})
	}
	if r.Mode != "" {
		out = append(out, [2]string{"Mode", r.Mode})
	}
	out = append(out, [][2]string{
		{"Load", fmt.Sprintf("%.4g req/s, measured %.0f s before; %.3g core-ms a request; %d pods ready", r.Rate, r.SampleAge, r.WorkMillis, r.Ready)},
		{"Expected", fmt.Sprintf("%.4g req/s in %.0f s, at least %.4g, at most %.4g (95 %%)", r.Expect, r.Horizon, r.Low, r.High)},
		{"By", strings.Join(experts, ", ")},
		{"Start delays", fmt.Sprintf("pod %.0f s, with a new node %.0f s (from %.0f starts)", r.PodLead, r.NodeLead, r.Starts)},
		{"Bad requests", fmt.Sprintf("%s expected; %s if left alone; %s with HPA", pc(r.BadWith), pc(r.BadWithout), pc(r.BadHPA))},
		{"Cost an hour", fmt.Sprintf("%.4g; %.4g with HPA's %d replicas", r.CostWith, r.CostHPA, r.HPA)},
	}...)
	if r.Arm != "" {
		out = append(out, [2]string{"Learner", r.Arm})
	}
	if r.Place != nil {
		out = append(out, r.Place.Lines()...)
	}
	return out
}
