package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A citation is a place that cites a requirement.
type citation struct {
	file  string // slashes, from the root
	test  string // the function, if it is one that go test runs
	head  bool   // its name or comment cites it, not only its body
	loose bool   // it lies within a range that is cited, and is not named itself
}

var (
	// A range, S35-S42, cites all in it.
	number = regexp.MustCompile(`\b([SD])([1-9]\d?)(?:[-–]([SD])([1-9]\d?))?\b`)
	// In a name: TestS12AtMostFive, TestCap_S12.
	inName = regexp.MustCompile(`([SD])([1-9]\d?)(?:_|$|[A-Z])`)
	tested = regexp.MustCompile(`^(Test|Fuzz|Benchmark|Example)(_|[^a-z]|$)`)
)

// suites are the directories of conformance suites: tests in files that are not
// named so.
var suites = []string{"ratelimit/ratelimittest", "store/storetest"}

// cite returns the citations in the Go tests below root by number.
func cite(root string) (map[string][]citation, error) {
	found := map[string][]citation{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".bin", ".cover", "testdata", "tools"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		// This program's own tests cite numbers that mean nothing.
		isTest := strings.HasSuffix(rel, "_test.go") || slices.Contains(suites, path.Dir(rel)) && path.Ext(rel) == ".go"
		if !isTest || strings.HasPrefix(rel, "internal/reqtable/") {
			return nil
		}
		return citeFile(found, p, rel)
	})
	return found, err
}

// citeFile adds the citations of one file.
func citeFile(found map[string][]citation, p, rel string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	add := func(pos token.Pos, numbers []string) {
		c := citation{file: rel}
		for _, decl := range f.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || d.Recv != nil || !tested.MatchString(d.Name.Name) {
				continue
			}
			from := d.Pos()
			if d.Doc != nil {
				from = d.Doc.Pos()
			}
			if from <= pos && pos < d.End() {
				c.test = d.Name.Name
				c.head = d.Body == nil || pos < d.Body.Pos()
			}
		}
		for _, n := range numbers {
			n, c.loose = strings.CutPrefix(n, "~")
			found[n] = append(found[n], c)
		}
	}
	for _, group := range f.Comments {
		add(group.Pos(), numbers(group.Text()))
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				add(n.Pos(), numbers(n.Value))
			}
		case *ast.FuncDecl:
			for _, m := range inName.FindAllStringSubmatch(n.Name.Name, -1) {
				add(n.Name.Pos(), []string{m[1] + m[2]})
			}
		}
		return true
	})
	return nil
}

// numbers returns the requirements that text cites; with a tilde those that lie
// within a range.
func numbers(text string) (all []string) {
	for _, m := range number.FindAllStringSubmatch(text, -1) {
		from, _ := strconv.Atoi(m[2])
		to := from
		if m[3] == m[1] {
			to, _ = strconv.Atoi(m[4])
		} else if m[3] != "" {
			all = append(all, m[3]+m[4])
		}
		for n := from; n <= to; n++ {
			loose := ""
			if from < n && n < to {
				loose = "~"
			}
			all = append(all, fmt.Sprintf("%s%s%d", loose, m[1], n))
		}
	}
	return all
}
