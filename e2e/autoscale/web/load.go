package main

import (
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// load asks at a rate, open loop and at random (Poisson), a new connection each time so that pods that come get their
// share. What came of it is told as sums and a histogram, so that whoever asks twice knows what was between.
type load struct {
	url  string
	late time.Duration

	mu     sync.Mutex
	rate   float64
	tally  Tally
	client *http.Client
}

// Tally is what came of the requests so far.
type Tally struct {
	Rate    float64        `json:"rate"` // that is asked at now
	Sent    int            `json:"sent"`
	Late    int            `json:"late"`
	Failed  int            `json:"failed"`
	Skipped int            `json:"skipped"` // not sent: ten thousand wait already
	Millis  map[string]int `json:"millis"`  // answers by their time, in steps of 5 ms up to 3 s
}

func (l *load) run() error {
	l.tally.Millis = map[string]int{}
	l.client = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	go l.ask()
	mux := http.NewServeMux()
	mux.HandleFunc("/rate", func(w http.ResponseWriter, r *http.Request) {
		v, err := strconv.ParseFloat(r.FormValue("rps"), 64)
		if err != nil || v < 0 {
			http.Error(w, "want rps=N", http.StatusBadRequest)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.rate = v
	})
	mux.HandleFunc("/tally", func(w http.ResponseWriter, _ *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tally.Rate = l.rate
		_ = json.NewEncoder(w).Encode(l.tally)
	})
	return (&http.Server{Addr: ":9200", Handler: mux, ReadHeaderTimeout: 5 * time.Second}).ListenAndServe()
}

func (l *load) ask() {
	waiting := make(chan struct{}, 10000)
	next := time.Now()
	for {
		l.mu.Lock()
		rate := l.rate
		l.mu.Unlock()
		if rate <= 0 {
			next = time.Now().Add(20 * time.Millisecond)
		} else {
			next = next.Add(time.Duration(math.Min(rand.ExpFloat64()/rate, 1) * 1e9))
		}
		if wait := time.Until(next); wait > 0 {
			<-time.After(wait)
		} else if wait < -time.Second {
			next = time.Now() // the machine was away
		}
		if rate <= 0 {
			continue
		}
		select {
		case waiting <- struct{}{}:
			go func() { l.one(); <-waiting }()
		default:
			l.mu.Lock()
			l.tally.Sent, l.tally.Skipped = l.tally.Sent+1, l.tally.Skipped+1
			l.mu.Unlock()
		}
	}
}

func (l *load) one() {
	begun := time.Now()
	r, err := l.client.Get(l.url)
	ok := err == nil && r.StatusCode == http.StatusOK
	if err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	took := time.Since(begun)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.Sent++
	switch {
	case !ok:
		l.tally.Failed++
	case took > l.late:
		l.tally.Late++
	}
	l.tally.Millis[strconv.Itoa(int(min(took.Milliseconds(), 3000)/5*5))]++
}
