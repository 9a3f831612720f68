package pod

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/link"
	"seaway.dev/seaway/datapath/netns"
)

// openIn opens a namespace by its path on the host. Links in the path (/var/run is one) are followed inside root.
func openIn(root, path string) (*netns.NS, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open the host's root: %w", err)
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT,
	})
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	ns, err := netns.FromFile(file)
	if err != nil {
		_ = file.Close()
	}
	return ns, err
}

// openProcess opens the namespace of a process. The process is held first, so that its number cannot have become
// another's when the namespace is open.
func openProcess(proc string, pid int) (*netns.NS, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	ns, err := netns.Open(filepath.Join(proc, strconv.Itoa(pid), "ns/net"))
	if err != nil {
		return nil, err
	}
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("process %d ended meanwhile: %w", pid, err)
	}
	return ns, nil
}

// scan looks for a pod among all processes: one whose cgroup names the pod's UID, whose namespace is not the host's and
// has one of the pod's addresses. The last is why a pod without known addresses is not found this way.
func (f *Finder) scan(ref Ref) (*Sandbox, error) {
	if len(ref.IPs) == 0 {
		return nil, errors.New("the pod's addresses are not known yet, so it is not looked for among the processes")
	}
	entries, err := os.ReadDir(f.cfg.Proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && f.inPod(pid, ref.UID) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		ns, err := openProcess(f.cfg.Proc, pid)
		if err != nil {
			continue
		}
		if !f.host[ns.Inode()] && hasAddress(ns, ref) {
			return &Sandbox{UID: ref.UID, NS: ns, Born: started(f.cfg.Proc, pid)}, nil
		}
		_ = ns.Close()
	}
	return nil, errors.New("no process of the pod is on this node")
}

// inPod tells whether a process is in the pod's cgroup. systemd's driver writes the UID with underscores.
func (f *Finder) inPod(pid int, uid string) bool {
	b, err := os.ReadFile(filepath.Join(f.cfg.Proc, strconv.Itoa(pid), "cgroup"))
	if err != nil || uid == "" {
		return false
	}
	return bytes.Contains(b, []byte("pod"+uid)) || bytes.Contains(b, []byte("pod"+strings.ReplaceAll(uid, "-", "_")))
}

func hasAddress(ns *netns.NS, ref Ref) bool {
	sp, err := link.Read(ns)
	if err != nil {
		return false
	}
	defer sp.Close()
	for _, a := range sp.Foreign() {
		if slices.Contains(ref.IPs, a) {
			return true
		}
	}
	return false
}

// started is about when a process began: its folder in /proc is made with it, or later, when first looked at.
func started(proc string, pid int) time.Time {
	st, err := os.Stat(filepath.Join(proc, strconv.Itoa(pid)))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}
