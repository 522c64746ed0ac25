package console_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An operation is one of the API's document: its path as an expression, and the
// parameters of its query.
type operation struct {
	method string
	path   *regexp.Regexp
	query  []string
}

// operations reads the document that the console's API serves.
func operations(t *testing.T, w *world) (ops []operation) {
	t.Helper()
	type parameter struct {
		Ref      string `json:"$ref"`
		Name, In string
	}
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Parameters map[string]parameter }
	}
	require.NoError(t, json.Unmarshal(w.get(200, "/api/v1/openapi.json", "").Body.Bytes(), &doc))
	for path, item := range doc.Paths {
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			var op struct{ Parameters []parameter }
			require.NoError(t, json.Unmarshal(raw, &op))
			found := operation{
				method: strings.ToUpper(method),
				path:   regexp.MustCompile("^" + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$"),
			}
			for _, p := range op.Parameters {
				if p.Ref != "" {
					p = doc.Components.Parameters[p.Ref[strings.LastIndex(p.Ref, "/")+1:]]
				}
				if p.In == "query" {
					found.query = append(found.query, p.Name)
				}
			}
			ops = append(ops, found)
		}
	}
	require.NotEmpty(t, ops)
	return ops
}

// documented reports whether the API has such an operation.
func documented(ops []operation, method, path string, query []string) bool {
	return slices.ContainsFunc(ops, func(op operation) bool {
		return op.method == method && op.path.MatchString(path) &&
			!slices.ContainsFunc(query, func(name string) bool { return !slices.Contains(op.query, name) })
	})
}

// TestAsksWhatIsDocumented_S1: every request that the pages are made of is in the
// API's document, whatever they are asked for with.
func TestAsksWhatIsDocumented_S1(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("olga", "export")
	ops := operations(t, w)
	w.asked = nil
	for _, path := range pages(prefix) {
		for _, query := range []string{"", "?creator=x&name=y&status=active&cursor=MQ&address=192.0.2.1&unknown=1"} {
			w.do("GET", path+query, "olga")
		}
	}
	seen := map[string]bool{}
	for _, r := range w.asked {
		var query []string
		for name := range r.URL.Query() {
			query = append(query, name)
		}
		require.True(t, documented(ops, r.Method, r.URL.Path, query), "%s %s is not in the document", r.Method, r.URL)
		seen[strings.ReplaceAll(r.URL.Path, prefix, "{prefix}")] = true
	}
	require.Len(t, seen, 10, "%v", seen)
	require.False(t, documented(ops, http.MethodPost, "/v1/me", nil))
	require.False(t, documented(ops, http.MethodGet, "/v1/me", []string{"x"}))
}

// TestScriptAsksWhatIsDocumented_S1: so is every request in the script and in what the
// templates have it send. What it really sends is shown in a browser, by the tests of
// the example.
func TestScriptAsksWhatIsDocumented_S1(t *testing.T) {
	t.Parallel()
	ops := operations(t, newWorld(t))
	script := read(t, "assets/console.js")
	place := regexp.MustCompile(`\$\{settingsPath\}`)
	hole := regexp.MustCompile(`\$\{[^}]*\}|\{\{[^}]*\}\}`)
	found := 0
	for _, m := range regexp.MustCompile("\\bcall\\(([^,]+), ([\"`][^\"`]*[\"`]|\\w+(?:\\.\\w+)*)").FindAllStringSubmatch(script, -1) {
		path := m[2]
		if path == "settingsPath" {
			path = `"v1/org/token-settings"`
		}
		if !strings.ContainsAny(path[:1], "\"`") {
			continue // from a template: below
		}
		path = hole.ReplaceAllString(place.ReplaceAllString(strings.Trim(path, "\"`"), "v1/org/token-settings"), "x")
		for _, method := range regexp.MustCompile(`"([A-Z]+)"`).FindAllStringSubmatch(m[1], -1) {
			require.True(t, documented(ops, method[1], "/"+path, nil), "%s %s", method[1], path)
			found++
		}
	}
	require.Equal(t, 6, found, "create, preview, update, read again, permit and withdraw")

	templates, err := filepath.Glob("pages/*.html")
	require.NoError(t, err)
	found = 0
	for _, file := range templates {
		text := read(t, file)
		for _, m := range regexp.MustCompile(`data-do="(\w+)"[^>]* data-path="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			method := map[string]string{"rotate": "POST", "delete": "DELETE", "disable": "PATCH"}[m[1]]
			if m[2] == "{{.Path}}" {
				continue // given to the template: the next
			}
			require.True(t, documented(ops, method, "/"+hole.ReplaceAllString(m[2], "x"), nil), m[0])
			found++
		}
		for _, m := range regexp.MustCompile(`"Path" \(print "([^"]*)" \.Prefix\)`).FindAllStringSubmatch(text, -1) {
			require.True(t, documented(ops, "DELETE", "/"+m[1]+"x", nil), m[0])
			found++
		}
	}
	require.Equal(t, 6, found)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

