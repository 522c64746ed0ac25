package console_test

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// TestMyKeys: name, prefix, status and why, created, expires, last used, today's use
// against the limit; own keys only (S51); n of 5 places and what holds them (D10).
func TestMyKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.get(200, "/", "ann").says("You have no API keys yet.", "0 of 5 places are taken.", "Create key")

	secret, first := w.create("ann", "nightly export")
	_, err := w.mgr.Update(t.Context(), keys.UpdateParams{Ref: keys.Ref{Org: org, ID: first}, DailyLimit: new(int64(40)), NotAfter: new(start.Add(day))})
	require.NoError(t, err)
	r := request(t.Context(), "GET", "/v1/ping", "Bearer "+secret)
	_, _, err = w.guard.Admit(r)
	require.NoError(t, err)
	w.used(first, "192.0.2.7", "curl/8", start, 1)
	_, others := w.create("bob", "of bob")
	p := w.get(200, "/", "ann")
	p.says("nightly export", first+"…", "Active", "1 of 40 requests", "1 of 5 places are taken. They are held by nightly export.",
		"Last used 1 Mar 2026, 12:00 UTC", "Created 1 Mar 2026, 12:00 UTC", "Expires 2 Mar 2026, 12:00 UTC",
		"1 request in the last 30 days, most of them on 1 Mar: 1.")
	p.without("of bob", others, "You have no API keys yet.", secret)
	require.Contains(t, p.Body.String(), `<time datetime="2026-03-02T12:00:00Z" title="2026-03-02T12:00:00Z">`, "the exact instant")
	require.Contains(t, p.Body.String(), `<meter class="meter" min="0" max="40" value="1" aria-label="Today’s requests">`)

	w.now = start.Add(2 * day)
	_, second := w.create("ann", "new one")
	_, err = w.mgr.Disable(t.Context(), olga, keys.Ref{Org: org, ID: second})
	require.NoError(t, err)
	p = w.get(200, "/", "ann")
	p.says("Expired It has come to its own end.", "Disabled by owner An owner has disabled it.", "0 of 250 requests", "never",
		"2 of 5 places are taken. They are held by new one (Disabled by owner), nightly export (Expired).")
	require.NotContains(t, p.Body.String(), `data-do="rotate"`, "only active keys rotate (D39)")

	w.put(store.User{ID: "ann", Tier: "Free"})
	w.get(200, "/", "ann").says("The tier of this user does not include API keys.") // S54
}

// TestRotatedKeys_D39: a key that was rotated says until when it works, takes no
// place, and cannot be rotated again.
func TestRotatedKeys_D39(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, old := w.create("ann", "nightly export")
	_, fresh, err := w.mgr.Rotate(t.Context(), keys.RotateParams{Ref: keys.Ref{Org: org, ID: old}, Grace: time.Hour})
	require.NoError(t, err)
	p := w.get(200, "/", "ann")
	p.says("It was rotated, and works until 1 Mar 2026, 13:00 UTC.", "1 of 5 places are taken.")
	require.Contains(t, p.Body.String(), `data-path="v1/api-keys/`+fresh.ID+`/rotate"`)
	require.NotContains(t, p.Body.String(), `data-path="v1/api-keys/`+old+`/rotate"`)
	require.Contains(t, p.Body.String(), `data-path="v1/api-keys/`+old+`"`, "it can be deleted")
}

// TestCreateForm: what is allowed: the limit (D7), ends before that of the
// organization, a place (S12), the permission (S25).
func TestCreateForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser = 2 })
	p := w.get(200, "/", "ann")
	require.Contains(t, p.Body.String(), `type="number" min="1" step="1" max="250"`)
	require.Contains(t, p.Body.String(), `<option value="365">after 365 days</option>`)
	require.Contains(t, p.Body.String(), `<fieldset disabled`, "nothing is sent without the script")
	require.Contains(t, p.Body.String(), `<noscript>`)
	p.says("1 to 250.", "Creating a key needs JavaScript")
	require.NotContains(t, w.get(200, "/", "olga").Body.String(), `max="250"`, "owners set any")

	w.settings(func(s *policy.Settings) { s.MaxAge = 60 * day })
	p = w.get(200, "/", "ann")
	p.says("In this organization keys expire 60 days after their creation.", "with the organization’s period")
	require.Contains(t, p.Body.String(), `<option value="30">`)
	require.NotContains(t, p.Body.String(), `<option value="60">`)

	w.create("ann", "one")
	w.create("ann", "two")
	p = w.get(200, "/", "ann")
	p.says("2 of 2 places are taken.", "The limit of 2 API keys per user is reached.")
	require.NotContains(t, p.Body.String(), "create-form")

	w.settings(func(s *policy.Settings) { s.RestrictUsers = true })
	for _, as := range []string{"bob", "olga"} {
		w.get(200, "/", as).says("This user has no permission to use API keys.") // S29
	}
	w.get(200, "/", "ann").says("Disabled by owner The organization restricts API keys to chosen people, and its user is not one of them.")
}

