package cgroup

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// v1 has a hierarchy for each controller, mounted side by side below root.
type v1 struct{ root string }

// shares is the lab's weight against each other process of the host (1024): a dozen machines are worth a dozen programs.
// Without it they would share the weight of one, and stand still while something is compiled beside them.
const shares = "16384"

func (v v1) missing() []string {
	var missing []string
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"} {
		if _, err := os.Stat(filepath.Join(v.root, c, "cgroup.procs")); err != nil {
			missing = append(missing, c)
		}
	}
	return missing
}

func (v v1) trees() ([]string, error) {
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
		if strings.HasPrefix(after, "cgroup ") && len(fields) > 4 && strings.HasPrefix(fields[4], v.root+"/") && !slices.Contains(dirs, fields[4]) {
			dirs = append(dirs, fields[4])
		}
	}
	return dirs, s.Err()
}

// prepare fills a new cpuset: it is empty, and nothing can be in an empty one.
func (v v1) prepare(dir string, _ bool) error {
	if filepath.Dir(dir) == v.root {
		return nil // the hierarchy itself
	}
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

func (v v1) weigh() error {
	return os.WriteFile(filepath.Join(v.root, "cpu", Parent, "cpu.shares"), []byte(shares), 0o644)
}

func (v v1) members() string { return filepath.Join(v.root, "freezer") }

func (v v1) freezer(group string) string {
	return filepath.Join(v.root, "freezer", group, "freezer.state")
}

func (v v1) freeze(group string, frozen bool) error {
	state := "THAWED"
	if frozen {
		state = "FROZEN"
	}
	return os.WriteFile(v.freezer(group), []byte(state), 0o644)
}

func (v v1) frozen(group string) bool {
	b, err := os.ReadFile(v.freezer(group))
	return err == nil && !strings.HasPrefix(string(b), "THAWED")
}
