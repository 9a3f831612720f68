// Package netns makes, enters and removes named network namespaces, in the
// place where `ip netns` keeps its own, so that both see the same ones.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const dir = "/run/netns"

// Path of a named namespace.
func Path(name string) string { return filepath.Join(dir, name) }

// Create makes a new namespace with a name.
func Create(name string) error {
	if err := prepareDir(); err != nil {
		return err
	}
	f, err := os.OpenFile(Path(name), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("network namespace %s exists already; `seaway-lab down` removes what an earlier lab left", name)
	}
	if err != nil {
		return err
	}
	_ = f.Close()
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		return unix.Mount("/proc/thread-self/ns/net", Path(name), "", unix.MS_BIND, "")
	})
}

// prepareDir makes the directory a shared mount of its own, as `ip netns add`
// does. If it did not, the first `ip netns add` of anybody on this host would
// mount it over our names, and they could no longer be removed.
func prepareDir() error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err := unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share the mount %s: %w", dir, err)
	}
	return nil
}

// Delete takes a name away; the namespace itself lives on as long as something
// is in it. A name that does not exist is no error.
func Delete(name string) error {
	err := unix.Unmount(Path(name), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	err = os.Remove(Path(name))
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w; it lies below another mount of %s: take that away with `umount %s` and try again", err, dir, dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List the names that begin with a prefix.
func List(prefix string) []string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// Do runs fn inside a named namespace. Processes that fn starts are in it too;
// goroutines that it starts are not.
func Do(name string, fn func() error) error {
	f, err := os.Open(Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network namespace %s does not exist; is the machine switched off?", name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return onThread(func() error {
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return fn()
	})
}

// onThread runs fn on an OS thread of its own that is thrown away afterwards:
// a goroutine that ends while locked takes its thread with it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

// Sysctl writes a network setting of the namespace that the caller is in.
func Sysctl(key, value string) error {
	err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644)
	if err != nil {
		return fmt.Errorf("set %s=%s: %w", strings.ReplaceAll(key, "/", "."), value, err)
	}
	return nil
}
