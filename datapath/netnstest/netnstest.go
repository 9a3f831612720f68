// Package netnstest makes throw-away network namespaces for tests and benchmarks of the kernel's part: machines joined
// by veth pairs, and commands and sockets inside them. Everything it makes is removed at the end.
package netnstest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dir is where iproute2 looks for named namespaces.
const dir = "/run/netns"

// TB is the part of a test that this package needs; a benchmark program has its own.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// NeedRoot skips a test, loudly, where namespaces cannot be made.
func NeedRoot(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: -short leaves the kernel alone; `make netns` tests it")
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root to make network namespaces; run `make test` as root")
	}
}

// NS is a network namespace.
type NS struct {
	tb   TB
	Name string // for `ip netns`
	Path string // of its file
}

var serial atomic.Int64

// New makes a namespace with lo up. The name says whose it is and does not collide with that of another process.
func New(tb TB, name string) *NS {
	tb.Helper()
	full := fmt.Sprintf("%s-%d-%d", name, os.Getpid(), serial.Add(1))
	n := &NS{tb: tb, Name: full, Path: filepath.Join(dir, full)}
	run(tb, "ip", "netns", "add", full)
	tb.Cleanup(func() {
		_ = unix.Unmount(n.Path, unix.MNT_DETACH)
		_ = os.Remove(n.Path)
	})
	n.IP("link set lo up")
	return n
}

// IP runs an iproute2 command in the namespace: n.IP("addr add 10.0.0.1/24 dev eth0").
func (n *NS) IP(args string) {
	n.tb.Helper()
	run(n.tb, "ip", append([]string{"-n", n.Name}, strings.Fields(args)...)...)
}

// Command prepares a command that runs in the namespace.
func (n *NS) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + n.Path, "--", name}, args...)...)
}

// Do runs f on a thread that is in the namespace; sockets that it opens stay in it.
func (n *NS) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		h, err := netns.GetFromPath(n.Path)
		if err == nil {
			err = netns.Set(h)
			h.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Veth joins two namespaces by a veth pair, both ends up.
func Veth(a *NS, aLink string, b *NS, bLink string) {
	a.tb.Helper()
	a.IP(fmt.Sprintf("link add %s type veth peer name %s netns %s", aLink, bLink, b.Name))
	a.IP("link set " + aLink + " up")
	b.IP("link set " + bLink + " up")
}

func run(tb TB, name string, args ...string) {
	tb.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out.String())
	}
}
