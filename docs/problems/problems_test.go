// Package problems checks that whatever Seaway calls a reason is explained.
package problems

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// outside are folders that are no part of the product.
var outside = []string{"lab", "e2e", "bench", "tools", ".git"}

var camel = regexp.MustCompile(`^[A-Z][A-Za-z]{3,}$`)

// TestEveryReasonIsExplained reads every reason from the sources and looks for a heading of that name in README.md;
// and the other way round, so that nothing is explained that is not there any more.
func TestEveryReasonIsExplained(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^(?:### |\\| `)([A-Z][A-Za-z]+)").FindAllStringSubmatch(string(page), -1) {
		if explained[m[1]] {
			t.Errorf("README.md explains %s twice", m[1])
		}
		explained[m[1]] = true
	}
	used := reasons(t)
	if len(used) < 20 {
		t.Fatalf("only %d reasons were found in the sources: the search is broken", len(used))
	}
	for _, r := range slices.Sorted(maps.Keys(used)) {
		if !explained[r] {
			t.Errorf("reason %s (%s) has no entry in README.md", r, used[r])
		}
		delete(explained, r)
	}
	for r := range explained {
		t.Errorf("README.md explains %s, which no code says", r)
	}
}

// reasons finds string constants that are given as a Reason, with where.
func reasons(t *testing.T) map[string]string {
	t.Helper()
	root := "../.."
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if slices.Contains(outside, rel) || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			for _, e := range given(n) {
				if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil && camel.MatchString(s) {
						found[s] = rel
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// given returns the expressions that a node gives as a reason.
func given(n ast.Node) (out []ast.Expr) {
	isReason := func(name string) bool { return strings.Contains(strings.ToLower(name), "reason") }
	switch n := n.(type) {
	case *ast.KeyValueExpr: // Reason: "X"
		if id, ok := n.Key.(*ast.Ident); ok && isReason(id.Name) {
			out = append(out, n.Value)
		}
	case *ast.ValueSpec: // const ReasonX = "X"; and conditions that are there only while true: their type is their reason
		for i, id := range n.Names {
			if i < len(n.Values) && (isReason(id.Name) || id.Name == "SlicePrefixExhausted" || id.Name == "SliceNamespaceConflict" || id.Name == "SliceUnknownCluster") {
				out = append(out, n.Values[i])
			}
		}
	case *ast.AssignStmt: // c.Reason, c.Message = "X", …
		for i, l := range n.Lhs {
			if sel, ok := l.(*ast.SelectorExpr); ok && isReason(sel.Sel.Name) && len(n.Rhs) == len(n.Lhs) {
				out = append(out, n.Rhs[i])
			}
		}
	case *ast.CallExpr: // yes(type, "X", …), no(type, "X", …), p.fail("X", …), r.problem("X", …), add("X", …), trouble(where, "X", …)
		name := ""
		switch f := n.Fun.(type) {
		case *ast.Ident:
			name = f.Name
		case *ast.SelectorExpr:
			name = f.Sel.Name
		}
		switch {
		case (name == "yes" || name == "no" || name == "trouble") && len(n.Args) > 1:
			out = append(out, n.Args[1])
		case (name == "fail" || name == "problem" || name == "add") && len(n.Args) > 0:
			out = append(out, n.Args[0])
		}
	}
	return out
}
