// Package cgroup gives every machine a place of its own in the host's cgroups:
// seaway-lab/MACHINE, with the lab's daemons in its `sys` child and the kubelet's
// pods beside that. It does so in the one tree of cgroup v2 (Debian's default),
// or in each hierarchy of v1.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Parent of all machines' cgroups.
const Parent = "seaway-lab"

const mountRoot = "/sys/fs/cgroup"

// version is what the two of the kernel's cgroups differ in. Groups are given by their path below a mount point.
type version interface {
	// missing names the controllers that the lab needs and this host does not have.
	missing() []string
	// trees are the mount points below which the lab has groups.
	trees() ([]string, error)
	// prepare lets a group hold other groups, or as a leaf processes.
	prepare(dir string, leaf bool) error
	// weigh gives the lab its share of the processor.
	weigh() error
	// members is the tree in which a machine's processes are looked up.
	members() string
	freeze(group string, frozen bool) error
	frozen(group string) bool
}

// host is the version that this host runs.
func host() version {
	if unified(mountRoot) {
		return v2{root: mountRoot}
	}
	return v1{root: mountRoot}
}

// Path of a machine's cgroup, relative to each tree (what the kubelet calls cgroupRoot).
func Path(machine string) string { return "/" + group(machine) }

func group(machine string) string { return filepath.Join(Parent, machine) }

// Missing names the controllers that the lab needs and this host does not have.
func Missing() []string { return host().missing() }

// Enter makes a machine's cgroups and moves the caller into them.
func Enter(machine string) error {
	h := host()
	if err := enter(h, machine, 0); err != nil {
		return err
	}
	if err := h.weigh(); err != nil {
		return fmt.Errorf("weigh the lab against the host's other programs: %w", err)
	}
	return nil
}

// enter moves a process (0 is the caller) into a machine's groups. Pods' groups of an earlier
// boot go first: cadvisor waits 3 s for each dead one, and the node would not be
// Ready until then.
func enter(h version, machine string, pid int) error {
	trees, err := h.trees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		removeTree(filepath.Join(tree, group(machine), "kubepods"))
		if err := h.prepare(tree, false); err != nil {
			return err
		}
		dir := tree
		for _, name := range []string{Parent, machine, "sys"} {
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if err := h.prepare(dir, name == "sys"); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// Freeze stops every process of a machine at once, or lets them go on.
func Freeze(machine string, frozen bool) error {
	err := host().freeze(group(machine), frozen)
	if errors.Is(err, fs.ErrNotExist) && !frozen {
		return nil
	}
	return err
}

// Frozen says whether a machine is stopped.
func Frozen(machine string) bool { return host().frozen(group(machine)) }

// Procs lists the processes of a machine, pods included.
func Procs(machine string) []int { return procs(filepath.Join(host().members(), group(machine))) }

func procs(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// KillAll kills whatever is still in the lab's cgroups. Only the lab's own
// processes ever are; this is for what a crash left without a record.
func KillAll() {
	entries, _ := os.ReadDir(filepath.Join(host().members(), Parent))
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		for _, pid := range Procs(e.Name()) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_ = Freeze(e.Name(), false)
	}
}

// RemoveAll removes the lab's cgroups. The kernel needs a moment after the last
// process has gone.
func RemoveAll(patience time.Duration) error {
	hs, err := host().trees()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for {
		var left []string
		for _, h := range hs {
			if removeTree(filepath.Join(h, Parent)); exists(filepath.Join(h, Parent)) {
				left = append(left, filepath.Join(h, Parent))
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("these cgroups are still in use: %s; run `seaway-lab down` again", strings.Join(left, ", "))
		}
		<-time.After(50 * time.Millisecond)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// removeTree removes what it can of a tree of cgroups, deepest first.
func removeTree(dir string) {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		_ = unix.Rmdir(d)
	}
}
