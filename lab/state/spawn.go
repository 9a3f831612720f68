package state

import (
	"errors"
	"io"
	"os"
	"os/exec"
)

// Self is the running program, also after its file was replaced or removed.
const Self = "/proc/self/exe"

// Spawn starts a process that outlives this one, and records it in a file of
// the state directory. The process must begin with AwaitRecord: it waits on a
// pipe until the record is on disk; if this process dies before that, the pipe
// ends and the new process goes away by itself, so none is ever unaccounted for.
func (d Dir) Spawn(cmd *exec.Cmd, record string, start func() error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd.ExtraFiles = []*os.File{r}
	err = start()
	_ = r.Close()
	if err != nil {
		return err
	}
	p, err := Identify(cmd.Process.Pid)
	if err == nil {
		err = d.Write(record, p)
	}
	if err == nil {
		_, err = w.Write([]byte{1})
	}
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	// Reap it if it ends while this process is still here.
	go func() { _ = cmd.Wait() }()
	return nil
}

// AwaitRecord is the new process's side of Spawn.
func AwaitRecord() error {
	f := os.NewFile(3, "go-ahead")
	if f == nil {
		return errors.New("this command is for the lab's own use")
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, 1)); err != nil {
		return errors.New("the lab went away before it had recorded this process")
	}
	return nil
}
