package console_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/console"
)

// answering returns what stands around the API and answers some paths by itself.
func answering(match string, answer http.HandlerFunc) func(*setup) {
	return func(s *setup) {
		s.api = func(api http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, match) {
					answer(w, r)
					return
				}
				api.ServeHTTP(w, r)
			})
		}
	}
}

// TestAPIFails: what the API refuses, does not know or does not say well is a page
// that says so with the status, at each of the requests that a page is made of, and
// never a page that shows less than there is.
func TestAPIFails(t *testing.T) {
	t.Parallel()
	answers := []struct {
		name   string
		answer http.HandlerFunc
		status int
		text   string
		retry  string
		failed bool // the host is told: the API has not told it by itself
	}{
		{"503", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
			_, _ = io.WriteString(w, `{"success":false,"message":"The request cannot be served now. Try again."}`)
		}, 503, "The request cannot be served now. Try again.", "7", false},
		{"503 of a host", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<b>down</b>", http.StatusServiceUnavailable)
		}, 503, "The service answers: Service Unavailable.", "", false},
		{"500 without a body", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, 500, "The service answers: Internal Server Error.", "", false},
		{"401", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, 401, "The service answers: Unauthorized.", "", false},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, 503, "The page cannot be shown now.", "1", true},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, 503, "The page cannot be shown now.", "1", true},
		{"no body", func(http.ResponseWriter, *http.Request) {}, 503, "The page cannot be shown now.", "1", true},
		{"broken JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"success":true,"data":{`) }, 503, "The page cannot be shown now.", "1", true},
		{"nothing", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"success":true}`) }, 503, "The page cannot be shown now.", "1", true},
		{"null", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"data":null}`) }, 503, "The page cannot be shown now.", "1", true},
		{"a list", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"data":[]}`) }, 503, "The page cannot be shown now.", "1", true},
		{"hints before", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(418)
		}, 418, "The service answers: I'm a teapot.", "", false},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `<html>`) }, 503, "The page cannot be shown now.", "1", true},
		{"other types", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"data":{"keys":1,"users":1,"user":1,"prefix":1,"apiTokenMaxAge":"1"}}`)
		}, 503, "The page cannot be shown now.", "1", true},
		{"a status after the body", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{`)
			w.WriteHeader(404)
		}, 503, "The page cannot be shown now.", "1", true},
	}
	places := []struct{ match, page string }{
		{"/v1/me", "/"},
		{"/v1/api-keys", "/"},
		{"/v1/org/api-keys", "/org/keys"},
		{"/v1/org/token-settings", "/org/settings"},
		{"/v1/org/users", "/org/people"},
		{"/v1/api-keys/", "/keys/{prefix}"},
		{"/v1/org/api-keys/", "/org/keys/{prefix}"},
		{"/explain", "/org/keys/{prefix}"},
	}
	for _, a := range answers {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			match := "nothing"
			w := newWorld(t, func(s *setup) {
				s.api = func(api http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if strings.Contains(r.URL.Path, match) {
							a.answer(w, r)
							return
						}
						api.ServeHTTP(w, r)
					})
				}
			})
			_, prefix := w.create("olga", "export")
			for _, place := range places {
				match, w.failed = place.match, nil
				p := w.get(a.status, strings.ReplaceAll(place.page, "{prefix}", prefix), "olga")
				p.says(a.text)
				p.without("export", "down")
				require.Equal(t, a.retry, p.Header().Get("Retry-After"))
				require.Len(t, w.failed, map[bool]int{true: 1}[a.failed])
			}
		})
	}
}

// TestUseFails: a page with keys is not shown without their use; a key that was
// revoked since the list was read is left out.
func TestUseFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answering("/usage", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{`) }))
	_, prefix := w.create("olga", "export")
	for _, path := range []string{"/", "/keys/" + prefix, "/org/keys/" + prefix} {
		w.get(503, path, "olga")
	}
	w = newWorld(t, answering("/usage", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }))
	w.create("olga", "export")
	w.get(200, "/", "olga").without("Rotate export")
	w = newWorld(t, answering("/usage", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }))
	w.create("olga", "export")
	w.get(503, "/", "olga")
}

// TestKeyFails: of a key that is not known now it is not said that it is deleted,
// although the rules can be asked about it.
func TestKeyFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) {
		s.api = func(api http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if path := strings.TrimPrefix(r.URL.Path, "/v1/org/api-keys/"); path != r.URL.Path && !strings.Contains(path, "/") {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				api.ServeHTTP(w, r)
			})
		}
	})
	_, prefix := w.create("ann", "export")
	w.get(503, "/org/keys/"+prefix, "olga").without("deleted")
}

// TestStoreFails: an API whose store fails is a page that says so (S76).
func TestStoreFails(t *testing.T) {
	t.Parallel()
	h, err := console.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(&middleware.Refusal{Status: 503, Code: "Unavailable", Reason: "store_unavailable", Message: "Not now <b>."}).Write(w, r)
	}), persons{}, nil)
	require.NoError(t, err)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, request(t.Context(), "GET", "/", "ann"))
	p := &page{ResponseRecorder: rec, t: t}
	p.check()
	require.Equal(t, 503, p.Code)
	p.says("Not now <b>.")
}

// FuzzQuery: whatever the query of a page is, the answer is a page of a documented
// kind, whole and escaped, and the API is asked for nothing that it does not have.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "creator=ann&name=x&status=active&cursor=MQ", "status=%00", "cursor=%ff", "name=%zz", "a;b", "address=::1%25eth0", "address=<b>&address=2",
		"name=\"><script>", "creator=" + strings.Repeat("x", 600), "cursor=MTc3MjM2NjQwMDAwMDAwMCBjc2tfbGl2ZV8wMDAwMDAwMA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		w := newWorld(t)
		_, prefix := w.create("olga", "export")
		ops := operations(t, w)
		w.asked = nil
		for _, path := range pages(prefix) {
			r := request(t.Context(), "GET", path, "olga")
			r.URL.RawQuery = query
			p := w.serve(r)
			require.Contains(t, []int{200, 400}, p.Code)
			require.Empty(t, w.failed)
		}
		for _, r := range w.asked {
			values, err := url.ParseQuery(r.URL.RawQuery)
			require.NoError(t, err)
			var names []string
			for name, vs := range values {
				require.Len(t, vs, 1)
				names = append(names, name)
			}
			require.True(t, documented(ops, r.Method, r.URL.Path, names), r.URL)
		}
	})
}
