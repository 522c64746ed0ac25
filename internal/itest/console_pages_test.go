package itest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
)

// consolePages returns every page of the console as an owner sees them, with keys of
// writeBootstrap, and those that say what went wrong.
func consolePages(s *service) map[string]string {
	return map[string]string{
		"my-keys":     "/console/",
		"my-key":      "/console/keys/" + s.key("ann").Prefix,
		"all-keys":    "/console/org/keys",
		"none-found":  "/console/org/keys?name=nothing+has+this+name",
		"key":         "/console/org/keys/" + s.key("old").Prefix,
		"expired-key": "/console/org/keys/" + s.key("late").Prefix,
		"settings":    "/console/org/settings",
		"people":      "/console/org/people",
		"not-found":   "/console/nothing/here",
		"pick":        "/dev/sign-in",
	}
}

// axeSource reads axe-core, which tools/testdeps fetches.
var axeSource = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile(filepath.Join("..", "..", ".bin", "axe", "node_modules", "axe-core", "axe.min.js"))
	if os.IsNotExist(err) {
		return "", fmt.Errorf("axe-core, which tools/testdeps fetches: %w", servers.ErrMissing)
	}
	return string(text), err
})

// requireAccessible requires that axe-core finds nothing wrong with the page as it
// is shown now, and could decide on what it looked at.
func (b *tab) requireAccessible(what string) {
	b.tb.Helper()
	source, err := axeSource()
	servers.Check(b.tb, err)
	eval[any](b, "{"+strings.ReplaceAll(source, "%", "%%")+"\n};null")
	type result struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML, FailureSummary string }
	}
	got := eval[struct{ Violations, Incomplete, Passes []result }](b, `axe.run(document, {resultTypes: ['violations', 'incomplete']})`)
	require.Greater(b.tb, len(got.Passes), 10, "%s: rules that were checked", what)
	for _, v := range got.Violations {
		for _, n := range v.Nodes {
			b.tb.Errorf("%s: %s (%s): %s\n%s\n%s", what, v.ID, v.Impact, v.Help, n.HTML, n.FailureSummary)
		}
	}
}

// TestConsoleAccessible: axe-core finds no violation on any page, in light and in
// dark, on a desktop and on a phone, where no page is wider than the screen either.
func TestConsoleAccessible(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"light", "dark"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			s, w := startConsole(t, writeBootstrap(t))
			b := openTab(t, w.base)
			b.expect("/console/nothing/here")
			b.expect("401 (Unauthorized)")
			b.scheme(scheme)
			b.open("/console/")
			b.sees("You are not signed in.")
			b.requireAccessible("sign-in-" + scheme)
			b.click("Sign in")
			b.click("ann")
			b.sees("My keys")
			for name, path := range consolePages(s) {
				for _, device := range []struct {
					name          string
					width, height int64
				}{{"desktop", 1280, 800}, {"phone", 360, 740}} {
					what := name + "-" + scheme + "-" + device.name
					b.size(device.width, device.height)
					b.open(path)
					b.requireAccessible(what)
					require.LessOrEqual(t, eval[int64](b, `document.documentElement.scrollWidth`), device.width, what)
					b.screenshot(what)
				}
			}
			b.size(360, 740)
			b.dialogs(scheme)
		})
	}
}

// dialogs opens each dialog, on a page of the owner ann, and requires that it is
// accessible.
func (b *tab) dialogs(scheme string) {
	b.tb.Helper()
	check := func(name string) {
		b.tb.Helper()
		b.until(`document.querySelector('dialog[open]') !== null`)
		b.requireAccessible(name + "-" + scheme)
		b.screenshot(name + "-" + scheme)
	}
	b.open("/console/")
	b.click("Rotate ann's")
	check("dialog-rotate")
	b.click("Cancel")
	b.click("Delete ann's")
	check("dialog-delete")
	b.click("Cancel")
	b.create("for the dialog")
	check("dialog-token")
	b.click("Continue")
	b.sees("was created")
	b.settings()
	b.click("Only chosen people may create and use API keys")
	b.choose("Keys expire after", "30 days")
	b.fill("Keys may be used from", "192.0.2.0/24")
	b.review()
	check("dialog-review")
	require.LessOrEqual(b.tb, eval[int64](b, `document.documentElement.scrollWidth`), int64(360))
}

