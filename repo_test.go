// Package keystile_test holds what is demanded of the repository itself: which
// package may import which, that everything is documented and shown in an
// example, and that nothing is committed that should not be. There is no library
// code at the root.
package keystile_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode"
)

const modulePath = "github.com/keystile/keystile"

// thirdParties are all that the library may require, and the packages outside of
// tests that may import it.
var thirdParties = map[string][]string{
	"go4.org/netipx":              {"middleware", "policy"},
	"golang.org/x/time":           {"ratelimit"},
	"github.com/stretchr/testify": nil, // tests only
	"github.com/golang-jwt/jwt":   {"middleware/oidcauth"},
	"github.com/redis/go-redis":   {"ratelimit/rediscounter"},
	"github.com/jackc/pgx":        {"store/postgresstore/pgnotify"},
}

// arrows are the packages of the library, each with those of the others that it
// may import outside of its tests. They only point down.
var arrows = map[string][]string{
	"token":     {},
	"policy":    {},
	"ratelimit": {},

	"store":                        {"policy", "token"},
	"store/audit":                  {"policy"},
	"store/keys":                   {"policy", "ratelimit", "store", "store/audit", "token"},
	"store/memstore":               {"policy", "ratelimit", "store", "store/internal/row", "token"},
	"store/postgresstore":          {"policy", "ratelimit", "store", "store/internal/row", "store/internal/sqlstore", "token"},
	"store/postgresstore/pgnotify": {},
	"store/sqlitestore":            {"policy", "ratelimit", "store", "store/internal/row", "store/internal/sqlstore", "token"},
	"store/internal/row":           {"policy", "store", "token"},
	"store/internal/sqlstore":      {"policy", "ratelimit", "store", "store/internal/row", "token"},

	"middleware":                   {"policy", "ratelimit", "store", "token"},
	"middleware/api":               {"middleware", "policy", "ratelimit", "store", "store/audit", "store/keys"},
	"middleware/console":           {"middleware", "policy"},
	"middleware/refusallog":        {"middleware", "policy", "store/audit"},
	"middleware/oidcauth":          {"middleware", "policy", "store"},
	"middleware/oidcauth/oidctest": {},

	"ratelimit/rediscounter": {"ratelimit"},

	"ratelimit/ratelimittest": {"ratelimit"},
	"store/storetest":         {"policy", "store", "token"},

	"internal/apilist":     {},
	"internal/covergate":   {},
	"internal/reqtable":    {},
	"internal/simulate":    {},
	"internal/testsummary": {},
}

// suites are the packages that import testing, for others to test with.
var suites = []string{"ratelimit/ratelimittest", "store/storetest"}

// withoutExample are the exported functions that have no Example, with the reason.
var withoutExample = map[string]string{
	"store.NewCache":    "ExampleVerifier_Verify makes one",
	"store.NewVerifier": "ExampleVerifier_Verify makes one",
}

// maySleep are the test files that sleep outside of synctest, with the reason.
var maySleep = map[string]string{
	"internal/itest/sqlite_process_test.go": "a process of its own that paces its writes",
}

// A source is a parsed Go file.
type source struct {
	path   string // slashes, relative to the root
	dir    string // the package's directory: "." at the root
	module string // the directory of its module
	test   bool
	fset   *token.FileSet
	file   *ast.File
}

