package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// v2 is one tree for all controllers, mounted at root.
type v2 struct{ root string }

// needed are the controllers without which a kubelet does not start; wanted are handed on where the kernel has them.
var (
	needed = []string{"cpu", "cpuset", "memory", "pids"}
	wanted = append([]string{"io", "hugetlb"}, needed...)
)

// weight is v1's shares in the units of v2, by the kubelet's formula: 1 + (shares-2)*9999/262142.
const weight = "625"

// unified says whether a directory is in a cgroup v2 tree.
func unified(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

func (v v2) missing() []string {
	has, _ := os.ReadFile(filepath.Join(v.root, "cgroup.controllers"))
	return slices.DeleteFunc(slices.Clone(needed), func(c string) bool {
		return slices.Contains(strings.Fields(string(has)), c)
	})
}

func (v v2) trees() ([]string, error) { return []string{v.root}, nil }

// prepare hands on what a group has to the groups in it; a leaf may not, as only leaves may hold processes.
func (v v2) prepare(dir string, leaf bool) error {
	if leaf {
		return nil
	}
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(has)) {
		if !slices.Contains(wanted, c) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("hand on controller %s in cgroup %s: %w", c, dir, err)
		}
	}
	return nil
}

func (v v2) weigh() error {
	return os.WriteFile(filepath.Join(v.root, Parent, "cpu.weight"), []byte(weight), 0o644)
}

func (v v2) members() string { return v.root }

func (v v2) freezer(group string) string { return filepath.Join(v.root, group, "cgroup.freeze") }

func (v v2) freeze(group string, frozen bool) error {
	state := "0"
	if frozen {
		state = "1"
	}
	return os.WriteFile(v.freezer(group), []byte(state), 0o644)
}

func (v v2) frozen(group string) bool {
	b, err := os.ReadFile(v.freezer(group))
	return err == nil && strings.HasPrefix(string(b), "1")
}
