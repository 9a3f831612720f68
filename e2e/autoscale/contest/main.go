// Contest lets the real HPA (kube-controller-manager's, with metrics-server) and Seaway drive the same Deployment on the
// lab under the same load, one after the other, and shows what users and the bill saw of it side by side. On the HPA's leg it
// also lays the simulator's HPA beside the real one.
//
//	make autoscale                               generated load, two legs of six minutes
//	make autoscale SEAWAY_TRACES=DIR             a cut of a recorded one, faster than it was
//	make autoscale SCALEFLAGS="-room 8"          nodes are sold: the second comes half a minute after a pod waits for room
//	make autoscale OUT=FILE                      also as JSON, and the curves as FILE.svg and FILE-hpa.svg
//
// Seaway's leg begins with what it has learnt in two hours of the service in arithmetic (package lesson), as after a
// restart; of the load to come it has seen nothing. Pods take -after from their start until they are ready.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"seaway.dev/seaway/e2e/autoscale"
	"seaway.dev/seaway/e2e/stage"
	"seaway.dev/seaway/scale/trace"
)

// contest is what was asked for.
type contest struct {
	out, drivers, trace string
	leg, span, after    time.Duration
	from                time.Duration
	peak                float64
	target, most, room  int
	boot                time.Duration
	stage               *stage.Stage
	provider            *autoscale.Provider
}

func main() {
	var c contest
	flag.StringVar(&c.out, "out", "", "write JSON here, and the curves beside it")
	flag.StringVar(&c.drivers, "drivers", "hpa,seaway", "who drives, one after the other")
	flag.StringVar(&c.trace, "trace", "bursty", "a recorded load's file, or the name of a made one, of whose second half -span is played")
	flag.IntVar(&c.room, "room", 0, "pods of the service that a node has room for: the second node is bought when pods wait, and given back when it is empty; 0: room for all")
	flag.DurationVar(&c.boot, "boot", 30*time.Second, "from a node's order to its machine's start, with -room")
	flag.DurationVar(&c.leg, "leg", 6*time.Minute, "how long each drives")
	flag.DurationVar(&c.span, "span", time.Hour, "of the trace, played in one leg")
	flag.DurationVar(&c.from, "from", 10*time.Minute, "into the trace's second half, where the cut begins")
	flag.DurationVar(&c.after, "after", 10*time.Second, "from a pod's start until it is ready")
	flag.Float64Var(&c.peak, "peak", 220, "the load's peak, in requests per second (a pod serves 20)")
	flag.IntVar(&c.target, "target", 70, "the HPA's, in percent of CPU")
	flag.IntVar(&c.most, "max", 18, "replicas")
	keep := flag.Bool("keep", false, "leave a lab up that was started for this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := c.all(ctx, *keep)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "autoscale: %v\n", err)
		os.Exit(1)
	}
}

func (c *contest) all(ctx context.Context, keep bool) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("real clusters on one machine need root: run this as root")
	}
	load, what, err := c.load()
	if err != nil {
		return err
	}
	conf, err := stage.Config{Out: os.Stdout, Seaway: os.Getenv("SEAWAY_BIN"), Lab: os.Getenv("SEAWAY_LAB_BIN")}.Here()
	if err != nil {
		return err
	}
	c.stage = stage.New(conf)
	if err := c.stage.Build(ctx); err != nil {
		return err
	}
	if _, err := c.stage.Layout(ctx); errors.Is(err, stage.ErrNoLab) {
		config := filepath.Join(conf.Root, "e2e", "autoscale", "lab.yaml")
		if _, _, err := c.stage.Runner.Run(ctx, stage.Command{Args: []string{c.stage.Lab, "up", "--config", config}, Live: os.Stdout}); err != nil {
			return err
		}
		if !keep {
			defer func() {
				down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				defer cancel()
				err = errors.Join(err, c.stage.Down(down))
			}()
		}
	}
	if err := c.stage.Images(ctx); err != nil {
		return err
	}
	if err := c.stage.Namespace(ctx, "c1", autoscale.Namespace); err != nil {
		return err
	}
	if c.room > 0 {
		c.provider = &autoscale.Provider{Boot: c.boot, Idle: time.Minute, Room: c.room}
		c.most = min(c.most, 2*c.room)
	}
	image, err := autoscale.Image(ctx, c.stage, "c1")
	if err != nil {
		return err
	}
	site, err := autoscale.Place(ctx, c.stage, image, "c1", c.after, c.provider)
	if err != nil {
		return err
	}
	if _, err := c.stage.Seawayctl(ctx, "c1", "install", "autoscaler", "--image", c.stage.Image, "--prometheus", site.Prometheus()); err != nil {
		return err
	}
	if _, err := c.stage.Kubectl(ctx, "c1", "rollout", "status", "deployment/seaway-autoscaler", "-n", stage.SystemNamespace, "--timeout=90s"); err != nil {
		return err
	}
	err = c.play(ctx, site, load, what)
	if c.provider != nil && keep {
		err = errors.Join(err, c.provider.End(context.WithoutCancel(ctx)))
	}
	return err
}