// TestWithoutCap: no places to run out of, and pages.
func TestWithoutCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser = -1 })
	for i := range 25 {
		w.create("ann", fmt.Sprintf("key %02d", i))
	}
	p := w.get(200, "/", "ann")
	p.says("You have 25 keys, and may have any number.", "key 24", "key 05", "Next page")
	p.without("key 04", "First page", "held by")
	next := regexp.MustCompile(`href="(\?cursor=[^"]*)"`).FindStringSubmatch(p.Body.String())
	p = w.get(200, "/"+next[1], "ann")
	p.says("key 04", "key 00", "First page")
	p.without("key 05", "Next page")
	w.get(400, "/?cursor=x", "ann").says("must be the nextCursor of a page")

	// A place is held by what is on another page too, of which nothing more is said:
	// nobody has looked whether it works.
	w = newWorld(t, func(s *setup) { s.keys.MaxPerUser = 30 })
	var oldest string
	for i := range 21 {
		_, prefix := w.create("ann", fmt.Sprintf("key %02d", i))
		if i == 0 {
			oldest = prefix
		}
	}
	w.get(200, "/", "ann").says("21 of 30 places are taken.", "key 01, "+oldest+"… (on another page).")
}

// TestUnmetered: a service that counts nothing, and a key without a limit.
func TestUnmetered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.guard.Limiter, s.guard.Unmetered = nil, true })
	w.create("ann", "export")
	w.get(200, "/", "ann").says("Today not counted")

	w = newWorld(t)
	_, prefix := w.create("olga", "export")
	_, err := w.mgr.Update(t.Context(), keys.UpdateParams{Actor: olga, Ref: keys.Ref{Org: org, ID: prefix}, DailyLimit: new(int64(-1))})
	require.NoError(t, err)
	w.get(200, "/", "olga").says("0 requests, without a limit")
	w.get(200, "/keys/"+prefix, "olga").says("Limit unlimited")
	require.Contains(t, w.get(200, "/org/keys/"+prefix, "olga").Body.String(), `<option value="none" selected>`)
}

// TestKeyPage: one own key, with its requests as a chart and as a table.
func TestKeyPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, k, err := w.mgr.Create(t.Context(), keys.CreateParams{Org: org, User: "ann", Name: "export", Scopes: []string{"reports:read"}, DailyLimit: 7})
	require.NoError(t, err)
	w.used(k.ID, "192.0.2.7", "curl/8", start, 1234)
	p := w.get(200, "/keys/"+k.ID, "ann")
	p.says("export", "Scopes reports:read", "Limit 7 a day", "1,234 requests in the last 30 days", "1 Mar 1,234", "31 Jan 0", "limit 7")
	require.Contains(t, p.Body.String(), `<svg class="chart large"`)
	require.Contains(t, p.Body.String(), `data-then="../"`, "where to go when it is deleted")
	w.get(404, "/keys/"+k.ID, "olga")
	w.get(404, "/keys/csk_live_00000000", "ann")
	w.get(404, "/keys/CSK", "ann")
}

