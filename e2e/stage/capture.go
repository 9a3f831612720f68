package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"seaway.dev/seaway/e2e/wire"
)

// Capture records the WAN while something is done, and returns what went between the members meanwhile: what an
// eavesdropper there learns. text is looked for in every packet.
func (s *Stage) Capture(ctx context.Context, text string, during func() error) ([]wire.Flow, error) {
	l, err := s.Layout(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "seaway-wan-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "wan.pcap")
	recording, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		_, err := s.Labctl(recording, "wan", "capture", "--output", file)
		ended <- err
	}()
	err = Await(ctx, 10*time.Second, func() error { // it listens as soon as the file has its header
		if fi, err := os.Stat(file); err != nil || fi.Size() < 24 {
			return errors.New("the capture does not begin")
		}
		return nil
	})
	if err == nil {
		err = during()
	}
	stop()
	<-ended
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	defer f.Close()
	packets, err := wire.Read(f)
	if err != nil {
		return nil, err
	}
	var places []wire.Place
	for _, c := range l.Clusters {
		if c.Name != Hub {
			places = append(places, wire.Place{Name: c.Name, Nets: c.WAN})
		}
	}
	return wire.Flows(packets, places, text), nil
}
