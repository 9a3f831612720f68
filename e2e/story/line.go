package story

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// verb is one word that a line may begin with.
type verb struct {
	usage string
	does  string
	// wraps: the rest of the line is itself a line, with its own `!`, shows and hides.
	wraps bool
	run   func(p *play, ctx context.Context, args []string) (string, error)
}

// misuse is a fault of the story's text. Nothing retries it.
type misuse struct{ why string }

// Error implements error.
func (m misuse) Error() string { return m.why }

func misused(format string, args ...any) error { return misuse{fmt.Sprintf(format, args...)} }

func isMisuse(err error) bool { return errors.As(err, new(misuse)) }

// do plays one line: [!] VERB ARGS… [shows REGEX…] [hides REGEX…].
func (p *play) do(ctx context.Context, words []string) (string, error) {
	neg := false
	if len(words) > 0 && words[0] == "!" {
		neg, words = true, words[1:]
	}
	if len(words) == 0 {
		return "", misused("a line without a verb; there are %s", strings.Join(slices.Sorted(maps.Keys(verbs())), ", "))
	}
	v, ok := verbs()[words[0]]
	if !ok {
		return "", misused("there is no verb %q; there are %s", words[0], strings.Join(slices.Sorted(maps.Keys(verbs())), ", "))
	}
	args, want := words[1:], expectation{}
	if !v.wraps {
		var err error
		if args, want, err = splitExpectation(args); err != nil {
			return "", err
		}
	}
	out, err := v.run(p, ctx, args)
	if isMisuse(err) {
		if !strings.Contains(err.Error(), "usage:") {
			err = misused("%s: %v\nusage: %s", words[0], err, v.usage)
		}
		return out, err
	}
	if !neg {
		if err != nil {
			return out, err
		}
		return out, want.check(out)
	}
	if err == nil {
		return out, fmt.Errorf("this was to fail, and did not:\n%s", strings.TrimSpace(out))
	}
	said := out + err.Error() + "\n"
	return said, want.check(said)
}

// expectation is what the output of a line must and must not match.
type expectation struct {
	shows, hides []*regexp.Regexp
}

// splitExpectation cuts `shows …` and `hides …` off the end of a line.
func splitExpectation(args []string) ([]string, expectation, error) {
	var e expectation
	at := slices.IndexFunc(args, func(a string) bool { return a == "shows" || a == "hides" })
	if at < 0 {
		return args, e, nil
	}
	var into *[]*regexp.Regexp
	for i, a := range args[at:] {
		switch a {
		case "shows":
			into = &e.shows
		case "hides":
			into = &e.hides
		default:
			re, err := regexp.Compile("(?m)" + a)
			if err != nil {
				return nil, e, misused("%v", err)
			}
			*into = append(*into, re)
			continue
		}
		if next := args[at:][i+1:]; len(next) == 0 || next[0] == "shows" || next[0] == "hides" {
			return nil, e, misused("%s: want at least one regular expression after it", a)
		}
	}
	return args[:at], e, nil
}

func (e expectation) check(out string) error {
	for _, re := range e.shows {
		if !re.MatchString(out) {
			return fmt.Errorf("nothing in this matches %q:\n%s", strings.TrimPrefix(re.String(), "(?m)"), strings.TrimSpace(out))
		}
	}
	for _, re := range e.hides {
		if m := re.FindString(out); m != "" {
			return fmt.Errorf("%q matches %q in this, and nothing was to:\n%s", m, strings.TrimPrefix(re.String(), "(?m)"), strings.TrimSpace(out))
		}
	}
	return nil
}

// clauses splits `shop/web in c1 c3 replicas 2` into what comes before the first keyword, and each keyword's values.
func clauses(args []string, keywords ...string) (head []string, values map[string][]string) {
	values = map[string][]string{}
	key := ""
	for _, a := range args {
		switch {
		case slices.Contains(keywords, a):
			key = a
			values[key] = []string{}
		case key == "":
			head = append(head, a)
		default:
			values[key] = append(values[key], a)
		}
	}
	return head, values
}

// place is CLUSTER/NAMESPACE[/POD] as stories write it.
type place struct{ cluster, namespace, pod string }

func parsePlaces(list string, parts int) ([]place, error) {
	var out []place
	for word := range strings.SplitSeq(list, ",") {
		f := strings.Split(word, "/")
		if len(f) != parts || slices.Contains(f, "") {
			return nil, misused("%q: want %s", word, strings.Join([]string{"CLUSTER", "NAMESPACE", "POD"}[:parts], "/"))
		}
		f = append(f, "")
		out = append(out, place{f[0], f[1], f[2]})
	}
	return out, nil
}

// Help lists the verbs.
func Help() string {
	var b strings.Builder
	all := verbs()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s\n    %s\n", all[name].usage, all[name].does)
	}
	return b.String()
}
