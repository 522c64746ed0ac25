package itest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
)

// sharedBrowser starts the one Chromium of all tests, whose tabs share nothing.
var sharedBrowser = sync.OnceValues(func() (context.Context, error) {
	path, err := servers.FindChromium()
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		// Nothing but this machine is reached, whatever a page or the browser asks for.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which root cannot have
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	whenOver(func() error {
		defer stop()
		return chromedp.Cancel(ctx)
	})
	return ctx, nil
})

// A tab is a page in the browser, with cookies and storage of its own. What no page
// may cause fails the test at its end: a violation of a Content-Security-Policy, an
// exception, an error in the browser's console, a request to another origin.
type tab struct {
	tb   testing.TB
	ctx  context.Context
	base string   // of the addresses that are opened
	more []string // origins beside it that requests may go to

	mu       sync.Mutex
	requests []*network.Request
	problems []string
	expected []string // are no problems
}

// openTab makes a tab for pages below base, in a window of a desktop computer.
// Requests may go to the other origins too.
func openTab(t testing.TB, base string, more ...string) *tab {
	t.Helper()
	browser, err := sharedBrowser()
	servers.Check(t, err)
	b := &tab{tb: t, base: base, more: more}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.listen))
	b.ctx = ctx
	require.NoError(t, chromedp.Do(ctx))
	// The context of a command must not be that of the first one, which is the life of
	// the tab.
	timed, stop := context.WithTimeout(ctx, 5*time.Minute)
	b.ctx = timed
	t.Cleanup(func() {
		defer cancel()
		defer stop()
		if t.Failed() {
			b.screenshot("failed-" + strings.ReplaceAll(t.Name(), "/", "-"))
		}
		for _, p := range b.unexpected() {
			t.Errorf("the browser reports: %s", p)
		}
	})
	command(b, network.Enable, network.EnableParams{})
	command(b, log.Enable, cdp.Empty{})
	command(b, audits.Enable, cdp.Empty{})
	b.size(1280, 800)
	b.scheme("light")
	return b
}

// command sends a command of the DevTools protocol. While the tab has no page, because
// it is going from one to the next, the command is not carried out, and so sent again.
func command[P, R any](b *tab, c cdp.Command[P, R], params P) R {
	b.tb.Helper()
	result, err := chromedp.Call(b.ctx, c, params)
	for began := time.Now(); says(err, "Not attached to an active page") && time.Since(began) < patient; {
		result, err = chromedp.Call(b.ctx, c, params)
	}
	require.NoError(b.tb, err)
	return result
}

// eval runs an expression in the page and returns its value, that of a promise when
// it is fulfilled. If the page is replaced before that, it runs in the one that comes:
// so nothing that it does may replace the page.
func eval[T any](b *tab, expression string, args ...any) T {
	b.tb.Helper()
	got, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script(expression, args...), chromedp.EvalAwaitPromise))
	for began := time.Now(); isReplaced(err) && time.Since(began) < patient; {
		got, err = chromedp.Run(b.ctx, chromedp.Evaluate[T](script(expression, args...), chromedp.EvalAwaitPromise))
	}
	require.NoError(b.tb, err, expression)
	return got
}

// isReplaced reports whether err says that the page that was asked is no more, which
// can be for no other reason than that the tab went on to the next one.
func isReplaced(err error) bool {
	return says(err, "Inspected target navigated or closed") || says(err, "Not attached to an active page")
}

func says(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

// script puts arguments into a format, as literals of JavaScript.
func script(format string, args ...any) string {
	var literals []any
	for _, a := range args {
		text, _ := json.Marshal(a)
		literals = append(literals, string(text))
	}
	return fmt.Sprintf(format, literals...)
}

// listen keeps what the browser reports.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request)
		u := e.Request.URL
		ours := func(origin string) bool { return strings.HasPrefix(u, origin+"/") }
		if u != "about:blank" && !ours(b.base) && !slices.ContainsFunc(b.more, ours) {
			b.problems = append(b.problems, "a request to another origin: "+u)
		}
	case *audits.EventIssueAdded:
		if d := e.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			b.problems = append(b.problems, fmt.Sprintf("a violation of %s: %s %s", d.ViolatedDirective, d.ContentSecurityPolicyViolationType, d.BlockedURL))
		}
	case *runtime.EventExceptionThrown:
		d := e.ExceptionDetails
		text := d.Text
		if d.Exception != nil {
			text += " " + d.Exception.Description
		}
		b.problems = append(b.problems, "an exception: "+text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.problems = append(b.problems, fmt.Sprintf("in its log: %s %s", e.Entry.Text, e.Entry.URL))
		}
	}
}

