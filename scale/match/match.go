// Package match lets policies meet the same load, seed by seed, and compares what they cost and how many requests they
// let down: as ratios to one of them, with confidence intervals, as a table, a chart and JSON.
package match

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/pilot"
	"seaway.dev/seaway/scale/sim"
	"seaway.dev/seaway/scale/trace"
)

// Names of policies that this package knows beyond the simulator's.
const (
	Seaway  = "seaway"
	HPABest = "hpa-best" // the best of many HPAs for this very load, chosen in hindsight
	B0      = "b0"       // clairvoyant, pods come and go at once
	B1      = "b1"       // clairvoyant, with the provider's real delays
)

// Spec is a match.
type Spec struct {
	Load     *trace.Load
	Conf     sim.Config
	Policies []string
	Seeds    int
	Base     string // what ratios are to; "" is hpa70, or the first policy
	Workers  int    // runs at a time; 0: one per core
	// Makers are policies beyond the known ones, by name.
	Makers map[string]sim.Maker
	// Told is called after each run.
	Told func(done, all int)
}

// Report is what came out.
type Report struct {
	Trace    string  `json:"trace"`
	Hours    float64 `json:"hours"`
	Factor   float64 `json:"factor"` // the trace's rates were multiplied with it
	Profile  string  `json:"profile"`
	Balancer string  `json:"balancer"`
	Seeds    int     `json:"seeds"`
	Base     string  `json:"base"`
	Good     float64 `json:"good"` // the share of requests that the terms ask for
	Rows     []Row   `json:"rows"`
	// Frontier is every HPA that hpa-best was chosen from.
	Frontier []Point `json:"frontier,omitempty"`
}

// Row is a policy's figures: means over the seeds, and ratios to the base.
type Row struct {
	Policy     string        `json:"policy"`
	Note       string        `json:"note,omitempty"`
	PodHours   Estimate      `json:"podHours"`
	NodeHours  Estimate      `json:"nodeHours"`
	Cost       Estimate      `json:"cost"`
	BadShare   Estimate      `json:"badShare"`
	BadMinutes float64       `json:"badMinutes"`
	ActionsH   float64       `json:"actionsPerHour"`
	Flips      float64       `json:"flips"` // share of actions
	DecideP99  float64       `json:"decideP99ms"`
	Runs       []*sim.Result `json:"runs"`
}

