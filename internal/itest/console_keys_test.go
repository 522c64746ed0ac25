package itest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ownKeys returns the keys of a person, by name.
func ownKeys(s *service, jwt string) map[string]map[string]any {
	s.tb.Helper()
	all := make(map[string]map[string]any)
	for _, k := range s.require(200, "GET", "/v1/api-keys", jwt, nil).data("keys").([]any) {
		key := k.(map[string]any)
		all[key["name"].(string)] = key
	}
	return all
}

// TestConsoleOwnKeys: S51, S12, D10, S17, S18, S19, D39: what is told of one's keys,
// creation with a limit and an end, what is wrong with a field, rotation with a
// grace period, and deletion after a confirmation.
func TestConsoleOwnKeys(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, writeBootstrap(t))
	bob := s.jwt("bob")
	for range 2 {
		s.require(200, "GET", "/v1/ping", s.key("three").Token, nil)
	}
	b := openTab(t, w.base)
	b.signIn("bob")

	// What holds the places, and why two of them do not work.
	b.sees("4 of 5 places are taken", "three a day", "disabled (Disabled by owner)", "expired (Expired)",
		"An owner has disabled it.", "It has come to its own end.", "2 of 3 requests", "0 of 250 requests")
	require.NotContains(t, b.shown(), "revoked")
	require.Equal(t, 4, eval[int](b, `document.querySelectorAll('svg[role=img]').length`), "charts")

	// A field that is wrong is told of at the field.
	b.fill("Name", "   ")
	b.fill("Requests a day", "250")
	b.expect("400 (Bad Request)")
	b.click("Create key")
	b.until(`document.getElementById('create-name').getAttribute('aria-invalid') === 'true' && document.getElementById('create-name-problem').innerText !== ''`)

	// The fifth key, with all that one can say.
	b.fill("Name", "with all")
	b.fill("Requests a day", "7")
	b.choose("Ends", "after 30 days")
	b.click("Create key")
	token := b.shownToken()
	b.sees("It is shown this once.")
	b.screenshot("token-shown")
	b.click("Continue")
	b.sees("5 of 5 places are taken", "with all", "0 of 7 requests")
	k := ownKeys(s, bob)["with all"]
	require.EqualValues(t, 7, k["dailyLimit"])
	end, err := time.Parse(time.RFC3339, k["expiresAt"].(string))
	require.NoError(t, err)
	require.InDelta(t, 30*24, time.Until(end).Hours(), 25, "hours until its end")
	status, _ := s.ping(token)
	require.Equal(t, 200, status)

	// There is no sixth.
	require.Nil(t, eval[any](b, `document.getElementById('create-form')`))
	b.sees("5")

	// Rotation: the old token works for the time that was chosen.
	b.click("Rotate with all")
	b.sees("Choose how long the old token works")
	b.choose("The old token works", "for an hour")
	b.screenshot("rotate")
	b.click("Rotate")
	second := b.shownToken()
	require.NotEqual(t, token, second)
	b.click("Continue")
	b.sees("It was rotated, and works until")
	for _, works := range []string{token, second} {
		status, _ := s.ping(works)
		require.Equal(t, 200, status)
	}

	// Deletion: nothing happens before the confirmation.
	b.click("Delete three a day")
	b.sees("three a day")
	b.screenshot("delete")
	b.click("Cancel")
	require.Contains(t, ownKeys(s, bob), "three a day")
	b.click("Delete three a day")
	b.until(`document.getElementById('confirm-dialog').open`)
	b.click("Delete")
	b.sees("“three a day” was deleted.")
	require.NotContains(t, eval[string](b, `document.querySelector('ul.keys').innerText`), "three a day")
	require.NotContains(t, ownKeys(s, bob), "three a day")
	status, reason := s.ping(s.key("three").Token)
	require.Equal(t, "401 invalid_token", fmt.Sprint(status, " ", reason))
	b.sees("4 of 5 places are taken")
	require.Positive(t, requireDocumented(t, s, w), "S1")
}

