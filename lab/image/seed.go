package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"seaway.dev/seaway/lab/api"
)

// Seed is a containerd root with images already imported. Nodes get copies of
// it: importing the same images into each of them would be most of a start.
type Seed struct {
	// Dir is below the lab's cache.
	Dir string
}

// SeedFor names the seed of a set of image tars.
func SeedFor(cacheDir string, tars []string) (Seed, error) {
	h := sha256.New()
	for _, t := range tars {
		f, err := os.Open(t)
		if err != nil {
			return Seed{}, err
		}
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return Seed{}, err
		}
	}
	out, err := exec.Command("containerd", "--version").Output()
	if err != nil {
		return Seed{}, fmt.Errorf("containerd --version: %w; run `seaway-lab setup`", err)
	}
	h.Write(out)
	return Seed{Dir: filepath.Join(cacheDir, fmt.Sprintf("seed-%x", h.Sum(nil)[:6]))}, nil
}

// Exists says whether it has been made.
func (s Seed) Exists() bool {
	_, err := os.Stat(s.Dir)
	return err == nil
}

const seedConfig = `version = 2
oom_score = 0
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "%[1]s/sock"
`

// Make runs a containerd of its own, off the network, and imports the tars.
func (s Seed) Make(ctx context.Context, tars []string) error {
	if err := os.MkdirAll(filepath.Dir(s.Dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(s.Dir), ".seed-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	conf := filepath.Join(tmp, "config.toml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, seedConfig, tmp), 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(tmp, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d := exec.Command("containerd", "-c", conf)
	d.Stdout, d.Stderr = log, log
	// A mount namespace of its own, and no orphan if the lab is killed.
	d.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.Start(); err != nil {
		return err
	}
	err = s.load(ctx, filepath.Join(tmp, "sock"), tars)
	// Its database is only complete once it has ended by itself.
	err = errors.Join(err, d.Process.Signal(syscall.SIGTERM))
	_ = d.Wait()
	if err != nil {
		b, _ := os.ReadFile(log.Name())
		return fmt.Errorf("prepare images: %w\n%s", err, tail(string(b)))
	}
	if err := os.Rename(filepath.Join(tmp, "root"), s.Dir); err != nil && !s.Exists() {
		return err
	}
	return s.prune()
}

// keepSeeds is how many seeds stay in the cache. Nodes hold links of their own,
// so even one in use may go.
const keepSeeds = 3

func (s Seed) prune() error {
	seeds, err := filepath.Glob(filepath.Join(filepath.Dir(s.Dir), "seed-*"))
	if err != nil {
		return err
	}
	age := func(dir string) time.Time {
		fi, err := os.Stat(dir)
		if err != nil {
			return time.Time{}
		}
		return fi.ModTime()
	}
	slices.SortFunc(seeds, func(a, b string) int { return age(b).Compare(age(a)) })
	var errs []error
	for _, d := range seeds[min(keepSeeds, len(seeds)):] {
		if d != s.Dir {
			errs = append(errs, os.RemoveAll(d))
		}
	}
	return errors.Join(errs...)
}

func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

func (s Seed) load(ctx context.Context, sock string, tars []string) error {
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := api.Poll(wait, 50*time.Millisecond, func(context.Context) (bool, error) {
		c, err := net.Dial("unix", sock)
		if err == nil {
			_ = c.Close()
		}
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("containerd did not start: %w", err)
	}
	for _, t := range tars {
		if err := run(exec.CommandContext(ctx, "ctr", "-a", sock, "-n", "k8s.io", "images", "import", t)); err != nil {
			return err
		}
	}
	return nil
}

// Plant copies the seed to a node's disk. Blobs and unpacked layers are never
// written again, so they are hard links: no time, no space, and the nodes share
// their pages in memory.
func (s Seed) Plant(dst string) error {
	return filepath.WalkDir(s.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.Dir, p)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return plantDir(to, fi)
		case fi.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		case strings.Contains(rel, "/blobs/") || strings.Contains(rel, "/snapshots/"):
			if err := os.Link(p, to); !errors.Is(err, syscall.EXDEV) {
				return err
			}
		}
		return copyFile(p, to, fi)
	})
}

func plantDir(path string, fi fs.FileInfo) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	st, _ := fi.Sys().(*syscall.Stat_t)
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	// After chown, which drops special bits; chmod keeps the sticky one.
	return os.Chmod(path, fi.Mode())
}

func copyFile(src, dst string, fi fs.FileInfo) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fi.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
