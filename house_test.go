// The house's rules as tests: what the code review would otherwise have to remember. When a rule makes code worse,
// drop the rule here, in the open.
package seaway_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "seaway.dev/seaway"

// floors says what each folder must never import, and why. The first entry whose folder is a prefix counts.
var floors = []struct {
	folder string
	never  []string
	why    string
}{
	{"fleet", []string{"."}, "the nouns import the standard library alone"},
	{"slice/plan", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"slice/keys", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"slice/share", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"slice/addr", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"slice/policy", []string{"sigs.k8s.io/controller-runtime", "k8s.io/client-go", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"discovery/zone", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"discovery/corefile", []string{"k8s.io", "sigs.k8s.io", "./", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"failover/detect", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"failover/steer", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"bulletin/post", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "net/http", "os"}, "it carries what it does not understand, over connections that others make"},
	{"bulletin", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "net/http", "os"}, "a codec does no I/O"},
	{"scale/sim", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "the simulator feeds deciders, it reads no files"},
	{"scale/match", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a match is numbers"},
	{"scale/trace", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "log/slog"}, "a reader of traces"},
	{"scale", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"delta", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "a decider does no I/O"},
	{"datapath", []string{"k8s.io/client-go", "k8s.io/api", "sigs.k8s.io/controller-runtime", "./controller", "./hub", "./ctl", "./install", "./kube", "./api"}, "the data path does not know Kubernetes' API"},
	{"tunnel", []string{"k8s.io", "sigs.k8s.io", "./controller", "./hub", "./ctl", "./install", "./kube", "./api", "./slice/node"}, "the tunnel outlives everything and knows nothing of it"},
	{"slice/node", []string{"k8s.io/client-go", "k8s.io/api", "sigs.k8s.io/controller-runtime", "./controller", "./hub", "./ctl", "./install", "./kube", "./api"}, "the agent does not talk to the API server"},
	{"autoscaler", []string{"./datapath", "./tunnel", "./slice", "./ctl", "./controller", "./install"}, "the autoscaler needs no slice"},
	{"drill/field", []string{"./datapath", "./tunnel", "./slice", "./controller", "./hub"}, "a drill uses Kubernetes' own ways"},
	{"drill", []string{"k8s.io", "sigs.k8s.io", "./datapath", "./tunnel", "./controller", "./hub", "./kube", "net/http", "os", "log/slog"}, "what is rehearsed and measured is decided without hands"},
	{"hub", []string{"./datapath", "./tunnel", "./slice/node", "./ctl", "./controller"}, "the hub is no member"},
	{"controller", []string{"./datapath", "./tunnel", "./slice/node", "./ctl"}, "the controller touches no kernel"},
}

// outside the rules: test beds and tools, which may read the environment and sleep in their own loops.
var rigs = []string{"lab", "e2e", "bench", "tools"}

func TestImportsPointOneWay(t *testing.T) {
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, fl := range floors {
			if f.folder != fl.folder && !strings.HasPrefix(f.folder, fl.folder+"/") {
				continue
			}
			for _, imp := range f.imports() {
				if fl.folder == "fleet" && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
					t.Errorf("%s imports %s: %s", f.path, imp, fl.why)
				}
				for _, n := range fl.never {
					if n == "." {
						continue
					}
					n = strings.Replace(n, "./", module+"/", 1)
					if imp == n || strings.HasPrefix(imp, strings.TrimSuffix(n, "/")+"/") {
						t.Errorf("%s imports %s: %s", f.path, imp, fl.why)
					}
				}
			}
			break
		}
		for _, imp := range f.imports() {
			if strings.HasPrefix(imp, module+"/cmd/") {
				t.Errorf("%s imports %s: nothing imports a command", f.path, imp)
			}
		}
	}
}

