package binary

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"seaway.dev/seaway/lab/progress"
)

func sample(text string) Program {
	return Program{Name: "x", Links: []string{"y"}, Flags: "-s -w", Source: fstest.MapFS{
		"go.mod.in": {Data: []byte("module x\n\ngo 1.26\n")}, "main.go": {Data: []byte("package main\n\nfunc main() { println(\"" + text + "\") }\n")},
	}}
}

func TestBuildOnceAndAgainWhenTheSourceChanges(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("SKIPPED: no Go toolchain in PATH")
	}
	c := Cache(t.TempDir())
	stages := progress.New(os.Stderr)
	defer stages.Close()
	dir, err := c.Build(t.Context(), sample("one"), stages)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(dir, "y")).CombinedOutput(); err != nil || string(out) != "one\n" {
		t.Errorf("%s %v", out, err)
	}
	again, err := c.Build(t.Context(), sample("one"), stages)
	if err != nil || again != dir {
		t.Error(again, err)
	}
	if other, _ := c.Dir(sample("two")); other == dir {
		t.Error("another source has the same key")
	}
	if left, _ := filepath.Glob(c.Path("bin", ".build-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBuildErrorShowsTheCompilers(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("SKIPPED: no Go toolchain in PATH")
	}
	stages := progress.New(os.Stderr)
	defer stages.Close()
	_, err := Cache(t.TempDir()).Build(t.Context(), sample(`" + 1 + "`), stages)
	if err == nil || !strings.Contains(err.Error(), "main.go:3") {
		t.Error(err)
	}
}

func TestRecipesAreThere(t *testing.T) {
	for _, p := range []Program{Kube(), CoreDNS(), Metrics()} {
		for _, f := range []string{"go.mod.in", "go.sum.in"} {
			if _, err := p.Source.Open(f); err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
		}
	}
}
