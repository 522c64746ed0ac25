package api_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// openToKeys are the operations that a key may call.
var openToKeys = []string{"GET /v1/usage", "GET /v1/openapi.json"}

// TestKeysManageNothing_S60 walks every operation of the OpenAPI document with a
// valid key, an owner's, in both forms: 403 Forbidden (S69) and no effect (D25), with
// a body that a person would succeed with.
func TestKeysManageNothing_S60(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("olga")
	before := w.dump()
	walked := 0
	for _, op := range operations(t) {
		path := strings.NewReplacer("{prefix}", prefix, "{user}", "ann").Replace(op.path)
		for _, as := range []string{"key:" + secret, "pair:olga@acme.example:" + secret} {
			q := request{as: as, headers: map[string]string{"If-Match": "*"}}
			if op.body() {
				q.body = sample(op.name())
			}
			got := w.do(op.method, path, q)
			if slices.Contains(openToKeys, op.name()) {
				require.Equal(t, 200, got.Code)
				continue
			}
			got.refused(403, "Forbidden", "wrong_credential_kind")
			walked++

			// The same request by a person is none that would be refused anyway.
			if as[:3] == "key" {
				q.as = "olga"
				w2 := newWorld(t)
				_, prefix2 := w2.create("olga")
				require.Less(t, w2.do(op.method, strings.ReplaceAll(path, prefix, prefix2), q).Code, 300, op.name())
			}
		}
	}
	require.Equal(t, 2*20, walked)
	require.Equal(t, before, w.dump())
}

// sample is a good body for an operation.
func sample(operation string) object {
	switch operation {
	case "POST /v1/api-keys", "PATCH /v1/api-keys/{prefix}":
		return object{"name": "made by a key"}
	case "PATCH /v1/org/api-keys/{prefix}":
		return object{"dailyLimit": -1}
	case "PATCH /v1/org/token-settings":
		return object{"apiAllowedIPs": []string{"192.0.2.0/24"}}
	}
	return object{}
}

// TestNobody_S68: without a credential every operation but the document is 401.
func TestNobody_S68(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, op := range operations(t) {
		if op.name() == "GET /v1/openapi.json" {
			continue
		}
		for as, reason := range map[string]string{"": "no_credentials", "key:csk_live_00000000000000000000000000000000": "invalid_token", "bearer:a.b": "invalid_token"} {
			got := w.do(op.method, op.path, request{as: as})
			got.refused(401, "Unauthorized", reason)
			require.NotEmpty(t, got.Header().Get("WWW-Authenticate"))
		}
		got := w.do(op.method, op.path, request{as: "ann", headers: map[string]string{"X-Api-User": "ann@acme.example", "X-Api-Token": "x"}})
		got.refused(400, "InvalidRequest", "multiple_credentials")
	}
}

// TestOwnersOnly_S22: plain users get 403 from everything of the organization (S30,
// S47), whatever their token says of itself, and whatever they send.
func TestOwnersOnly_S22(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claims = func(p *policy.Principal) { p.Owner, p.Permitted = true, true }
	_, prefix := w.create("ann")
	before := w.dump()
	walked := 0
	for _, op := range operations(t) {
		if !strings.HasPrefix(op.path, "/v1/org/") {
			continue
		}
		walked++
		path := strings.NewReplacer("{prefix}", prefix, "{user}", "ann").Replace(op.path)
		for _, body := range []any{nil, "{", sample(op.name())} {
			w.do(op.method, path, request{as: "ann", body: body}).refused(403, "Forbidden", "owner_required")
		}
	}
	require.Equal(t, 12, walked)
	require.Equal(t, before, w.dump())
}

// TestOwnersAreReadAnew_F48: who is no owner any more, or is suspended, manages
// nothing from then on, and whom the store makes an owner needs no new token.
func TestOwnersAreReadAnew_F48(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do("GET", "/v1/org/users", request{as: "olga"}).data(200)
	u := w.user("olga")
	u.Owner = false
	w.put(u)
	w.do("GET", "/v1/org/users", request{as: "olga"}).refused(403, "Forbidden", "owner_required")
	w.do("GET", "/v1/api-keys", request{as: "olga"}).data(200)
	u.Owner = true
	w.put(u)
	w.do("GET", "/v1/org/users", request{as: "olga"}).data(200)

	u.SuspendedAt = start
	w.put(u)
	for _, op := range operations(t) { // F49
		if !slices.Contains(openToKeys, op.name()) {
			w.do(op.method, op.path, request{as: "olga"}).refused(403, "Forbidden", "user_suspended")
		}
	}
}

