package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCollectGivesUp: an item that hangs costs its limit, keeps what it had printed, and says so; the others are whole.
func TestCollectGivesUp(t *testing.T) {
	c := collector{dir: t.TempDir(), limit: 200 * time.Millisecond}
	sh := func(script string) func(context.Context) (*exec.Cmd, error) {
		return func(ctx context.Context) (*exec.Cmd, error) { return exec.CommandContext(ctx, "sh", "-c", script), nil }
	}
	start := time.Now()
	c.run(t.Context(), "hangs.txt", sh("echo first; sleep 60"))
	c.run(t.Context(), "a/works.txt", sh("echo all"))
	c.run(t.Context(), "fails.txt", sh("echo no >&2; exit 3"))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	for name, want := range map[string]string{"hangs.txt": "first\n\nsh -c echo first; sleep 60: given up after 200ms\n",
		"a/works.txt": "all\n", "fails.txt": "no\n\nsh -c echo no >&2; exit 3: exit status 3\n"} {
		b, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil || strings.TrimSpace(string(b)) != strings.TrimSpace(want) {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
}
