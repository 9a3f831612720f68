package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestClockSteps builds a program with the overlay and steps its clock; without the signal it does not move.
func TestClockSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{
		"go.mod": "module example.com/clock\n\ngo 1.26\n",
		"cmd/seaway/main.go": `package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

func main() {
	fmt.Println(shift(0), shift(syscall.SIGUSR1), shift(syscall.SIGUSR2))
}

// shift is by how many minutes the wall clock leaves the monotonic one when a signal is sent.
func shift(s syscall.Signal) int {
	before := time.Now()
	if s != 0 {
		_ = syscall.Kill(os.Getpid(), s)
	}
	for i := 0; ; i++ {
		now := time.Now()
		off := now.Round(0).Sub(before.Round(0)) - now.Sub(before)
		if m := int(off.Round(time.Minute) / time.Minute); m != 0 || s == 0 || i == 1e8 {
			return m
		}
	}
}
`} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := write("out"); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command("go", "build", "-overlay", "out/overlay.json", "-o", "prog", "./cmd/seaway").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	b, err := exec.Command("./prog").Output()
	if got := strings.TrimSpace(string(b)); err != nil || got != "0 1 -1" {
		t.Errorf("shifts %q, %v; want 0, a minute forward, a minute back", got, err)
	}
}

func TestAnotherGoIsRefused(t *testing.T) {
	if _, err := patch([]byte("package time\n\nfunc Now() Time { return Time{} }\n")); err == nil {
		t.Error("a time.Now that is not known was patched")
	}
}
