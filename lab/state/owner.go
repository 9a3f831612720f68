package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The names of a lab's namespaces and links exist once per host, whatever its
// state directory is. This file says whose they are; it is gone after a reboot,
// as the names are.
const ownerFile = "/run/seaway-lab.owner"

// Claim takes the host's names for this lab.
func (d Dir) Claim() error { return d.claim(ownerFile) }

func (d Dir) claim(file string) error {
	abs, err := filepath.Abs(string(d))
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(abs+"\n"), 0o644)
}

// Other is the directory of another lab that has the host's names, if one does.
func (d Dir) Other() (Dir, bool) { return d.other(ownerFile) }

func (d Dir) other(file string) (Dir, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", false
	}
	owner := Dir(strings.TrimSpace(string(b)))
	if abs, err := filepath.Abs(string(d)); err != nil || abs == string(owner) {
		return "", false
	}
	// A lab whose record is gone holds nothing.
	if _, err := owner.Load(); errors.Is(err, ErrNone) {
		return "", false
	}
	return owner, true
}

// Release gives the host's names back.
func (d Dir) Release() error {
	if err := os.Remove(ownerFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
