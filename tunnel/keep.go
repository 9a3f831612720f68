package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A container that died is started again by the kubelet after 1 to 3 s, and after 10, 20 and up to 300 s when it dies
// again. So the tunnel process has a parent in its container that does nothing but start it again at once.
const (
	shortLife = 3 * time.Second       // who dies younger died of what killed the one before
	mostShort = 8                     // of those in a row, and the kubelet is to see that something is wrong
	firstRest = 50 * time.Millisecond // before the second of them in a row is started; doubled each time
	stopping  = 10 * time.Second      // for a process that was told to end
)

// Keep runs a process and starts it again whenever it dies, until ctx ends: then the process is told to end, and waited
// for. It returns an error if the process cannot be started, or dies young again and again.
func Keep(ctx context.Context, log *slog.Logger, command func() *exec.Cmd) error {
	runtime.LockOSThread() // the kernel kills the process when the thread that started it ends
	defer runtime.UnlockOSThread()
	rest := time.Duration(0)
	for short := 0; ; {
		born := time.Now()
		err := live(ctx, command())
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.As(err, new(*exec.ExitError)) {
			return fmt.Errorf("start the tunnel process: %w", err)
		}
		if time.Since(born) > shortLife {
			short, rest = 0, 0
		} else if short++; short >= mostShort {
			return fmt.Errorf("the tunnel process died %d times, the last time after %s: %w", short, time.Since(born).Round(time.Millisecond), err)
		}
		log.Error("the tunnel process died: it is started again", "err", err, "lived", time.Since(born).Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		rest = max(2*rest, firstRest)
	}
}

// live starts a process and waits for its end. That it exits by itself is an error, too: it is to live for ever.
func live(ctx context.Context, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		select {
		case <-ended:
		case <-time.After(stopping):
			_ = cmd.Process.Kill()
		}
	}()
	return cmd.Wait()
}