const hostileBootstrap = `{"orgs":[{"name":"</title><script>window.pwned=1</script>","settings":{"restrictedAccessTokens":false,"apiTokenMaxAge":0,
 "apiAllowedIPs":["127.0.0.1","# </textarea><script>window.pwned=1</script>"]},"users":[
  {"id":"ann","email":"ann@acme.example","role":"owner","tier":"Pro","keys":KEYS},
  {"id":"\"><img src=x onerror=window.pwned=1>","email":"<svg/onload=window.pwned=1>@acme.example","role":"user","tier":"<b>Pro"}]}]}`

// hostileNames are names of keys that a page must show as they are.
var hostileNames = []string{
	`<script>window.pwned=1</script>`,
	`"><img src=x onerror=window.pwned=1>`,
	`' onmouseover='window.pwned=1' x='`,
	`עברית {{.}} ${window.pwned=1} العربية javascript:window.pwned=1`,
	strings.Repeat("👩‍👩‍👧‍👦W", 12),
}

// TestConsoleHostileNames: whatever people call their keys and themselves, and
// whatever a client calls itself, is shown as it is on every page, runs no script,
// and breaks no page of a phone.
func TestConsoleHostileNames(t *testing.T) {
	t.Parallel()
	var keys []map[string]any
	for i, name := range hostileNames {
		keys = append(keys, map[string]any{"ref": fmt.Sprint(i), "name": name})
	}
	text, err := json.Marshal(keys)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "hostile.json")
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(hostileBootstrap, "KEYS", string(text), 1)), 0o600))
	s, w := startConsole(t, file)
	s.require(200, "GET", "/v1/ping", s.key("0").Token, nil, "User-Agent", `<script>window.pwned=1</script>"'>`)

	b := openTab(t, w.base)
	b.signIn("ann")
	ann := s.jwt("ann")
	require.Eventually(t, func() bool {
		return strings.Contains(s.do("GET", "/v1/org/api-keys", ann, nil).body, "pwned=1\\u003c/script\\u003e\\\"'")
	}, patient, often, "the use is written")
	pages := map[string][]string{
		"/console/":             hostileNames,
		"/console/org/keys":     hostileNames,
		"/console/org/people":   {`"><img src=x onerror=window.pwned=1>`, `<svg/onload=window.pwned=1>@acme.example`},
		"/console/org/settings": nil,
		"/console/org/keys?name=%3Cscript%3Ewindow.pwned=1%3C/script%3E&creator=%22%3E%3Cimg+src=x+onerror=window.pwned=1%3E": nil,
		"/console/org/keys/%3Cscript%3Ewindow.pwned=1%3C%2Fscript%3E":                                                         nil,
	}
	for i, name := range hostileNames {
		pages["/console/keys/"+s.key(fmt.Sprint(i)).Prefix] = []string{name}
		pages["/console/org/keys/"+s.key(fmt.Sprint(i)).Prefix] = []string{name}
	}
	b.expect("404") // for the one that is no prefix
	for path, names := range pages {
		for _, width := range []int64{1280, 360} {
			b.size(width, 740)
			b.open(path)
			b.sees(names...)
			require.Equal(t, "undefined", eval[string](b, "typeof window.pwned"), path)
			require.Zero(t, eval[int](b, `document.querySelectorAll('script:not([src]), img, svg[onload], [onerror], [onmouseover], [onload]').length`), path)
			require.LessOrEqual(t, eval[int64](b, `document.documentElement.scrollWidth`), width, path)
		}
	}
	b.open("/console/org/settings")
	require.Contains(t, eval[string](b, `[...document.querySelectorAll('textarea')].map(e => e.value).join()`), "# </textarea><script>")
	b.screenshot("hostile-names")
}
