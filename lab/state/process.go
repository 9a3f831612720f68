package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names one process for good: a pid alone may have been given to
// another one since, so its start time is kept with it.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Identify records a running process.
func Identify(pid int) (Process, error) {
	start, _, err := procStat(pid)
	return Process{PID: pid, Start: start}, err
}

// Alive says whether it still runs: a zombie does not, nor does another
// process that got the same pid.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	start, zombie, err := procStat(p.PID)
	return err == nil && start == p.Start && !zombie
}

// Signal sends a signal to it and to nobody else; gone is no error.
func (p Process) Signal(sig unix.Signal) error {
	if p.PID <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pid %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor pins whoever has the pid now, so the check below cannot go stale.
	if !p.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// Kill sends SIGKILL and waits until it is gone.
func (p Process) Kill(patience time.Duration) error {
	if !p.Alive() {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pid %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if err := p.Signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill pid %d: %w", p.PID, err)
	}
	deadline := time.Now().Add(patience)
	for p.Alive() {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("pid %d is still there %s after SIGKILL", p.PID, patience)
		}
		// A pid descriptor becomes readable when its process has ended.
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}

func procStat(pid int) (start uint64, zombie bool, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, err
	}
	// The command name in brackets may hold anything, also brackets and spaces.
	i := strings.LastIndexByte(string(b), ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat: %w", pid, fs.ErrInvalid)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0] == "Z" || f[0] == "X", err
}
