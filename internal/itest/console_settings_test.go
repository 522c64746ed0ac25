package itest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// orgSettings returns the settings of an organization as the API tells its owner.
func orgSettings(s *service, owner string) map[string]any {
	s.tb.Helper()
	return s.require(200, "GET", "/v1/org/token-settings", owner, nil).data().(map[string]any)
}

// settings goes to the page of the settings.
func (b *tab) settings() {
	b.tb.Helper()
	b.click("Settings")
	b.until(`document.querySelector('#settings-form fieldset:enabled') !== null`)
}

// review presses Update and waits for what it would do.
func (b *tab) review() {
	b.tb.Helper()
	b.click("Update")
	b.until(`document.getElementById('review-dialog').open`)
}

// TestConsoleRestriction: S21-S34: the console warns and asks before it restricts
// (S23), owners are told that they are not exempt (S29), grants are kept while the
// restriction is off (S31, S32), and a withdrawn one disables at once (S33).
func TestConsoleRestriction(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, writeBootstrap(t))
	ann := s.jwt("ann")
	pings := func(want map[string]int) {
		t.Helper()
		for ref, status := range want {
			got, _ := s.ping(s.key(ref).Token)
			require.Equal(t, status, got, ref)
		}
	}
	b := openTab(t, w.base)
	b.signIn("ann")

	// A grant can be given before, and the page says that it is kept.
	b.click("People")
	b.sees("API keys are not restricted", "are kept", "owners will need one too", "not exempt")
	b.click("Permitted: bob@acme.example")
	require.Eventually(t, func() bool {
		return strings.Contains(s.do("GET", "/v1/org/users", ann, nil).body, `"id":"bob"`) && permitted(s, ann, "bob")
	}, patient, often)

	// The warning, and nothing before Continue.
	b.settings()
	b.click("Only chosen people may create and use API keys")
	b.review()
	b.screenshot("restrict")
	b.sees("Before the update")
	warning := eval[string](b, `document.getElementById('review-warnings').innerText`)
	require.Contains(t, warning, "only people who are permitted")
	require.Contains(t, warning, "Owners, you included, are not exempt. Nothing is deleted.")
	require.Contains(t, eval[string](b, `document.getElementById('review-effects').innerText`), "1 key of 1 person is disabled now", "ann's own")
	pings(map[string]int{"ann": 200, "old": 200, "cid": 200})
	b.click("Cancel")
	require.Equal(t, false, orgSettings(s, ann)["restrictedAccessTokens"])
	b.review()
	b.click("Continue")
	b.until(`document.getElementById('done')?.innerText !== ''`)
	require.Equal(t, true, orgSettings(s, ann)["restrictedAccessTokens"])
	pings(map[string]int{"ann": 403, "old": 200, "cid": 200})

	// The owner is not exempt, is told so, and can undo it in the console.
	b.click("My keys")
	b.sees("Disabled by owner")
	require.NotNil(t, eval[any](b, `document.getElementById('creation-refused')?.innerText ?? null`))
	b.click("People")
	b.sees("You have no permission yourself")
	b.screenshot("people-restricted")
	b.click("Permitted: ann@acme.example")
	require.Eventually(t, func() bool { return permitted(s, ann, "ann") }, patient, often)
	pings(map[string]int{"ann": 200})
	b.click("Permitted: bob@acme.example")
	require.Eventually(t, func() bool { return !permitted(s, ann, "bob") }, patient, often)
	pings(map[string]int{"old": 403})

	// Lifting it brings every key back, without a question that warns.
	b.settings()
	b.click("Only chosen people may create and use API keys")
	b.click("Update")
	b.until(`document.getElementById('review-dialog').open || document.getElementById('done').innerText !== ''`)
	if eval[bool](b, `document.getElementById('review-dialog').open`) {
		b.click("Continue")
	}
	b.until(`document.getElementById('done').innerText !== ''`)
	pings(map[string]int{"ann": 200, "old": 200, "cid": 200})
	require.Positive(t, requireDocumented(t, s, w), "S1")
}

// permitted reports whether a user has a grant.
func permitted(s *service, owner, user string) bool {
	for _, u := range s.require(200, "GET", "/v1/org/users", owner, nil).data("users").([]any) {
		if m := u.(map[string]any); m["id"] == user {
			return m["tokenPermission"].(bool)
		}
	}
	return false
}

// TestConsoleExpiration: S35-S42, D21: presets and any other period, with what they
// would do said before.
func TestConsoleExpiration(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, writeBootstrap(t))
	ann := s.jwt("ann")
	b := openTab(t, w.base)
	b.signIn("ann")
	b.settings()
	require.Equal(t, []string{"Never", "30 days", "60 days", "90 days", "180 days", "365 days", "Another period…"},
		eval[[]string](b, `[...document.querySelectorAll('#age option')].map(o => o.textContent)`))
	old := func(want string) {
		t.Helper()
		status, reason := s.ping(s.key("old").Token)
		require.Equal(t, want, fmt.Sprint(status, " ", reason))
	}
	old("200 ")
	b.choose("Keys expire after", "30 days")
	b.review()
	effects := eval[string](b, `document.getElementById('review-effects').innerText`)
	require.Contains(t, effects, "1 key of 1 person", "how many, and whose")
	require.Contains(t, effects, "expire")
	require.Contains(t, effects, "used today", "old was, a moment ago")
	b.screenshot("preview")
	old("200 ")
	b.click("Continue")
	b.until(`document.getElementById('done').innerText !== ''`)
	require.EqualValues(t, 30*86400, orgSettings(s, ann)["apiTokenMaxAge"])
	old("401 expired")

	b.choose("Keys expire after", "Another period…")
	b.fill("Period", "0")
	b.click("Update")
	b.until(`document.getElementById('age-number').matches(':invalid') || document.getElementById('age-problem').innerText !== ''`)
	require.EqualValues(t, 30*86400, orgSettings(s, ann)["apiTokenMaxAge"])
	b.fill("Period", "61")
	b.review()
	b.click("Continue")
	b.until(`document.getElementById('done').innerText !== ''`)
	require.EqualValues(t, 61*86400, orgSettings(s, ann)["apiTokenMaxAge"])
	old("200 ")
	b.open("/console/org/settings")
	require.Equal(t, "61", eval[string](b, `document.getElementById('age-number').value`))
}

