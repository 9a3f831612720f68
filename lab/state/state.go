// Package state keeps on disk what the lab has made, so that any later process
// (or the same one after a crash) can undo it. Everything is written before the
// resource it speaks of is made.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/layout"
)

// DefaultDir is where the state is kept unless told otherwise.
const DefaultDir = "/var/lib/seaway-lab"

// Phase of the lab.
type Phase string

// The phases.
const (
	Starting Phase = "starting"
	Up       Phase = "up"
	Stopping Phase = "stopping"
)

// Lab is the record of the whole lab.
type Lab struct {
	Phase   Phase             `json:"phase"`
	Started time.Time         `json:"started"`
	Owner   Process           `json:"owner"`
	Bin     string            `json:"bin"`
	Seed    string            `json:"seed"`
	Layout  layout.Layout     `json:"layout"`
	Sysctls map[string]string `json:"sysctls"`
}

// Dir is the state directory.
type Dir string

// ErrNone says that no lab is recorded.
var ErrNone = errors.New("no lab is up; start one with `seaway-lab up`")

// Path of a file below the state directory.
func (d Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// MachineDir is where everything of a machine is.
func (d Dir) MachineDir(name string) string { return d.Path("machines", name) }

// ClusterDir holds a cluster's keys and its kubeconfig.
func (d Dir) ClusterDir(name string) string { return d.Path("clusters", name) }

// Kubeconfig of a cluster, for use from outside the lab.
func (d Dir) Kubeconfig(cluster string) string { return d.Path("clusters", cluster, "kubeconfig") }

// Load reads the lab's record; ErrNone if there is none.
func (d Dir) Load() (Lab, error) {
	var l Lab
	err := d.Read("lab.json", &l)
	if errors.Is(err, fs.ErrNotExist) {
		return l, ErrNone
	}
	return l, err
}

// Save writes the lab's record.
func (d Dir) Save(l Lab) error { return d.Write("lab.json", l) }

// Read decodes a JSON file of the state directory.
func (d Dir) Read(name string, v any) error {
	b, err := os.ReadFile(d.Path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged (%w); run `seaway-lab down` to clean up", d.Path(name), err)
	}
	return nil
}

// Write encodes a JSON file of the state directory atomically: a reader (or a
// crash) sees the old or the new content, never half of it.
func (d Dir) Write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	path := d.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, werr := f.Write(append(b, '\n'))
	if err := errors.Join(werr, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

// Remove deletes a file of the state directory; its absence is no error.
func (d Dir) Remove(name string) error {
	if err := os.Remove(d.Path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Lock takes the state directory for one changing command at a time. Whoever
// holds it is named in the error.
func (d Dir) Lock(what string) (unlock func(), err error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.Path("lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(d.Path("lock"))
		_ = f.Close()
		return nil, fmt.Errorf("another command is changing this lab: %s; wait for it to end", strings.TrimSpace(string(holder)))
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt(fmt.Appendf(nil, "%s (pid %d, since %s)\n", what, os.Getpid(), time.Now().Format(time.TimeOnly)), 0)
	return func() { _ = f.Close() }, nil
}