// TestAllKeys_S47: everybody's keys with the columns of S49 and S50, live status
// (S48), search by creator and name, filter by status, and pages.
func TestAllKeys_S47(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.get(200, "/org/keys", "olga").says("Nobody in this organization has an API key.")
	_, anns := w.create("ann", "export")
	_, bobs := w.create("bob", "import")
	_, olgas := w.create("olga", "report")
	for i := range 5 {
		w.used(anns, fmt.Sprintf("192.0.2.%d", i+1), "curl/8.<b>", start.Add(time.Duration(i)*time.Minute), 1)
	}
	_, err := w.mgr.Disable(t.Context(), olga, keys.Ref{Org: org, ID: bobs})
	require.NoError(t, err)
	w.settings(func(s *policy.Settings) { s.MaxAge = 30 * day })

	p := w.get(200, "/org/keys", "olga")
	p.says("export", "ann@acme.example", "Active", "192.0.2.5 192.0.2.4 192.0.2.3 and others", "curl/8.<b>", "1 Mar 2026, 12:04 UTC",
		"31 Mar 2026, 12:00 UTC", "Disabled by owner An owner has disabled it.", "report", anns, bobs, olgas)
	p.without("192.0.2.2")
	body := p.Body.String()
	require.Contains(t, body, `data-path="v1/org/api-keys/`+bobs+`" data-name="import" data-disabled="false">Enable`)
	require.Contains(t, body, `data-path="v1/org/api-keys/`+anns+`" data-name="export" data-disabled="true">Disable`)

	for query, want := range map[string][]string{
		"?creator=BOB": {"import"}, "?name=ex": {"export"}, "?creator=&name=&status=": {"export", "import", "report"},
		"?status=disabled_by_owner": {"import"}, "?status=active": {"export", "report"}, "?creator=o&name=rep": {"report"}, "?unknown=1": {"export", "import", "report"},
	} {
		p := w.get(200, "/org/keys"+query, "olga")
		for _, name := range []string{"export", "import", "report"} {
			require.Equal(t, slices.Contains(want, name), strings.Contains(p.text(), name), "%s %s", query, name)
		}
	}
	p = w.get(200, "/org/keys?status=expired&name=%22%3E", "olga")
	p.says("No key is like that.")
	require.Contains(t, p.Body.String(), `name="name" value="&#34;&gt;"`, "what was asked for is still there")
	require.Contains(t, p.Body.String(), `<option value="expired" selected>`)
	w.get(400, "/org/keys?status=fine", "olga").says("status: must be active, expired")

	w.now = start.Add(31 * day)
	w.get(200, "/org/keys", "olga").says("Expired It is older than the organization allows.")
	require.NoError(t, w.mgr.Revoke(t.Context(), olga, keys.Ref{Org: org, ID: olgas}))
	_, k, err := w.mgr.Create(t.Context(), keys.CreateParams{Org: org, User: "bob", Name: "late", NotAfter: w.now.Add(90 * day)})
	require.NoError(t, err)
	w.now = w.now.Add(31 * day)
	w.get(200, "/keys/"+k.ID, "bob").says("Expired It is older than the organization allows.") // D23: the earlier of two ends
	require.NoError(t, w.mgr.Revoke(t.Context(), olga, keys.Ref{Org: org, ID: anns}))
	w.get(200, "/org/keys", "olga").without("export")
	p = w.get(200, "/org/keys?status=revoked", "olga")
	p.says("export", "Deleted It was deleted, or rotated.")
	p.without("works until")
	require.NotContains(t, p.Body.String(), `data-do=`, "there is nothing to do with it")
}

// TestAllKeysByPages: the filter stays from page to page.
func TestAllKeysByPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser = -1 })
	for i := range 60 {
		w.create("ann", fmt.Sprintf("key <%02d>", i))
	}
	w.create("bob", "key of bob")
	p := w.get(200, "/org/keys?creator=a%26nn&name=key+%3C", "olga")
	p.says("No key is like that.")
	p = w.get(200, "/org/keys?creator=ann&name=key+%3C", "olga")
	p.says("key <59>", "key <10>", "Next page")
	p.without("key <09>", "First page", "key of bob")
	m := regexp.MustCompile(`rel="next" href="([^"]*)"`).FindStringSubmatch(p.Body.String())
	u, err := url.Parse(strings.ReplaceAll(m[1], "&amp;", "&"))
	require.NoError(t, err)
	require.Equal(t, "ann", u.Query().Get("creator"))
	require.Equal(t, "key <", u.Query().Get("name"))
	p = w.get(200, "/org/keys"+u.String(), "olga")
	p.says("key <09>", "key <00>", "First page")
	p.without("key <10>", "Next page")
}

