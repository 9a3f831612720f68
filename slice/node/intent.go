package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

// maxIntent bounds an intent on the wire, bytes: a slice of 100,000 pods fits.
const maxIntent = 64 << 20

// errVersion says that the controller is newer than this agent can understand.
var errVersion = errors.New("the controller speaks a newer version")

// sliceName is what a slice can be called: a DNS label. It becomes a file's name.
var sliceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// readIntent reads an intent, or what changed in the one that was told before on the same connection.
func readIntent(line []byte, node string, told *fleet.Intent) (*fleet.Intent, error) {
	var d fleet.IntentDelta
	if err := json.Unmarshal(line, &d); err != nil || d.Base == 0 || d.Version > fleet.WireVersion {
		return decodeIntent(line, node)
	}
	in, err := delta.ApplyIntent(told, &d)
	if err != nil {
		return nil, fmt.Errorf("intent %d on %d: %w", d.Rev, d.Base, err) // dialled anew, the controller tells the whole
	}
	if d.Head != nil {
		return checkIntent(in, node)
	}
	// What it builds on was checked when it came.
	if _, err := checkIntent(&fleet.Intent{Cluster: in.Cluster, Node: in.Node, Pods: d.Pods}, node); err != nil {
		return nil, err
	}
	return in, nil
}

// decodeIntent reads one intent and checks what the agent relies on: a controller that errs must not make
// the node write outside its folders or route what is no prefix. Unknown fields are passed over: a controller of a newer
// Seaway may add some within a version.
func decodeIntent(b []byte, node string) (*fleet.Intent, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("read intent: %w", err)
	}
	if head.Version < 1 || head.Version > fleet.WireVersion {
		return nil, fmt.Errorf("intent of version %d, this agent knows up to %d: %w", head.Version, fleet.WireVersion, errVersion)
	}
	var in fleet.Intent
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("read intent: %w", err)
	}
	return checkIntent(&in, node)
}

// checkIntent checks an intent that was read, or made of another and what changed.
func checkIntent(in *fleet.Intent, node string) (*fleet.Intent, error) {
	if in.Node != node {
		return nil, fmt.Errorf("intent for node %.80q came to node %q: is the agent's token its own?", in.Node, node)
	}
	for _, s := range in.Slices {
		if !sliceName.MatchString(s.Name) || s.Name == fleet.ManagementSlice {
			return nil, fmt.Errorf("intent: %.80q is no name for a slice", s.Name)
		}
		for _, p := range s.Prefixes {
			if !p.IsValid() || p.Addr().Is4In6() {
				return nil, fmt.Errorf("intent: slice %s has no valid prefix %v", s.Name, p)
			}
		}
		for _, bl := range s.Blocks {
			if !bl.Prefix.IsValid() {
				return nil, fmt.Errorf("intent: slice %s has a block without a prefix", s.Name)
			}
		}
		for _, n := range s.Networks { // pods route them into the slice: never everything
			if !n.Prefix.IsValid() || n.Prefix.Addr().Is4In6() || n.Prefix.Bits() == 0 {
				return nil, fmt.Errorf("intent: slice %s has no valid pod network %v", s.Name, n.Prefix)
			}
		}
	}
	for _, p := range in.Pods {
		for _, addr := range p.Addrs {
			if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
				return nil, fmt.Errorf("intent: pod %.100q has no valid address %v", p.Key(), addr)
			}
		}
		if p.Node == node && p.Cluster == in.Cluster && p.UID == "" {
			return nil, fmt.Errorf("intent: pod %.100q of this node has no UID", p.Key())
		}
	}
	return in, nil
}

// saveIntent keeps an intent for the next start, whole or not at all. It returns how long it had to work for it, without
// what it waited for the disk.
func saveIntent(file string, in *fleet.Intent) (work time.Duration, err error) {
	began := time.Now()
	b, err := json.Marshal(in)
	work = time.Since(began)
	if err == nil {
		err = replaceFile(file, b)
	}
	if err != nil {
		err = fmt.Errorf("save intent: %w", err)
	}
	return work, err
}

// replaceFile writes a file that only root reads, whole or not at all.
func replaceFile(file string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".intent-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	return err
}

// loadIntent reads the intent of the last life; nil if there is none.
func loadIntent(file, node string) (*fleet.Intent, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load the saved intent: %w", err)
	}
	in, err := decodeIntent(b, node)
	if err != nil {
		return nil, fmt.Errorf("load the saved intent: %w", err)
	}
	return in, nil
}
