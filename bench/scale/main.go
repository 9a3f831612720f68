// Command scale measures the autoscaler against the HorizontalPodAutoscaler and against the clairvoyant's bound, in
// the simulator, and prints the table of its bars.
//
// Loads are the traces in the directory that SEAWAY_TRACES names, or made-up ones. Everything that is judged is judged
// on the second half of a load; the first half is played all the same, and is all that anybody may have tuned on. The
// first day has a bar of its own (D).
//
// Everything is measured in two worlds, by how requests find a pod: at random, where pods do not help each other, and to
// the least busy, where all pods are nearly one queue and may be filled much further. Each bar has a row for each.
//
//	SEAWAY_TRACES=/path/to/traces go run ./bench/scale -seeds 3 -out bars.json
//
// The exit code tells only whether it could be measured; the table tells which bars are reached, and by how much not.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/scale/sim"
	"seaway.dev/seaway/scale/trace"
)

// options are what the command is told.
type options struct {
	dir      string
	only     string
	profiles string
	balancer string
	out      string
	bars     string
	seeds    int
	workers  int
	days     float64
	pods     float64
	ablate   bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "traces", os.Getenv("SEAWAY_TRACES"), "directory with traces (default: SEAWAY_TRACES; none: made-up loads)")
	flag.StringVar(&o.only, "only", "", "only loads whose names hold one of these, separated by commas")
	flag.StringVar(&o.profiles, "profiles", "fast,slow,managed", "provider profiles")
	flag.StringVar(&o.balancer, "balancer", string(sim.Random)+","+string(sim.LeastRequest), "how requests find a pod: each of these is a world of its own")
	flag.StringVar(&o.bars, "bars", "ABCDEFGH", "which bars")
	flag.StringVar(&o.out, "out", "", "also write all figures as JSON to this file")
	flag.IntVar(&o.seeds, "seeds", 3, "runs of each, with other arrivals and delays")
	flag.IntVar(&o.workers, "workers", 0, "runs at a time (default: one per core)")
	flag.Float64Var(&o.days, "days", 0, "only so many days around the middle of each load, half of them before it (0: all)")
	flag.Float64Var(&o.pods, "pods", 50, "loads are raised until 99.5 % of them need so many pods")
	flag.BoolVar(&o.ablate, "ablate", true, "also run seaway with its parts taken away")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench/scale:", err)
		os.Exit(1)
	}
}

// outcome is everything measured.
type outcome struct {
	Loads []*duel `json:"loads"`
	Bars  []bar   `json:"bars"`
	Parts []part  `json:"parts"` // what each part earns, over all loads
}

// write saves what there is; it is called after every load, so that a long run that is stopped was not in vain.
func (a *outcome) write(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(a, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func (o options) run(ctx context.Context) error {
	began := time.Now()
	var all outcome
	for _, name := range strings.Split(o.balancer, ",") {
		world := o
		world.balancer = name
		if err := world.play(ctx, &all); err != nil {
			return fmt.Errorf("%s balancer: %w", name, err)
		}
	}
	slices.SortStableFunc(all.Bars, func(a, b bar) int { return strings.Compare(a.Bar, b.Bar) })
	printBars(os.Stdout, all.Bars)
	if len(all.Loads) > 0 {
		printParts(os.Stdout, all.Loads)
	}
	fmt.Printf("\n%d seeds, %s\n", o.seeds, time.Since(began).Round(time.Second))
	return all.write(o.out)
}

// play measures everything with one balancer, and adds it.
func (o options) play(ctx context.Context, all *outcome) error {
	before, bars := len(all.Loads), all.Bars
	if strings.ContainsAny(o.bars, "ABCDH") {
		traces, err := o.traces()
		if err != nil {
			return err
		}
		for _, t := range traces {
			for _, name := range strings.Split(o.profiles, ",") {
				p, err := sim.ProfileNamed(name)
				if err != nil {
					return err
				}
				d, err := o.duel(ctx, t, p)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", t.Name, name, err)
				}
				all.Loads = append(all.Loads, d)
				d.print(os.Stdout)
				all.Bars = append(slices.Clone(bars), o.named(judge(all.Loads[before:], o.bars))...)
				all.Parts = parts(all.Loads, "", "")
				if err := all.write(o.out); err != nil {
					return err
				}
			}
		}
	}
	for _, more := range []struct {
		bar string
		run func(context.Context) ([]bar, error)
	}{{"E", o.adverse}, {"F", o.delays}, {"G", o.many}} {
		if !strings.Contains(o.bars, more.bar) {
			continue
		}
		b, err := more.run(ctx)
		if err != nil {
			return err
		}
		all.Bars = append(all.Bars, o.named(b)...)
		if err := all.write(o.out); err != nil {
			return err
		}
	}
	return nil
}

// named says of bars with which balancer they were measured.
func (o options) named(bars []bar) []bar {
	for i := range bars {
		bars[i].Balancer = o.balancer
	}
	return bars
}

// traces are the loads to run, cut where -days says so.
func (o options) traces() ([]*trace.Trace, error) {
	var all []*trace.Trace
	if o.dir == "" {
		fmt.Println("SEAWAY_TRACES is not set: made-up loads")
		for _, kind := range trace.Kinds() {
			t, err := trace.Generate(kind, 1)
			if err != nil {
				return nil, err
			}
			all = append(all, t)
		}
	} else {
		files, err := filepath.Glob(filepath.Join(o.dir, "*.csv*"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no *.csv or *.csv.gz in %s (SEAWAY_TRACES)", o.dir)
		}
		for _, f := range files {
			t, err := trace.ReadFile(f)
			if err != nil {
				return nil, err
			}
			all = append(all, t)
		}
	}
	var out []*trace.Trace
	for _, t := range all {
		if o.only != "" && !slices.ContainsFunc(strings.Split(o.only, ","), func(s string) bool { return strings.Contains(t.Name, s) }) {
			continue
		}
		if length := t.Length().Hours() / 24; o.days > 0 && length > o.days {
			t = t.Slice(0.5-o.days/2/length, 0.5+o.days/2/length)
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no load whose name holds %q", o.only)
	}
	return out, nil
}
