package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// loadResult is what load prints, as JSON.
type loadResult struct {
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"`
	Seconds  float64 `json:"seconds"`
	PerSec   float64 `json:"perSecond"`
	P50      float64 `json:"p50ms"`
	P99      float64 `json:"p99ms"`
	Max      float64 `json:"maxms"`
	MiBps    float64 `json:"mibPerSecond"`
	LastErr  string  `json:"lastError,omitempty"`
}

// load fetches a URL over and over. Exit code 1 if any request failed.
func load(args []string) int {
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	workers := fs.Int("c", 4, "requests at the same time")
	duration := fs.Duration("for", 5*time.Second, "how long")
	timeout := fs.Duration("timeout", 3*time.Second, "for each request")
	fresh := fs.Bool("fresh", false, "a new connection for each request")
	url, rest := splitArgs(args)
	_ = fs.Parse(rest)
	if url == "" {
		fmt.Fprintln(os.Stderr, "usage: lab-app load URL [-c 4] [-for 5s] [-timeout 3s] [-fresh]")
		return 2
	}
	t := &http.Transport{MaxIdleConnsPerHost: *workers, DisableKeepAlives: *fresh}
	client := &http.Client{Timeout: *timeout, Transport: t}
	var mu sync.Mutex
	var times []float64
	var r loadResult
	var bytes int64
	start := time.Now()
	var wg sync.WaitGroup
	for range *workers {
		wg.Go(func() {
			for time.Since(start) < *duration {
				began := time.Now()
				var c count
				err := fetch(client, url, &c)
				mu.Lock()
				r.Requests++
				bytes += int64(c)
				if err != nil {
					r.Failed++
					r.LastErr = err.Error()
				} else {
					times = append(times, float64(time.Since(began).Microseconds())/1000)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	r.finish(times, bytes, time.Since(start))
	_ = json.NewEncoder(os.Stdout).Encode(r)
	return min(r.Failed, 1)
}

func (r *loadResult) finish(times []float64, bytes int64, took time.Duration) {
	r.Seconds = took.Seconds()
	r.PerSec, r.MiBps = float64(r.Requests)/r.Seconds, float64(bytes)/r.Seconds/(1<<20)
	slices.Sort(times)
	if n := len(times); n > 0 {
		r.P50, r.P99, r.Max = times[n/2], times[n*99/100], times[n-1]
	}
}

// count counts what is written to it.
type count int64

func (c *count) Write(b []byte) (int, error) {
	*c += count(len(b))
	return len(b), nil
}

var _ io.Writer = (*count)(nil)