func TestPackagesAreDocumentedAndWellNamed(t *testing.T) {
	banned := regexp.MustCompile(`^(utils?|common|helpers?|managers?|types|misc|shared|base|core)$`)
	doc := map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		if banned.MatchString(path.Base(f.folder)) {
			t.Errorf("%s: a package is named after a noun of the product, not %q", f.path, path.Base(f.folder))
		}
		doc[f.folder] = doc[f.folder] || (f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "")
	}
	for folder, ok := range doc {
		if !ok {
			t.Errorf("package %s says nowhere what it is: begin one of its files with // Package …", folder)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, f := range sources(t) {
		if f.generated {
			continue
		}
		if n := f.lines(); n > 700 && !f.test {
			t.Errorf("%s has %d lines: would a reader know which room to enter?", f.path, n)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || f.test || f.rig() {
				continue
			}
			if n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line; n > 100 {
				t.Errorf("%s: %s has %d lines (100 at most)", f.path, fn.Name.Name, n)
			}
		}
	}
}

func TestNoSleepsInTestsNoEnvironmentInPackages(t *testing.T) {
	for _, f := range sources(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			where := f.fset.Position(sel.Pos())
			switch name := pkg.Name + "." + sel.Sel.Name; {
			case name == "time.Sleep" && f.test && !f.bubble():
				t.Errorf("%s: a test waits for a condition, it does not sleep (testing/synctest for time)", where)
			case (name == "os.Getenv" || name == "os.LookupEnv") && !f.test && !f.rig() && !strings.HasPrefix(f.folder, "cmd/"):
				t.Errorf("%s: the environment is read in cmd only", where)
			}
			return true
		})
	}
}

func TestModuleHasNoReplace(t *testing.T) {
	b, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^replace\b`).Match(b) {
		t.Error("go.mod: the main module has no replace, so that `go install` works for everybody")
	}
}

// TestDependenciesAreExplained: each direct dependency has a line on what for and why this one.
func TestDependenciesAreExplained(t *testing.T) {
	doc, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, f := range sources(t) {
		if strings.HasPrefix(f.folder, "lab") || strings.HasPrefix(f.folder, "tools") {
			continue
		}
		for _, imp := range f.imports() {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !strings.HasPrefix(imp, module) {
				direct[imp] = true
			}
		}
	}
	mod, _ := os.ReadFile("go.mod")
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require )?([a-z0-9.]+\.[a-z]+/\S+) v\S+`).FindAllStringSubmatch(string(mod), -1) {
		used := false
		for imp := range direct {
			used = used || imp == m[1] || strings.HasPrefix(imp, m[1]+"/")
		}
		if used && !strings.Contains(string(doc), "`"+m[1]+"`") {
			t.Errorf("docs/dependencies.md has no line for `%s`: what for, and why this one?", m[1])
		}
	}
}

// TestEveryModuleIsExplained: the same for the modules of the lab, of what it builds, and of the tools; and no line twice.
func TestEveryModuleIsExplained(t *testing.T) {
	doc, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(.*)` \\|").FindAllStringSubmatch(string(doc), -1) {
		for _, name := range strings.Split(m[1], "`, `") {
			if rows[name]++; rows[name] > 1 {
				t.Errorf("docs/dependencies.md explains `%s` twice", name)
			}
		}
	}
	built, err := filepath.Glob("lab/binary/*/go.mod.in")
	if err != nil || len(built) == 0 {
		t.Fatalf("what the lab builds is not found: %v", err)
	}
	direct := regexp.MustCompile(`(?m)^(?:\t|require )([a-z0-9.]+\.[a-z]+/\S+) v\S+$`)
	for _, file := range append(built, "lab/go.mod") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		required, _, _ := strings.Cut(string(b), "\nreplace")
		found := direct.FindAllStringSubmatch(required, -1)
		if len(found) == 0 {
			t.Errorf("%s: no direct dependency found: the check looks at nothing", file)
		}
		for _, m := range found {
			if rows[m[1]] == 0 {
				t.Errorf("%s: docs/dependencies.md has no line for `%s`", file, m[1])
			}
		}
	}
	b, err := os.ReadFile("tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	tools, _, _ := strings.Cut(string(b), "\n)")
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+)/cmd/\S+$`).FindAllStringSubmatch(tools, -1) {
		if rows[m[1]] == 0 {
			t.Errorf("tools/go.mod: docs/dependencies.md has no line for `%s`", m[1])
		}
	}
}

// TestDocsHold: links between the pages lead somewhere, and every `make target` that they name exists.
func TestDocsHold(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	target := regexp.MustCompile("`make ([a-z][a-z-]*)")
	for _, p := range files(t, ".md") {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(p), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", p, m[1])
			}
		}
		for _, m := range target.FindAllStringSubmatch(string(b), -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s: there is no `make %s`", p, m[1])
			}
		}
	}
}

