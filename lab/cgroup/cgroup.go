// Package cgroup gives every machine a place of its own in each cgroup v1
// hierarchy: seaway-lab/MACHINE, with the lab's daemons in its `sys` child and
// the kubelet's pods beside that.
package cgroup

import (
	"bufio"
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

// shares is the lab's weight against each other process of the host (1024): a dozen machines are worth a dozen programs.
// Without it they would share the weight of one, and stand still while something is compiled beside them.
const shares = "16384"

const mountRoot = "/sys/fs/cgroup"

// Path of a machine's cgroup, relative to each hierarchy (what the kubelet calls cgroupRoot).
func Path(machine string) string { return "/" + Parent + "/" + machine }

// hierarchies are the mount points of cgroup v1.
func hierarchies() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var dirs []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		// 32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup ") && len(fields) > 4 && strings.HasPrefix(fields[4], mountRoot+"/") && !slices.Contains(dirs, fields[4]) {
			dirs = append(dirs, fields[4])
		}
	}
	return dirs, s.Err()
}

// Missing names the controllers that the lab needs and this host does not have as cgroup v1.
func Missing() []string {
	var missing []string
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"} {
		if _, err := os.Stat(filepath.Join(mountRoot, c, "cgroup.procs")); err != nil {
			missing = append(missing, c)
		}
	}
	return missing
}

// Enter makes a machine's cgroups and moves the caller into them. Pods' cgroups
// of an earlier boot go first: cadvisor waits 3 s for each dead one, and the
// node would not be Ready until then.
func Enter(machine string) error {
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		removeTree(filepath.Join(h, Parent, machine, "kubepods"))
		dir := h
		for _, name := range []string{Parent, machine, "sys"} {
			dir = filepath.Join(dir, name)
			if err := makeGroup(dir); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", dir, err)
		}
	}
	if err := os.WriteFile(filepath.Join(mountRoot, "cpu", Parent, "cpu.shares"), []byte(shares), 0o644); err != nil {
		return fmt.Errorf("weigh the lab against the host's other programs: %w", err)
	}
	return nil
}

func makeGroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A new cpuset is empty, and nothing can be in an empty one.
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), f))
		if err != nil {
			continue // another hierarchy
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Freeze stops every process of a machine at once, or lets them go on.
func Freeze(machine string, frozen bool) error {
	state := "THAWED"
	if frozen {
		state = "FROZEN"
	}
	err := os.WriteFile(filepath.Join(mountRoot, "freezer", Parent, machine, "freezer.state"), []byte(state), 0o644)
	if errors.Is(err, fs.ErrNotExist) && !frozen {
		return nil
	}
	return err
}

// Frozen says whether a machine is stopped.
func Frozen(machine string) bool {
	b, err := os.ReadFile(filepath.Join(mountRoot, "freezer", Parent, machine, "freezer.state"))
	return err == nil && !strings.HasPrefix(string(b), "THAWED")
}

// Procs lists the processes of a machine, pods included.
func Procs(machine string) []int {
	var pids []int
	_ = filepath.WalkDir(filepath.Join(mountRoot, "freezer", Parent, machine), func(path string, d fs.DirEntry, err error) error {
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
	entries, _ := os.ReadDir(filepath.Join(mountRoot, "freezer", Parent))
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
	hs, err := hierarchies()
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