// TestUnknownPeople: a person whom the service was never told of, or who is nobody in
// particular, manages nothing: an empty name must not select everybody.
func TestUnknownPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("ann")
	w.put(store.User{Org: "empty", ID: "x"})
	for name, claims := range map[string]func(p *policy.Principal){
		"unknown user":         func(p *policy.Principal) { p.User = "zoe" },
		"unknown organization": func(p *policy.Principal) { p.Org = "elsewhere" },
		"no user":              func(p *policy.Principal) { p.User = "" },
		"no organization":      func(p *policy.Principal) { p.Org = "" },
		"nothing":              func(p *policy.Principal) { p.User, p.Org = "", "" },
		"control character":    func(p *policy.Principal) { p.User = "a\x00" },
		"too long":             func(p *policy.Principal) { p.Org = strings.Repeat("a", 600) },
	} {
		w.claims = func(p *policy.Principal) {
			claims(p)
			p.Owner = true
		}
		if name == "unknown organization" || name == "too long" || name == "unknown user" || name == "control character" {
			w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x"}}).refused(403, "Forbidden", "user_unknown")
		}
		got := w.do("GET", "/v1/api-keys", request{as: "ann"})
		require.Equal(t, 403, got.Code, name)
		require.NotContains(t, got.Body.String(), "csk_live_")
	}
}

// TestIdentity: organization and user come from the credential, and nothing in a
// request can name another (S51).
func TestIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, body := range []object{
		{"name": "x", "user": "bob"}, {"name": "x", "org": "rival"}, {"name": "x", "User": "bob"},
	} {
		require.Equal(t, 400, w.do("POST", "/v1/api-keys", request{as: "ann", body: body}).Code)
	}
	require.Equal(t, 400, w.do("GET", "/v1/api-keys?user=bob", request{as: "ann"}).Code)
	require.Equal(t, 400, w.do("GET", "/v1/org/api-keys?org=rival", request{as: "olga"}).Code)
	w.create("ann")
	require.Empty(t, w.do("GET", "/v1/api-keys", request{as: "bob", headers: map[string]string{"X-User": "ann"}}).list("keys"))
	require.Empty(t, w.do("GET", "/v1/org/api-keys", request{as: "rita"}).list("keys"))
	for _, u := range w.do("GET", "/v1/org/users", request{as: "rita"}).list("users") {
		require.Equal(t, "rita", u["id"])
	}
}

// TestSessions: a session manages like a JWT (D25). Every change that a browser asks
// for has to come from the service's own pages, or trusted ones, by whatever credential.
func TestSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.api.TrustedOrigins = []string{"https://console.example"} })
	_, prefix := w.create("olga")
	before := w.dump()
	cross := []map[string]string{
		{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
		{"Sec-Fetch-Site": "same-site", "Origin": "https://other.example.com"},
		{"Origin": "https://evil.example"},
		{"Origin": "null"},
	}
	walked := 0
	for _, op := range operations(t) {
		path := strings.NewReplacer("{prefix}", prefix, "{user}", "ann").Replace(op.path)
		for _, headers := range cross {
			headers["If-Match"] = "*"
			for _, as := range []string{"session:olga", "olga"} {
				q := request{as: as, headers: headers}
				if op.body() {
					q.body = sample(op.name())
				}
				got := w.do(op.method, path, q)
				if op.method == http.MethodGet {
					require.Equal(t, 200, got.Code, "reading changes nothing, and its answer is not for other sites")
					continue
				}
				got.refused(403, "Forbidden", "cross_origin")
				walked++
			}
		}
	}
	require.Equal(t, 2*10*len(cross), walked)
	require.Equal(t, before, w.dump())

	for _, headers := range []map[string]string{
		nil,
		{"Sec-Fetch-Site": "same-origin", "Origin": "https://example.com"},
		{"Sec-Fetch-Site": "none"},
		{"Origin": "http://example.com"}, // the Host of httptest
		{"Sec-Fetch-Site": "cross-site", "Origin": "https://console.example"},
	} {
		for _, as := range []string{"session:olga", "olga"} {
			w.do("PATCH", "/v1/api-keys/"+prefix, request{as: as, headers: headers, body: object{"name": "y"}}).data(200)
		}
	}
	// A form of a web page cannot send what a body must be.
	for _, media := range []string{"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"} {
		w.do("POST", "/v1/api-keys", request{as: "session:olga", body: `{"name":"x"}`, headers: map[string]string{"Content-Type": media}}).
			refused(415, "InvalidRequest", "unsupported_media_type")
	}
}

