package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/scale/match"
	"seaway.dev/seaway/scale/sim"
	"seaway.dev/seaway/scale/trace"
)

func (c *cli) simCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sim", Short: "Try autoscaling policies on recorded load, without a cluster",
		Long: `Try autoscaling policies on recorded load, without a cluster: the same arrivals meet each
policy in a simulator of pods, queues, nodes, metrics and providers.`,
		Example: "  seaway sim run --trace load.csv.gz --policy seaway,hpa70\n  seaway sim traces *.csv.gz",
	}
	cmd.AddCommand(c.simRunCmd(), c.simTracesCmd())
	return cmd
}

// simFlags are what `seaway sim run` is told.
type simFlags struct {
	trace, profile, balancer, score string
	policies                        []string
	seeds                           int
	pods, times                     float64
	latency                         time.Duration
	good                            float64
	perNode, most                   int
	exact                           bool
	json, chart                     string
}

func (c *cli) simRunCmd() *cobra.Command {
	f := simFlags{}
	cmd := &cobra.Command{
		Use: "run --trace FILE", Short: "Let policies meet a recorded load, and compare cost and violations", Args: cobra.NoArgs,
		Long: `Let policies meet a recorded load in the simulator, and compare what they cost and how many
requests they let down, as ratios to hpa70 (or the first policy) with 95 % intervals.

A trace is CSV, gzipped or not, with a header; the first column is the time in seconds (t_s).
With a column "requests" rows are bins of any width with their counts; with "rps" or "rate_rps"
they are bins with rates; with neither, each row is one arrival.

Policies: seaway, seaway-no-forecast, seaway-no-delays, seaway-no-guard, seaway-no-seasons,
` + sim.Known + `,
hpa-best (the best of many HPAs for this load, in hindsight), b0 and b1 (clairvoyant bounds:
pods that come at once, and with the provider's real delays).

The load is raised until 99.5 % of it needs --pods pods; --times sets a factor instead (1: as it is).`,
		Example: `  seaway sim run --trace load.csv.gz --profile slow --policy seaway,hpa60,hpa70,hpa-best,b1 --seeds 20
  seaway sim run --trace load.csv --policy seaway,hpa70 --score second --json out.json --chart out.svg`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.simRun(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.trace, "trace", "", "`FILE` with the load")
	fl.StringVar(&f.profile, "profile", "slow", "how the provider gives nodes: fast, slow or managed")
	fl.StringSliceVar(&f.policies, "policy", []string{"seaway", "hpa60", "hpa70", "hpa-best", "keda", "holtwinters", "static", "b0", "b1"}, "`NAMES` of policies")
	fl.IntVar(&f.seeds, "seeds", 5, "how often, each time with other arrivals and delays")
	fl.StringVar(&f.balancer, "balancer", string(sim.Random), "how requests find a pod: random, or least (fewest requests)")
	fl.StringVar(&f.score, "score", "all", "what counts: all, first or second half (the other half is played all the same)")
	fl.Float64Var(&f.pods, "pods", 50, "raise the load until 99.5 % of it needs so many pods")
	fl.Float64Var(&f.times, "times", 0, "multiply the load by this instead")
	fl.DurationVar(&f.latency, "latency", 500*time.Millisecond, "within which a request is good")
	fl.Float64Var(&f.good, "good", 0.999, "share of requests that should be good")
	fl.IntVar(&f.perNode, "pods-per-node", 4, "pods that a node takes (0: nodes do not count)")
	fl.IntVar(&f.most, "max", 400, "the most replicas")
	fl.BoolVar(&f.exact, "exact", false, "play every request (slow) instead of each second's as one number")
	fl.StringVar(&f.json, "json", "", "also write all figures to `FILE` (-: standard output, and no table)")
	fl.StringVar(&f.chart, "chart", "", "also draw pods over time into `FILE`, by its name an .svg or a .png")
	return cmd
}

func (c *cli) simRun(ctx context.Context, f simFlags) error {
	spec, err := f.spec()
	if err != nil {
		return err
	}
	began := time.Now()
	if c.Color {
		spec.Told = func(done, all int) {
			fmt.Fprintf(c.Err, "\r%d of %d runs, %s ", done, all, time.Since(began).Round(time.Second))
		}
	}
	rep, err := match.Run(ctx, spec)
	if c.Color {
		fmt.Fprint(c.Err, "\r\033[K")
	}
	if err != nil {
		return usage("%v", err)
	}
	if f.chart != "" {
		drawn := rep.SVG
		if strings.EqualFold(filepath.Ext(f.chart), ".png") {
			drawn = rep.PNG
		}
		if err := writeFile(f.chart, func(w *os.File) error { return drawn(w, spec.Conf.Service.Rate()) }); err != nil {
			return err
		}
	}
	if f.json == "-" {
		return json.NewEncoder(c.Out).Encode(rep)
	}
	if f.json != "" {
		if err := writeFile(f.json, func(w *os.File) error { return json.NewEncoder(w).Encode(rep) }); err != nil {
			return err
		}
	}
	if err := rep.Table(c.Out); err != nil {
		return err
	}
	fmt.Fprintln(c.Out)
	rep.Chart(c.Out, 80)
	return nil
}

// spec turns flags into a match.
func (f simFlags) spec() (match.Spec, error) {
	var none match.Spec
	if ext := strings.ToLower(filepath.Ext(f.chart)); f.chart != "" && ext != ".svg" && ext != ".png" {
		return none, usage("--chart %s: a chart is an .svg or a .png", f.chart)
	}
	if f.trace == "" {
		return none, usage("which load? --trace FILE.csv[.gz]").then("`seaway sim run --help` tells what such a file holds")
	}
	t, err := readTrace(f.trace)
	if err != nil {
		return none, err
	}
	p, err := sim.ProfileNamed(f.profile)
	if err != nil {
		return none, usage("%v", err)
	}
	conf := sim.Default(p)
	conf.Balancer, conf.Exact = sim.Balancer(f.balancer), f.exact
	conf.Terms.Latency, conf.Terms.Good, conf.Terms.PodsPerNode, conf.Terms.Max = f.latency, f.good, f.perNode, f.most
	conf.Series = true
	switch {
	case conf.Balancer != sim.Random && conf.Balancer != sim.LeastRequest:
		return none, usage("no balancer %q: there are random and least", f.balancer)
	case f.seeds < 1 || f.seeds > 1000:
		return none, usage("--seeds %d: between 1 and 1000", f.seeds)
	case !(f.good > 0 && f.good < 1):
		return none, usage("--good %g: a share between 0 and 1, such as 0.999", f.good)
	case f.latency <= 0 || f.perNode < 0 || f.most < 1 || f.pods <= 0 || f.times < 0:
		return none, usage("--latency, --max and --pods are more than 0, --pods-per-node and --times no less")
	}
	switch f.score {
	case "all":
	case "first":
		conf.To = 0.5
	case "second":
		conf.From = 0.5
	default:
		return none, usage("--score %q: all, first or second", f.score)
	}
	for _, name := range f.policies {
		switch name {
		case match.HPABest, match.B0, match.B1:
			continue
		}
		if _, err := match.Named(name); err != nil {
			return none, usage("%v", err)
		}
	}
	return match.Spec{Load: match.Load(t, conf, f.pods, f.times), Conf: conf, Policies: f.policies, Seeds: f.seeds}, nil
}

// readTrace reads a trace and turns what is wrong with it into an error of the command line.
func readTrace(path string) (*trace.Trace, error) {
	t, err := trace.ReadFile(path)
	var bad *trace.Error
	switch {
	case errors.As(err, &bad):
		return nil, usage("%v", err).then("mend the file; `seaway sim run --help` tells what it should hold")
	case errors.Is(err, fs.ErrNotExist):
		return nil, usage("no file %s", path)
	}
	return t, err
}

func writeFile(path string, write func(*os.File) error) error {
	w, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := write(w); err != nil {
		w.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return w.Close()
}

func (c *cli) simTracesCmd() *cobra.Command {
	return &cobra.Command{
		Use: "traces FILE...", Short: "Say what is in traces of load", Args: cobra.MinimumNArgs(1),
		Example: "  seaway sim traces load.csv.gz",
		RunE: func(_ *cobra.Command, args []string) error {
			t := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "TRACE\tLENGTH\tBIN\tMEAN/S\tP50/S\tP99.5/S\tGAPS\tFORM")
			var failed error
			for _, path := range args {
				tr, err := readTrace(path)
				if err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				form := "bins"
				if tr.Events > 0 {
					form = fmt.Sprintf("%d events", tr.Events)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%.4g\t%.4g\t%.4g\t%.1f %%\t%s\n", strings.TrimSuffix(filepath.Base(path), ".gz"), tr.Length(), tr.Bin,
					tr.Mean(), tr.Quantile(0.5), tr.Quantile(0.995), 100*tr.Gaps(), form)
			}
			if err := t.Flush(); err != nil {
				return err
			}
			return failed
		},
	}
}
