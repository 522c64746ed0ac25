package itest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// shownToken waits for the one token that the page shows.
func (b *tab) shownToken() string {
	b.tb.Helper()
	b.until(`/csk_live_[0-9a-f]{32}/.test(document.body.innerText)`)
	return tokenPattern.FindString(b.shown())
}

// create makes a key on the page of one's own, and leaves its token to be seen.
func (b *tab) create(name string) {
	b.tb.Helper()
	b.fill("Name", name)
	b.click("Create key")
}

// keeps returns all that the page, its history and its storage keep.
func (b *tab) keeps() string {
	b.tb.Helper()
	kept := eval[string](b, `(async () => [
		document.documentElement.outerHTML,
		...[...document.querySelectorAll('input, textarea, output, select')].map(e => e.value),
		location.href, document.title, window.name, document.cookie,
		JSON.stringify(history.state),
		JSON.stringify({...localStorage}),
		JSON.stringify({...sessionStorage}),
		JSON.stringify(await indexedDB.databases()),
		JSON.stringify(await caches.keys()),
		JSON.stringify((await navigator.serviceWorker.getRegistrations()).length),
	].join('\n'))()`)
	history, err := chromedp.Run(b.ctx, chromedp.NavigationEntries())
	require.NoError(b.tb, err)
	entries, err := json.Marshal(history)
	require.NoError(b.tb, err)
	tree := command(b, page.CaptureSnapshot, page.CaptureSnapshotParams{})
	return kept + "\n" + string(entries) + "\n" + tree.Data
}

// requireForgotten requires that a token is in nothing that the tab keeps, has sent
// since its n-th request, or was answered since the m-th exchange.
func (b *tab) requireForgotten(w *wire, token string, n, m int, when string) {
	b.tb.Helper()
	secret := token[len("csk_live_")+8:]
	require.NotContains(b.tb, b.keeps(), secret, when)
	for _, r := range b.sent()[n:] {
		require.NotContains(b.tb, fmt.Sprint(r.URL, r.URLFragment, r.Headers, body(r)), secret, when)
	}
	for _, e := range w.since(m) {
		require.NotContains(b.tb, e.request+e.response, secret, when)
	}
}

// TestConsoleTokenOnce: S16, S17, S57, D29: the token is shown once, with a button
// that copies it and a warning. After Continue, after leaving the page and Back, and
// after a reload it is nowhere.
func TestConsoleTokenOnce(t *testing.T) {
	t.Parallel()
	back := func(b *tab) { b.history(-1, "/dev/sign-in") }
	forward := func(b *tab) { b.history(1, "/console/") }
	away := func(b *tab) { b.open("/dev/sign-in"); b.history(-1, "/console/") }
	goOn := func(b *tab) {
		b.click("Continue")
		b.sees("“made here” was created.")
	}
	for name, leave := range map[string]func(b *tab){
		"continue":                     goOn,
		"continue and back":            func(b *tab) { goOn(b); back(b) },
		"continue, back and forward":   func(b *tab) { goOn(b); back(b); forward(b) },
		"continue, elsewhere and back": func(b *tab) { goOn(b); away(b) },
		"continue and reload":          func(b *tab) { goOn(b); b.reload() },
		"reload":                       (*tab).reload,
		"elsewhere and back":           away,
		"back and forward":             func(b *tab) { back(b); forward(b) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, w := startConsole(t, writeBootstrap(t))
			b := openTab(t, w.base)
			b.signIn("cid")
			b.create("made here")
			token := b.shownToken()
			answers := 0
			for _, e := range w.since(0) {
				answers += strings.Count(e.response, token)
				require.NotContains(t, e.request, token)
			}
			require.Equal(t, 1, answers, "in one answer")
			b.sees("Continue")
			n, m := len(b.sent()), len(w.since(0))
			leave(b)
			b.until(`!document.body.innerText.includes(%s)`, token)
			b.requireForgotten(w, token, n, m, name)
			b.open("/console/")
			b.sees("made here", token[:17])
			b.requireForgotten(w, token, n, m, name)
		})
	}
}
