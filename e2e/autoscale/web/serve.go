package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// server serves with a number of workers; who does not find one free waits, and after a second is refused.
type server struct {
	workers          int
	takes, cost      time.Duration
	after, late      time.Duration
	free             chan struct{}
	arrived, bad, in atomic.Int64
	served           atomic.Int64
	begun            time.Time
}

func (s *server) run() error {
	s.begun, s.free = time.Now(), make(chan struct{}, s.workers)
	go s.burn()
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.serve)
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(s.begun) < s.after {
			http.Error(w, "starting", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/metrics", s.metrics)
	h := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	// Who is told to go serves on while the others learn of that, as a careful service does.
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	failed := make(chan error, 1)
	go func() { failed <- h.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-term:
	}
	<-time.After(2 * time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return h.Shutdown(ctx)
}

func (s *server) serve(w http.ResponseWriter, _ *http.Request) {
	begun := time.Now()
	s.arrived.Add(1)
	s.in.Add(1)
	defer s.in.Add(-1)
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	select {
	case s.free <- struct{}{}:
	case <-patience.C:
		s.bad.Add(1)
		http.Error(w, "all workers are busy", http.StatusServiceUnavailable)
		return
	}
	work := time.NewTimer(s.takes)
	<-work.C
	<-s.free
	s.served.Add(1)
	if time.Since(begun) > s.late {
		s.bad.Add(1)
	}
	fmt.Fprintln(w, "ok")
}

// burn uses the processor time that the served requests have not used yet.
func (s *server) burn() {
	base := used()
	for range time.Tick(10 * time.Millisecond) {
		owes := time.Duration(s.served.Load())*s.cost - (used() - base)
		if owes < -100*time.Millisecond { // idle work is not paid by requests to come
			base += -100*time.Millisecond - owes
		}
		for end := used() + min(owes, 10*time.Millisecond); owes > 0 && used() < end; {
		}
	}
}

// used is the processor time of this process.
func used() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func (s *server) metrics(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "# TYPE web_requests_total counter\nweb_requests_total %d\n# TYPE web_bad_requests_total counter\nweb_bad_requests_total %d\n", s.arrived.Load(), s.bad.Load())
	fmt.Fprintf(w, "# TYPE web_in_flight gauge\nweb_in_flight %d\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %g\n", s.in.Load(), used().Seconds())
}
