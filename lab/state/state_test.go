package state

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the child of TestSpawn.
func TestMain(m *testing.M) {
	if os.Getenv("STATE_TEST_CHILD") != "" {
		if err := AwaitRecord(); err != nil {
			os.Exit(3)
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(t *testing.T) (*exec.Cmd, io.Closer) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STATE_TEST_CHILD=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, in
}

func TestNoLab(t *testing.T) {
	if _, err := Dir(t.TempDir()).Load(); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "seaway-lab up") {
		t.Error(err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	d := Dir(t.TempDir())
	if err := d.Save(Lab{Phase: Starting, Sysctls: map[string]string{"a": "1"}}); err != nil {
		t.Fatal(err)
	}
	l, err := d.Load()
	if err != nil || l.Phase != Starting || l.Sysctls["a"] != "1" {
		t.Errorf("%+v %v", l, err)
	}
	if e, _ := os.ReadDir(string(d)); len(e) != 1 {
		t.Errorf("temporary files are left: %v", e)
	}
}

func TestDamagedRecordSaysWhatToDo(t *testing.T) {
	d := Dir(t.TempDir())
	if err := os.WriteFile(d.Path("lab.json"), []byte("{half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); err == nil || !strings.Contains(err.Error(), "seaway-lab down") {
		t.Error(err)
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	d := Dir(t.TempDir())
	unlock, err := d.Lock("seaway-lab up")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock("seaway-lab down"); err == nil || !strings.Contains(err.Error(), "seaway-lab up (pid ") {
		t.Error(err)
	}
	unlock()
	unlock, err = d.Lock("seaway-lab down")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestSpawnRecordsBeforeItRuns(t *testing.T) {
	d := Dir(t.TempDir())
	cmd, _ := child(t)
	if err := d.Spawn(cmd, "p.json", cmd.Start); err != nil {
		t.Fatal(err)
	}
	var p Process
	if err := d.Read("p.json", &p); err != nil || p.PID != cmd.Process.Pid || !p.Alive() {
		t.Fatalf("%+v %v", p, err)
	}
	if err := p.Kill(10 * time.Second); err != nil || p.Alive() {
		t.Error("still alive", err)
	}
	if err := p.Kill(time.Second); err != nil {
		t.Error("killing what is gone:", err)
	}
}

func TestUnrecordedProcessGoesAway(t *testing.T) {
	cmd, in := child(t)
	defer in.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{r}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The lab dies here: both its ends of the pipe are gone.
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Error(err)
	}
}

func TestARecycledPidIsLeftAlone(t *testing.T) {
	self, err := Identify(os.Getpid())
	if err != nil || !self.Alive() {
		t.Fatal(err)
	}
	other := Process{PID: self.PID, Start: self.Start - 1}
	if other.Alive() {
		t.Error("a process that started at another time counts as alive")
	}
	// Would end this test if it were sent.
	if err := other.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := (Process{}).Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestAnotherLabIsLeftAlone(t *testing.T) {
	a, b, file := Dir(t.TempDir()), Dir(t.TempDir()), t.TempDir()+"/owner"
	if _, ok := b.other(file); ok {
		t.Error("nobody has claimed the names, yet somebody owns them")
	}
	if err := errors.Join(a.claim(file), a.Save(Lab{Phase: Up})); err != nil {
		t.Fatal(err)
	}
	if _, ok := a.other(file); ok {
		t.Error("a lab is not another one to itself")
	}
	if owner, ok := b.other(file); !ok || owner != a {
		t.Error(owner, ok)
	}
	if err := a.Remove("lab.json"); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.other(file); ok {
		t.Error("a lab without a record still owns the names")
	}
}
