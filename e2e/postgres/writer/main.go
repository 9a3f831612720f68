// Writer writes to whichever PostgreSQL server takes writes, and notes each acknowledged id in a file before it asks
// for the next: what is in the file was promised, and must be in the database for ever.
//
//	writer -name c2 -log FILE -workers 4 HOST…
//
// The log has a line for each attempt: `ack ID MICROSECONDS` or `err ID MICROSECONDS WHY`, in Unix time. Nothing is
// ever tried twice: an attempt without an acknowledgement may or may not have been done.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	dialing  = time.Second     // to find a server that takes writes
	patience = 2 * time.Second // for one acknowledgement
	pause    = 20 * time.Millisecond
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "writer: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("writer", flag.ContinueOnError)
	name := fs.String("name", "", "who writes")
	file := fs.String("log", "", "where to note what was acknowledged")
	workers := fs.Int("workers", 4, "connections")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 || *name == "" || *file == "" {
		return errors.New("want -name, -log and hosts")
	}
	f, err := os.OpenFile(*file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	var wg sync.WaitGroup
	birth := time.Now().UnixMicro()
	for w := range *workers {
		wg.Go(func() { (&worker{id: fmt.Sprintf("%s-%x-%d", *name, birth, w), hosts: fs.Args(), log: f}).run(ctx) })
	}
	wg.Wait()
	return nil
}

// worker is one connection. Its lines are written by one write each, so that workers can share the file.
type worker struct {
	id    string
	hosts []string
	log   *os.File
	n     int
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		c := w.dial(ctx)
		if c == nil {
			return
		}
		w.write(ctx, c)
		c.Close(context.WithoutCancel(ctx))
	}
}

// write inserts until something goes wrong.
func (w *worker) write(ctx context.Context, c *pgconn.PgConn) {
	for ctx.Err() == nil {
		w.n++
		id := fmt.Sprintf("%s-%d", w.id, w.n)
		one, cancel := context.WithTimeout(ctx, patience)
		_, err := c.Exec(one, "insert into promised values ('"+id+"')").ReadAll()
		cancel()
		if err != nil {
			w.note("err", id, err)
			return
		}
		w.note("ack", id, nil)
	}
}

func (w *worker) note(what, id string, err error) {
	line := fmt.Sprintf("%s %s %d", what, id, time.Now().UnixMicro())
	if err != nil {
		line += " " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	fmt.Fprintln(w.log, line)
}

func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// dial asks all servers, each again and again for itself, and takes the first that accepts writes: a dead one does not
// keep the others waiting.
func (w *worker) dial(ctx context.Context) *pgconn.PgConn {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan *pgconn.PgConn)
	var wg sync.WaitGroup
	for _, h := range w.hosts {
		wg.Go(func() {
			for ctx.Err() == nil {
				one, done := context.WithTimeout(ctx, dialing)
				c, err := pgconn.Connect(one, "host="+h+" user=postgres dbname=postgres sslmode=disable target_session_attrs=read-write")
				done()
				if err != nil {
					rest(ctx)
					continue
				}
				select {
				case found <- c:
				case <-ctx.Done():
					c.Close(context.WithoutCancel(ctx))
				}
				return
			}
		})
	}
	var c *pgconn.PgConn
	select {
	case c = <-found:
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
	return c
}
