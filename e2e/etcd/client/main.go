// Client reads and writes keys of etcd and notes when each operation began and ended, and what came of it.
//
//	client load -name c1 -log FILE [-stale] URL…    read and write; with -stale only read, whatever the first member holds
//	client await URL…                               until every host has an address
//	client leader URL…                              print the number of the URL whose member leads, counted from 0
//
// A line of the log is `put|get KEY VALUE BEGIN END ok|unknown`, times in microseconds of Unix time; a missing value is
// "-". The protocol is etcd's own JSON gateway.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	keys     = 20
	patience = 1500 * time.Millisecond // for one operation
	pause    = 20 * time.Millisecond   // between two of a worker
	penance  = 100 * time.Millisecond  // after one that failed
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "client: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want load, await or leader")
	}
	switch args[0] {
	case "load":
		return load(ctx, args[1:])
	case "await":
		return await(ctx, args[1:])
	case "leader":
		return leader(ctx, args[1:])
	}
	return fmt.Errorf("%q: want load, await or leader", args[0])
}

func load(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	name := fs.String("name", "", "who asks")
	file := fs.String("log", "", "where to note operations")
	workers := fs.Int("workers", 3, "operations at a time")
	stale := fs.Bool("stale", false, "only read, and take what the first member holds")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 || *name == "" || *file == "" {
		return errors.New("load: want -name, -log and URLs")
	}
	f, err := os.OpenFile(*file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	var wg sync.WaitGroup
	birth := time.Now().UnixMicro()
	for n := range *workers {
		w := &worker{id: fmt.Sprintf("%s-%x-%d", *name, birth, n), members: fs.Args(), log: f, stale: *stale}
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
	return nil
}

// worker does one operation after the other, with the member of its own cluster as long as that answers.
type worker struct {
	id      string
	members []string
	at      int // the member in use
	n       int
	log     *os.File
	stale   bool
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		d := pause
		if !w.once(ctx) {
			d = penance
			if !w.stale {
				w.at = (w.at + 1) % len(w.members)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
}

func (w *worker) once(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w.n++
	key := fmt.Sprintf("k%02d", rand.IntN(keys))
	begin := time.Now()
	if !w.stale && rand.IntN(2) == 0 {
		value := fmt.Sprintf("%s-%d", w.id, w.n)
		err := ask(ctx, w.members[w.at], "kv/put", map[string]any{"key": b64(key), "value": b64(value)}, &struct{}{})
		w.note("put", key, value, begin, err)
		return err == nil
	}
	var got struct{ Kvs []struct{ Value []byte } }
	err := ask(ctx, w.members[w.at], "kv/range", map[string]any{"key": b64(key), "serializable": w.stale}, &got)
	value := "-"
	if len(got.Kvs) > 0 {
		value = string(got.Kvs[0].Value)
	}
	w.note("get", key, value, begin, err)
	return err == nil
}

// note writes a line at once, by one write, so that workers can share the file.
func (w *worker) note(what, key, value string, begin time.Time, err error) {
	came := "ok"
	if err != nil {
		came = "unknown"
	}
	fmt.Fprintf(w.log, "%s %s %s %d %d %s\n", what, key, value, begin.UnixMicro(), time.Now().UnixMicro(), came)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func ask(ctx context.Context, member, what string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, member+"/v3/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", r.Status, b)
	}
	return json.Unmarshal(b, answer)
}

// await looks until every member's host has an address.
func await(ctx context.Context, members []string) error {
	for _, m := range members {
		u, err := url.Parse(m)
		if err != nil {
			return err
		}
		for {
			one, cancel := context.WithTimeout(ctx, patience)
			_, err := net.DefaultResolver.LookupHost(one, u.Hostname())
			cancel()
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(penance):
			}
		}
	}
	return nil
}

// leader asks all members who leads; the first that knows is believed.
func leader(ctx context.Context, members []string) error {
	var failed []error
	for i, m := range members {
		one, cancel := context.WithTimeout(ctx, patience)
		var st struct {
			Header struct {
				ID string `json:"member_id"`
			}
			Leader string
		}
		err := ask(one, m, "maintenance/status", struct{}{}, &st)
		cancel()
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m, err))
			continue
		}
		if st.Leader != "" && st.Leader == st.Header.ID {
			fmt.Println(i)
			return nil
		}
	}
	if len(failed) == 0 {
		return errors.New("no member says that it leads")
	}
	return fmt.Errorf("no member says that it leads: %w", errors.Join(failed...))
}