// Estimate is a mean over seeds, its ratio to the base's, and the ratio's 95 % confidence interval, paired by seed.
type Estimate struct {
	Mean  float64 `json:"mean"`
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// MarshalJSON writes what is not known, such as an interval from one seed, as null.
func (e Estimate) MarshalJSON() ([]byte, error) {
	known := func(v float64) *float64 {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	return json.Marshal(map[string]*float64{"mean": known(e.Mean), "ratio": known(e.Ratio), "low": known(e.Low), "high": known(e.High)})
}

// Point is one HPA's cost and violations.
type Point struct {
	Policy    string  `json:"policy"`
	PodHours  float64 `json:"podHours"`
	NodeHours float64 `json:"nodeHours"`
	BadShare  float64 `json:"badShare"`
}

// Named finds any policy that can be run.
func Named(name string) (sim.Maker, error) {
	opts, ok := map[string]pilot.Options{
		Seaway:               {},
		"seaway-no-forecast": {NoForecast: true},
		"seaway-no-seasons":  {NoSeasons: true},
		"seaway-no-delays":   {NoDelays: true},
		"seaway-no-guard":    {NoGuard: true},
		"seaway-learner":     {Learner: true},
	}[name]
	if !ok {
		return sim.Named(name)
	}
	opts.Name = name
	return func(c sim.Config, _ *trace.Load, _ uint64) scale.Policy { return pilot.New(c.Terms, opts) }, nil
}

// Run plays the match.
func Run(ctx context.Context, spec Spec) (*Report, error) {
	rep := &Report{Trace: spec.Load.Name, Hours: spec.Load.Length().Hours(), Factor: spec.Load.Factor, Profile: spec.Conf.Profile.Name,
		Balancer: string(spec.Conf.Balancer), Seeds: spec.Seeds, Base: spec.Base, Good: spec.Conf.Terms.Good}
	if len(spec.Policies) == 0 || spec.Seeds < 1 {
		return nil, fmt.Errorf("a match has at least one policy and one seed")
	}
	if rep.Base == "" {
		rep.Base = spec.Policies[0]
		if slices.Contains(spec.Policies, "hpa70") {
			rep.Base = "hpa70"
		}
	}
	if !slices.Contains(spec.Policies, rep.Base) {
		return nil, fmt.Errorf("ratios are to %q, which is not among the policies %s", rep.Base, strings.Join(spec.Policies, ","))
	}
	if spec.Workers == 0 {
		spec.Workers = runtime.GOMAXPROCS(0)
	}
	names := slices.Clone(spec.Policies)
	best := ""
	if i := slices.Index(names, HPABest); i >= 0 {
		var err error
		if rep.Frontier, err = frontier(ctx, spec); err != nil {
			return nil, err
		}
		best = Best(rep.Frontier, 1-spec.Conf.Terms.Good)
		names[i] = best
	}
	rows, err := play(ctx, spec, names)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if spec.Policies[i] == HPABest {
			rows[i].Policy, rows[i].Note = HPABest, best
		}
	}
	compare(rows, slices.Index(spec.Policies, rep.Base))
	rep.Rows = rows
	return rep, nil
}

// play runs each policy with each seed.
func play(ctx context.Context, spec Spec, names []string) ([]Row, error) {
	rows := make([]Row, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(spec.Workers)
	told := make(chan struct{}, len(names)*spec.Seeds)
	for i, name := range names {
		rows[i] = Row{Policy: name, Runs: make([]*sim.Result, spec.Seeds)}
		run, err := runner(spec, name)
		if err != nil {
			return nil, err
		}
		for seed := range spec.Seeds {
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				r, err := run(uint64(seed + 1))
				if err != nil {
					return fmt.Errorf("policy %s, seed %d: %w", name, seed+1, err)
				}
				rows[i].Runs[seed] = r
				told <- struct{}{}
				if spec.Told != nil {
					spec.Told(len(told), cap(told))
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].sum()
	}
	return rows, nil
}

// runner is how one run of a policy is done.
func runner(spec Spec, name string) (func(seed uint64) (*sim.Result, error), error) {
	conf := spec.Conf
	switch name {
	case B0:
		return func(seed uint64) (*sim.Result, error) { return sim.Instant(spec.Load, conf, seed) }, nil
	case B1:
		return func(seed uint64) (*sim.Result, error) {
			return sim.Clairvoyant(spec.Load, conf, 1-conf.Terms.Good, seed)
		}, nil
	}
	mk := spec.Makers[name]
	if mk == nil {
		var err error
		if mk, err = Named(name); err != nil {
			return nil, err
		}
	}
	return func(seed uint64) (*sim.Result, error) {
		c := conf
		c.Series = conf.Series && seed == 1
		return sim.Run(spec.Load, c, mk(c, spec.Load, seed), seed)
	}, nil
}

func (r *Row) sum() {
	n := float64(len(r.Runs))
	hours, actions, flips := 0.0, 0.0, 0.0
	for _, x := range r.Runs {
		r.PodHours.Mean += x.PodHours / n
		r.NodeHours.Mean += x.NodeHours / n
		r.Cost.Mean += x.Cost / n
		r.BadShare.Mean += x.BadShare / n
		r.BadMinutes += x.BadMinutes / n
		r.DecideP99 = max(r.DecideP99, float64(x.DecideP99.Microseconds())/1000)
		hours += float64(x.Seconds) / 3600
		actions += float64(x.Actions)
		flips += float64(x.Flips)
	}
	r.ActionsH = actions / max(hours, 1e-9)
	r.Flips = flips / max(actions, 1)
}

// compare fills in the ratios: of sums over the seeds, the interval by the jackknife over seeds.
func compare(rows []Row, base int) {
	for i := range rows {
		for _, of := range []struct {
			into *Estimate
			get  func(*sim.Result) float64
		}{
			{&rows[i].PodHours, func(r *sim.Result) float64 { return r.PodHours }},
			{&rows[i].NodeHours, func(r *sim.Result) float64 { return r.NodeHours }},
			{&rows[i].Cost, func(r *sim.Result) float64 { return r.Cost }},
			{&rows[i].BadShare, func(r *sim.Result) float64 { return r.BadShare }},
		} {
			mean := of.into.Mean
			*of.into = ratio(rows[i].Runs, rows[base].Runs, of.get)
			of.into.Mean = mean
		}
	}
}

func ratio(runs, base []*sim.Result, get func(*sim.Result) float64) Estimate {
	n := len(runs)
	a, b := 0.0, 0.0
	for i := range runs {
		a, b = a+get(runs[i]), b+get(base[i])
	}
	div := func(a, b float64) float64 {
		if b == 0 {
			if a == 0 {
				return 1
			}
			return math.Inf(1)
		}
		return a / b
	}
	e := Estimate{Ratio: div(a, b)}
	if n < 2 || math.IsInf(e.Ratio, 0) {
		e.Low, e.High = math.NaN(), math.NaN()
		return e
	}
	sq := 0.0
	for i := range runs {
		d := div(a-get(runs[i]), b-get(base[i])) - e.Ratio
		sq += d * d
	}
	half := Student(n-1) * math.Sqrt(sq*float64(n-1)/float64(n))
	e.Low, e.High = max(0, e.Ratio-half), e.Ratio+half
	return e
}

// Student is the two-sided 95 % point of Student's t, by Hill's expansion in 1/df; the first few are off by more and
// given.
func Student(df int) float64 {
	if few := []float64{0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365}; df < len(few) {
		return few[df]
	}
	const z = 1.959964
	n := float64(df)
	return z + (z*z*z+z)/(4*n) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*n*n)
}

// Grid is the HPAs that hpa-best is chosen from.
func Grid() (names []string) {
	for target := 30; target <= 85; target += 5 {
		names = append(names, fmt.Sprintf("hpa%d", target), fmt.Sprintf("hpa%d-rps", target))
	}
	return append(names, "hpa88", "hpa90-rps", "hpa95-rps")
}

// frontier runs the grid with few seeds.
func frontier(ctx context.Context, spec Spec) ([]Point, error) {
	spec.Seeds, spec.Conf.Series, spec.Told = min(spec.Seeds, 3), false, nil
	rows, err := play(ctx, spec, Grid())
	if err != nil {
		return nil, err
	}
	var out []Point
	for _, r := range rows {
		out = append(out, Point{r.Policy, r.PodHours.Mean, r.NodeHours.Mean, r.BadShare.Mean})
	}
	return out, nil
}

// Best is the cheapest HPA by node-hours (pod-hours where there are no nodes) that lets down no more than the share bad,
// or the one that lets down fewest.
func Best(points []Point, bad float64) string {
	best := points[0]
	for _, p := range points[1:] {
		ok, was := p.BadShare <= bad, best.BadShare <= bad
		switch {
		case ok && !was, ok && was && p.cost() < best.cost(), !ok && !was && p.BadShare < best.BadShare:
			best = p
		}
	}
	return best.Policy
}

func (p Point) cost() float64 {
	if p.NodeHours > 0 {
		return p.NodeHours
	}
	return p.PodHours
}

// CostAt is what the best HPA in hindsight costs that lets down no more than the share bad, interpolated between those
// on the frontier; the cost of the best of them where none is as good.
func CostAt(points []Point, bad float64) (cost float64, reached bool) {
	const alike = 1e-6 // shares that differ by less are the same
	round := func(share float64) float64 { return math.Round(share/alike) * alike }
	bad = round(bad)
	pts := slices.Clone(points)
	for i := range pts {
		pts[i].BadShare = round(pts[i].BadShare)
	}
	slices.SortFunc(pts, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.BadShare, b.BadShare), cmp.Compare(a.cost(), b.cost()))
	})
	var hull []Point // fewer let down costs more
	for _, p := range pts {
		if len(hull) == 0 || p.cost() < hull[len(hull)-1].cost() && p.BadShare > hull[len(hull)-1].BadShare {
			hull = append(hull, p)
		}
	}
	if bad < hull[0].BadShare {
		return hull[0].cost(), false
	}
	for i := 1; i < len(hull); i++ {
		a, b := hull[i-1], hull[i]
		if bad < b.BadShare {
			f := (math.Log(bad+1e-6) - math.Log(a.BadShare+1e-6)) / (math.Log(b.BadShare+1e-6) - math.Log(a.BadShare+1e-6))
			return a.cost() + f*(b.cost()-a.cost()), true
		}
	}
	return hull[len(hull)-1].cost(), true
}

// Load makes a trace into a load: times its rates when times is set, else raised or lowered until 99.5 % of it needs
// so many pods.
func Load(t *trace.Trace, conf sim.Config, pods, times float64) *trace.Load {
	if times == 0 {
		times = 1
		if q := t.Quantile(0.995); q > 0 {
			times = pods * conf.Service.Rate() / q
		}
	}
	return t.Load(times)
}
