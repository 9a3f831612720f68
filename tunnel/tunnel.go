// Package tunnel is the process that holds a node's tunnels: the WireGuard devices of all slices, one in each slice's
// network namespace, and the one UDP port in front of them, by which a gateway also relays for its cluster.
//
// It is told what to be by a [plan.Tunnel], as a whole, over a unix socket; it compares that with what there is and
// changes the difference. It runs apart from the agent so that the agent may stop, crash and be upgraded without a
// packet lost: what it was told last is kept in RunDir, and after a restart of its own it brings everything back by
// itself. Private keys are made here, kept in StateDir/keys, and never leave.
//
//	agent ──PUT /v1/tunnel──▶ tunnel ──▶ wg (devices in the slices' namespaces)
//	      ◀─GET /v1/status──         └─▶ relay (the UDP port)
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/datapath/wg"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// DefaultSocket is where the agent finds the tunnel process.
const DefaultSocket = plan.RunDir + "/tunnel.sock"

// Config says where a tunnel process keeps its things.
type Config struct {
	Socket   string // of the API; default: DefaultSocket
	RunDir   string // for what a reboot may wipe; default: plan.RunDir
	StateDir string // for the private keys; default: plan.StateDir
	Port     uint16 // UDP port to open before the agent has said one; 0: none until then
	Driver   string // "userspace" (default), or "kernel", which still needs a kernel with WireGuard to be tried on
	Log      *slog.Logger
}

// Run is the tunnel process. It returns when ctx ends, leaving the links with their addresses and routes in place for
// its successor.
func Run(ctx context.Context, c Config) error {
	c.defaults()
	for _, dir := range []string{c.RunDir, c.StateDir, filepath.Dir(c.Socket)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	unlock, err := lock(ctx, filepath.Join(c.RunDir, lockFile), c.Log)
	if err != nil {
		return err
	}
	defer unlock()
	var driver func(*slog.Logger) wg.Driver
	switch c.Driver {
	case "", "userspace":
		driver = func(l *slog.Logger) wg.Driver { return wg.NewUserspace(l) }
	case "kernel":
		if err := wg.KernelHasWireGuard(); err != nil {
			return fmt.Errorf("driver kernel: %w; use driver userspace", err)
		}
		driver = func(l *slog.Logger) wg.Driver { return wg.NewKernel(l) }
	default:
		return fmt.Errorf("driver %q: there are userspace and kernel", c.Driver)
	}
	return newServer(c, driver).run(ctx)
}

func (c *Config) defaults() {
	if c.Socket == "" {
		c.Socket = DefaultSocket
	}
	if c.RunDir == "" {
		c.RunDir = plan.RunDir
	}
	if c.StateDir == "" {
		c.StateDir = plan.StateDir
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// lock makes sure that one tunnel process at a time serves a node; an upgrade's new one waits for the old one's end.
func lock(ctx context.Context, path string, log *slog.Logger) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for waited := false; ; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !waited {
			log.Info("another tunnel process serves this node: waiting for its end", "lock", path)
			waited = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// server holds the process's state.
type server struct {
	Config
	keys   keyring
	files  files
	driver wg.Driver
	sw     *relay.Switch

	started time.Time
	ready   chan struct{} // closed once the API answers

	mu       sync.Mutex // one change at a time
	want     plan.Tunnel
	unsaved  []byte                 // want, as long as it could not be written down
	have     map[string]plan.Device // slices whose device was made, as last applied
	problems []fleet.Problem
	again    bool // the last apply left something undone

	secrets   map[fleet.Key][32]byte // shared with neighbors, computed once
	secretsOf fleet.Key              // with this public key of ours
}

func newServer(c Config, driver func(*slog.Logger) wg.Driver) *server {
	s := &server{Config: c, keys: keyring{dir: filepath.Join(c.StateDir, "keys")}, files: files{dir: c.RunDir},
		driver: driver(c.Log), have: map[string]plan.Device{}, ready: make(chan struct{}), started: time.Now()}
	s.sw = relay.New(c.Log, func(h relay.Handshake) { s.driver.Handshake(h.Slice, h.Peer, h.Renew) })
	return s
}

func (s *server) run(ctx context.Context) error {
	if data, err := s.files.read(sessionsFile); err == nil {
		if err := s.sw.Remember(data); err != nil {
			s.Log.Warn("sessions start afresh", "err", err)
		}
	}
	if s.Port != 0 {
		if err := s.sw.Listen(s.Port); err != nil {
			return err
		}
	}
	l, err := listen(s.Socket)
	if err != nil {
		return err
	}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { _ = s.sw.Run(stop) }) // returns nil
	s.resume()
	group.Go(func() { s.loop(stop) })
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return stop }}
	group.Go(func() {
		<-stop.Done()
		web.Close()
	})
	close(s.ready)
	err = web.Serve(l)
	cancel()
	s.driver.Close() // before waiting: the devices read the port
	group.Wait()
	s.saveSessions()
	_ = os.Remove(s.Socket) // its successor makes its own
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve %s: %w", s.Socket, err)
}

// listen opens the API's socket, for root only.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // the lock says that nobody serves it
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	tmp := path + ".new"
	_ = os.Remove(tmp)
	l, err := net.Listen("unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path) // it never exists with other permissions
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// loop retries what could not be done, repairs what others broke, and keeps the sessions' whereabouts on file.
func (s *server) loop(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.saveSessions()
		s.mu.Lock()
		if s.again || n%15 == 0 {
			s.apply()
		}
		s.driver.Settle()
		s.mu.Unlock()
	}
}

func (s *server) saveSessions() {
	data, changed := s.sw.Memory()
	if !changed {
		return
	}
	if err := s.files.write(sessionsFile, data); err != nil {
		s.Log.Warn("sessions would not survive a restart", "err", err)
	}
}