// TestOrgKey: one key of somebody's, what it is used from, and why it works or does
// not from an address.
func TestOrgKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("ann", "export")
	p := w.get(200, "/org/keys/"+prefix, "olga")
	p.says("ann@acme.example", "A request would be let through now.", "It was not used yet", "No requests in the last 30 days.", "Set the limit", "Disable")
	require.Contains(t, p.Body.String(), `<option value="default" selected>`)

	w.used(prefix, "198.51.100.7", "curl/8", start, 5)
	list, err := policy.ParseIPList("192.0.2.0/24")
	require.NoError(t, err)
	w.settings(func(s *policy.Settings) { s.AllowedIPs = list })
	p = w.get(200, "/org/keys/"+prefix, "olga")
	p.says("198.51.100.7", "A request from 198.51.100.7 would be refused now: API keys may not be used from this address.",
		"The address is allowed: no", "There are requests left for today: yes", "Client curl/8")
	w.get(200, "/org/keys/"+prefix+"?address=192.0.2.9", "olga").says("A request from 192.0.2.9 would be let through now.")
	w.get(200, "/org/keys/"+prefix+"?address=", "olga").says("A request from an unknown address would be refused now")
	p = w.get(200, "/org/keys/"+prefix+"?address=%3Cb%3E", "olga")
	p.says("This is not an IP address.")
	require.Contains(t, p.Body.String(), `value="&lt;b&gt;"`)
	require.Contains(t, p.Body.String(), `aria-invalid="true"`)

	_, err = w.mgr.Update(t.Context(), keys.UpdateParams{Actor: olga, Ref: keys.Ref{Org: org, ID: prefix}, DailyLimit: new(int64(70))})
	require.NoError(t, err)
	require.Contains(t, w.get(200, "/org/keys/"+prefix, "olga").Body.String(), `step="1" value="70"`)

	// Of a key that is revoked the reason is all that can be asked.
	require.NoError(t, w.mgr.Revoke(t.Context(), olga, keys.Ref{Org: org, ID: prefix}))
	p = w.get(200, "/org/keys/"+prefix, "olga")
	p.says(prefix, "This key is deleted, or was rotated.", "would be refused now: It is not valid any more.", "The key is not deleted: no")
	require.NotContains(t, p.Body.String(), "data-do=")
	w.get(404, "/org/keys/csk_live_00000000", "olga").says("There is no such API key.")
}

// TestSettingsPage: what is in force, in the form that it is changed in; the version
// that a change needs; the warning of D20.
func TestSettingsPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.get(200, "/org/settings", "olga")
	body := p.Body.String()
	require.Contains(t, body, `data-etag="&#34;0&#34;"`)
	require.Contains(t, body, `<option value="0" selected>Never</option>`)
	require.Contains(t, body, `<textarea id="addresses" name="addresses" rows="8" spellcheck="false" aria-describedby="addresses-hint addresses-problem"></textarea>`)
	for _, seconds := range []int{30, 60, 90, 180, 365} { // D21, S36
		require.Contains(t, body, fmt.Sprintf(`<option value="%d">%d days</option>`, seconds*86400, seconds))
	}
	require.NotContains(t, body, "checked")
	p.without("Your own address")

	list, err := policy.ParseIPList("10.0.0.1/8 # </textarea><script>alert(1)</script>\n192.0.2.1")
	require.NoError(t, err)
	w.settings(func(s *policy.Settings) { s.MaxAge, s.RestrictUsers, s.AllowedIPs = 36*time.Hour, true, list })
	r := request(t.Context(), "GET", "/org/settings", "olga")
	r.RemoteAddr = "198.51.100.7:1234"
	p = w.serve(r)
	body = p.Body.String()
	p.says("Your own address, 198.51.100.7, is not in the list")
	require.Contains(t, body, `data-etag="&#34;1&#34;" data-restricted="true" data-age="129600"`)
	require.Contains(t, body, "10.0.0.0/8 # &lt;/textarea&gt;&lt;script&gt;alert(1)&lt;/script&gt;\n192.0.2.1</textarea>", "the normal form (D19)")
	require.Contains(t, body, `<option value="custom" selected>`)
	require.Contains(t, body, `step="1" value="36"`)
	require.Contains(t, body, `<option value="3600" selected>hours</option>`)
	require.Contains(t, body, ` checked> <label for="restricted">`)

	w.settings(func(s *policy.Settings) { s.MaxAge = 90 * day })
	body = w.get(200, "/org/settings", "olga").Body.String()
	require.Contains(t, body, `<option value="7776000" selected>90 days</option>`)
	require.Contains(t, body, `<option value="custom">`)
}

