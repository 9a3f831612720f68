// Package bulletin is the form in which clusters tell each other about themselves, and the rules for believing it.
//
// [Encode] and [Decode] turn a [fleet.Bulletin] into compressed JSON and back, within limits, so that no writer can
// fill a reader's memory. [Check] then compares what a cluster says with what it was given: its name, its address
// blocks, the slices it is on. What is not true to that is left out and named; the rest stands, because one wrong
// entry must not take a whole cluster off the map. Nothing here reads a clock, a socket or Kubernetes.
package bulletin

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"seaway.dev/seaway/fleet"
)

// Where a bulletin lies: in the hub's namespace of its cluster, as binary data of a ConfigMap.
const (
	Name = "bulletin" // of the ConfigMap, and of the key in its binaryData
)

// Limits of one bulletin.
const (
	// MaxSize is the most bytes that a bulletin may have when compressed. A ConfigMap holds 1 MiB in all
	// (Kubernetes' MaxSecretSize applies to both); the rest is left to its metadata.
	MaxSize = 1000 << 10
	// MaxPlain is the most bytes that it may have when unpacked.
	MaxPlain = 16 << 20

	maxNodes     = 5000 // Kubernetes' own limit for a cluster
	maxPods      = 50000
	maxExports   = 10000
	maxEndpoints = 50000
)

// ErrTooLarge says that a bulletin exceeds a limit.
var ErrTooLarge = errors.New("bulletin too large")

// Encode writes a bulletin in its wire form. Equal bulletins give equal bytes.
func Encode(b *fleet.Bulletin) ([]byte, error) {
	plain, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bulletin of %s: %w", b.Cluster, err)
	}
	return packed(b.Cluster, plain)
}

func packed(cluster string, plain []byte) ([]byte, error) {
	if len(plain) > MaxPlain {
		return nil, fmt.Errorf("%w: %d bytes unpacked, limit %d", ErrTooLarge, len(plain), MaxPlain)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(plain); err != nil {
		return nil, fmt.Errorf("pack bulletin of %s: %w", cluster, err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("pack bulletin of %s: %w", cluster, err)
	}
	if out.Len() > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes packed, limit %d", ErrTooLarge, out.Len(), MaxSize)
	}
	return out.Bytes(), nil
}

// Decode reads a bulletin from its wire form. It refuses what is too large, what a newer Seaway wrote in a newer
// version, and anything after the end. Unknown fields are passed over: a newer Seaway may add some within a version.
func Decode(packed []byte) (*fleet.Bulletin, error) {
	plain, err := unpacked(packed)
	if err != nil {
		return nil, err
	}
	if err := readable(plain); err != nil {
		return nil, err
	}
	b := new(fleet.Bulletin)
	if err := json.Unmarshal(plain, b); err != nil {
		return nil, fmt.Errorf("read bulletin: %w", err)
	}
	if err := Limits(b); err != nil {
		return nil, err
	}
	return b, nil
}

func unpacked(packed []byte) ([]byte, error) {
	if len(packed) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes packed, limit %d", ErrTooLarge, len(packed), MaxSize)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack bulletin: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, MaxPlain+1))
	if err != nil {
		return nil, fmt.Errorf("unpack bulletin: %w", err)
	}
	if len(plain) > MaxPlain {
		return nil, fmt.Errorf("%w: more than %d bytes unpacked", ErrTooLarge, MaxPlain)
	}
	return plain, nil
}

// readable refuses what a newer Seaway wrote in a newer version.
func readable(plain []byte) error {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(plain, &v); err != nil {
		return fmt.Errorf("read bulletin: %w", err)
	}
	if v.Version < 1 || v.Version > fleet.WireVersion {
		return fmt.Errorf("bulletin of version %d, this Seaway reads up to %d; upgrade this cluster's Seaway",
			v.Version, fleet.WireVersion)
	}
	return nil
}

// Limits refuses a bulletin that lists more than any cluster can have.
func Limits(b *fleet.Bulletin) error {
	endpoints := 0
	for i := range b.Exports {
		endpoints += len(b.Exports[i].Endpoints)
	}
	for _, l := range []struct {
		what      string
		have, max int
	}{
		{"nodes", len(b.Nodes), maxNodes},
		{"pods", len(b.Pods), maxPods},
		{"exports", len(b.Exports), maxExports},
		{"endpoints", endpoints, maxEndpoints},
	} {
		if l.have > l.max {
			return fmt.Errorf("%w: %d %s, limit %d", ErrTooLarge, l.have, l.what, l.max)
		}
	}
	return nil
}
