package boot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is a program that must always run.
type daemon struct {
	name string
	argv []string
	env  []string
}

// supervisor starts daemons and, as PID 1 must, reaps everybody's orphans.
type supervisor struct {
	log  *slog.Logger
	mu   sync.Mutex
	wait map[int]chan syscall.WaitStatus
}

func newSupervisor(log *slog.Logger) *supervisor {
	return &supervisor{log: log, wait: map[int]chan syscall.WaitStatus{}}
}

// reap collects every child that ends, and tells whoever waits for it.
func (s *supervisor) reap() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	for range c {
		for s.reapOne() {
		}
	}
}

func (s *supervisor) reapOne() bool {
	// Under the lock, so that a child that ends at once is not missed.
	s.mu.Lock()
	defer s.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if errors.Is(err, syscall.EINTR) {
		return true
	}
	if pid <= 0 || err != nil {
		return false
	}
	if w := s.wait[pid]; w != nil {
		delete(s.wait, pid)
		w <- status
	}
	return true
}

// keep runs a daemon until the context ends, starting it again when it dies.
func (s *supervisor) keep(ctx context.Context, d daemon) {
	go func() {
		for ctx.Err() == nil {
			status, err := s.run(d)
			if err != nil {
				s.log.Error("cannot start", "daemon", d.name, "error", err)
			} else {
				s.log.Warn("ended; starting it again", "daemon", d.name, "exit", status.ExitStatus(), "signal", status.Signal())
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
}

// run starts a daemon and waits for its end.
func (s *supervisor) run(d daemon) (syscall.WaitStatus, error) {
	out, err := os.OpenFile(filepath.Join(logDir, d.name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	done := make(chan syscall.WaitStatus, 1)
	s.mu.Lock()
	pid, err := syscall.ForkExec(d.argv[0], d.argv, &syscall.ProcAttr{
		Dir: "/", Env: append(os.Environ(), d.env...), Files: []uintptr{null.Fd(), out.Fd(), out.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		s.wait[pid] = done
	}
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return <-done, nil
}
