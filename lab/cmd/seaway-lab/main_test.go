package main

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab/config"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/state"
)

// run executes the command line against an empty state directory.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var b bytes.Buffer
	c := root()
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetArgs(append([]string{"--state", t.TempDir()}, args...))
	err := c.ExecuteContext(t.Context())
	return b.String(), err
}

func TestEveryCommandHasHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" && !c.Hidden {
			t.Errorf("%s has no description", c.CommandPath())
		}
		if c.Example == "" && !c.Hidden {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, s := range c.Commands() {
			visit(s)
		}
	}
	visit(root())
}

func TestNoLabIsUp(t *testing.T) {
	for _, args := range []string{"status", "kubeconfig c1", "exec c1n1 -- true", "machine kill c1n1", "wan show", "wan cut c1 c2", "image import x.tar", "collect /nonexistent"} {
		if _, err := run(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), "seaway-lab up") {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestWrongUse(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"wan set c1 c2", "delay"}, {"wan set c1 c2 --loss 500%", "percentage"}, {"wan set c1 c2 --rate fast", "100mbit"},
		{"wan clear c1", "wan clear c1 all"}, {"status -o xml", "text or json"}, {"up --config x.yaml --clusters 2", "one of the two"},
		{"up --config /nonexistent.yaml", "/nonexistent.yaml"}, {"up --only c9", "hub, c1, c2, c3"}, {"up --private c9", "c9"},
		{"image build --name a -o x.tar", "binary"}, {"image build --name a -o x.tar --from /tmp", "--entrypoint"},
		{"image build --name a -o x.tar --from /tmp --entrypoint sh", "JSON list"}, {"image build --name a -o x.tar --from /tmp --entrypoint [\"a\"] --add y", "SRC:DST"},
		{"machine-init /x", "PID 1"}, {"nonsense", "unknown command"},
	} {
		if _, err := run(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", c.args, err, c.want)
		}
	}
}

// TestNamesAreCompleted: the shell offers the names of the lab that is up, each where it can stand.
func TestNamesAreCompleted(t *testing.T) {
	conf := config.Default(3, 2)
	if err := conf.Complete(); err != nil {
		t.Fatal(err)
	}
	plan, err := layout.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	dir := state.Dir(t.TempDir())
	if err := dir.Save(state.Lab{Phase: state.Up, Layout: plan}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, offers, hides string }{
		{"kubectl", "hub c1 c2 c3", "c1n1"}, {"kubectl c1", "", "hub"}, {"exec", "c1cp c3n2", "all"},
		{"machine kill", "hubcp c1n1 c3n2", "c1 all"}, {"machine reboot c1n1", "c1n2", "c1n1"},
		{"wan set", "c1 c2n1", "all"}, {"wan cut c1", "c2 c1n1 all", "c1"}, {"wan heal c1 c2", "", "c3"},
	} {
		var b bytes.Buffer
		r := root()
		r.SetOut(&b)
		r.SetErr(&bytes.Buffer{})
		r.SetArgs(append(append([]string{"__complete", "--state", string(dir)}, strings.Fields(c.args)...), ""))
		if err := r.ExecuteContext(t.Context()); err != nil {
			t.Errorf("%s: %v", c.args, err)
		}
		got := strings.Fields(b.String())
		for _, want := range strings.Fields(c.offers) {
			if !slices.Contains(got, want) {
				t.Errorf("%s: %s is not offered: %q", c.args, want, got)
			}
		}
		for _, no := range strings.Fields(c.hides) {
			if slices.Contains(got, no) {
				t.Errorf("%s: %s is offered: %q", c.args, no, got)
			}
		}
	}
}

func TestConfigCanBeReadBack(t *testing.T) {
	out, err := run(t, "config", "--clusters", "1")
	if err != nil || !strings.Contains(out, "name: c1") {
		t.Fatal(out, err)
	}
}

func TestImageBuildOfABinary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.tar")
	if _, err := run(t, "image", "build", "--name", "localhost/x:1", "--binary", "/bin/ls", "-o", file); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("a dynamically linked binary: %v", err)
	}
	if _, err := run(t, "image", "build", "--name", "localhost/x:1", "--binary", "/etc/passwd", "-o", file); err == nil {
		t.Error("a text was taken for a binary")
	}
}