// TestConsoleAddresses: S43, S44, S24, D19, D20: the line that is wrong is marked and
// nothing is saved; the normal form is shown before it is saved; and somebody whose
// own address is outside is warned.
func TestConsoleAddresses(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, writeBootstrap(t))
	ann := s.jwt("ann")
	b := openTab(t, w.base)
	b.signIn("ann")
	b.settings()
	b.expect("400 (Bad Request)")
	set := func(lines ...string) {
		t.Helper()
		eval[bool](b, `(e => { e.value = %s; e.dispatchEvent(new Event('input', {bubbles: true})); return true })(document.getElementById('addresses'))`,
			strings.Join(lines, "\n"))
	}
	set("127.0.0.1", "10.0.0.256", "192.0.2.0/24")
	b.click("Only chosen people may create and use API keys")
	b.click("Update")
	b.until(`document.getElementById('addresses-problem').innerText.includes('2')`)
	require.Equal(t, "true", eval[string](b, `document.getElementById('addresses').getAttribute('aria-invalid')`))
	require.Contains(t, eval[string](b, `document.getElementById('addresses-problem').innerText`), "10.0.0.256")
	require.Equal(t, "10.0.0.256", eval[string](b, `(e => e.value.slice(e.selectionStart, e.selectionEnd).trim())(document.getElementById('addresses'))`),
		"the line is marked")
	b.screenshot("bad-line")
	require.Empty(t, orgSettings(s, ann)["apiAllowedIPs"])
	require.Equal(t, false, orgSettings(s, ann)["restrictedAccessTokens"], "S24: all or nothing")
	b.click("Only chosen people may create and use API keys")

	set("10.1.2.3/8 # office", "192.0.2.1 - 192.0.2.9")
	b.review()
	review := eval[string](b, `document.getElementById('review-dialog').innerText`)
	require.Contains(t, review, "10.0.0.0/8", "the normal form")
	require.Contains(t, review, "127.0.0.1", "the viewer's own address")
	b.screenshot("own-address")
	b.click("Continue")
	b.until(`document.getElementById('done').innerText !== ''`)
	require.Contains(t, fmt.Sprint(orgSettings(s, ann)["apiAllowedIPs"]), "10.0.0.0/8")
	require.Contains(t, eval[string](b, `document.getElementById('addresses').value`), "10.0.0.0/8")
	status, reason := s.ping(s.key("ann").Token)
	require.Equal(t, "403 address_not_allowed", fmt.Sprint(status, " ", reason))

	// The owner can undo it, from the address that is refused to keys.
	b.open("/console/org/settings")
	set("")
	b.review()
	b.click("Continue")
	b.until(`document.getElementById('done').innerText !== ''`)
	status, _ = s.ping(s.key("ann").Token)
	require.Equal(t, 200, status)
}

// TestConsoleConflict: a change that somebody else made in between is detected, shown,
// and not overwritten unseen.
func TestConsoleConflict(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, writeBootstrap(t))
	ann := s.jwt("ann")
	b := openTab(t, w.base)
	b.expect("409 (Conflict)")
	b.signIn("ann")
	b.settings()
	b.choose("Keys expire after", "90 days")
	s.settings(ann, map[string]any{"apiAllowedIPs": []string{"127.0.0.0/8"}})
	b.review()
	b.click("Continue")
	b.until(`document.getElementById('conflict-dialog').open`)
	b.sees("Somebody else has changed the settings", "Nothing of yours was saved.")
	require.Contains(t, eval[string](b, `document.getElementById('conflict-changes').innerText`), "127.0.0.0/8")
	b.screenshot("conflict")
	got := orgSettings(s, ann)
	require.EqualValues(t, 0, got["apiTokenMaxAge"])
	b.click("Keep my changes and review them again")
	b.until(`document.getElementById('review-dialog').open`)
	b.click("Continue")
	b.until(`document.getElementById('done').innerText !== ''`)
	got = orgSettings(s, ann)
	require.EqualValues(t, 90*86400, got["apiTokenMaxAge"])
	require.Equal(t, []any{"127.0.0.0/8"}, got["apiAllowedIPs"], "what the other has changed, and this one has not")

	// The other way.
	b.open("/console/org/settings")
	b.choose("Keys expire after", "30 days")
	s.settings(ann, map[string]any{"apiTokenMaxAge": 0})
	b.review()
	b.click("Continue")
	b.click("Load the settings anew")
	b.until(`document.getElementById('age').value === '0' && !document.querySelector('dialog[open]')`)
	require.EqualValues(t, 0, orgSettings(s, ann)["apiTokenMaxAge"])
}