// at returns the place of a node, for messages.
func (s *source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// library reports whether s is code of a module that is released, and not a test.
func (s *source) library() bool {
	return !s.test && !slices.Contains([]string{"examples", "internal/itest", "tools"}, s.module)
}

// A tree is what the repository holds.
type tree struct {
	files   []string // all of them
	modules []string // directories with a go.mod
	sources []*source
}

// read reads the repository once for all tests.
var read = sync.OnceValues(func() (*tree, error) {
	var t tree
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", ".bin", ".cover", "artifacts"}, d.Name()):
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		p = filepath.ToSlash(p)
		t.files = append(t.files, p)
		if d.Name() == "go.mod" {
			t.modules = append(t.modules, path.Dir(p))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	for _, p := range t.files {
		if !strings.HasSuffix(p, ".go") || strings.Contains(p, "testdata/") {
			continue
		}
		file, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		s := &source{path: p, dir: path.Dir(p), module: ".", test: strings.HasSuffix(p, "_test.go"), fset: fset, file: file}
		for _, m := range t.modules {
			if m != "." && strings.HasPrefix(p, m+"/") {
				s.module = m
			}
		}
		t.sources = append(t.sources, s)
	}
	return &t, nil
})

func repository(t *testing.T) *tree {
	t.Helper()
	tr, err := read()
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// goJSON decodes into v what a go command prints.
func goJSON(t *testing.T, v any, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	if err := json.Unmarshal(out, v); err != nil {
		t.Fatal(err)
	}
}

type goMod struct {
	Module    struct{ Path string }
	Go        string
	Toolchain string
	Require   []struct {
		Path     string
		Indirect bool
	}
	Replace []struct {
		Old, New struct{ Path string }
	}
	Tool []struct{ Path string }
}

// TestCoreRequiresThree: whoever imports the core gets three modules, one of them
// for tests only, and nothing that is replaced.
func TestCoreRequiresThree(t *testing.T) {
	t.Parallel()
	var mod goMod
	goJSON(t, &mod, "mod", "edit", "-json", "go.mod")
	if mod.Module.Path != modulePath || mod.Go != "1.26.0" || mod.Toolchain != "" {
		t.Errorf("module %s, go %s, toolchain %q", mod.Module.Path, mod.Go, mod.Toolchain)
	}
	if len(mod.Replace) > 0 || len(mod.Tool) > 0 {
		t.Error("go.mod replaces a module or names a tool")
	}
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	slices.Sort(direct)
	want := []string{"github.com/stretchr/testify", "go4.org/netipx", "golang.org/x/time"}
	if !slices.Equal(direct, want) {
		t.Errorf("go.mod requires %v, want %v", direct, want)
	}
}

// TestWorkspace: every module but tools is in go.work, is named by its place, and
// takes the core from beside it.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	var work struct{ Use []struct{ DiskPath string } }
	goJSON(t, &work, "work", "edit", "-json", "go.work")
	used := []string{"tools"}
	for _, u := range work.Use {
		used = append(used, path.Clean(u.DiskPath))
	}
	slices.Sort(used)
	modules := slices.Sorted(slices.Values(repository(t).modules))
	if !slices.Equal(used, modules) {
		t.Errorf("go.work and tools are %v, the modules are %v", used, modules)
	}
	for _, dir := range modules {
		if dir == "." {
			continue
		}
		var mod goMod
		goJSON(t, &mod, "mod", "edit", "-json", dir+"/go.mod")
		if want := modulePath + "/" + dir; mod.Module.Path != want {
			t.Errorf("%s/go.mod is of module %s, want %s", dir, mod.Module.Path, want)
		}
		for _, r := range mod.Replace {
			if path.Join(dir, r.New.Path) != strings.TrimPrefix(strings.TrimPrefix(r.Old.Path, modulePath), "/") && path.Join(dir, r.New.Path) != "." {
				t.Errorf("%s/go.mod replaces %s by %s", dir, r.Old.Path, r.New.Path)
			}
		}
	}
}

// TestImports: the library imports the standard library, itself along the arrows,
// and third parties where they are allowed.
func TestImports(t *testing.T) {
	t.Parallel()
	for _, s := range repository(t).sources {
		if !s.library() {
			continue
		}
		allowed, ok := arrows[s.dir]
		if !ok {
			t.Errorf("%s: a package that the arrows do not know", s.path)
		}
		for _, spec := range s.file.Imports {
			p := importPath(t, spec)
			own, isOwn := strings.CutPrefix(p, modulePath+"/")
			switch {
			case isOwn:
				if !slices.Contains(allowed, own) {
					t.Errorf("%s: %s must not import %s", s.at(spec), s.dir, own)
				}
			case strings.Contains(strings.Split(p, "/")[0], "."):
				if !mayImport(s.dir, p) {
					t.Errorf("%s: %s must not import %s", s.at(spec), s.dir, p)
				}
			case p == "testing" || strings.HasPrefix(p, "testing/"):
				if !slices.Contains(suites, s.dir) {
					t.Errorf("%s: %s imports %s", s.at(spec), s.dir, p)
				}
			case p == "unsafe" || p == "log" || strings.HasPrefix(p, "math/rand") && !slices.Contains(suites, s.dir):
				t.Errorf("%s: nobody here needs %s", s.at(spec), p)
			}
		}
	}
}

// TestTestifyInTestsOnly: nobody gets testify into a program, whichever module its
// code is taken from.
func TestTestifyInTestsOnly(t *testing.T) {
	t.Parallel()
	for _, s := range repository(t).sources {
		for _, spec := range s.file.Imports {
			if p := importPath(t, spec); !s.test && strings.HasPrefix(p, "github.com/stretchr/testify") {
				t.Errorf("%s: %s is for tests only", s.at(spec), p)
			}
		}
	}
}

func importPath(t *testing.T, spec *ast.ImportSpec) string {
	t.Helper()
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mayImport(dir, p string) bool {
	for module, dirs := range thirdParties {
		if p == module || strings.HasPrefix(p, module+"/") {
			return slices.Contains(dirs, dir)
		}
	}
	return false
}

// TestDocumented: every package of the library and every exported name has a comment,
// which begins with the name if it is of a function or type; and so has every field
// of every Options.
func TestDocumented(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for _, s := range repository(t).sources {
		if !s.library() {
			continue
		}
		documented[s.dir] = documented[s.dir] || s.file.Doc != nil
		for _, decl := range s.file.Decls {
			for _, n := range undocumented(decl) {
				t.Errorf("%s: %s has no comment, or one that does not begin with the name", s.at(n), n.Name)
			}
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: the package has no comment", dir)
		}
	}
}

// undocumented returns the exported names that decl declares without a comment.
func undocumented(decl ast.Decl) (names []*ast.Ident) {
	exported := func(comment bool, of ...*ast.Ident) {
		for _, n := range of {
			if n.IsExported() && !comment {
				names = append(names, n)
			}
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || ast.IsExported(receiver(d)) {
			exported(begins(d.Doc, d.Name), d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch sp := spec.(type) {
			case *ast.ValueSpec:
				exported(d.Doc != nil || sp.Doc != nil || sp.Comment != nil, sp.Names...)
			case *ast.TypeSpec:
				exported(begins(sp.Doc, sp.Name) || begins(d.Doc, sp.Name) && len(d.Specs) == 1, sp.Name)
				if !sp.Name.IsExported() {
					continue
				}
				switch typ := sp.Type.(type) {
				case *ast.InterfaceType:
					for _, m := range typ.Methods.List {
						only := len(typ.Methods.List) == 1 // the comment of the type is about it
						exported(m.Doc != nil || m.Comment != nil || only, m.Names...)
					}
				case *ast.StructType:
					for _, f := range typ.Fields.List {
						exported(f.Doc != nil || f.Comment != nil || !strings.HasSuffix(sp.Name.Name, "Options"), f.Names...)
					}
				}
			}
		}
	}
	return names
}

// begins reports whether a comment begins with a name, after an article or not.
func begins(comment *ast.CommentGroup, name *ast.Ident) bool {
	text := comment.Text()
	for _, article := range []string{"A ", "An ", "The "} {
		text = strings.TrimPrefix(text, article)
	}
	rest, ok := strings.CutPrefix(text, name.Name)
	return ok && !strings.ContainsFunc(rest[:min(1, len(rest))], unicode.IsLetter)
}

// receiver returns the name of the type that a method belongs to.
func receiver(d *ast.FuncDecl) string {
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// TestExamples: every exported function of the library has an Example of its name.
func TestExamples(t *testing.T) {
	t.Parallel()
	has := map[string]bool{}
	for _, s := range repository(t).sources {
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || !s.test || d.Recv != nil {
				continue
			}
			if name, ok := strings.CutPrefix(d.Name.Name, "Example"); ok {
				name, _, _ = strings.Cut(name, "_")
				has[s.dir+"."+name] = true
			}
		}
	}
	for _, s := range repository(t).sources {
		if !s.library() || s.file.Name.Name == "main" || slices.Contains(strings.Split(s.dir, "/"), "internal") {
			continue
		}
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || d.Recv != nil || !d.Name.IsExported() {
				continue
			}
			name := s.dir + "." + d.Name.Name
			switch reason := withoutExample[name]; {
			case !has[name] && reason == "":
				t.Errorf("%s: no Example%s", s.at(d), d.Name.Name)
			case has[name] && reason != "":
				t.Errorf("%s has an Example: take it off the list", name)
			}
		}
	}
}

// TestTestsDoNotWait: a test sleeps only inside synctest, where it costs nothing
// and cannot be too short; and one that is skipped says why.
func TestTestsDoNotWait(t *testing.T) {
	t.Parallel()
	for _, s := range repository(t).sources {
		if !s.test && !slices.Contains(suites, s.dir) {
			continue
		}
		var inBubble func(n ast.Node) bool
		inspect := func(n ast.Node, bubble bool) {
			ast.Inspect(n, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, _ := sel.X.(*ast.Ident)
				switch {
				case x == nil:
				case x.Name == "synctest" && sel.Sel.Name == "Test":
					return inBubble(call)
				case x.Name == "time" && sel.Sel.Name == "Sleep" && !bubble && maySleep[s.path] == "":
					t.Errorf("%s: time.Sleep outside of synctest", s.at(call))
				case sel.Sel.Name == "SkipNow" || sel.Sel.Name == "Skip" && len(call.Args) == 0:
					t.Errorf("%s: skipped without a reason", s.at(call))
				}
				return true
			})
		}
		inBubble = func(n ast.Node) bool {
			for _, arg := range n.(*ast.CallExpr).Args {
				inspect(arg, true)
			}
			return false
		}
		inspect(s.file, false)
	}
}

// TestAllocationTestsAreFound: tests that count allocations mean nothing under the
// race detector; make test runs them again without it, by their names.
func TestAllocationTestsAreFound(t *testing.T) {
	t.Parallel()
	found := regexp.MustCompile(`[Aa]lloc|Budget`) // as in the Makefile
	for _, s := range repository(t).sources {
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || !s.test || !strings.HasPrefix(d.Name.Name, "Test") || found.MatchString(d.Name.Name) {
				continue
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "AllocsPerRun" {
					t.Errorf("%s: %s counts allocations: its name has to say alloc or Budget", s.at(n), d.Name.Name)
				}
				return true
			})
		}
	}
}

var (
	tokenShape = regexp.MustCompile(`csk_live_[0-9a-f]{32}`)
	unfinished = regexp.MustCompile(`\b(T[O]DO|F[I]XME|X[X]X)\b|panic\("(s[t]ub|n[o]t implemented|u[n]implemented)`) // not found in itself
)

// sampleToken is the one that documentation may show.
const sampleToken = "csk_live_a1b2c3d4e5f67890abcdef1234567890"

// TestNothingLeftBehind: no whole token outside of tests, no mark of something
// unfinished, and every Go file ends with a newline.
func TestNothingLeftBehind(t *testing.T) {
	t.Parallel()
	for _, p := range repository(t).files {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 {
			continue // not text
		}
		if !strings.HasSuffix(p, "_test.go") && !strings.Contains(p, "/testdata/") {
			for _, found := range tokenShape.FindAllString(string(text), -1) {
				if path.Ext(p) != ".md" || found != sampleToken {
					t.Errorf("%s: a whole token: %s...", p, found[:17])
				}
			}
		}
		if path.Ext(p) == ".go" {
			if mark := unfinished.Find(text); mark != nil {
				t.Errorf("%s: unfinished: %s", p, mark)
			}
		}
	}
}

// TestFiles: what people look for at the root is there.
func TestFiles(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "REQUIREMENTS.md", "SECURITY.md",
		"Makefile", "api/keystile.txt", "go.work",
	} {
		if text, err := os.ReadFile(p); err != nil || len(bytes.TrimSpace(text)) == 0 {
			t.Errorf("%s is missing or empty", p)
		}
	}
	license, err := os.ReadFile("LICENSE")
	if err != nil || !bytes.HasPrefix(license, []byte("MIT License\n")) {
		t.Errorf("LICENSE is not that of MIT: %v", err)
	}
}

