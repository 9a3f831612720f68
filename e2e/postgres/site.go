package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"seaway.dev/seaway/e2e/stage"
)

const (
	namespace = "db"
	app       = "pg"
	slice     = "db"
	podName   = app + "-0"
)

// host is a server's name on the slice.
func host(cluster string) string {
	return fmt.Sprintf("%s.%s.%s.%s.svc.clusterset.local", podName, cluster, app, namespace)
}

// site is one server, in one cluster.
type site struct {
	stage   *stage.Stage
	cluster string
	sql     *session
}

// run runs a program in the server's pod.
func (s *site) run(ctx context.Context, args ...string) (string, error) {
	return s.stage.Kubectl(ctx, s.cluster, append([]string{"exec", "-n", namespace, podName, "--"}, args...)...)
}

// open begins a session with the server, which stays open: in a disaster there is no time to start programs.
func (s *site) open(ctx context.Context) error {
	s.close()
	sql, err := openSession(ctx, s.stage.Runner, []string{s.stage.Lab, "kubectl", s.cluster, "exec", "-i", "-n", namespace, podName, "--",
		"psql", "-h", "/data", "-U", "postgres", "-Atq"})
	if err != nil {
		return fmt.Errorf("session with the server of %s: %w", s.cluster, err)
	}
	s.sql = sql
	return nil
}

func (s *site) close() {
	if s.sql != nil {
		s.sql.close()
		s.sql = nil
	}
}

// ask runs a statement and returns what it printed.
func (s *site) ask(ctx context.Context, statement string) (string, error) {
	if s.sql == nil {
		return "", fmt.Errorf("there is no session with the server of %s", s.cluster)
	}
	out, err := s.sql.ask(ctx, statement)
	if err != nil {
		return out, fmt.Errorf("%s: %s: %w", s.cluster, statement, err)
	}
	return out, nil
}

// streams tells whether a standby receives from its primary.
func (s *site) streams(ctx context.Context) (bool, error) {
	out, err := s.ask(ctx, "select count(*) from pg_stat_wal_receiver where status = 'streaming'")
	return out == "1", err
}

// follow lets a running standby stream from another primary.
func (s *site) follow(ctx context.Context, primary string) error {
	if _, err := s.ask(ctx, fmt.Sprintf("alter system set primary_conninfo = %s", quote(conninfo(primary, s.cluster)))); err != nil {
		return err
	}
	_, err := s.ask(ctx, "select pg_reload_conf()")
	return err
}

// rebuild throws a server's data away and copies the primary's.
func (s *site) rebuild(ctx context.Context, primary string) error {
	s.close()
	if _, err := s.run(ctx, "/pg/standby", host(primary), conninfo(primary, s.cluster)); err != nil {
		return fmt.Errorf("copy the primary of %s to %s: %w", primary, s.cluster, err)
	}
	return s.open(ctx)
}

func conninfo(primary, self string) string {
	return fmt.Sprintf("host=%s user=postgres application_name=%s connect_timeout=2", host(primary), self)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// session is a psql whose statements come one after the other.
type session struct {
	in     *io.PipeWriter
	lines  chan string
	done   chan struct{}
	cancel context.CancelFunc
	mu     sync.Mutex
	asked  int
}

var errSession = errors.New("the session ended")

func openSession(ctx context.Context, r stage.Runner, args []string) (*session, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	in, w := io.Pipe()
	out, live := io.Pipe()
	s := &session{in: w, lines: make(chan string, 1024), done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(s.done)
		_, _, err := r.Run(ctx, stage.Command{Args: args, Stdin: in, Live: live})
		live.CloseWithError(err)
		in.CloseWithError(errSession)
	}()
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			select {
			case s.lines <- sc.Text():
			case <-s.done:
				return
			}
		}
	}()
	first, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	if _, err := s.ask(first, "select 1"); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() {
	s.in.Close()
	s.cancel()
	<-s.done
}

// ask runs one statement. What psql prints before the mark is the answer.
func (s *session) ask(ctx context.Context, statement string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	mark := fmt.Sprintf("--%d--", s.asked)
	if _, err := fmt.Fprintf(s.in, "%s;\n\\echo %s\n", statement, mark); err != nil {
		return "", err
	}
	var got []string
	for {
		select {
		case l := <-s.lines:
			if l == mark {
				return answer(got)
			}
			got = append(got, l)
		case <-s.done:
			return strings.Join(got, "\n"), errSession
		case <-ctx.Done():
			return strings.Join(got, "\n"), context.Cause(ctx)
		}
	}
}

func answer(lines []string) (string, error) {
	out := strings.Join(lines, "\n")
	for _, l := range lines {
		if strings.Contains(l, "ERROR:") || strings.Contains(l, "FATAL:") {
			return out, errors.New(out)
		}
	}
	return out, nil
}