// expect says that problems with a text in them are none: an answer 409, say, is in
// the browser's log too.
func (b *tab) expect(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, text)
}

func (b *tab) unexpected() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
next:
	for _, p := range b.problems {
		for _, e := range b.expected {
			if strings.Contains(p, e) {
				continue next
			}
		}
		all = append(all, p)
	}
	return all
}

// sent returns the requests of the tab until now.
func (b *tab) sent() []*network.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*network.Request(nil), b.requests...)
}

// body returns what a request has sent.
func body(r *network.Request) string {
	var all strings.Builder
	for _, e := range r.PostDataEntries {
		all.Write(e.Bytes)
	}
	return all.String()
}

// open goes to an address below base.
func (b *tab) open(path string) {
	b.tb.Helper()
	require.NoError(b.tb, chromedp.Do(b.ctx, chromedp.Navigate(b.base+path)))
}

// history goes back or forward by a number of pages, as with the browser's buttons,
// and waits for that one. A script that does it may be gone before it has answered.
func (b *tab) history(by int, path string) {
	b.tb.Helper()
	all := command(b, page.GetNavigationHistory, cdp.Empty{})
	at := int(all.CurrentIndex) + by
	require.Less(b.tb, at, len(all.Entries))
	require.GreaterOrEqual(b.tb, at, 0)
	command(b, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: all.Entries[at].ID})
	b.until(`location.pathname === %s && document.readyState === "complete"`, path)
}

// reload loads the page anew.
func (b *tab) reload() {
	b.tb.Helper()
	require.NoError(b.tb, chromedp.Do(b.ctx, chromedp.Reload()))
}

// size sets the size of the page in CSS pixels.
func (b *tab) size(width, height int64) {
	b.tb.Helper()
	require.NoError(b.tb, chromedp.Do(b.ctx, chromedp.EmulateViewport(width, height)))
}

// scheme makes the viewer one who prefers light or dark, and nothing that moves: it
// would move from under the mouse.
func (b *tab) scheme(name string) {
	b.tb.Helper()
	command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: name},
			{Name: "prefers-reduced-motion", Value: "reduce"},
		},
	})
}

// zone puts the viewer in a time zone.
func (b *tab) zone(name string) {
	b.tb.Helper()
	command(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: name})
}

// lookup finds what a person means by a name: an element of some kinds that is
// visible and enabled, and in the dialog if one is open, and has the name as its label or its
// text. Where scope is not empty, it is in the smallest row, item or section with
// that text.
const lookup = `((kinds, name, scope) => {
	const plain = s => (s ?? '').replace(/\s+/g, ' ').trim();
	const open = [...document.querySelectorAll('dialog[open]')];
	let root = open.length ? open[open.length - 1] : document.body;
	if (scope) {
		const has = [...root.querySelectorAll('tr, li, article, section, fieldset, form, dialog')].filter(
			e => e.checkVisibility() && plain(e.textContent).includes(scope));
		root = has.find(e => !has.some(o => o !== e && e.contains(o)));
		if (!root) return null;
	}
	const names = e => [
		e.getAttribute('aria-label'),
		...[...(e.labels ?? [])].map(l => l.textContent),
		...(e.getAttribute('aria-labelledby') ?? '').split(' ').filter(Boolean).map(id => document.getElementById(id)?.textContent),
		['BUTTON', 'A', 'SUMMARY'].includes(e.tagName) ? e.textContent : null,
	].filter(s => s !== null && s !== undefined).map(plain);
	const all = [...root.querySelectorAll(kinds)].filter(e => e.checkVisibility({visibilityProperty: true}) && !e.matches(':disabled'));
	return all.find(e => names(e).includes(name)) ?? all.find(e => names(e).some(n => n.startsWith(name))) ?? null;
})`

const (
	pressable = "button, a[href], summary, input[type=checkbox], input[type=radio], [role=button]"
	fillable  = "input, textarea, select"
)

// until waits until an expression is true.
func (b *tab) until(expression string, args ...any) {
	b.tb.Helper()
	source := script(expression, args...)
	again, enough := time.NewTicker(10*time.Millisecond), time.After(patient)
	defer again.Stop()
	var last error
	for waiting := true; waiting; {
		// A page that is being replaced cannot answer.
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](source))
		if err == nil && ok {
			return
		}
		last = err
		select {
		case <-again.C:
		case <-enough:
			waiting = false
		}
	}
	shown, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	b.tb.Logf("unexpected: %v", b.unexpected())
	require.FailNow(b.tb, "not so: "+strings.TrimPrefix(source, lookup), "%v\nthe page shows:\n%s", last, shown)
}