var (
	goBlock = regexp.MustCompile("(?ms)^```go\n(package main\n.*?)^```$")
	link    = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
)

// TestDocuments: the programs in Markdown files compile, and their links lead
// somewhere.
func TestDocuments(t *testing.T) {
	t.Parallel()
	for _, p := range repository(t).files {
		if path.Ext(p) != ".md" {
			continue
		}
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(path.Dir(p), target)); err != nil {
				t.Errorf("%s: a link to %s, which is not there", p, target)
			}
		}
		for _, m := range goBlock.FindAllSubmatch(text, -1) {
			file := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(file, m[1], 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("%s: a program in it: %v\n%s", p, err, out)
			}
		}
	}
}

var (
	uses   = regexp.MustCompile(`uses:\s*(\S+)(.*)`)
	pinned = regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40}$`)
	latest = regexp.MustCompile(`go (install|run|get)\b.*@(latest|main|master)\b|curl .*\|\s*(ba)?sh\b`)
)

// TestPinned: what runs in CI is pinned. Actions are named by commit, with their
// version beside it; a workflow may only read; no script takes the latest of
// anything.
func TestPinned(t *testing.T) {
	t.Parallel()
	for _, p := range repository(t).files {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		workflow := strings.HasPrefix(p, ".github/workflows/")
		script := workflow || p == "Makefile" || p == ".ci/run" || bytes.HasPrefix(text, []byte("#!"))
		if script && latest.Match(text) {
			t.Errorf("%s: %s", p, latest.Find(text))
		}
		if !workflow {
			continue
		}
		for _, m := range uses.FindAllSubmatch(text, -1) {
			if !pinned.Match(m[1]) || !bytes.Contains(m[2], []byte("# v")) {
				t.Errorf("%s: %s is not pinned to a commit with its version in a comment", p, m[1])
			}
		}
		if !bytes.Contains(text, []byte("\npermissions:\n  contents: read\n")) || bytes.Contains(text, []byte(": write")) {
			t.Errorf("%s: may do more than read", p)
		}
	}
}

// TestNames: no package is named for what it has room for.
func TestNames(t *testing.T) {
	t.Parallel()
	vague := []string{"base", "common", "helper", "helpers", "lib", "misc", "models", "shared", "types", "util", "utils"}
	for _, s := range repository(t).sources {
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		if slices.Contains(vague, name) || strings.ContainsFunc(name, func(r rune) bool { return r == '_' || unicode.IsUpper(r) }) {
			t.Errorf("%s: package %s", s.path, s.file.Name.Name)
		}
	}
}
