package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Layout is which clusters and machines the lab has.
type Layout struct {
	Clusters []Cluster
	Healthy  bool // all machines run, all nodes are Ready
}

// Cluster is one of the lab's clusters.
type Cluster struct {
	Name    string
	Private bool
	Nodes   []string // its worker machines, which are its Kubernetes nodes
	Control string   // the machine with its API server
	WAN     []netip.Prefix
	IPs     map[string]netip.Addr // machine → its own address
	PIDs    map[string]int        // machine → its first process
	Faults  map[string]string     // machine → the lab's verb that mends it: resume, start, heal
}

// Members are the clusters that are not the hub, sorted.
func (l Layout) Members() []string {
	var names []string
	for _, c := range l.Clusters {
		if c.Name != Hub {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Cluster finds a cluster by its name.
func (l Layout) Cluster(name string) (Cluster, error) {
	for _, c := range l.Clusters {
		if c.Name == name {
			return c, nil
		}
	}
	return Cluster{}, fmt.Errorf("the lab has no cluster %q", name)
}

// Machines are all machines of all clusters.
func (l Layout) Machines() []string {
	var names []string
	for _, c := range l.Clusters {
		names = append(append(names, c.Control), c.Nodes...)
	}
	return names
}

// ErrNoLab says that no lab is up.
var ErrNoLab = errors.New("no lab is up")

// Layout asks the lab what it has.
func (s *Stage) Layout(ctx context.Context) (Layout, error) {
	out, err := s.Labctl(ctx, "status", "--output", "json")
	if err != nil {
		if failed := (*Failed)(nil); errors.As(err, &failed) && strings.Contains(failed.Output, "no lab is up") {
			return Layout{}, ErrNoLab
		}
		return Layout{}, err
	}
	return parseLayout(out)
}

func parseLayout(text string) (Layout, error) {
	var status struct {
		Healthy  bool
		Clusters []struct {
			Name      string
			Private   bool
			WAN, WAN6 netip.Prefix
			Machines  []struct {
				Name, Role, State string
				Cable             bool
				IP                netip.Addr
				PID               int
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return Layout{}, fmt.Errorf("status of the lab: %w", err)
	}
	l := Layout{Healthy: status.Healthy}
	for _, c := range status.Clusters {
		cl := Cluster{Name: c.Name, Private: c.Private, WAN: []netip.Prefix{c.WAN, c.WAN6},
			IPs: map[string]netip.Addr{}, PIDs: map[string]int{}, Faults: map[string]string{}}
		for _, m := range c.Machines {
			cl.IPs[m.Name] = m.IP
			if m.PID > 0 {
				cl.PIDs[m.Name] = m.PID
			}
			switch {
			case m.State == "paused":
				cl.Faults[m.Name] = "resume"
			case m.State == "off":
				cl.Faults[m.Name] = "start"
			case !m.Cable:
				cl.Faults[m.Name] = "heal"
			}
			if m.Role == "control-plane" {
				cl.Control = m.Name
			} else {
				cl.Nodes = append(cl.Nodes, m.Name)
			}
		}
		l.Clusters = append(l.Clusters, cl)
	}
	if len(l.Clusters) == 0 {
		return l, ErrNoLab
	}
	return l, nil
}

// patience for a lab that was left up to prove that it still works.
const patience = 40 * time.Second

// Up makes sure that the default layout is up and healthy: a healthy one is kept, a crippled one is mended by
// starting its machines, and what cannot be mended is taken down and started anew.
func (s *Stage) Up(ctx context.Context) error {
	_, err := s.Layout(ctx)
	if err == nil {
		if err = s.Mend(ctx); err == nil {
			return nil
		}
		s.say("the lab that is up is not healthy (%v): starting it anew", err)
	}
	if !errors.Is(err, ErrNoLab) {
		if _, err := s.Labctl(ctx, "down"); err != nil {
			return fmt.Errorf("take down what is left of a lab: %w", err)
		}
	}
	c := Command{Args: []string{s.Lab, "up"}, Live: s.Out}
	if _, _, err := s.Runner.Run(ctx, c); err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	return nil
}

// Down takes the lab away.
func (s *Stage) Down(ctx context.Context) error {
	_, _, err := s.Runner.Run(ctx, Command{Args: []string{s.Lab, "down"}, Live: s.Out})
	return err
}

// Mend undoes every fault that a story may have left in the lab, and waits until all nodes are Ready.
func (s *Stage) Mend(ctx context.Context) error {
	if _, err := s.Labctl(ctx, "wan", "clear"); err != nil {
		return err
	}
	if err := s.thaw(ctx); err != nil {
		return err
	}
	return Await(ctx, patience, func() error {
		l, err := s.Layout(ctx)
		if err != nil {
			return err
		}
		for _, c := range l.Clusters {
			for m, verb := range c.Faults {
				if _, err := s.Labctl(ctx, "machine", verb, m); err != nil {
					return err
				}
			}
		}
		if !l.Healthy {
			return errors.New("not all machines run or not all nodes are Ready")
		}
		return nil
	})
}

// thaw lets programs of Seaway go on that a story held.
func (s *Stage) thaw(ctx context.Context) error {
	l, err := s.Layout(ctx)
	if err != nil {
		return err
	}
	var running []string
	for _, c := range l.Clusters {
		for _, n := range c.Nodes {
			if c.Faults[n] == "" {
				running = append(running, n)
			}
		}
	}
	return Each(running, func(n string) error {
		s.Machine(ctx, n, "sh", "-c", "kill -CONT $(pidof seaway) 2>/dev/null; true")
		return nil
	})
}

// Eventually calls f until it succeeds; when the context ends it returns f's last error.
func Eventually(ctx context.Context, pause time.Duration, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (gave up: %w)", err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// Images puts the images into every node, unless they are there.
func (s *Stage) Images(ctx context.Context) error {
	l, err := s.Layout(ctx)
	if err != nil {
		return err
	}
	for _, im := range []struct{ name, program string }{
		{s.Image, s.Seaway}, {s.Probe, filepath.Join(s.Cache, "bin", "probe")},
	} {
		if s.haveImage(ctx, l, im.name) {
			continue
		}
		tar := filepath.Join(s.Cache, "image.tar")
		defer os.Remove(tar)
		if _, err := s.Labctl(ctx, "image", "build", "--name", im.name, "--binary", im.program, "-o", tar); err != nil {
			return fmt.Errorf("image %s: %w", im.name, err)
		}
		if _, err := s.Labctl(ctx, "image", "import", tar); err != nil {
			return fmt.Errorf("image %s: %w", im.name, err)
		}
	}
	return nil
}

// haveImage looks on every node; a reboot keeps images, a new lab does not have them.
func (s *Stage) haveImage(ctx context.Context, l Layout, name string) bool {
	for _, c := range l.Clusters {
		for _, n := range c.Nodes {
			out, err := s.Machine(ctx, n, "ctr", "-n", "k8s.io", "images", "ls", "-q")
			if err != nil || !slices.Contains(strings.Fields(out), name) {
				return false
			}
		}
	}
	return true
}

// Collect saves everything one needs for a post-mortem into a folder.
func (s *Stage) Collect(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, err := s.Labctl(ctx, "collect", dir)
	return err
}
