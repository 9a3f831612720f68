// Package binary builds the programs that a lab runs and keeps them in a cache:
// all of Kubernetes with etcd as one multi-call binary, CoreDNS, the lab's app.
//
// Their sources are embedded, so the command works from anywhere; all that a
// build needs is the Go toolchain and a module proxy.
package binary

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"seaway.dev/seaway/lab/progress"
)

// The folders begin with an underscore because they are modules of their own,
// which the go command must not look into from here.
//
//go:embed _kube _coredns _metrics
var recipes embed.FS

// KubernetesVersion is what the clusters run.
const KubernetesVersion = "1.34.4"

// Program that can be built.
type Program struct {
	// Name of the binary.
	Name string
	// Links are other names for it (a multi-call binary).
	Links []string
	// Source of its main package; files called *.in lose that ending.
	Source fs.FS
	// Package to build, if it is not the source's own main package.
	Package string
	// Flags for the linker.
	Flags string
	// Cold says how long a first build takes, for the one who waits.
	Cold string
}

func recipe(dir string) fs.FS {
	f, err := fs.Sub(recipes, dir)
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return f
}

// Kube is etcd, the Kubernetes daemons and kubectl in one binary.
func Kube() Program {
	const p = "k8s.io/component-base/version"
	v := strings.Split(KubernetesVersion, ".")
	flags := fmt.Sprintf("-s -w -X %[1]s.gitVersion=v%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean -X %[1]s.gitCommit=lab",
		p, KubernetesVersion, v[0], v[1])
	return Program{Name: "kubeall", Source: recipe("_kube"), Flags: flags, Cold: "about 6 minutes the first time",
		Links: []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}}
}

// CoreDNS with the plugins that a lab needs.
func CoreDNS() Program {
	return Program{Name: "coredns", Source: recipe("_coredns"), Flags: "-s -w", Cold: "about a minute the first time"}
}

// Metrics is metrics-server, which only labs that ask for it build.
func Metrics() Program {
	return Program{Name: "metrics-server", Source: recipe("_metrics"), Package: "sigs.k8s.io/metrics-server/cmd/metrics-server",
		Flags: "-s -w", Cold: "about two minutes the first time"}
}

// App is the lab's test application.
func App(source fs.FS) Program {
	return Program{Name: "lab-app", Source: source, Flags: "-s -w", Cold: "seconds"}
}

// Cache of built binaries and of what is made from them.
type Cache string

// DefaultCache is below the user's cache directory.
func DefaultCache() (Cache, error) {
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep built binaries: %w; set XDG_CACHE_HOME", err)
	}
	return Cache(filepath.Join(d, "seaway-lab")), nil
}

// Path below the cache.
func (c Cache) Path(elem ...string) string {
	return filepath.Join(append([]string{string(c)}, elem...)...)
}

// key changes whenever the result of a build would.
func (p Program) key() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, p.Name, p.Flags, p.Links, runtime.Version(), runtime.GOARCH)
	err := fs.WalkDir(p.Source, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := fs.ReadFile(p.Source, name)
		fmt.Fprintf(h, "%s %d\n", name, len(b))
		h.Write(b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:12], err
}

// Dir is where a program is once it is built; known before it is.
func (c Cache) Dir(p Program) (string, error) {
	k, err := p.key()
	return c.Path("bin", p.Name+"-"+k), err
}

// Build makes sure that a program is in the cache and returns its folder.
func (c Cache) Build(ctx context.Context, p Program, stages *progress.Stages) (string, error) {
	dir, err := c.Dir(p)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, p.Name)); err == nil {
		return dir, nil
	}
	done := stages.Begin("build %s (%s)", p.Name, p.Cold)
	err = c.build(ctx, p, dir)
	done(err)
	return dir, err
}

func (c Cache) build(ctx context.Context, p Program, dir string) error {
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("the Go toolchain is needed to build " + p.Name + " and is not in PATH; install Go 1.26 or newer")
	}
	if err := os.MkdirAll(c.Path("bin"), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(c.Path("bin"), ".build-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	src, out := filepath.Join(tmp, "src"), filepath.Join(tmp, "out")
	if err := unpack(p.Source, src); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", p.Flags, "-o", filepath.Join(out, p.Name), cmp.Or(p.Package, "."))
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-modcacherw", "PWD="+src)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.Name, err, tail(log.String(), 20))
	}
	for _, l := range p.Links {
		if err := os.Symlink(p.Name, filepath.Join(out, l)); err != nil {
			return err
		}
	}
	err = os.Rename(out, dir)
	if _, statErr := os.Stat(filepath.Join(dir, p.Name)); statErr == nil {
		return nil // another process was quicker
	}
	return err
}

func unpack(src fs.FS, dir string) error {
	return fs.WalkDir(src, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dir, name), 0o755)
		}
		b, err := fs.ReadFile(src, name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, strings.TrimSuffix(name, ".in")), b, 0o644)
	})
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
