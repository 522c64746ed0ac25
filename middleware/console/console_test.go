package console_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/console"
	"github.com/keystile/keystile/store/audit"
)

// pages are all pages of an organization with one key.
func pages(prefix string) []string {
	return []string{"/", "/keys/" + prefix, "/org/keys", "/org/keys/" + prefix, "/org/settings", "/org/people"}
}

// TestNewReportsEverything: all that is wrong with the arguments, at once.
func TestNewReportsEverything(t *testing.T) {
	t.Parallel()
	h, err := console.New(nil, nil, &console.Options{SignInURL: "login", SignOutURL: "//evil.example/", TrustedOrigins: []string{"evil"}})
	require.Nil(t, h)
	for _, text := range []string{"without an API", "without an Authenticator", "Options.SignInURL", "Options.SignOutURL", "Options.TrustedOrigins"} {
		require.ErrorContains(t, err, text)
	}
	_, err = console.New(http.NotFoundHandler(), persons{}, nil)
	require.NoError(t, err)
}

// TestOwnPaths: where people sign in and out is on this origin, whatever a browser
// makes of the text.
func TestOwnPaths(t *testing.T) {
	t.Parallel()
	for path, ok := range map[string]bool{
		"/login": true, "/login?next=%2Fconsole%2F": true, "/": true,
		"login": false, "https://evil.example/": false, "//evil.example": false, "/\\evil.example": false,
		"/\t/evil.example": false, "/\n/evil.example": false, " /login": false, "javascript:alert(1)": false, "/a b": false,
	} {
		_, err := console.New(http.NotFoundHandler(), persons{}, &console.Options{SignInURL: path, SignOutURL: path})
		require.Equal(t, ok, err == nil, "%q: %v", path, err)
	}
}

// TestMounts: from the beginning every link leads somewhere, under every mount path,
// and so is every page found (relative links; base-uri is 'none').
func TestMounts(t *testing.T) {
	t.Parallel()
	for _, mount := range []string{"", "/console", "/a/b/c"} {
		t.Run(mount, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(s *setup) { s.console.SignOutURL = "/bye" })
			_, prefix := w.create("olga", "export")
			mux := http.NewServeMux()
			mux.Handle(mount+"/", http.StripPrefix(mount, w.h))
			mux.HandleFunc("/bye", func(http.ResponseWriter, *http.Request) {})
			seen := map[string]bool{}
			todo := []string{mount + "/"}
			for len(todo) > 0 {
				at := todo[0]
				todo = todo[1:]
				if seen[at] {
					continue
				}
				seen[at] = true
				rec := httptest.NewRecorder()
				mux.ServeHTTP(rec, request(t.Context(), "GET", at, "olga"))
				require.Equal(t, 200, rec.Code, at)
				base, err := url.Parse(at)
				require.NoError(t, err)
				for _, m := range links.FindAllStringSubmatch(rec.Body.String(), -1) {
					if m[1] == "/bye" {
						continue
					}
					require.NotRegexp(t, `^(/|[a-z]+:)`, m[1], "a link that depends on the mount path")
					to, err := base.Parse(strings.ReplaceAll(m[1], "&amp;", "&"))
					require.NoError(t, err)
					to.Fragment = ""
					require.True(t, strings.HasPrefix(to.Path, mount+"/"), to.Path)
					todo = append(todo, to.String())
				}
			}
			for _, path := range append(pages(prefix), "/assets/console.css", "/assets/console.js", "/assets/icon.svg") {
				require.True(t, seen[mount+path], path)
			}
		})
	}
}

// TestRouting: pages can be looked at and nothing else, and what is not there is
// unknown, without redirects.
func TestRouting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("olga", "export")
	for _, path := range append(pages(prefix), "/assets/console.js", "/nothing") {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"} {
			p := w.do(method, path, "olga")
			require.Equal(t, 405, p.Code, "%s %s", method, path)
			require.Equal(t, "GET, HEAD", p.Header().Get("Allow"))
		}
		require.Equal(t, w.do("GET", path, "olga").Code, w.do("HEAD", path, "olga").Code)
	}
	for _, path := range []string{
		"/nothing", "/org", "/org/", "/org/keys/", "/org/keys/a/b", "/keys", "/keys/", "/assets", "/assets/", "/assets/layout.html", "/api",
		"//", "/org//keys", "/./", "/org/../org/keys", "/assets/..%2fpages%2flayout.html", "/org/keys/..%2f..%2fme", "/keys/%2e%2e", "/pages/layout.html",
	} {
		w.asked = nil
		w.get(404, path, "olga")
		for _, r := range w.asked {
			require.Equal(t, "/v1/me", r.URL.Path, "nothing else was asked for")
		}
	}
	r := request(t.Context(), "GET", "/x", "olga")
	r.URL.Path = "" // of a host that mounts it without a slash
	p := w.serve(r)
	require.Equal(t, 404, p.Code)
}

