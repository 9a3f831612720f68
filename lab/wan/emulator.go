package wan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/api"
	"seaway.dev/seaway/lab/netns"
	"seaway.dev/seaway/lab/state"
	"seaway.dev/seaway/lab/underlay"
)

// EmulatorCommand is the hidden command that holds the packets.
const EmulatorCommand = "wan-emulator"

const (
	processFile = "wan-process.json"
	socketFile  = "wan.sock"
	logFile     = "wan.log"
	workerFlag  = "--worker"

	garbage = 256 << 20
)

// request to the emulator and its reply, one JSON document each.
type request struct {
	// Apply replaces the set of queues; nil only asks for the statistics.
	Apply map[int]Quality `json:"apply"`
}

type reply struct {
	Error string        `json:"error,omitempty"`
	Stats map[int]Stats `json:"stats"`
}

// Emulate is the emulator's process. It only watches over a worker, so that a
// crash of that one costs a moment of perfect network and no more.
func Emulate(ctx context.Context, dir state.Dir, worker bool) error {
	if worker {
		return work(ctx, dir)
	}
	if err := state.AwaitRecord(); err != nil {
		return err
	}
	// The worker's threads inherit this thread's slack. The one that matters is the
	// Go runtime's monitor: with threads that wait in system calls it looks at them
	// every 20 µs, which took half a core. Late by milliseconds it costs nothing.
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(5*time.Millisecond), 0, 0, 0)
	for ctx.Err() == nil {
		cmd := exec.Command(state.Self, EmulatorCommand, "--state", string(dir), workerFlag)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		slog.Info("worker starts")
		slog.Warn("worker ended", "error", cmd.Run())
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// realTime gives the calling thread, and no other, precedence over all ordinary
// work. A runtime whose own threads have it can bring a machine of two cores to a
// stand: two of them spin for a third that then never runs.
func realTime() error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
}

// worker of the emulator.
type worker struct {
	log    *slog.Logger
	queues map[int]*queue
}

func work(ctx context.Context, dir state.Dir) error {
	debug.SetGCPercent(-1) // a collection stops all queues, and there is little garbage
	debug.SetMemoryLimit(garbage)
	w := worker{log: slog.Default(), queues: map[int]*queue{}}
	t, err := Load(dir)
	if err != nil {
		return err
	}
	if err := w.apply(t.Queues()); err != nil {
		return err
	}
	if err := os.Remove(dir.Path(socketFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", dir.Path(socketFile))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		w.serve(c)
	}
}

func (w worker) serve(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var req request
	if err := json.NewDecoder(c).Decode(&req); err != nil {
		return
	}
	rep := reply{Stats: map[int]Stats{}}
	if req.Apply != nil {
		if err := w.apply(req.Apply); err != nil {
			rep.Error = err.Error()
		}
	}
	for n, q := range w.queues {
		rep.Stats[n] = q.stats()
	}
	_ = json.NewEncoder(c).Encode(rep)
}

func (w worker) apply(want map[int]Quality) error {
	// Each queue's thread finds a processor of the runtime's when it wakes, whatever
	// the others wait for: nobody needs the monitor, which is late.
	runtime.GOMAXPROCS(runtime.NumCPU() + max(len(want), len(w.queues)))
	for n, q := range want {
		if have := w.queues[n]; have != nil {
			have.set(q)
			continue
		}
		opened, err := openQueue(n, q, w.log)
		if err != nil {
			return err
		}
		w.queues[n] = opened
	}
	for n, q := range w.queues {
		if _, keep := want[n]; !keep {
			q.close()
			delete(w.queues, n)
		}
	}
	return nil
}

// ask sends a request to the emulator.
func ask(dir state.Dir, req request) (reply, error) {
	c, err := net.DialTimeout("unix", dir.Path(socketFile), time.Second)
	if err != nil {
		return reply{}, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if err := json.NewEncoder(c).Encode(req); err != nil {
		return reply{}, err
	}
	var rep reply
	if err := json.NewDecoder(c).Decode(&rep); err != nil {
		return rep, err
	}
	if rep.Error != "" {
		return rep, errors.New(rep.Error)
	}
	return rep, nil
}

// ensure starts the emulator if it does not run.
func ensure(ctx context.Context, dir state.Dir) error {
	var p state.Process
	if err := dir.Read(processFile, &p); err == nil && p.Alive() {
		return nil
	}
	log, err := os.OpenFile(dir.Path(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(state.Self, EmulatorCommand, "--state", string(dir))
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := dir.Spawn(cmd, processFile, func() error { return netns.Do(underlay.Router, cmd.Start) }); err != nil {
		return fmt.Errorf("start the WAN emulator: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = api.Poll(ctx, 20*time.Millisecond, func(context.Context) (bool, error) {
		_, err := ask(dir, request{})
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("the WAN emulator does not answer (%w); see %s", err, dir.Path(logFile))
	}
	return nil
}

// Stop ends the emulator.
func Stop(dir state.Dir) error {
	var p state.Process
	if err := dir.Read(processFile, &p); err != nil {
		return nil // never started
	}
	// Its worker goes with it.
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return errors.Join(p.Kill(5*time.Second), dir.Remove(processFile), dir.Remove(socketFile))
}
