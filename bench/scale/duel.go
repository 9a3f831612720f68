package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"seaway.dev/seaway/scale/match"
	"seaway.dev/seaway/scale/sim"
	"seaway.dev/seaway/scale/trace"
)

// ablations are seaway with parts taken away, and with the learner in charge, which is not the default.
func ablations() []string {
	return []string{"seaway-no-forecast", "seaway-no-seasons", "seaway-no-delays", "seaway-no-guard", "seaway-learner"}
}

// duel is seaway and its opponents on one load with one provider.
type duel struct {
	Trace   string        `json:"trace"`
	Profile string        `json:"profile"`
	Second  *match.Report `json:"second"` // the second half
	// First day: seaway's and hpa70's cost and violations (absent where the load is shorter than two days).
	First *match.Report `json:"first,omitempty"`
}

func (o options) conf(p sim.Profile) sim.Config {
	c := sim.Default(p)
	c.Balancer = sim.Balancer(o.balancer)
	return c
}

func (o options) duel(ctx context.Context, t *trace.Trace, p sim.Profile) (*duel, error) {
	conf := o.conf(p)
	load := match.Load(t, conf, o.pods, 0)
	d := &duel{Trace: t.Name, Profile: p.Name}
	policies := []string{match.Seaway, "hpa70", "hpa60", match.HPABest, "keda", match.B1}
	if o.ablate {
		policies = append(policies, ablations()...)
	}
	conf.From = 0.5
	var err error
	if d.Second, err = match.Run(ctx, match.Spec{Load: load, Conf: conf, Policies: policies, Seeds: o.seeds, Workers: o.workers}); err != nil {
		return nil, err
	}
	d.Second.Rows = strip(d.Second.Rows)
	if day := 86400; len(load.Rate) >= 2*day {
		first := *load
		first.Rate, first.Masked = load.Rate[:day], load.Masked[:day]
		conf.From = 0
		if d.First, err = match.Run(ctx, match.Spec{Load: &first, Conf: conf, Policies: []string{match.Seaway, "hpa70"}, Seeds: o.seeds, Workers: o.workers}); err != nil {
			return nil, err
		}
		d.First.Rows = strip(d.First.Rows)
	}
	return d, nil
}

// strip leaves the single runs out.
func strip(rows []match.Row) []match.Row {
	for i := range rows {
		rows[i].Runs = nil
	}
	return rows
}

func row(r *match.Report, policy string) *match.Row {
	for i := range r.Rows {
		if r.Rows[i].Policy == policy {
			return &r.Rows[i]
		}
	}
	return &match.Row{Policy: policy}
}

func (d *duel) print(w io.Writer) {
	fmt.Fprintln(w)
	d.Second.Table(w)
}

// bar is one line of the table.
type bar struct {
	Bar      string `json:"bar"`
	What     string `json:"what"`
	Want     string `json:"want"`
	Got      string `json:"got"`
	Reached  bool   `json:"reached"`
	Balancer string `json:"balancer"`
}

func printBars(w io.Writer, bars []bar) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BAR\tBALANCER\tWHAT\tWANTED\tMEASURED\tREACHED")
	for _, b := range bars {
		yes := "no"
		if b.Reached {
			yes = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Bar, b.Balancer, b.What, b.Want, b.Got, yes)
	}
	t.Flush()
}

// newBar is a bar before it is known with which balancer it was measured.
func newBar(name, what, want, got string, reached bool) bar {
	return bar{Bar: name, What: what, Want: want, Got: got, Reached: reached}
}

// few is a share of bad requests that does not matter.
const few = 0.0001

