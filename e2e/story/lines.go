package story

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func repeat(p *play, ctx context.Context, args []string) (out string, err error) {
	if len(args) < 2 {
		return "", misused("want a number and a line")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return "", misused("%q: want how many times", args[0])
	}
	for i := range n {
		if out, err = p.do(ctx, args[1:]); err != nil {
			return out, fmt.Errorf("time %d of %d: %w", i+1, n, err)
		}
	}
	return out, nil
}

// lines plays a file of the story, so that several lines can be repeated.
func lines(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) != 1 {
		return "", misused("want one file of the story")
	}
	text, err := os.ReadFile(p.script.MkAbs(args[0]))
	if err != nil {
		return "", misused("%v", err)
	}
	all := ""
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		// Names are looked up now: an earlier line may have given them.
		words, err := split(line, p.script.Getenv)
		if err != nil {
			return all, misused("%s:%d: %v", args[0], i+1, err)
		}
		out, err := p.do(ctx, words)
		all += out
		if err != nil {
			return all, fmt.Errorf("%s:%d: %s: %w", args[0], i+1, line, err)
		}
	}
	return all, nil
}

// split cuts a line into words as testscript does: single quotes keep spaces and dollars, two of them in quotes are one.
func split(line string, vars func(string) string) ([]string, error) {
	var words []string
	var word, plain strings.Builder
	quoted, begun := false, false
	expand := func() {
		word.WriteString(os.Expand(plain.String(), vars))
		plain.Reset()
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'' && quoted && i+1 < len(line) && line[i+1] == '\'':
			word.WriteByte('\'')
			i++
		case c == '\'':
			expand()
			quoted, begun = !quoted, true
		case quoted:
			word.WriteByte(c)
		case c == ' ' || c == '\t':
			if expand(); begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			plain.WriteByte(c)
			begun = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed in %q", line)
	}
	if expand(); begun {
		words = append(words, word.String())
	}
	return words, nil
}
