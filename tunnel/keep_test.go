package tunnel

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shell runs a script that notes each of its lives in a file.
func shell(file, script string) func() *exec.Cmd {
	return func() *exec.Cmd {
		return exec.Command("sh", "-c", "trap 'echo told >>"+file+"; exit 0' TERM; echo born >>"+file+"; "+script)
	}
}

func lives(file string) int {
	data, _ := os.ReadFile(file)
	return bytes.Count(data, []byte("born"))
}

func TestKeptProcessIsStartedAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lives")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Keep(ctx, slog.New(slog.DiscardHandler), shell(file, "test $(grep -c born "+file+") -gt 2 || kill -9 $$; while :; do sleep 0.01; done"))
	}()
	eventually(t, 20*time.Second, func() error {
		if n := lives(file); n < 3 {
			return fmt.Errorf("%d lives", n)
		}
		return nil
	})
	told := func() bool { data, _ := os.ReadFile(file); return strings.Contains(string(data), "told") }
	if told() {
		t.Fatal("it was told to end while it should live")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil || !told() || lives(file) != 3 {
			t.Errorf("%v, told %v, %d lives", err, told(), lives(file))
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it was not ended")
	}
}

func TestWhoDiesYoungAgainAndAgainIsGivenUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lives")
	err := Keep(t.Context(), slog.New(slog.DiscardHandler), shell(file, "exit 3"))
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || lives(file) != mostShort {
		t.Errorf("%v after %d lives", err, lives(file))
	}
	if err := Keep(t.Context(), slog.New(slog.DiscardHandler), func() *exec.Cmd { return exec.Command("/nonexistent") }); err == nil {
		t.Error("what cannot be started was")
	}
}