// TestReasonsHaveAPage: whatever tells somebody to act (a Problem, a condition, a refusal) is explained in docs/problems,
// and what nobody says any more is explained no longer.
func TestReasonsHaveAPage(t *testing.T) {
	doc, err := os.ReadFile("docs/problems/README.md")
	if err != nil {
		t.Fatal(err)
	}
	all := reasons(t)
	for reason, where := range all {
		if !strings.Contains(string(doc), "\n### "+reason+"\n") {
			t.Errorf("%s: reason %s has no section \"### %s\" in docs/problems/README.md: what it means, what to do", where, reason, reason)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(string(doc), -1) {
		if all[m[1]] == "" {
			t.Errorf("docs/problems/README.md explains %s, and nothing says that (or this test does not see it)", m[1])
		}
	}
}

// reasons finds, outside of tests, the string literals that become a reason: constants named Reason…, the condition
// types of the API (their reasons are their names), what a field called Reason is made or set to, and what is passed
// for a parameter called reason to a function of the same package.
func reasons(t *testing.T) map[string]string {
	out := map[string]string{}
	camel := regexp.MustCompile(`^[A-Z][A-Za-z0-9]+$`)
	add := func(f source, e ast.Expr) {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return
		}
		if s, err := strconv.Unquote(lit.Value); err == nil && camel.MatchString(s) {
			out[s] = f.fset.Position(lit.Pos()).String()
		}
	}
	fs := slices.DeleteFunc(sources(t), func(f source) bool { return f.test || f.rig() || f.generated })
	takers := map[string]map[int]bool{} // "folder function" → which arguments are reasons
	for _, f := range fs {
		ast.Inspect(f.ast, func(n ast.Node) bool { noteTakers(f, n, takers); return true })
	}
	for _, f := range fs {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if called(n.Key) == "Reason" {
					add(f, n.Value)
				}
			case *ast.AssignStmt:
				for i, to := range n.Lhs {
					if called(to) == "Reason" && len(n.Lhs) == len(n.Rhs) {
						add(f, n.Rhs[i])
					}
				}
			case *ast.ValueSpec:
				for i, id := range n.Names {
					condition := strings.HasPrefix(f.folder, "api/") && regexp.MustCompile(`^(Slice|Cluster)[A-Z]`).MatchString(id.Name)
					if (condition || strings.HasPrefix(id.Name, "Reason")) && i < len(n.Values) {
						add(f, n.Values[i])
					}
				}
			case *ast.CallExpr:
				for i := range takers[f.folder+" "+called(n.Fun)] {
					if i < len(n.Args) {
						add(f, n.Args[i])
					}
				}
			}
			return true
		})
	}
	return out
}

// noteTakers remembers the functions, closures and parameters of a function's type that take a reason.
func noteTakers(f source, n ast.Node, takers map[string]map[int]bool) {
	note := func(name string, typ ast.Expr) {
		fn, ok := typ.(*ast.FuncType)
		if !ok {
			return
		}
		i := 0
		for _, field := range fn.Params.List {
			for _, p := range field.Names {
				if p.Name == "reason" {
					key := f.folder + " " + name
					if takers[key] == nil {
						takers[key] = map[int]bool{}
					}
					takers[key][i] = true
				}
				i++
			}
		}
	}
	switch n := n.(type) {
	case *ast.FuncDecl:
		note(n.Name.Name, n.Type)
	case *ast.Field:
		for _, id := range n.Names {
			note(id.Name, n.Type)
		}
	case *ast.AssignStmt:
		for i, to := range n.Lhs {
			if len(n.Lhs) == len(n.Rhs) {
				if fn, ok := n.Rhs[i].(*ast.FuncLit); ok {
					note(called(to), fn.Type)
				}
			}
		}
	}
}

// called is the last name of an expression: x of x and of p.x.
func called(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

type source struct {
	path, folder    string
	test, generated bool
	ast             *ast.File
	fset            *token.FileSet
}

func (f source) imports() []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, p)
	}
	return out
}

func (f source) lines() int { return f.fset.Position(f.ast.FileEnd).Line }

func (f source) rig() bool {
	return slices.ContainsFunc(rigs, func(r string) bool { return f.folder == r || strings.HasPrefix(f.folder, r+"/") })
}

// bubble: a test that imports testing/synctest sleeps in fake time.
func (f source) bubble() bool { return slices.Contains(f.imports(), "testing/synctest") }

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	fset := token.NewFileSet()
	for _, p := range files(t, ".go") {
		a, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.ToSlash(filepath.Dir(p))
		if folder == "." {
			continue
		}
		out = append(out, source{path: p, folder: folder, test: strings.HasSuffix(p, "_test.go"), generated: ast.IsGenerated(a), ast: a, fset: fset})
	}
	if len(out) == 0 {
		t.Fatal("no sources found: the checks would pass by looking at nothing")
	}
	return out
}

func files(t *testing.T, ext string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !d.IsDir() && filepath.Ext(p) == ext {
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(fmt.Errorf("walking the tree: %w", err))
	}
	return out
}