// TestConsoleKeyboard: somebody without a mouse, from the first Tab on, makes a key,
// copies its token and goes on, and deletes it.
func TestConsoleKeyboard(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, consoleBootstrap(t))
	b := openTab(t, w.base)
	b.signIn("eve")
	b.sees("You have no API keys yet.", "0 of 5 places are taken")
	b.screenshot("no-keys")

	// tab goes on until what has the focus is what somebody looks for.
	focus := func(what string) {
		t.Helper()
		for range 40 {
			if got := eval[string](b, `(e => (e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent).replace(/\s+/g, ' ').trim())(document.activeElement)`); got == what {
				require.True(t, eval[bool](b, `document.activeElement.matches(':focus-visible')`), "%s: the focus can be seen", what)
				return
			}
			b.keys("\t")
		}
		require.FailNow(t, "the focus does not get to "+what)
	}
	b.open("/console/")
	focus("Skip to the content")
	b.keys("\r")
	b.until(`document.activeElement.id === 'main'`)
	focus("Name")
	b.keys("by keyboard\r")
	token := b.shownToken()
	require.True(t, eval[bool](b, `document.getElementById('token-dialog').contains(document.activeElement)`), "the focus is in the dialog")
	b.keys("\x1b") // Escape does not lose a token that nobody has copied
	require.Equal(t, token, b.shownToken())
	focus("Copy")
	b.keys("\r")
	b.sees("Copied")
	focus("Continue")
	b.keys("\r")
	b.until(`!document.body.innerText.includes(%s)`, token)
	b.sees("by keyboard", "1 of 5 places are taken")
	status, _ := s.ping(token)
	require.Equal(t, 200, status)

	focus("Delete by keyboard")
	b.keys("\r")
	b.until(`document.getElementById('confirm-dialog').open`)
	require.True(t, eval[bool](b, `document.getElementById('confirm-dialog').contains(document.activeElement)`))
	b.keys("\x1b")
	b.until(`!document.getElementById('confirm-dialog').open`)
	focus("Delete by keyboard")
	b.keys("\r")
	b.until(`document.getElementById('confirm-dialog').open`)
	focus("Delete")
	b.keys("\r")
	b.sees("0 of 5 places are taken")
	status, _ = s.ping(token)
	require.Equal(t, 401, status)
}

// consoleBootstrap is writeBootstrap with eve, who has no key yet.
func consoleBootstrap(t *testing.T) string {
	t.Helper()
	return writeBootstrapWith(t, `{"id":"eve","email":"eve@acme.example","role":"user","tier":"Pro"},`)
}

// TestConsoleAllKeys: S20, S47-S50: the owner's table: status and why, creator, use;
// search, filter and pages; why a key is refused; and deletion of anybody's key.
// Others see none of it.
func TestConsoleAllKeys(t *testing.T) {
	t.Parallel()
	requireBrowser(t)
	file := filepath.Join(t.TempDir(), "keys.db")
	fill(t, file, 12, 5)
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-store", "sqlite:"+file)
	w := tap(t, s.base)
	s.require(200, "GET", "/v1/ping", s.key("ann").Token, nil, "User-Agent", "siem-export/2.1")
	ann := s.jwt("ann")
	require.Eventually(t, func() bool {
		return strings.Contains(s.do("GET", "/v1/org/api-keys?name=ann", ann, nil).body, "siem-export/2.1")
	}, patient, often, "the use is written")
	b := openTab(t, w.base)
	b.signIn("ann")
	b.click("All keys")
	b.until(`location.pathname === "/console/org/keys" && document.readyState === "complete"`)
	require.Equal(t, []string{"Key", "Created", "Status", "Last used", "Expires", "Actions"},
		eval[[]string](b, `[...document.querySelectorAll('thead th')].map(e => e.textContent)`))
	rows := func() int { return eval[int](b, `document.querySelectorAll('tbody tr').length`) }

	// Pages: 60 keys of twelve people, one of ann, four of bob, one of cid.
	require.Equal(t, 50, rows())
	b.click("Next page")
	b.until(`document.querySelectorAll('tbody tr').length === 16`)
	require.NotContains(t, b.shown(), "Next page")
	b.click("First page")
	b.until(`document.querySelectorAll('tbody tr').length === 50`)

	// Search and filter.
	b.fill("Created by", "ann@")
	b.click("Filter")
	b.until(`document.querySelectorAll('tbody tr').length === 1`)
	b.sees("ann's", "ann@acme.example", "Active", "127.0.0.1", "siem-export/2.1")
	b.fill("Created by", "bob")
	b.choose("Status", "Expired")
	b.click("Filter")
	b.until(`document.querySelectorAll('tbody tr').length === 1 && document.querySelector('tbody').innerText.includes('expired')`)
	b.sees("It has come to its own end.")
	b.choose("Status", "Disabled by owner")
	b.click("Filter")
	b.sees("An owner has disabled it.")
	b.fill("Name", "no such")
	b.click("Filter")
	b.sees("No key is like that.")
	b.click("Show all keys")
	b.until(`document.querySelectorAll('tbody tr').length === 50`)

	// Why is this key refused?
	b.open("/console/org/keys?creator=bob")
	b.click("Why? expired")
	b.sees("Why does it work, or not?", "would be refused now", "It has expired.")
	b.fill("For a request from the address", "2001:db8::1")
	b.click("Explain")
	b.sees("2001:db8::1")
	b.fill("For a request from the address", "nowhere")
	b.click("Explain")
	b.sees("This is not an IP address.")
	b.screenshot("explain")

	// Disabling, enabling, deleting.
	b.open("/console/org/keys?creator=cid")
	b.click("Disable granted")
	b.until(`document.getElementById('confirm-dialog').open || document.querySelector('tbody').innerText.includes('Disabled by owner')`)
	if eval[bool](b, `document.getElementById('confirm-dialog').open`) {
		b.click("Disable")
	}
	b.until(`document.querySelector('tbody')?.innerText.includes('Disabled by owner')`)
	status, reason := s.ping(s.key("cid").Token)
	require.Equal(t, "403 key_disabled", fmt.Sprint(status, " ", reason))
	b.click("Enable granted")
	b.until(`document.querySelector('tbody')?.innerText.includes('Active')`)
	status, _ = s.ping(s.key("cid").Token)
	require.Equal(t, 200, status)
	b.click("Delete granted")
	b.until(`document.getElementById('confirm-dialog').open`)
	b.screenshot("delete-of-owner")
	b.click("Delete")
	b.sees("No key is like that.")
	status, _ = s.ping(s.key("cid").Token)
	require.Equal(t, 401, status)

	// Others: no links, and no pages.
	b = openTab(t, w.base)
	b.expect("403 (Forbidden)")
	b.signIn("bob")
	require.NotContains(t, b.shown(), "All keys")
	for _, page := range []string{"/org/keys", "/org/keys/" + s.key("ann").Prefix, "/org/settings", "/org/people"} {
		b.open("/console" + page)
		b.sees("Not allowed")
		require.NotContains(t, b.shown(), "ann@acme.example")
	}
	b.expect("404 (Not Found)")
	b.open("/console/keys/" + s.key("ann").Prefix)
	b.sees("Not found")
	require.Positive(t, requireDocumented(t, s, w), "S1")
}

