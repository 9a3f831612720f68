package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestLeavingWaitsForTheTunnelsSocket: agent and tunnel are told to end at the same moment; whoever is last, no folder
// may stay.
func TestLeavingWaitsForTheTunnelsSocket(t *testing.T) {
	root := t.TempDir()
	run := filepath.Join(root, "run/seaway")
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(run, "tunnel.sock")
	if err := os.WriteFile(sock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a := &agent{cfg: Config{RunDir: "/run/seaway", StateDir: "/var/lib/seaway", HostRoot: root}, log: slog.New(slog.DiscardHandler), purged: true}
		go func() {
			time.Sleep(3 * time.Second) // the tunnel ends
			os.Remove(sock)
		}()
		a.leave()
		synctest.Wait()
	})
	if _, err := os.Stat(run); !os.IsNotExist(err) {
		t.Errorf("the folder stays: %v", err)
	}
}
