package corefile

import (
	"fmt"
	"strings"
	"unicode"
)

// token is a word of a Corefile.
type token struct {
	text string
	line int
}

// scan splits a Corefile into words as CoreDNS's parser does (coredns/caddy, caddyfile/lexer.go), its oddities
// included: a # in the middle of a word ends the word and hides the rest of it, up to the next space only. closed is
// false if the text ends inside quotes.
func scan(corefile string) (tokens []token, closed bool) {
	var val strings.Builder
	var comment, quoted, escaped, inWord bool
	line, began := 1, 1
	emit := func() {
		tokens = append(tokens, token{val.String(), began})
		val.Reset()
		comment, quoted, escaped, inWord = false, false, false, false
	}
	for _, ch := range strings.TrimPrefix(corefile, "\ufeff") {
		if quoted {
			switch {
			case !escaped && ch == '\\':
				escaped = true
				continue
			case !escaped && ch == '"':
				emit()
				continue
			}
			if ch == '\n' {
				line++
			}
			if escaped && ch != '"' {
				val.WriteByte('\\')
			}
			val.WriteRune(ch)
			escaped = false
			continue
		}
		if unicode.IsSpace(ch) {
			if ch == '\r' {
				continue
			}
			if ch == '\n' {
				line++
				comment = false
			}
			if val.Len() > 0 {
				emit()
			}
			continue
		}
		if ch == '#' {
			comment = true
		}
		if comment {
			continue
		}
		if !inWord {
			inWord, began = true, line
			if ch == '"' {
				quoted = true
				continue
			}
		}
		val.WriteRune(ch)
	}
	closed = !quoted
	if val.Len() > 0 {
		emit()
	}
	return tokens, closed
}

// server is a server block, or a snippet.
type server struct {
	keys       []string
	directives map[string][][]string // the arguments of each line that begins with the word; nested blocks left out
}

// parse finds the server blocks as CoreDNS's parser does (caddyfile/parse.go). It refuses what could not be followed
// by another block: braces that do not match, and the short form of a single server without braces.
func parse(tokens []token) ([]server, error) {
	var out []server
	for i := 0; i < len(tokens); {
		var s server
		var err error
		if s.keys, i, err = keys(tokens, i); err != nil {
			return nil, err
		}
		if i == len(tokens) && len(s.keys) == 0 { // an import at the end
			break
		}
		if s.directives, i, err = contents(tokens, i); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// keys reads the addresses before a block and returns the index of its brace. An import among them may bring whole
// server blocks, so what follows begins anew.
func keys(tokens []token, i int) (keys []string, next int, err error) {
	another := false
	for i < len(tokens) {
		t := tokens[i]
		if t.text == "import" && first(tokens, i) {
			i += 2
			continue
		}
		if t.text == "{" {
			return keys, i, nil
		}
		if len(keys) > 0 && !another && first(tokens, i) {
			break
		}
		if t.text != "" {
			another = strings.HasSuffix(t.text, ",")
			keys = append(keys, t.text)
		}
		i++
	}
	if len(keys) == 0 {
		return nil, len(tokens), nil
	}
	return nil, 0, fmt.Errorf("the Corefile has a server without braces (%s, line %d), which only works alone: put its directives into { }", keys[0], tokens[min(i, len(tokens)-1)].line)
}

// contents reads a block from its brace to the matching one.
func contents(tokens []token, i int) (directives map[string][][]string, next int, err error) {
	directives = map[string][][]string{}
	open := tokens[i]
	depth := 0
	name := ""
	for ; i < len(tokens); i++ {
		t := tokens[i]
		switch {
		case t.text == "{":
			depth++
			name = ""
		case t.text == "}":
			if depth--; depth == 0 {
				return directives, i + 1, nil
			}
			name = ""
		case depth != 1:
		case first(tokens, i):
			name = t.text
			directives[name] = append(directives[name], nil)
		case name != "":
			n := len(directives[name])
			directives[name][n-1] = append(directives[name][n-1], t.text)
		}
	}
	return nil, 0, fmt.Errorf("the Corefile's block that begins in line %d is not closed: a } is missing", open.line)
}

// first tells whether a word is the first of its line; the one before may span several, in quotes.
func first(tokens []token, i int) bool {
	return i == 0 || tokens[i-1].line+strings.Count(tokens[i-1].text, "\n") < tokens[i].line
}