// TestConsoleChart: the requests of the last 30 days are drawn on the server, as SVG
// in the page, and are there as a table too.
func TestConsoleChart(t *testing.T) {
	t.Parallel()
	requireBrowser(t)
	s := startService(t, append([]string{"-dev"}, serviceStores["sqlite"](t).args...)...)
	w := tap(t, s.base)
	b := openTab(t, w.base)
	b.signIn("demo-owner")
	b.sees("SIEM export", "Monthly reports")
	b.click("SIEM export")
	b.sees("Requests of the last 30 days")
	bars := eval[int](b, `[...document.querySelectorAll('figure svg rect.bar')].filter(r => r.getBoundingClientRect().height > 0).length`)
	require.Equal(t, 29, bars, "the demo data are of every day until yesterday")
	b.click("As a table")
	b.sees(time.Now().UTC().AddDate(0, 0, -1).Format("2 Jan"))
	page := s.require(200, "GET", "/console/keys/"+s.key("demo-siem").Prefix, s.jwt("demo-owner"), nil)
	require.Contains(t, page.body, "<rect class=\"bar", "without any script")
	b.screenshot("chart")
}

// TestConsoleTimes: times are those of the viewer's zone, with the exact instant on
// hover.
func TestConsoleTimes(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, writeBootstrap(t))
	created, err := time.Parse(time.RFC3339, ownKeys(s, s.jwt("bob"))["three a day"]["createdAt"].(string))
	require.NoError(t, err)
	for _, name := range []string{"Asia/Tokyo", "America/New_York", "Asia/Kathmandu"} {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		b := openTab(t, w.base)
		b.zone(name)
		b.signIn("bob")
		local := created.In(zone)
		b.until(`[...document.querySelectorAll('time')].some(e => e.innerText.startsWith(%s) && e.innerText.includes(%s))`,
			local.Format("Jan 2, 2006"), local.Format(" 3:04"))
		exact := eval[[]string](b, `[...document.querySelectorAll('time')].map(e => e.title)`)
		require.NotEmpty(t, exact)
		require.Contains(t, strings.Join(exact, " "), created.UTC().Format("2006-01-02T15:04:05"))
	}
}
