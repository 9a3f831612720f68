package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Command is one program to run.
type Command struct {
	Args  []string  // the program and its arguments
	Dir   string    // where; "" is here
	Env   []string  // added to this process's
	Stdin io.Reader // nil is nothing
	Live  io.Writer // also gets the output while it comes, if set
}

// Runner runs programs. The real one is [Exec]; the engine's own tests have one that answers from a table.
type Runner interface {
	// Run returns what the command wrote: its standard output and its standard error. A command that ends with a
	// status other than 0 gives a *Failed.
	Run(ctx context.Context, c Command) (stdout, stderr string, err error)
}

// Failed is a command that ran and did not succeed.
type Failed struct {
	Args   []string
	Status string
	Output string // both streams
}

// Error shows the command and the end of what it said.
func (f *Failed) Error() string {
	out := strings.TrimSpace(f.Output)
	if out != "" {
		out = "\n" + tail(out, 60)
	}
	return fmt.Sprintf("%s: %s%s", shellLine(f.Args), f.Status, out)
}

// Exec runs programs as children of this process, in process groups of their own.
type Exec struct{}

// Run implements Runner.
func (Exec) Run(ctx context.Context, c Command) (string, string, error) {
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second // a grandchild that keeps the pipe open does not keep us
	var out, errs, both bytes.Buffer
	var live io.Writer = io.Discard
	if c.Live != nil {
		live = c.Live
	}
	seen := &serial{w: io.MultiWriter(&both, live)}
	cmd.Stdout = io.MultiWriter(&out, seen)
	cmd.Stderr = io.MultiWriter(&errs, seen)
	err := cmd.Run()
	if err == nil {
		return out.String(), errs.String(), nil
	}
	status := err.Error()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		status = exit.String()
	}
	if ctx.Err() != nil {
		status = "stopped: " + context.Cause(ctx).Error()
	}
	return out.String(), errs.String(), &Failed{Args: c.Args, Status: status, Output: both.String()}
}

// serial lets the two streams of a command share one writer.
type serial struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (s *serial) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	if len(all) > lines {
		all = append([]string{fmt.Sprintf("… %d lines before this", len(all)-lines)}, all[len(all)-lines:]...)
	}
	return strings.Join(all, "\n")
}

// shellLine writes a command so that it can be pasted into a shell.
func shellLine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if a != "" && !strings.ContainsAny(a, " \t\n'\"\\$`*?|&;<>(){}[]#~!") {
			b.WriteString(a)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	return b.String()
}
