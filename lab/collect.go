package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/netns"
	"seaway.dev/seaway/lab/state"
	"seaway.dev/seaway/lab/underlay"
)

// Collect gathers what a post-mortem needs. It takes what it can get: a part
// that fails is noted in its own file and does not stop the others.
func (l Lab) Collect(ctx context.Context, dir string) error {
	rec, err := l.Dir.Load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	c := collector{dir: dir, bin: rec.Bin, limit: itemLimit}
	status, cancel := context.WithTimeout(ctx, itemLimit)
	defer cancel()
	if s, err := l.Status(status); err == nil {
		b, _ := json.MarshalIndent(s, "", "  ")
		c.write("status.json", b)
	}
	for _, f := range []string{"lab.json", "wan.json", "wan.log"} {
		c.copy(l.Dir.Path(f), f)
	}
	c.inNetns(ctx, underlay.Router, "router.txt")
	var wg sync.WaitGroup
	for _, cl := range rec.Layout.Clusters {
		wg.Go(func() { c.cluster(ctx, l, rec, cl) })
	}
	wg.Wait()
	return errors.Join(c.errs...)
}

// itemLimit is how long one item may take: a lab that is looked into is often one where something hangs.
const itemLimit = 12 * time.Second

type collector struct {
	dir, bin string
	limit    time.Duration // for each item
	mu       sync.Mutex
	errs     []error
}

func (c *collector) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

func (c *collector) write(name string, b []byte) {
	path := filepath.Join(c.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
		c.fail(err)
	}
}

func (c *collector) copy(src, name string) {
	in, err := os.Open(src)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.fail(err)
		return
	}
	defer in.Close()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.fail(err)
		return
	}
	out, err := os.Create(path)
	if err != nil {
		c.fail(err)
		return
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		c.fail(err)
	}
}

// run keeps a command's output, or why there is none, also that it took too long.
func (c *collector) run(ctx context.Context, name string, make func(context.Context) (*exec.Cmd, error)) {
	item, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	cmd, err := make(item)
	if err != nil {
		c.write(name, []byte(err.Error()+"\n"))
		return
	}
	cmd.WaitDelay = time.Second // its children may hold the pipe
	out, err := cmd.CombinedOutput()
	switch {
	case item.Err() != nil && ctx.Err() == nil:
		out = fmt.Appendf(out, "\n%s: given up after %s\n", strings.Join(cmd.Args, " "), c.limit)
	case err != nil:
		out = fmt.Appendf(out, "\n%s: %v\n", strings.Join(cmd.Args, " "), err)
	}
	c.write(name, out)
}

const networkState = `set -x
ip -d -s addr; ip route show table all; ip rule; ip neigh; bridge fdb 2>/dev/null
nft list ruleset; iptables-legacy-save 2>/dev/null; ip6tables-legacy-save 2>/dev/null; tc -s qdisc; ss -tunap; conntrack -L 2>/dev/null`

func (c *collector) inNetns(ctx context.Context, ns, name string) {
	err := netns.Do(ns, func() error {
		c.run(ctx, name, func(ctx context.Context) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, "sh", "-c", networkState), nil
		})
		return nil
	})
	if err != nil {
		c.write(name, []byte(err.Error()+"\n"))
	}
}

func (c *collector) cluster(ctx context.Context, l Lab, rec state.Lab, cl layout.Cluster) {
	var wg sync.WaitGroup
	defer wg.Wait()
	kubectl := func(name string, args ...string) {
		args = append([]string{"--kubeconfig", l.Dir.Kubeconfig(cl.Name), "--request-timeout=5s"}, args...)
		wg.Go(func() {
			c.run(ctx, filepath.Join(cl.Name, name), func(ctx context.Context) (*exec.Cmd, error) {
				return exec.CommandContext(ctx, filepath.Join(c.bin, "kubectl"), args...), nil
			})
		})
	}
	kubectl("all.txt", "get", "all,cm,ep,endpointslices,networkpolicies,pv,pvc,crd", "-A", "-o", "wide")
	kubectl("nodes.yaml", "get", "nodes", "-o", "yaml")
	kubectl("events.txt", "get", "events", "-A", "--sort-by=.lastTimestamp")
	kubectl("describe-pods.txt", "describe", "pods", "-A")
	if cl.Private {
		c.inNetns(ctx, underlay.NATOf(cl.Name), filepath.Join(cl.Name, "nat.txt"))
	}
	for _, p := range cl.Machines {
		m, err := machine.Find(l.Dir, rec, p.Name)
		if err != nil {
			c.fail(err)
			continue
		}
		wg.Go(func() { c.machine(ctx, m) })
	}
}

func (c *collector) machine(ctx context.Context, m machine.Machine) {
	name := m.Plan().Name
	base := filepath.Join(m.Cluster().Name, name)
	if m.State() == machine.Running {
		script := networkState + "; mount; ps auxf"
		if m.Plan().Role == layout.Node {
			script += "; ctr -n k8s.io images ls; ctr -n k8s.io tasks ls"
		}
		c.run(ctx, filepath.Join(base, "state.txt"), func(ctx context.Context) (*exec.Cmd, error) {
			return m.Command(ctx, "sh", "-c", script)
		})
	}
	// The pods' logs are on the machine's disk, also those of pods that are gone
	// from the API, and also when the API does not answer.
	for dir, to := range map[string]string{m.LogDir(): "log", filepath.Join(m.Dir(), "disk/var/log/pods"): "pods"} {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				rel, _ := filepath.Rel(dir, path)
				c.copy(path, filepath.Join(base, to, rel))
			}
			return nil
		})
	}
}
