package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestVersions plays a machine's life in each version of cgroups that this kernel can show: entered, frozen, going on,
// killed, removed.
func TestVersions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make cgroups")
	}
	t.Run("v1", func(t *testing.T) {
		h := v1{root: mountRoot}
		if len(h.missing()) > 0 {
			t.Skipf("SKIPPED, NOT TESTED: this host has no cgroup v1 (%v)", h.missing())
		}
		life(t, h)
	})
	t.Run("v2", func(t *testing.T) {
		life(t, v2{root: mountV2(t)})
	})
}

// mountV2 shows the kernel's tree of v2, with whatever controllers v1 has left to it.
func mountV2(t *testing.T) string {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "cgroup2", 0, ""); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: this kernel has no cgroup v2: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if !unified(dir) || unified("/proc") {
		t.Fatalf("%s is not known as v2, or /proc is", dir)
	}
	return dir
}

func life(t *testing.T, h version) {
	machine := fmt.Sprintf("test-%d", os.Getpid())
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	trees, err := h.trees()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, tree := range trees {
			removeTree(filepath.Join(tree, group(machine)))
			_ = unix.Rmdir(filepath.Join(tree, Parent)) // stays if a lab is up
		}
	}()
	defer func() { _ = cmd.Process.Kill(); _ = h.freeze(group(machine), false) }()
	// What an earlier boot's pods left is gone.
	stale := filepath.Join(h.members(), group(machine), "kubepods")
	for range 2 {
		if err := enter(h, machine, cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: %v, want it gone", stale, err)
		}
		if err := os.Mkdir(stale, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := procs(filepath.Join(h.members(), group(machine))); !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Fatalf("processes %v, want %d", got, cmd.Process.Pid)
	}
	for _, want := range []bool{true, false, true} {
		if err := h.freeze(group(machine), want); err != nil || h.frozen(group(machine)) != want {
			t.Fatalf("frozen %v after freeze(%v): %v", !want, want, err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := h.freeze(group(machine), false); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process ended by itself")
	}
	for deadline := time.Now().Add(10 * time.Second); exists(filepath.Join(h.members(), group(machine))); {
		if removeTree(filepath.Join(h.members(), group(machine))); time.Now().After(deadline) {
			t.Fatal("the group does not go")
		}
	}
}

// TestMissing: what v2 does not have is named, one by one.
func TestMissing(t *testing.T) {
	dir := t.TempDir()
	for has, want := range map[string]string{
		"":                                       "cpu cpuset memory pids",
		"cpuset cpu io memory hugetlb pids rdma": "",
		"cpu memory":                             "cpuset pids",
	} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(has+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(v2{root: dir}.missing(), " "); got != want {
			t.Errorf("with %q %q are missing, want %q", has, got, want)
		}
	}
}

// TestPrepare: a group hands on what the lab wants of what it has, and a leaf nothing.
func TestPrepare(t *testing.T) {
	dir := t.TempDir()
	control := filepath.Join(dir, "cgroup.subtree_control")
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("rdma pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (v2{}).prepare(dir, true); err != nil || exists(control) {
		t.Errorf("a leaf handed on controllers (%v)", err)
	}
	if err := (v2{}).prepare(dir, false); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(control); string(b) != "+pids" {
		t.Errorf("handed on %q, want +pids", b)
	}
}
