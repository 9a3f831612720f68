// Web is the service that an autoscaler scales in a story, and the load that comes to it.
//
//	web serve [-workers 2] [-time 100ms] [-cost 2ms] [-after 0s]   HTTP :8080: a known capacity of workers ÷ time
//	web load -url URL                                             HTTP :9200: open-loop load at a rate that is set there
//
// A request holds one of the workers for its time, of which cost is processor time; so a pod with all workers busy uses
// workers × cost ÷ time cores, whatever else Go's HTTP does: what that takes is part of the cost.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "web: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want serve or load")
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "serve":
		s := &server{}
		fs.IntVar(&s.workers, "workers", 2, "requests at the same time")
		fs.DurationVar(&s.takes, "time", 100*time.Millisecond, "that a request takes")
		fs.DurationVar(&s.cost, "cost", 2*time.Millisecond, "of processor time in that")
		fs.DurationVar(&s.after, "after", 0, "from the process's start until it is ready")
		fs.DurationVar(&s.late, "late", 400*time.Millisecond, "an answer later than that is bad")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return s.run()
	case "load":
		l := &load{}
		fs.StringVar(&l.url, "url", "", "of the service")
		fs.DurationVar(&l.late, "late", 400*time.Millisecond, "an answer later than that is bad")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return l.run()
	}
	return fmt.Errorf("%q: want serve or load", args[0])
}