// judge compares the duels with bars A to D and H.
func judge(duels []*duel, which string) []bar {
	var out []bar
	add := func(b bar) {
		for _, c := range which {
			if string(c) == b.Bar {
				out = append(out, b)
			}
		}
	}
	var a, b, c, d, h, bound tallied
	for _, x := range duels {
		name := x.Trace + " " + x.Profile
		sea, base, b1 := row(x.Second, match.Seaway), row(x.Second, "hpa70"), row(x.Second, match.B1)
		nodes, bad := sea.NodeHours.Ratio, sea.BadShare.Ratio
		calm := sea.BadShare.Mean < few && base.BadShare.Mean < few
		if calm {
			bad = 1
		} else {
			a.worst(bad)
		}
		a.cost(nodes)
		a.one(name, nodes <= 0.8 && (calm || bad <= 0.5), fmt.Sprintf("nodes ×%.2f%s, bad ×%.2f%s", nodes, interval(sea.NodeHours), bad, interval(sea.BadShare)))
		bound.cost(b1.NodeHours.Ratio)
		bound.one(name, b1.NodeHours.Ratio <= 0.8, "")
		at, reached := match.CostAt(x.Second.Frontier, sea.BadShare.Mean)
		best := row(x.Second, match.HPABest)
		gain := sea.NodeHours.Mean / at
		b.cost(gain)
		never := sea.NodeHours.Mean <= best.NodeHours.Mean*1.01 && sea.BadShare.Mean <= best.BadShare.Mean+few
		note := ""
		if !reached {
			note = " (no HPA lets down so few)"
		}
		b.one(name, never, fmt.Sprintf("against %s: nodes ×%.2f, bad %+.4f pp; at equal violations ×%.2f%s", best.Note, sea.NodeHours.Mean/best.NodeHours.Mean,
			100*(sea.BadShare.Mean-best.BadShare.Mean), gain, note))
		over := sea.PodHours.Mean / b1.PodHours.Mean
		c.cost(over)
		c.one(name, over <= 1.12 && sea.BadShare.Mean <= 0.001, fmt.Sprintf("×%.2f at %.4f %%", over, 100*sea.BadShare.Mean))
		c.all(over <= 1.25)
		if x.First != nil {
			s, p := row(x.First, match.Seaway), row(x.First, "hpa70")
			d.one(name, s.Cost.Ratio <= 1.02 && s.BadShare.Mean <= p.BadShare.Mean+0.0002, fmt.Sprintf("cost ×%.2f, bad %+.4f pp", s.Cost.Ratio, 100*(s.BadShare.Mean-p.BadShare.Mean)))
		}
		h.one(name, sea.ActionsH <= base.ActionsH, fmt.Sprintf("%.1f/h, HPA %.1f/h, %.2f %% flips", sea.ActionsH, base.ActionsH, 100*sea.Flips))
	}
	add(newBar("A", "against hpa70, each load and profile", "nodes ×0.80, bad ×0.50", a.say(), a.ok()))
	add(newBar("A", "the same, geometric mean", "nodes ×0.70, bad ×0.25", fmt.Sprintf("nodes ×%.2f%s, bad ×%.2f%s", a.mean(), between(a.logs), a.meanBad(), between(a.bads)), a.mean() <= 0.7 && a.meanBad() <= 0.25))
	add(newBar("A", "  (B1, which knows the load to come and lets down 0.1 %)", "nodes ×0.80", fmt.Sprintf("%s; nodes ×%.2f%s", bound.say(), bound.mean(), between(bound.logs)), bound.ok()))
	add(newBar("B", "against the best HPA in hindsight, each", "no worse (1 %, 0.01 pp)", b.say(), b.ok()))
	add(newBar("B", "nodes at equal violations, geometric mean", "×0.88", fmt.Sprintf("×%.2f%s", b.mean(), between(b.logs)), b.mean() <= 0.88))
	add(newBar("C", "pods against B1, with 0.1 % bad at most", "×1.12 on most", c.say(), 2*c.good > c.n))
	add(newBar("C", "pods against B1, all", "×1.25", fmt.Sprintf("%d of %d; ×%.2f%s on average", c.every, c.n, c.mean(), between(c.logs)), c.every == c.n))
	if d.n > 0 {
		add(newBar("D", "first day against hpa70", "cost ×1.02, bad +0.02 pp", d.say(), d.ok()))
	}
	add(newBar("H", "actions an hour", "no more than hpa70's", h.say(), h.ok()))
	for _, t := range []struct {
		bar string
		of  tallied
	}{{"A", a}, {"B", b}, {"C", c}, {"D", d}, {"H", h}} {
		for _, m := range t.of.missed {
			add(newBar(t.bar, "  missed: "+m[0], "", m[1], false))
		}
	}
	return out
}

// tallied counts how often a bar was reached.
type tallied struct {
	n, good, every int
	logs, bads     []float64
	missed         [][2]string
}

func (t *tallied) one(name string, ok bool, got string) {
	if t.n++; ok {
		t.good++
	} else {
		t.missed = append(t.missed, [2]string{name, got})
	}
}

func (t *tallied) all(ok bool) {
	if ok {
		t.every++
	}
}

func (t *tallied) cost(ratio float64) { t.logs = append(t.logs, math.Log(ratio)) }

// worst notes a ratio of violations; a perfect or infinite one counts as a hundredth or a hundredfold.
func (t *tallied) worst(ratio float64) {
	t.bads = append(t.bads, math.Log(min(max(ratio, 0.01), 100)))
}

