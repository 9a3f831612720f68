package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommandsInTheDocs: every `seaway-lab …` that the pages show is a command with flags that exist.
func TestCommandsInTheDocs(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../../*.md", "../../../*.md", "../../../docs/*.md", "../../../docs/*/*.md", "../../../e2e/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	shows := []*regexp.Regexp{regexp.MustCompile("`seaway-lab ([^`;]*)"), regexp.MustCompile(`(?m)^ *seaway-lab ([a-z][^#\n]*)`), regexp.MustCompile("; seaway-lab ([^`]*)`")}
	shown := 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, re := range shows {
			for _, m := range re.FindAllStringSubmatch(string(b), -1) {
				line, _, _ := strings.Cut(m[1], ">")
				args := strings.Fields(line)
				if len(args) == 0 {
					continue
				}
				shown++
				c := root()
				c.InitDefaultCompletionCmd()
				cmd, rest, err := c.Find(args)
				if err != nil || cmd == c {
					t.Errorf("%s shows `seaway-lab %s`, which is no command: %v", page, line, err)
					continue
				}
				if cmd.DisableFlagParsing || cmd.Name() == "kubectl" || cmd.Name() == "exec" {
					continue // what follows is somebody else's
				}
				if err := cmd.ParseFlags(rest); err != nil {
					t.Errorf("%s shows `seaway-lab %s`: %v", page, line, err)
				}
			}
		}
	}
	if shown < 12 {
		t.Errorf("only %d commands found in the pages: the check looks at nothing", shown)
	}
}