// TestScriptMakesNoMarkup: what needs Trusted Types is not in the script, nor is a
// place that keeps things; and every id that it looks for is in a template.
func TestScriptMakesNoMarkup(t *testing.T) {
	t.Parallel()
	script := read(t, "assets/console.js")
	for _, sink := range []string{
		"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser", "srcdoc", "setAttribute(\"on",
		"localStorage", "sessionStorage", "indexedDB", "document.cookie", "console.", "import ", "import(", "pushState", "window.open",
	} {
		require.NotContains(t, script, sink)
	}
	templates, err := filepath.Glob("pages/*.html")
	require.NoError(t, err)
	var text strings.Builder
	for _, file := range templates {
		text.WriteString(read(t, file))
	}
	ids := regexp.MustCompile(`byId\("([^"]+)"\)`).FindAllStringSubmatch(script, -1)
	require.Greater(t, len(ids), 30)
	for _, m := range ids {
		require.Contains(t, text.String(), `id="`+m[1]+`"`)
	}
	for _, m := range regexp.MustCompile(`\["([a-z-]+)", "([a-z-]+-problem)"\]`).FindAllStringSubmatch(script, -1) {
		require.Contains(t, text.String(), `id="`+m[1]+`"`)
		require.Contains(t, text.String(), `id="`+m[2]+`"`)
	}
}

// TestScriptIsWhole: outside of its texts the script has every bracket that it opens.
// Whether it is right is seen where it runs, in a browser.
func TestScriptIsWhole(t *testing.T) {
	t.Parallel()
	code := read(t, "assets/console.js")
	for _, text := range []string{
		`(?m)^\s*//.*$`, `(?m)\s//\s.*$`, `/\^[^/\n]*/`, `"(?:[^"\\\n]|\\.)*"`, "`[^`]*`",
	} {
		code = regexp.MustCompile(text).ReplaceAllString(code, "")
	}
	require.NotContains(t, code, `"`)
	require.NotContains(t, code, "`")
	var open []rune
	for _, c := range code {
		switch i := strings.IndexRune("([{)]}", c); {
		case i >= 3:
			require.NotEmpty(t, open, "%c is not opened", c)
			require.Equal(t, string("([{"[i-3]), string(open[len(open)-1]))
			open = open[:len(open)-1]
		case i >= 0:
			open = append(open, c)
		}
	}
	require.Empty(t, open)
}

// TestStyleIsUsed: every class of a template has a style, or is looked for by the
// script, and the other way around.
func TestStyleIsUsed(t *testing.T) {
	t.Parallel()
	style := read(t, "assets/console.css")
	templates, err := filepath.Glob("pages/*.html")
	require.NoError(t, err)
	used := map[string]bool{"link": true} // by the script
	for _, file := range templates {
		for _, m := range regexp.MustCompile(`class="([^"]*)"`).FindAllStringSubmatch(read(t, file), -1) {
			for name := range strings.FieldsSeq(regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAllString(m[1], " ")) {
				used[name] = true
			}
		}
	}
	for _, state := range []string{"active", "expired", "disabled_by_owner", "revoked"} {
		used[state] = true
	}
	for _, m := range regexp.MustCompile(`\.([a-z][a-z_-]*)`).FindAllStringSubmatch(regexp.MustCompile(`\{[^{}]*\}`).ReplaceAllString(style, "{}"), -1) {
		require.True(t, used[m[1]], "the style of .%s is not used", m[1])
	}
}
