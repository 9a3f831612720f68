package pilot

import (
	"bytes"
	"compress/gzip"
	"encoding/gob"
	"fmt"
	"io"

	"seaway.dev/seaway/scale/hpa"
)

// version of what Save writes. A pilot that reads another version begins anew: HPA's shadow carries it through the
// first minutes.
const version = 2

// largest is more than any state unpacks to; a longer one is not ours.
const largest = 1 << 20

type kept struct {
	Version int
	State   State
}

// Save returns all that the pilot knows, compressed: some tens of KiB at most.
func (p *Pilot) Save() ([]byte, error) {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err := gob.NewEncoder(z).Encode(kept{version, p.state}); err != nil {
		return nil, fmt.Errorf("save the pilot's state: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("save the pilot's state: %w", err)
	}
	return b.Bytes(), nil
}

// Restore makes the pilot know what another one saved. On an error it knows what it knew before.
func (p *Pilot) Restore(saved []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(saved))
	if err != nil {
		return fmt.Errorf("read the pilot's state: %w", err)
	}
	fresh := New(p.terms, p.opts)
	k := kept{State: fresh.state}
	if err := gob.NewDecoder(io.LimitReader(z, largest)).Decode(&k); err != nil {
		return fmt.Errorf("read the pilot's state: %w", err)
	}
	s := &k.State
	if k.Version != version || s.Capacity == nil || s.Forecast == nil || s.Delays == nil {
		return fmt.Errorf("read the pilot's state: it is of version %d, not %d: learning begins anew", k.Version, version)
	}
	if err := s.Forecast.Check(); err != nil {
		return fmt.Errorf("read the pilot's state: %w", err)
	}
	if err := s.Learn.Check(); err != nil {
		return fmt.Errorf("read the pilot's state: %w", err)
	}
	s.Capacity.Cores = fresh.state.Capacity.Cores
	s.Capacity.Refresh()
	p.state, p.shadow, p.known = k.State, nil, known{}
	if s.HPA > 0 {
		p.shadow = hpa.NewShadow(hpa.New(p.terms, hpa.Config{Target: p.opts.Target}), s.HPA, p.podMedian())
	}
	return nil
}
