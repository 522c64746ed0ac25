package itest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
)

// startConsole runs the example with its console, on SQLite, in a process of its own,
// and taps the wire to it. Most of its people are those of writeBootstrap.
func startConsole(t *testing.T, bootstrap string) (*service, *wire) {
	t.Helper()
	requireBrowser(t)
	s := startService(t, append([]string{"-dev", "-bootstrap", bootstrap}, serviceStores["sqlite"](t).args...)...)
	return s, tap(t, s.base)
}

// requireBrowser skips the test where there is no browser: loudly, or not at all.
func requireBrowser(t *testing.T) {
	t.Helper()
	_, err := sharedBrowser()
	servers.Check(t, err)
}

// patient and often are how long and how often a test asks for what happens soon.
const (
	patient = tooLong
	often   = 20 * time.Millisecond
)

// signIn opens the console as a person, as a newcomer does.
func (b *tab) signIn(person string) {
	b.tb.Helper()
	b.open("/")
	b.click(person)
	b.until(`location.pathname === "/console/"`)
	b.sees("My keys")
}

// TestConsoleSession: one opens the printed address and picks a person. The cookie
// of the session cannot be read by scripts, is sent for no other site, and stands
// for nobody after the sign-out.
func TestConsoleSession(t *testing.T) {
	t.Parallel()
	s, w := startConsole(t, writeBootstrap(t))
	b := openTab(t, w.base)
	b.signIn("bob")
	cookies := command(b, network.GetCookies, network.GetCookiesParams{}).Cookies
	require.Len(t, cookies, 1)
	c := cookies[0]
	require.True(t, c.HTTPOnly)
	require.EqualValues(t, "Strict", c.SameSite)
	require.Len(t, c.Value, 52, "260 bits")
	require.Empty(t, eval[string](b, "document.cookie"))

	session := func() string { return c.Name + "=" + c.Value }
	s.require(200, "GET", "/v1/api-keys", "", nil, "Cookie", session())
	s.require(401, "GET", "/v1/api-keys", s.key("gone").Token, nil, "Cookie", session()) // D34: no cookie rescues a bad key
	b.click("Sign out")
	b.sees("You are bob.")
	b.click("sign out")
	b.until(`document.body.innerText.includes("Pick a person") && !document.body.innerText.includes("You are")`)
	s.require(401, "GET", "/v1/api-keys", "", nil, "Cookie", session())
	s.require(401, "GET", "/console/", "", nil, "Cookie", session())
	s.require(401, "GET", "/console/", "", nil)
}

// TestConsoleKeyDoesNotSignIn: S60, D25: an API key is nobody's way into the
// console, on whatever path it comes.
func TestConsoleKeyDoesNotSignIn(t *testing.T) {
	t.Parallel()
	s, _ := startConsole(t, writeBootstrap(t))
	token := s.key("ann").Token
	status, _ := s.ping(token)
	require.Equal(t, 200, status)
	for _, credential := range []string{token, "ann@acme.example " + token} {
		for _, page := range []string{"/", "/keys/" + token[:17], "/org/keys", "/org/keys/" + token[:17], "/org/settings", "/org/people"} {
			got := s.do("GET", "/console"+page, credential, nil)
			require.Contains(t, []int{401, 403}, got.status, page)
			require.NotContains(t, got.body, "ann@acme.example", page)
		}
		require.Equal(t, 403, s.do("GET", "/console/api/v1/api-keys", credential, nil).status)
		require.Equal(t, 403, s.do("POST", "/console/api/v1/api-keys", credential, map[string]any{"name": "by key"}).status)
		require.Equal(t, 401, s.do("GET", "/console/", "", nil, "Cookie", "session="+token).status)
	}
	require.Equal(t, 200, s.do("GET", "/console/", s.jwt("ann"), nil).status, "a person with a JWT, which a proxy adds")
}