// TestPeoplePage: who has the grant (S31), that it is kept while the restriction is
// off (S32), and that owners are not exempt (S29).
func TestPeoplePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(store.User{ID: "x' onload=y <b>", Email: "<i>@acme.example"})
	w.put(store.User{ID: "bob", SuspendedAt: start})
	require.NoError(t, w.mgr.SetPermitted(t.Context(), olga, org, "ann", true))
	p := w.get(200, "/org/people", "olga")
	p.says("API keys are not restricted", "are kept", "ann@acme.example", "olga@acme.example", "(you)", "Owner not exempt",
		"suspended since 1 Mar 2026", "<i>@acme.example")
	p.without("You have no permission yourself")
	require.Contains(t, p.Body.String(), `data-user="ann" data-name="ann@acme.example" checked>`)
	require.Contains(t, p.Body.String(), `data-user="olga" data-name="olga@acme.example">`)

	w.settings(func(s *policy.Settings) { s.RestrictUsers = true })
	w.get(200, "/org/people", "olga").says("API keys are restricted", "Owners are not exempt.", "You have no permission yourself")
	require.NoError(t, w.mgr.SetPermitted(t.Context(), olga, org, "olga", true))
	w.get(200, "/org/people", "olga").without("You have no permission yourself")

	for i := range 120 {
		w.put(store.User{ID: fmt.Sprintf("many%03d", i)})
	}
	p = w.get(200, "/org/people", "olga")
	p.says("many000", "Next page")
	m := regexp.MustCompile(`href="(\?cursor=[^"]*)"`).FindStringSubmatch(p.Body.String())
	w.get(200, "/org/people"+m[1], "olga").says("olga@acme.example", "First page")
}

// TestHostileNames: what people and programs call themselves is text, wherever it is
// shown: the tags and attributes of each page are those of a page with plain names.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	structure := func(t *testing.T, name string) (all []string) {
		w := newWorld(t)
		w.put(store.User{ID: "olga", Email: name + "@acme.example", Owner: true})
		_, prefix := w.create("olga", name)
		w.used(prefix, "192.0.2.1", name, start, 1)
		for _, path := range pages(prefix) {
			p := w.get(200, path, "olga")
			p.says(name + "@acme.example")
			all = append(all, p.structure())
		}
		return all
	}
	plain := structure(t, "export")
	for _, name := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `{{.}}`, `</title><b>`, `--><b>`,
		`javascript:alert(1)`, `&lt;b&gt;`, "`${alert(1)}`", `<!--`, `]]>`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, plain, structure(t, name))
		})
	}
}

// TestWhoAndWhence: the API sees the person, the address and the client of whoever
// looks, and nothing that concerns the page alone.
func TestWhoAndWhence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := request(t.Context(), "HEAD", "/org/keys?status=active&cursor=&creator=x", "olga")
	r.RemoteAddr = "192.0.2.1:1234"
	for name, value := range map[string]string{
		"User-Agent": "browser/1", "Accept": "application/problem+json", "Accept-Language": "de", "If-None-Match": `"1"`, "If-Modified-Since": "x",
		"Range": "bytes=0-1", "Content-Type": "text/plain", "X-Forwarded-For": "198.51.100.7",
	} {
		r.Header.Set(name, value)
	}
	before := r.Header.Clone()
	require.Equal(t, 200, w.serve(r).Code)
	require.Equal(t, before, r.Header, "the request of the page is left as it was")
	require.Len(t, w.asked, 2)
	asked := w.asked[1]
	require.Equal(t, "GET", asked.Method)
	require.Equal(t, "/v1/org/api-keys?creator=x&limit=50&status=active", asked.URL.String())
	require.Equal(t, asked.URL.String(), asked.RequestURI)
	require.Equal(t, "192.0.2.1:1234", asked.RemoteAddr)
	require.Equal(t, map[string][]string{
		"Cookie": {"session=olga"}, "User-Agent": {"browser/1"}, "X-Forwarded-For": {"198.51.100.7"},
	}, map[string][]string(asked.Header))
}
