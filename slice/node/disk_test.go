package node

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
)

// TestDiskFull: on a disk without room everything is done as the controller says, and it is said that it could not be
// written down; with room again it is, by itself, and what was written down before was whole all the time.
func TestDiskFull(t *testing.T) {
	netnstest.NeedRoot(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("seaway-test", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	fill := filepath.Join(disk, "somebody-elses")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cfg.StateDir = disk
		a := b.start(t)
		synctest.Wait()
		b.controller.tell(t, intent(1, "a"))
		pause(3 * time.Second)
		full := func() bool {
			return slices.ContainsFunc(a.state().Problems, func(p fleet.Problem) bool { return p.Reason == "StateNotSaved" })
		}
		saved := func(rev uint64) {
			t.Helper()
			if in, err := loadIntent(a.intentFile(), "n1"); err != nil || in == nil || in.Rev != rev {
				t.Errorf("saved: %+v, %v; want revision %d", in, err, rev)
			}
		}
		saved(1)
		if full() {
			t.Error("there is room, and it is said that there is none")
		}
		if err := os.WriteFile(fill, bytes.Repeat([]byte{1}, 1<<20), 0o600); err == nil {
			t.Fatal("the disk is not full")
		}
		b.controller.tell(t, intent(2, "a", "b"))
		pause(3 * time.Second)
		if st := a.state(); st.IntentRev != 2 || len(st.Attachments) != 2 || !full() {
			t.Errorf("on a full disk: %+v", st)
		}
		saved(1)
		if err := os.Remove(fill); err != nil {
			t.Fatal(err)
		}
		pause(2 * saveAgain)
		saved(2)
		if full() {
			t.Error("there is room again, and it is still said that there is none")
		}
		left, err := os.ReadDir(disk)
		if err != nil || len(left) != 1 {
			t.Errorf("%v is left on the disk, %v", left, err)
		}
	})
}
