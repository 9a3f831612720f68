// Package netns makes, finds, holds and removes network namespaces.
//
// A namespace is held by file descriptor: whoever holds an [NS] means that one namespace, whatever becomes of the path
// it was opened from. Work inside it is done through netlink sockets opened in it ([NS.Netlink]) or, for what only a
// thread inside can do (its /proc/sys, raw sockets), by [NS.Do] on an operating system thread that is thrown away
// afterwards, so that no other goroutine ever runs in the wrong namespace.
//
// A slice's namespace is mounted on a file, as `ip netns` does, and lives on while nobody has it open.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNotNamespace says that a path is not a network namespace (yet): a runtime makes the file first and mounts the
// namespace on it a moment later.
var ErrNotNamespace = errors.New("not a network namespace")

// NS is an open network namespace.
type NS struct {
	file  *os.File
	inode uint64
}

// Open opens the network namespace at a path: a mount made by [Create] or by a container runtime, or
// /proc/PID/ns/net. The caller closes it.
func Open(path string) (*NS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	ns, err := FromFile(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return ns, nil
}

// FromFile takes over an open file that is a network namespace. On an error the file stays the caller's.
func FromFile(f *os.File) (*NS, error) {
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &sfs); err != nil {
		return nil, fmt.Errorf("look at namespace %s: %w", f.Name(), err)
	}
	if sfs.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%s: %w", f.Name(), ErrNotNamespace)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, fmt.Errorf("ask what namespace %s is: %w", f.Name(), err)
	}
	if kind != unix.CLONE_NEWNET {
		return nil, fmt.Errorf("%s is a namespace of another kind: %w", f.Name(), ErrNotNamespace)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("look at namespace %s: %w", f.Name(), err)
	}
	return &NS{file: f, inode: st.Ino}, nil
}

// Current opens the namespace that this process runs in.
func Current() (*NS, error) { return Open("/proc/thread-self/ns/net") }

// New makes a namespace without a name: it is gone when the last holder closes it.
func New() (*NS, error) {
	var ns *NS
	err := onFreshThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		ns, err = Open(threadNS())
		return err
	})
	return ns, err
}

// Create opens the namespace mounted at path and makes it first if need be; made tells which. A file left by a crash
// between making and mounting is mounted on.
func Create(path string) (ns *NS, made bool, err error) {
	ns, err = Open(path)
	if err == nil {
		return ns, false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotNamespace) {
		return nil, false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, false, fmt.Errorf("make the folder of network namespaces: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, false, fmt.Errorf("make the mount point of a network namespace: %w", err)
	}
	_ = f.Close()
	err = onFreshThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if err := unix.Mount(threadNS(), path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount the network namespace on %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		_ = os.Remove(path)
		return nil, false, err
	}
	ns, err = Open(path)
	return ns, true, err
}

// Remove unmounts the namespace at path and removes the file. The namespace dies with its last holder. It is no error
// if there is none.
func Remove(path string) error {
	for {
		// More than one mount can lie on it after a crash.
		err := unix.Unmount(path, unix.MNT_DETACH)
		if err == nil {
			continue
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		return fmt.Errorf("unmount network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	}
	return nil
}

// FD is the descriptor that holds the namespace; it is valid until Close.
func (n *NS) FD() int { return int(n.file.Fd()) }

// Inode identifies the namespace for as long as somebody holds it.
func (n *NS) Inode() uint64 { return n.inode }

// Close lets go of the namespace.
func (n *NS) Close() error { return n.file.Close() }

// Dup holds the namespace once more. The caller closes it.
func (n *NS) Dup() (*NS, error) {
	fd, err := unix.FcntlInt(n.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold network namespace %d: %w", n.inode, err)
	}
	return &NS{file: os.NewFile(uintptr(fd), n.file.Name()), inode: n.inode}, nil
}

// Same tells whether both are one namespace.
func (n *NS) Same(o *NS) bool { return n != nil && o != nil && n.inode == o.inode }

// Netlink opens a route netlink socket in the namespace. The caller closes it.
func (n *NS) Netlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(n.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in network namespace %d: %w", n.inode, err)
	}
	return h, nil
}

// Do runs f on a thread inside the namespace. The thread ends with f, so f can leave whatever it likes on it; it must
// not start goroutines that count on being inside.
func (n *NS) Do(f func() error) error {
	return onFreshThread(func() error {
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %d: %w", n.inode, err)
		}
		return f()
	})
}

// onFreshThread runs f on a thread that nobody else uses after it: a goroutine that ends locked takes its thread along.
// It is never the process's first thread: that one cannot end, and /proc/self would show its namespace for ever after.
func onFreshThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		done <- onFreshThread(f)
		runtime.UnlockOSThread()
	}()
	return <-done
}

func threadNS() string { return fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()) }