// TestConsoleCrossSite: pages of other origins change nothing, sign nobody in or
// out, and show the console in no frame: neither those of another site, for which
// the browser sends no cookie, nor those of another port of this host, for which it
// does.
func TestConsoleCrossSite(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", "localhost"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			s, w := startConsole(t, writeBootstrap(t))
			evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				fmt.Fprint(w, "<!DOCTYPE html><title>evil</title><link rel=icon href=data:,><p>evil</p>")
			}))
			t.Cleanup(evil.Close)
			u, err := url.Parse(evil.URL)
			require.NoError(t, err)
			other := "http://" + host + ":" + u.Port()

			b := openTab(t, w.base, other)
			b.signIn("bob")
			cookies := command(b, network.GetCookies, network.GetCookiesParams{}).Cookies
			bob := []string{"Cookie", cookies[0].Name + "=" + cookies[0].Value}
			before := s.require(200, "GET", "/v1/api-keys", "", nil, bob...).body
			prefix := s.key("old").Prefix
			b.expect("") // what the browser says of all this

			at := len(w.since(0))
			b.base = other
			b.open("/")
			for _, api := range []string{w.base + "/console/api/v1", w.base + "/v1"} {
				for _, request := range []struct{ method, path, body string }{
					{"POST", "/api-keys", `{"name":"stolen"}`},
					{"DELETE", "/api-keys/" + prefix, ""},
					{"PATCH", "/api-keys/" + prefix, `{"name":"stolen"}`},
					{"POST", "/api-keys/" + prefix + "/rotate", `{"grace":0}`},
				} {
					for _, kind := range []string{"application/json", "text/plain", "application/x-www-form-urlencoded"} {
						for _, mode := range []string{"cors", "no-cors"} {
							eval[string](b, `fetch(%s, {method: %s, body: %s || undefined, mode: %s, credentials: 'include', headers: {'Content-Type': %s}}).then(r => r.type, String)`,
								api+request.path, request.method, request.body, mode, kind)
						}
					}
				}
			}
			for _, form := range []struct{ action, enctype, name, value string }{
				{"/console/api/v1/api-keys", "text/plain", `{"name":"stolen","x":"`, `"}`},
				{"/console/api/v1/api-keys", "application/x-www-form-urlencoded", "name", "stolen"},
				{"/v1/api-keys", "text/plain", `{"name":"stolen"}`, ""},
				{"/dev/sign-in", "application/x-www-form-urlencoded", "user", "cid"},
				{"/dev/sign-out", "application/x-www-form-urlencoded", "", ""},
			} {
				b.open("/")
				eval[bool](b, `(() => {
					const f = document.createElement('form');
					Object.assign(f, {method: 'post', action: %s, enctype: %s});
					const i = document.createElement('input');
					Object.assign(i, {name: %s, value: %s});
					f.append(i);
					document.body.append(f);
					f.submit();
					return true;
				})()`, w.base+form.action, form.enctype, form.name, form.value)
				b.until(`location.href === %s && document.readyState === 'complete'`, w.base+form.action)
			}

			asked := w.since(at)
			require.Greater(t, len(asked), 20)
			withCookie := 0
			for _, e := range asked {
				if e.method == "GET" {
					continue // the icon of the page that a form has led to
				}
				require.GreaterOrEqual(t, e.status, 400, "%s %s", e.method, e.path)
				if strings.Contains(e.request, cookies[0].Value) {
					withCookie++
					require.Equal(t, 403, e.status, "%s %s: for where it comes from, before anything else", e.method, e.path)
				}
			}
			if host == "127.0.0.1" {
				require.Positive(t, withCookie, "the browser has sent the cookie, and so the service has refused")
			} else {
				require.Zero(t, withCookie)
			}
			require.JSONEq(t, before, s.require(200, "GET", "/v1/api-keys", "", nil, bob...).body)

			// No frame.
			b.open("/")
			eval[bool](b, `new Promise(done => {
				const f = document.createElement('iframe');
				f.onload = () => done(true);
				f.src = %s;
				document.body.append(f);
			})`, w.base+"/console/")
			require.Contains(t, strings.Join(b.problems, "\n"), "frame-ancestors")
			b.base = w.base
			b.open("/console/")
			b.sees("My keys")
		})
	}
}