// load is requests per second, second by second, and what it is.
func (c *contest) load() ([]float64, string, error) {
	out := make([]float64, int(c.leg.Seconds()))
	t, err := trace.Generate(c.trace, 1)
	if !slices.Contains(trace.Kinds(), c.trace) {
		t, err = trace.ReadFile(c.trace)
	}
	if err != nil {
		return nil, "", err
	}
	half := t.Slice(0.5, 1)
	skip := min(int(c.from/half.Bin), len(half.Rate)-1)
	n := min(int(c.span/half.Bin), len(half.Rate)-skip)
	cut := half.Rate[skip : skip+n]
	most, last := 0., 0.
	for _, v := range cut {
		if !math.IsNaN(v) {
			most = max(most, v)
		}
	}
	fast := float64(n) * half.Bin.Seconds() / c.leg.Seconds()
	for i := range out { // the mean of what a second of the leg spans
		from := int(float64(i) * float64(n) / float64(len(out)))
		to := max(from+1, int(float64(i+1)*float64(n)/float64(len(out))))
		sum, k := 0., 0
		for _, v := range cut[from:min(to, n)] {
			if !math.IsNaN(v) {
				sum, k = sum+v, k+1
			}
		}
		if k > 0 {
			last = sum / float64(k)
		}
		out[i] = last / most * c.peak
	}
	return out, fmt.Sprintf("%s, second half, from %s on, %s, %.3g times as fast, peak made %g/s", t.Name, c.from, time.Duration(n)*half.Bin, fast, c.peak), nil
}

func (c *contest) play(ctx context.Context, site *autoscale.Site, load []float64, what string) error {
	contest := &autoscale.Contest{Site: site, Stage: c.stage, Load: load, Max: int32(c.most), Target: int32(c.target), Provider: c.provider,
		Tell: func(f string, a ...any) { fmt.Printf(f+"\n", a...) }}
	report := struct {
		Load   string            `json:"load"`
		After  string            `json:"podsReadyAfter"`
		Boot   string            `json:"nodesBootAfter,omitempty"`
		Legs   []*autoscale.Leg  `json:"legs"`
		Curves *autoscale.Curves `json:"simulatorsHPA,omitempty"`
	}{Load: what, After: c.after.String()}
	if c.provider != nil {
		report.Boot = c.boot.String()
	}
	fmt.Println("load:", what)
	replicas := map[string][]int{}
	var order []string
	for _, d := range strings.Split(c.drivers, ",") {
		leg, err := contest.Play(ctx, d)
		if err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
		report.Legs = append(report.Legs, leg)
		for _, s := range leg.Seconds {
			replicas[d] = append(replicas[d], s.Replicas)
		}
		order = append(order, d)
		if d == "hpa" {
			curves := autoscale.Replay(leg, float64(c.target), c.most)
			report.Curves = &curves
		}
	}
	fmt.Print(autoscale.Table(report.Legs))
	if r := report.Curves; r != nil {
		fmt.Printf("the simulator's HPA beside the real one: the same replicas in %.1f %% of the seconds, %d apart at most\n", 100*r.Alike, r.Most)
	}
	if c.out == "" {
		return nil
	}
	b, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.out, b, 0o644); err != nil {
		return err
	}
	if err := draw(c.out+".svg", what, load, replicas, order); err != nil || report.Curves == nil {
		return err
	}
	return draw(c.out+"-hpa.svg", "the real HPA and the simulator's, "+what, load, map[string][]int{"real": report.Curves.Real, "simulator": report.Curves.Ours}, []string{"real", "simulator"})
}

func draw(path, title string, load []float64, curves map[string][]int, order []string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return autoscale.Draw(f, title, load, curves, order)
}