// TestHostPolicies: what the Guard requires of its callers is required here too.
func TestHostPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) {
		s.guard.Policy = policy.All(policy.Default(), policy.Scope("manage"))
	})
	w.do("GET", "/v1/api-keys", request{as: "ann"}).refused(403, "Forbidden", "insufficient_scope")
	w.claims = func(p *policy.Principal) { p.Scopes = []string{"manage"} }
	w.do("GET", "/v1/api-keys", request{as: "ann"}).data(200)
}

// TestMounting: under any prefix, at the root, and inside a Guard of the family
// (S60 holds there too); an odd path is unknown and never redirected (S8, F38).
func TestMounting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	mux := http.NewServeMux()
	mux.Handle("/", w.h)
	mux.Handle("/deep/er/", http.StripPrefix("/deep/er", w.h))
	mux.Handle("/wrong/", http.StripPrefix("/wrong/", w.h))
	mux.Handle("/guarded/", http.StripPrefix("/guarded", w.guard.Authenticate(w.h)))
	for _, at := range []string{"", "/deep/er", "/guarded"} {
		require.Equal(t, prefix, w.serve(mux, "GET", at+"/v1/api-keys/"+prefix, request{as: "ann"}).data(200)["prefix"])
		w.serve(mux, "GET", at+"/v1/api-keys/"+prefix, request{as: "key:" + secret}).refused(403, "Forbidden", "wrong_credential_kind")
		w.serve(mux, "GET", at+"/v1/usage", request{as: "key:" + secret}).data(200)
	}
	w.serve(mux, "GET", "/wrong/v1/api-keys", request{as: "ann"}).refused(404, "NotFound", "not_found")
	for _, odd := range []string{
		"/", "/v1", "/v1/", "/v2/api-keys", "/v1/api-keys/", "//v1/api-keys", "/v1//api-keys", "/v1/./api-keys", "/v1/x/../api-keys", "/V1/api-keys",
		"/v1/api-keys/" + prefix + "/", "/v1/org", "/v1/org/users//token-permission", "/v1/org/users/../token-permission", "/v1/api-keys;x=1", "/v1/api-keys%2F" + prefix,
	} {
		for _, as := range []string{"", "ann", "key:" + secret} {
			w.do("GET", odd, request{as: as}).refused(404, "NotFound", "not_found")
		}
	}
	r := httptest.NewRequest("GET", "/v1/api-keys", nil)
	r.URL.Path = ""
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, r)
	require.Equal(t, 404, rec.Code)
}

// TestMethods: a method that an address does not have is 405 with Allow, before
// anybody asks who is calling; HEAD is served where GET is.
func TestMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, allow := range map[string]string{
		"/v1/api-keys":                       "GET, HEAD, POST",
		"/v1/api-keys/x":                     "DELETE, GET, HEAD, PATCH",
		"/v1/api-keys/x/rotate":              "POST",
		"/v1/org/token-settings":             "GET, HEAD, PATCH",
		"/v1/org/users/x/token-permission":   "DELETE, PUT",
		"/v1/usage":                          "GET, HEAD",
		"/v1/openapi.json":                   "GET, HEAD",
		"/v1/org/token-settings/preview":     "POST",
		"/v1/org/api-keys/csk_live_/explain": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "X"} {
			got := w.do(method, path, request{})
			if slices.Contains(strings.Split(allow, ", "), method) {
				require.NotEqual(t, 405, got.Code)
				continue
			}
			got.refused(405, "InvalidRequest", "method_not_allowed")
			require.Equal(t, allow, got.Header().Get("Allow"))
		}
	}
	w.do("HEAD", "/v1/api-keys", request{as: "ann"}).data(200)
}

// TestNew: whatever is wrong is reported at once.
func TestNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, err := api.New(nil, nil, &api.Options{TrustedOrigins: []string{"console.example", "https://console.example/path"}})
	require.Nil(t, h)
	for _, text := range []string{"without a Manager", "without a Guard", "console.example", "/path"} {
		require.ErrorContains(t, err, text)
	}
	_, err = api.New(w.mgr, nil, nil)
	require.ErrorContains(t, err, "without a Guard")
	_, err = api.New(w.mgr, w.guard, nil)
	require.NoError(t, err)

	// A Guard that was not made by New refuses everything.
	h, err = api.New(w.mgr, new(middleware.Guard), nil)
	require.NoError(t, err)
	require.Equal(t, 503, w.serve(h, "GET", "/v1/api-keys", request{as: "ann"}).Code)
	_, err = keys.New(nil, nil)
	require.Error(t, err)
}