// sees waits until the page shows a text.
func (b *tab) sees(texts ...string) {
	b.tb.Helper()
	for _, text := range texts {
		b.until(`document.body.innerText.replace(/\s+/g, ' ').includes(%s)`, text)
	}
}

// shown returns what the page shows, with runs of blanks as one.
func (b *tab) shown() string {
	b.tb.Helper()
	return eval[string](b, `document.body.innerText.replace(/\s+/g, ' ')`)
}

// click clicks with the mouse on what has a name, where the mouse would meet it.
func (b *tab) click(name string, scope ...string) {
	b.tb.Helper()
	b.until(`document.readyState === 'complete' && `+lookup+`(%s, %s, %s) !== null`, pressable, name, strings.Join(scope, ""))
	at := eval[[]float64](b, `(e => {
		e.scrollIntoView({block: 'center', behavior: 'instant'});
		const r = (e.getClientRects()[0]);
		const [x, y] = [r.x + r.width / 2, r.y + r.height / 2];
		const hit = document.elementFromPoint(x, y);
		return hit && (e.contains(hit) || [...(e.labels ?? [])].some(l => l.contains(hit))) ? [x, y] : [];
	})(`+lookup+`(%s, %s, %s))`, pressable, name, strings.Join(scope, ""))
	require.Len(b.tb, at, 2, "%q is covered by something", name)
	require.NoError(b.tb, chromedp.Do(b.ctx, chromedp.MouseClickXY(at[0], at[1])))
}

// fill replaces what is in the field of a name, by typing.
func (b *tab) fill(name, text string, scope ...string) {
	b.tb.Helper()
	b.until(`document.readyState === 'complete' && `+lookup+`(%s, %s, %s) !== null`, fillable, name, strings.Join(scope, ""))
	eval[bool](b, `(e => { e.focus(); if (e.select) e.select(); return document.activeElement === e })(`+lookup+`(%s, %s, %s))`,
		fillable, name, strings.Join(scope, ""))
	if text == "" {
		b.keys("\b")
		return
	}
	b.keys(text)
}

// choose selects an option, by its text, of the field of a name.
func (b *tab) choose(name, option string) {
	b.tb.Helper()
	b.until(lookup+`('select', %s, '')?.options.length > 0`, name)
	require.True(b.tb, eval[bool](b, `((s, text) => {
		const o = [...s.options].find(o => o.textContent.trim() === text);
		if (!o) return false;
		s.value = o.value;
		s.dispatchEvent(new Event('input', {bubbles: true}));
		s.dispatchEvent(new Event('change', {bubbles: true}));
		return true;
	})(`+lookup+`('select', %s, ''), %s)`, name, option), "%q has no option %q", name, option)
}

// keys presses keys, of which "\t" and "\r" are Tab and Enter.
func (b *tab) keys(text string) {
	b.tb.Helper()
	require.NoError(b.tb, chromedp.Do(b.ctx, chromedp.KeyEvent(text)))
}

// artefacts is where screenshots go: the directory that the environment names, or
// one below artifacts of the repository, which git ignores.
func artefacts() string {
	if dir := os.Getenv("KEYSTILE_ARTIFACTS"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "artifacts", "console")
}

// screenshot writes what the page looks like to a file of that name among the
// artefacts, and returns it.
func (b *tab) screenshot(name string) []byte {
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.tb.Logf("screenshot: %v", err)
		return nil
	}
	if err := os.MkdirAll(artefacts(), 0o755); err == nil {
		err = os.WriteFile(filepath.Join(artefacts(), name+".png"), png, 0o644)
		if err != nil {
			b.tb.Logf("screenshot: %v", err)
		}
	}
	return png
}

// TestBrowserPageReplaced: what is asked of a page that goes meanwhile, the next one
// answers.
func TestBrowserPageReplaced(t *testing.T) {
	t.Parallel()
	_, w := startConsole(t, writeBootstrap(t))
	b := openTab(t, w.base)
	b.signIn("ann")
	require.Equal(t, "the next", eval[string](b, `(() => {
		if (window.name) return window.name;
		window.name = 'the next';
		location.reload();
		return new Promise(() => {});
	})()`))
	b.open("/dev/sign-in")
	for range 5 {
		b.history(-1, "/console/")
		b.history(1, "/dev/sign-in")
	}
}
