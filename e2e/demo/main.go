// Demo tells Seaway's first story on real clusters: three of them with identical addresses, an application in two, a
// client in the third, and a network of their own between them. It runs what a person would type, shows it, checks
// what it claims (a claim that does not hold ends the demo), and says how long each step took.
//
//	make demo         from nothing (Debian 12, Go, root)
//	make demo-down    take it all away
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/e2e/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n\nThe clusters are left as they are; `make demo-down` takes them away.\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("real clusters on one machine need root: run this as root")
	}
	t := &teller{out: os.Stdout, tty: isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "", start: time.Now()}
	conf, err := stage.Config{Out: quiet{t}, Seaway: os.Getenv("SEAWAY_BIN"), Lab: os.Getenv("SEAWAY_LAB_BIN")}.Here()
	if err != nil {
		return err
	}
	d := &demo{teller: t, stage: stage.New(conf)}
	for _, act := range []func(context.Context) error{d.clusters, d.application, d.join, d.slice, d.answers, d.stranger, d.eavesdrop, d.untouched} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	t.table()
	d.next()
	return nil
}

// quiet takes the lab's own progress: on a terminal the step's line counts already.
type quiet struct{ t *teller }

// Write implements io.Writer.
func (q quiet) Write(b []byte) (int, error) {
	if !q.t.tty {
		q.t.print("    %s", b)
	}
	return len(b), nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