func (t *tallied) say() string      { return fmt.Sprintf("%d of %d", t.good, t.n) }
func (t *tallied) ok() bool         { return t.good == t.n }
func (t *tallied) mean() float64    { return geometric(t.logs) }
func (t *tallied) meanBad() float64 { return geometric(t.bads) }

// interval is the 95 % interval of a ratio over the seeds, in words; nothing where it is not known.
func interval(e match.Estimate) string {
	if math.IsNaN(e.Low) || math.IsInf(e.Ratio, 0) {
		return ""
	}
	return fmt.Sprintf(" (%.2f–%.2f)", e.Low, e.High)
}

// between is the 95 % interval of a geometric mean over the loads, in words.
func between(logs []float64) string {
	n := float64(len(logs))
	if n < 2 {
		return ""
	}
	mean, sq := math.Log(geometric(logs)), 0.0
	for _, l := range logs {
		sq += (l - mean) * (l - mean)
	}
	half := match.Student(len(logs)-1) * math.Sqrt(sq/(n-1)/n)
	return fmt.Sprintf(" (%.2f–%.2f)", math.Exp(mean-half), math.Exp(mean+half))
}

func geometric(logs []float64) float64 {
	sum := 0.0
	for _, l := range logs {
		sum += l / float64(len(logs))
	}
	return math.Exp(sum)
}

// part is what a part of seaway earns: the figures without it, against those with all parts.
type part struct {
	Policy string  `json:"policy"`
	Loads  int     `json:"loads"`
	Nodes  float64 `json:"nodes"`
	Pods   float64 `json:"pods"`
	Bad    float64 `json:"bad"`
	// Equal is the change of the node-hours at equal violations, against the best HPA in hindsight: the one figure that
	// weighs both. Between is its 95 % interval over the loads, in words.
	Equal   float64 `json:"equal"`
	Between string  `json:"between"`
}

// parts compares seaway with its ablations, as geometric means over the loads of a profile and a balancer ("": of all).
func parts(duels []*duel, profile, balancer string) (out []part) {
	for _, name := range ablations() {
		var nodes, pods, bad, equal []float64
		for _, d := range duels {
			sea, r := row(d.Second, match.Seaway), row(d.Second, name)
			if r.PodHours.Mean == 0 || profile != "" && d.Profile != profile || balancer != "" && d.Second.Balancer != balancer {
				continue
			}
			nodes = append(nodes, math.Log(r.NodeHours.Mean/sea.NodeHours.Mean))
			pods = append(pods, math.Log(r.PodHours.Mean/sea.PodHours.Mean))
			bad = append(bad, math.Log((r.BadShare.Mean+few/10)/(sea.BadShare.Mean+few/10)))
			with, _ := match.CostAt(d.Second.Frontier, sea.BadShare.Mean)
			without, _ := match.CostAt(d.Second.Frontier, r.BadShare.Mean)
			equal = append(equal, math.Log(r.NodeHours.Mean/without*with/sea.NodeHours.Mean))
		}
		if len(nodes) > 0 {
			out = append(out, part{name, len(nodes), geometric(nodes), geometric(pods), geometric(bad), geometric(equal), between(equal)})
		}
	}
	return out
}

// printParts shows what each part earns.
func printParts(w io.Writer, duels []*duel) {
	fmt.Fprintln(w, "\nWhat each part earns (geometric means over the loads, against seaway as it is; above 1: seaway as it is is better)")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tPROFILE\tBALANCER\tLOADS\tNODE-HOURS\tPOD-HOURS\tVIOLATIONS\tNODES AT EQUAL VIOLATIONS")
	profiles, balancers := []string{""}, []string{""}
	for _, d := range duels {
		if !slices.Contains(profiles, d.Profile) {
			profiles = append(profiles, d.Profile)
		}
		if !slices.Contains(balancers, d.Second.Balancer) {
			balancers = append(balancers, d.Second.Balancer)
		}
	}
	for _, profile := range profiles {
		for _, balancer := range balancers {
			for _, p := range parts(duels, profile, balancer) {
				fmt.Fprintf(t, "%s\t%s\t%s\t%d\t×%.3f\t×%.3f\t×%.2f\t×%.3f%s\n", p.Policy, cmp.Or(profile, "all"), cmp.Or(balancer, "both"),
					p.Loads, p.Nodes, p.Pods, p.Bad, p.Equal, p.Between)
			}
		}
	}
	t.Flush()
}
