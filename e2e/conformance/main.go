// Conformance runs the standard's own test suite for multi-cluster services against the lab with Seaway on it. The
// suite (kubernetes-sigs/mcs-api, folder conformance, compiled with `go test -c`) is given from outside and run as it
// is; nothing of it is part of Seaway.
//
//	make conformance SUITE=/tmp/suite                  once
//	make conformance SUITE=/tmp/suite RUNS=3 OUT=/tmp/reports
//
// It starts its lab (lab.yaml) if none is up, builds the images that the suite asks for out of Debian's packages under the
// suite's names, installs Seaway, puts the namespaces that the suite will make on a slice, and runs it. On that slice
// headless names answer with the pods' own addresses (ADDRESSES=Slice: with the slice's, as they do by default; then one
// optional spec cannot pass). Reports are kept in OUT. The lab is left as it was found: up if it was up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"seaway.dev/seaway/e2e/stage"
)

func main() {
	var r run
	var filter string
	flag.StringVar(&r.suite, "suite", "", "the compiled test binary of the suite")
	flag.StringVar(&r.out, "out", "", "folder for the reports; a new one in the temporary folder if empty")
	flag.IntVar(&r.runs, "runs", 1, "how often to run it, one after the other")
	flag.StringVar(&r.version, "version", "dev", "the version of Seaway to write into the reports")
	flag.StringVar(&r.addresses, "addresses", "Pod", "the slice's spec.addresses: Pod or Slice")
	flag.StringVar(&filter, "focus", "", "only specs whose text matches this expression (such a report is no proof)")
	keep := flag.Bool("keep", false, "leave a lab up that was started for this")
	flag.Parse()
	if filter != "" {
		r.extra = append(r.extra, "-ginkgo.focus="+filter)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := r.all(ctx, *keep)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		os.Exit(1)
	}
}

// run is one order of so many runs of a suite.
type run struct {
	suite, out, version string
	addresses           string // of the slice: Pod or Slice
	runs                int
	extra               []string
	stage               *stage.Stage
}

func (r *run) all(ctx context.Context, keep bool) (err error) {
	switch {
	case r.suite == "":
		return errors.New("say which suite: make conformance SUITE=FILE, where FILE is what `go test -c` makes of the folder conformance of kubernetes-sigs/mcs-api")
	case os.Geteuid() != 0:
		return errors.New("real clusters on one machine need root: run this as root")
	}
	if r.suite, err = filepath.Abs(r.suite); err != nil {
		return err
	}
	if _, err := os.Stat(r.suite); err != nil {
		return fmt.Errorf("the suite: %w", err)
	}
	if r.out == "" {
		if r.out, err = os.MkdirTemp("", "seaway-conformance-"); err != nil {
			return err
		}
	}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	conf, err := stage.Config{Out: os.Stdout, Seaway: os.Getenv("SEAWAY_BIN"), Lab: os.Getenv("SEAWAY_LAB_BIN")}.Here()
	if err != nil {
		return err
	}
	r.stage = stage.New(conf)
	_, none := r.stage.Layout(ctx)
	if errors.Is(none, stage.ErrNoLab) && !keep {
		defer func() {
			// Also after an interruption: clusters must not stay behind unasked.
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, r.stage.Down(down))
		}()
	}
	for _, step := range []func(context.Context) error{r.stage.Build, r.lab, r.stage.Up, r.stage.Images, r.images, r.install, r.slice} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	defer r.clean(context.WithoutCancel(ctx))
	return r.repeat(ctx)
}

// lab starts the suite's own lab unless one is up.
func (r *run) lab(ctx context.Context) error {
	if _, err := r.stage.Layout(ctx); !errors.Is(err, stage.ErrNoLab) {
		return nil // whatever is wrong with it, Up mends
	}
	config := filepath.Join(r.stage.Root, "e2e", "conformance", "lab.yaml")
	_, _, err := r.stage.Runner.Run(ctx, stage.Command{Args: []string{r.stage.Lab, "up", "--config", config}, Live: os.Stdout})
	if err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	return nil
}

func (r *run) install(ctx context.Context) error {
	return r.stage.Install(ctx, clusters...)
}

// clusters are those between which the suite tests; it needs two, and its first is where it exports.
var clusters = []string{"c1", "c2"}

// sliceName is the slice that the suite's namespaces are on.
const sliceName = "conformance"

// slice makes one that every namespace is on except the clusters' own: the suite makes namespaces of random names.
func (r *run) slice(ctx context.Context) error {
	_, err := r.stage.Apply(ctx, stage.Hub, `
apiVersion: seaway.dev/v1alpha1
kind: Slice
metadata: {name: `+sliceName+`}
spec:
  prefixes: [10.88.0.0/16]
  addresses: `+r.addresses+`
  namespaces:
    selector:
      matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: NotIn, values: [default, kube-system, kube-public, kube-node-lease, seaway-system]}
`)
	return err
}

func (r *run) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := r.stage.Kubectl(ctx, stage.Hub, "delete", "slices.seaway.dev", sliceName, "--ignore-not-found", "--timeout=50s"); err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
	}
}

// repeat runs the suite as often as asked and sums up. Every run must pass.
func (r *run) repeat(ctx context.Context) error {
	config, err := r.kubeconfig(ctx)
	if err != nil {
		return err
	}
	defer os.Remove(config)
	var errs []error
	for n := 1; n <= r.runs && ctx.Err() == nil; n++ {
		dir := filepath.Join(r.out, fmt.Sprintf("run-%d", n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		begun := time.Now()
		args := append([]string{r.suite, "-test.timeout=60m", "-kubeconfig=" + config, "-contexts=" + strings.Join(clusters, ","),
			"-organization=Seaway", "-project=Seaway", "-version=" + r.version, "-url=https://seaway.dev",
			"-ginkgo.no-color", "-ginkgo.v"}, r.extra...)
		log, err := os.Create(filepath.Join(dir, "log.txt"))
		if err != nil {
			return err
		}
		out, _, err := r.stage.Runner.Run(ctx, stage.Command{Args: args, Dir: dir, Live: log})
		log.Close()
		if err != nil {
			errs = append(errs, fmt.Errorf("run %d: the suite says no: see %s", n, filepath.Join(dir, "log.txt")))
		}
		fmt.Printf("run %d, %s: %s\n", n, time.Since(begun).Round(time.Second), verdict(out))
		if text, err := os.ReadFile(filepath.Join(dir, "report.yaml")); err == nil {
			words, err := summary(text)
			errs = append(errs, err)
			fmt.Print(words)
		}
	}
	fmt.Printf("reports: %s\n", r.out)
	return errors.Join(errs...)
}

// verdict is the suite's own last word.
func verdict(out string) string {
	lines := strings.Split(out, "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.Contains(lines[i], "Passed") && strings.Contains(lines[i], "Failed") {
			return strings.TrimSpace(lines[i])
		}
	}
	return "it did not get to its end"
}
