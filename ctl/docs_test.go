package ctl

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCommandsInTheDocs: every `seaway …` that the pages show is a command with flags that exist.
func TestCommandsInTheDocs(t *testing.T) {
	pages, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"../docs/*.md", "../docs/*/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	inline := regexp.MustCompile("`seaway ([^`]*)`")
	line := regexp.MustCompile(`(?m)^seaway ([^#\n]*)`)
	roles := []string{"hub", "controller", "autoscaler", "agent", "tunnel"} // commands of their own, made in cmd/seaway
	shown := 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(inline.FindAllStringSubmatch(string(b), -1), line.FindAllStringSubmatch(string(b), -1)...) {
			args := strings.Fields(strings.ReplaceAll(m[1], "…", "VALUE"))
			if len(args) == 0 || slices.Contains(roles, args[0]) {
				continue
			}
			shown++
			root := (&cli{Config: Config{Name: "seaway", Version: "docs", Out: io.Discard, Err: io.Discard}}).root()
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == root {
				t.Errorf("%s shows `seaway %s`, which is no command: %v", page, m[1], err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s shows `seaway %s`: %v", page, m[1], err)
			}
		}
	}
	if shown < 20 {
		t.Errorf("only %d commands found in the pages: the check looks at nothing", shown)
	}
}
