package tunnel

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"seaway.dev/seaway/datapath/wg"
	"seaway.dev/seaway/fleet"
)

// The files in RunDir.
const (
	wantFile     = "tunnel.json"          // the plan.Tunnel last accepted
	sessionsFile = "tunnel-sessions.json" // relay.Switch.Memory
	lockFile     = "tunnel.lock"          // held by the one process that serves the node
)

// files are the process's files in one directory, replaced whole.
type files struct{ dir string }

func (f files) read(name string) ([]byte, error) { return os.ReadFile(filepath.Join(f.dir, name)) }

func (f files) write(name string, data []byte) error {
	path := filepath.Join(f.dir, name)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

func (f files) remove(names ...string) error {
	var errs []error
	for _, n := range names {
		if err := os.Remove(filepath.Join(f.dir, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keyring holds the private keys, one file per slice.
type keyring struct{ dir string }

// ensure returns a slice's key and makes it first if there is none.
func (k keyring) ensure(slice string) (wg.PrivateKey, error) {
	key, err := k.load(slice)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if key, err = wg.NewPrivateKey(); err != nil {
		return key, err
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return key, fmt.Errorf("make the keys' directory: %w", err)
	}
	return key, k.store(slice, key)
}

func (k keyring) load(slice string) (wg.PrivateKey, error) {
	data, err := os.ReadFile(filepath.Join(k.dir, slice))
	if err != nil {
		return wg.PrivateKey{}, fmt.Errorf("private key: %w", err)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err == nil {
		var key wg.PrivateKey
		if key, err = wg.PrivateKeyFrom(b); err == nil {
			return key, nil
		}
	}
	// The error of the decoder would show parts of the file.
	return wg.PrivateKey{}, fmt.Errorf("private key of slice %s: the file %s is damaged; delete it to get a new key", slice, filepath.Join(k.dir, slice))
}

// store writes a key durably: a node that forgot its key after a power cut would be a stranger to its peers.
func (k keyring) store(slice string, key wg.PrivateKey) error {
	f, err := os.CreateTemp(k.dir, ".new-*") // made with 0600
	if err != nil {
		return fmt.Errorf("store the key of slice %s: %w", slice, err)
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key.Bytes()) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(k.dir, slice))
	}
	if err != nil {
		return fmt.Errorf("store the key of slice %s: %w", slice, err)
	}
	return nil
}

func (k keyring) remove(slice string) error {
	if err := os.Remove(filepath.Join(k.dir, slice)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the key of slice %s: %w", slice, err)
	}
	return nil
}

// removeAll removes every key and the directory.
func (k keyring) removeAll() error {
	if err := os.RemoveAll(k.dir); err != nil {
		return fmt.Errorf("remove the private keys: %w", err)
	}
	return nil
}

// public lists the public keys of all slices that have one.
func (k keyring) public() (map[string]fleet.Key, error) {
	all := map[string]fleet.Key{}
	entries, err := os.ReadDir(k.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if key, err := k.load(e.Name()); err == nil {
			all[e.Name()] = key.Public()
		}
	}
	return all, nil
}