// TestAssets: what pages load has its media type, and there is no more to load.
func TestAssets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, media := range map[string]string{
		"console.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		p := w.get(200, "/assets/"+name, "") // they are no secret
		require.Equal(t, media, p.Header().Get("Content-Type"))
		require.NotEmpty(t, p.Body.String())
		require.NotRegexp(t, `(?i)https?://(?:[^w]|w[^w])`, p.Body.String(), "no third-party request")
	}
}

// TestAPIBelow: the API is below /api/, with the console's headers on its answers.
func TestAPIBelow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.get(200, "/api/v1/me", "ann")
	require.Equal(t, "application/json; charset=utf-8", p.Header().Get("Content-Type"))
	require.Contains(t, p.Body.String(), `"ann@acme.example"`)
	w.get(200, "/api/v1/openapi.json", "")
	w.get(401, "/api/v1/me", "")
	w.get(404, "/api/v2", "ann")
	require.Equal(t, 415, w.do("POST", "/api/v1/api-keys", "ann").Code, "JSON bodies only")

	r := request(t.Context(), "POST", "/api/v1/api-keys", "ann")
	r.Header.Set("Content-Type", "application/json")
	r.Body = http.NoBody
	require.Equal(t, 400, w.serve(r).Code)
}

// TestCrossOrigin: what another site sends is refused, pages and API alike, sessions
// and JWTs alike, and changes nothing; its links are followed. What was meant for the
// API is in the trail.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	sink := new(trail)
	w := newWorld(t, func(s *setup) {
		s.keys.Audit = sink
		s.console.TrustedOrigins = []string{"https://www.example.com"}
		s.trusted = []string{"https://www.example.com", "https://other.example.com"}
	})
	_, prefix := w.create("ann", "export")
	tests := []struct {
		name, header, value string
		refused             bool
	}{
		{"cross-site", "Sec-Fetch-Site", "cross-site", true},
		{"same-site", "Sec-Fetch-Site", "same-site", true},
		{"another origin", "Origin", "https://evil.example", true},
		{"no origin", "Origin", "null", true},
		{"trusted by the API only", "Origin", "https://other.example.com", true},
		{"same origin", "Sec-Fetch-Site", "same-origin", false},
		{"trusted", "Origin", "https://www.example.com", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range []string{"/api/v1/api-keys/" + prefix, "/", "/nothing"} {
				for _, as := range []string{"ann", "Bearer ann.x.jwt"} {
					if !test.refused {
						path = "/api/v1/api-keys/csk_live_00000000"
					}
					r := request(t.Context(), "DELETE", path, as)
					r.Header.Set(test.header, test.value)
					sink.take()
					p := w.serve(r)
					if test.refused {
						require.Equal(t, 403, p.Code)
						require.Contains(t, p.Body.String(), `"reason":"cross_origin"`)
						require.NotContains(t, p.Body.String(), "acme")
						require.Equal(t, "default-src 'none'", strings.Split(p.Header().Get("Content-Security-Policy"), ";")[0])
						if strings.HasPrefix(path, "/api/") {
							e := sink.take()
							require.Len(t, e, 1)
							require.Equal(t, []string{audit.KeyRevoke, "cross_origin", "ann", prefix}, []string{e[0].Action, e[0].Reason, e[0].Actor.ID, e[0].KeyID})
							require.Equal(t, test.value, r.Header.Get(test.header), "the request of the host is not changed")
						}
						continue
					}
					require.Equal(t, 404, p.Code, fmt.Sprint(path, as, p.Body))
				}
			}
			r := request(t.Context(), "GET", "/", "ann")
			r.Header.Set(test.header, test.value)
			require.Equal(t, 200, w.serve(r).Code)
		})
	}
	w.get(200, "/keys/"+prefix, "ann")
}
