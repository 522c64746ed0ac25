package itest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// apiPrefix is where the contract tests mount the API.
const apiPrefix = "/some/prefix"

// An apiService is the management API behind a real server, and the document that it
// serves. In the organization acme are the owner olga and the user ann.
type apiService struct {
	t         *testing.T
	store     *stubbornStore
	mgr       *keys.Manager
	url       string
	client    *http.Client
	validator validator.Validator
	document  map[string]any
	seen      map[string]bool // "GET /v1/usage 200"
}

// A stubbornStore fails, or says that somebody else was faster, if it is told to.
type stubbornStore struct {
	*memstore.Store
	down, conflict atomic.Bool
}

func (s *stubbornStore) Users(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
	if s.down.Load() {
		return nil, errStubborn
	}
	return s.Store.Users(ctx, q)
}

var errStubborn = errors.New("connection refused")

// A stubbornLimiter fails together with the store.
type stubbornLimiter struct {
	ratelimit.Limiter
	store *stubbornStore
}

func (l stubbornLimiter) Peek(ctx context.Context, key string, limit int64) (ratelimit.Result, error) {
	if l.store.down.Load() {
		return ratelimit.Result{}, errStubborn
	}
	return l.Limiter.Peek(ctx, key, limit)
}

func (s *stubbornStore) UpdateKey(ctx context.Context, k *store.Key) error {
	if s.conflict.Load() {
		return store.ErrConflict
	}
	return s.Store.UpdateKey(ctx, k)
}

func (s *stubbornStore) PutUser(ctx context.Context, u *store.User) error {
	if s.conflict.Load() {
		return store.ErrConflict
	}
	return s.Store.PutUser(ctx, u)
}

// apiPeople takes "Bearer user.x.jwt" for a JWT of that user.
type apiPeople struct{}

func (apiPeople) Authenticate(r *http.Request) (*policy.Principal, error) {
	text, _ := middleware.BearerToken(r)
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, middleware.ErrNoCredential
	}
	return &policy.Principal{Credential: policy.JWT, Org: "acme", User: parts[0], Tier: "Pro"}, nil
}

func newAPIService(t *testing.T) *apiService {
	t.Helper()
	s := &apiService{t: t, store: &stubbornStore{Store: memstore.New()}, seen: map[string]bool{}}
	var err error
	s.mgr, err = keys.New(s.store, &keys.Options{Uses: s.store.Store})
	require.NoError(t, err)
	for _, u := range []store.User{{ID: "ann"}, {ID: "olga", Owner: true}} {
		u.Org, u.Email, u.Tier = "acme", u.ID+"@acme.example", "Pro"
		require.NoError(t, s.mgr.PutUser(t.Context(), &u))
	}
	guard, err := middleware.New(s.mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(s.mgr.Verifier(), nil), apiPeople{}},
		Limiter:        stubbornLimiter{ratelimit.NewDaily(ratelimit.NewMemory(), nil), s.store},
	})
	require.NoError(t, err)
	h, err := api.New(s.mgr, guard, nil)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle(apiPrefix+"/", http.StripPrefix(apiPrefix, h))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url, s.client = server.URL+apiPrefix, server.Client()

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/openapi.json", nil)
	require.NoError(t, err)
	res, err := s.client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &s.document))
	document, err := libopenapi.NewDocument(text)
	require.NoError(t, err)
	var errs []error
	s.validator, errs = validator.NewValidator(document, config.WithFormatAssertions(), config.WithRejectUndeclaredRequestBody())
	require.Empty(t, errs)
	valid, problems := s.validator.ValidateDocument()
	require.True(t, valid, "%v", problems)
	return s
}

// A call is one request of a contract test.
type apiCall struct {
	method, path string // the path as in the document, below the prefix
	op           string // the operation's path, if that is another
	as           string // whose JWT; "key ..." for a key, "" for nobody
	body         any    // marshaled; a string is sent as it is
	header       map[string]string
}

// do sends a request and requires that the answer is in the contract, and that the
// request is, if it was taken. It returns the status and the data.
func (s *apiService) do(c apiCall) (int, map[string]any) {
	s.t.Helper()
	var body []byte
	switch b := c.body.(type) {
	case nil:
	case string:
		body = []byte(b)
	default:
		var err error
		body, err = json.Marshal(b)
		require.NoError(s.t, err)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), c.method, s.url+c.path, bytes.NewReader(body))
	require.NoError(s.t, err)
	if c.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if key, ok := strings.CutPrefix(c.as, "key "); ok {
		r.Header.Set("Authorization", "Bearer "+key)
	} else if c.as != "" {
		r.Header.Set("Authorization", "Bearer "+c.as+".x.jwt")
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	res, err := s.client.Do(r)
	require.NoError(s.t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)

	if problems := s.check(r, body, res, answer); len(problems) > 0 {
		require.Fail(s.t, "not in the contract", "%s %s %s\n%d %s\n%s", c.method, c.path, body, res.StatusCode, answer, strings.Join(problems, "\n"))
	}
	op := c.op
	if op == "" {
		op, _, _ = strings.Cut(c.path, "?")
	}
	s.seen[fmt.Sprint(c.method, " ", op, " ", res.StatusCode)] = true
	var envelope struct{ Data map[string]any }
	require.NoError(s.t, json.Unmarshal(answer, &envelope))
	return res.StatusCode, envelope.Data
}

// check returns what of an exchange is not in the contract. A request that was
// refused may have been a bad one.
func (s *apiService) check(r *http.Request, body []byte, res *http.Response, answer []byte) (problems []string) {
	r = r.Clone(r.Context())
	r.URL.Path = strings.TrimPrefix(r.URL.Path, apiPrefix)
	r.URL.RawPath = strings.TrimPrefix(r.URL.RawPath, apiPrefix)
	if res.StatusCode < 300 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if ok, errs := s.validator.ValidateHttpRequest(r); !ok {
			for _, e := range errs {
				problems = append(problems, "request: "+e.Error())
			}
		}
	}
	copied := *res
	copied.Body = io.NopCloser(bytes.NewReader(answer))
	if ok, errs := s.validator.ValidateHttpResponse(r, &copied); !ok {
		for _, e := range errs {
			problems = append(problems, "answer: "+e.Error())
		}
	}
	return problems
}

// create makes a key of a user's and returns its token and prefix.
func (s *apiService) create(as string) (secret, prefix string) {
	s.t.Helper()
	status, data := s.do(apiCall{method: "POST", path: "/v1/api-keys", as: as, body: map[string]any{"name": "export"}})
	require.Equal(s.t, 201, status)
	return data["key"].(string), data["prefix"].(string)
}

// TestAPIContract sends a whole session through the management API (S1, S56-S60) and
// holds every answer, and every request that was taken, to the OpenAPI document; in
// the end every status that the document has for an operation was answered by it.
func TestAPIContract(t *testing.T) {
	t.Parallel()
	s := newAPIService(t)
	s.session()
	s.refusals()

	var missing []string
	for path, item := range s.document["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			if method == "parameters" {
				continue
			}
			for status := range op.(map[string]any)["responses"].(map[string]any) {
				name := strings.ToUpper(method) + " " + path + " " + status
				if !s.seen[name] {
					missing = append(missing, name)
				}
			}
		}
	}
	slices.Sort(missing)
	require.Empty(t, missing, "in the document, and never answered")
}

type apiObject = map[string]any

const apiSettings = "/v1/org/token-settings"

// session does what people do.
func (s *apiService) session() {
	s.t.Helper()
	ok := func(want int, c apiCall) apiObject {
		s.t.Helper()
		status, data := s.do(c)
		require.Equal(s.t, want, status)
		return data
	}
	ok(200, apiCall{method: "GET", path: "/v1/openapi.json"})

	// A key with everything, and one with nothing but a name.
	full := ok(201, apiCall{method: "POST", path: "/v1/api-keys", as: "olga", body: apiObject{
		"name": "  Späte Übung 😀 ", "scopes": []string{"reports:read"}, "dailyLimit": -1, "expiresAt": "2999-12-31T23:59:59.5+14:00",
	}})
	ok(201, apiCall{method: "POST", path: "/v1/api-keys", as: "olga", body: apiObject{"name": "x", "dailyLimit": nil, "expiresAt": nil, "scopes": []string{}}})
	secret, prefix := s.create("ann")
	one := "/v1/api-keys/" + prefix
	const oneOp = "/v1/api-keys/{prefix}"
	ok(200, apiCall{method: "GET", path: one, op: oneOp, as: "ann"})
	ok(200, apiCall{method: "PATCH", path: one, op: oneOp, as: "ann", body: apiObject{"name": "renamed", "dailyLimit": 7, "expiresAt": "2999-01-01T00:00:00Z"}})
	ok(200, apiCall{method: "PATCH", path: one, op: oneOp, as: "ann", body: apiObject{"dailyLimit": nil, "expiresAt": nil}})
	rotated := ok(201, apiCall{method: "POST", path: one + "/rotate", op: oneOp + "/rotate", as: "ann", body: apiObject{"grace": 3600}})
	ok(201, apiCall{method: "POST", path: "/v1/api-keys/" + rotated["prefix"].(string) + "/rotate", op: oneOp + "/rotate", as: "ann"})
	for _, as := range []string{"key " + secret, "ann"} {
		ok(200, apiCall{method: "GET", path: "/v1/usage", as: as})
	}
	now := time.Now()
	require.NoError(s.t, s.store.RecordUses(s.t.Context(), []store.Use{
		{KeyID: prefix, Addr: netip.MustParseAddr("203.0.113.7"), UserAgent: "curl", First: now, Last: now, Count: 3},
		{KeyID: prefix, Addr: netip.MustParseAddr("2001:db8::7"), First: now, Last: now, Count: 1},
	}))

	ok(200, apiCall{method: "GET", path: "/v1/me", as: "ann"})
	ok(200, apiCall{method: "GET", path: "/v1/me", as: "olga"})
	ok(200, apiCall{method: "GET", path: one + "/usage", op: oneOp + "/usage", as: "ann"})
	ok(200, apiCall{method: "GET", path: "/v1/org/api-keys/" + prefix, op: "/v1/org/api-keys/{prefix}", as: "olga"})
	ok(200, apiCall{method: "GET", path: "/v1/org/api-keys/" + prefix + "/usage", op: "/v1/org/api-keys/{prefix}/usage", as: "olga"})

	// Lists by pages, with every filter.
	for _, path := range []string{"/v1/api-keys", "/v1/org/api-keys", "/v1/org/users"} {
		cursor := ""
		for {
			data := ok(200, apiCall{method: "GET", path: path + "?limit=1" + cursor, as: "olga"})
			next, more := data["nextCursor"].(string)
			if !more {
				break
			}
			cursor = "&cursor=" + next
		}
		ok(200, apiCall{method: "GET", path: path, as: "olga"})
	}
	for _, query := range []string{"name=x", "creator=ann%40acme", "status=active", "status=revoked", "revoked=true", "name=&creator=&revoked=false&limit=100"} {
		ok(200, apiCall{method: "GET", path: "/v1/org/api-keys?" + query, as: "olga"})
	}

	// Settings, before and after they are put in force.
	ok(200, apiCall{method: "GET", path: apiSettings, as: "olga"})
	change := apiObject{"restrictedAccessTokens": true, "apiTokenMaxAge": 1, "apiAllowedIPs": []string{"# office", "198.51.100.0/24", "::1-::ff # lab"}}
	ok(200, apiCall{method: "POST", path: apiSettings + "/preview?days=7", as: "olga", body: change})
	ok(200, apiCall{method: "POST", path: apiSettings + "/preview", as: "olga", body: apiObject{}})
	ok(200, apiCall{method: "PATCH", path: apiSettings, as: "olga", body: change, header: map[string]string{"If-Match": `"0"`}})
	ok(200, apiCall{method: "GET", path: apiSettings, as: "olga"})
	explain := "/v1/org/api-keys/" + prefix + "/explain"
	const explainOp = "/v1/org/api-keys/{prefix}/explain"
	for _, query := range []string{"", "?address=192.0.2.1", "?address=2001:db8::1"} {
		ok(200, apiCall{method: "GET", path: explain + query, op: explainOp, as: "olga"})
	}
	permission := "/v1/org/users/ann/token-permission"
	const permissionOp = "/v1/org/users/{user}/token-permission"
	ok(200, apiCall{method: "PUT", path: permission, op: permissionOp, as: "olga"})
	ok(200, apiCall{method: "PUT", path: permission, op: permissionOp, as: "olga", body: apiObject{}})
	ok(200, apiCall{method: "DELETE", path: permission, op: permissionOp, as: "olga"})
	ok(200, apiCall{
		method: "PATCH", path: apiSettings, as: "olga", body: apiObject{"restrictedAccessTokens": false, "apiTokenMaxAge": 0, "apiAllowedIPs": []string{}},
		header: map[string]string{"If-Match": "*"},
	})

	// Owners and the keys of others.
	others := "/v1/org/api-keys/" + prefix
	const othersOp = "/v1/org/api-keys/{prefix}"
	for _, body := range []apiObject{{"disabled": true}, {"disabled": false, "dailyLimit": 5}, {"dailyLimit": nil}} {
		ok(200, apiCall{method: "PATCH", path: others, op: othersOp, as: "olga", body: body})
	}
	ok(200, apiCall{method: "DELETE", path: others, op: othersOp, as: "olga"})
	ok(200, apiCall{method: "GET", path: explain, op: explainOp, as: "olga"})
	ok(200, apiCall{method: "GET", path: "/v1/org/api-keys?revoked=true", as: "olga"})
	ok(200, apiCall{method: "PATCH", path: apiSettings, as: "olga", body: apiObject{"restrictedAccessTokens": true}, header: map[string]string{"If-Match": "*"}})
	ok(200, apiCall{method: "GET", path: "/v1/me", as: "ann"})
	ok(200, apiCall{method: "PATCH", path: apiSettings, as: "olga", body: apiObject{"restrictedAccessTokens": false}, header: map[string]string{"If-Match": "*"}})
	ok(200, apiCall{method: "DELETE", path: "/v1/api-keys/" + full["prefix"].(string), op: oneOp, as: "olga"})
}

// refusals makes every operation refuse in every way that the document has for it.
func (s *apiService) refusals() {
	s.t.Helper()
	secret, prefix := s.create("olga")
	for path, item := range s.document["paths"].(map[string]any) {
		if path == "/v1/openapi.json" {
			continue
		}
		for method, spec := range item.(map[string]any) {
			if method == "parameters" {
				continue
			}
			responses := spec.(map[string]any)["responses"].(map[string]any)
			s.refuse(strings.ToUpper(method), path, secret, prefix, func(status int) bool { return responses[fmt.Sprint(status)] != nil })
		}
	}
	for {
		status, _ := s.do(apiCall{method: "POST", path: "/v1/api-keys", as: "ann", body: apiObject{"name": "x"}})
		if status != 201 {
			require.Equal(s.t, 409, status, "the cap (S12)")
			break
		}
	}
}

// refuse does so with one operation.
func (s *apiService) refuse(method, op, secret, prefix string, documented func(status int) bool) {
	s.t.Helper()
	named := strings.NewReplacer("{prefix}", prefix, "{user}", "olga").Replace(op)
	unnamed := strings.NewReplacer("{prefix}", "csk_live_00000000", "{user}", "nobody").Replace(op)
	call := apiCall{method: method, path: named, op: op, as: "olga", header: map[string]string{}}
	if documented(415) {
		call.body = apiObject{}
		switch op {
		case "/v1/api-keys", "/v1/api-keys/{prefix}":
			call.body = apiObject{"name": "x"}
		case "/v1/org/api-keys/{prefix}":
			call.body = apiObject{"disabled": false, "dailyLimit": 1}
		case apiSettings:
			call.body = apiObject{"apiTokenMaxAge": 0}
			call.header["If-Match"] = `"99"`
		}
	}
	refused := func(want int, change func(c *apiCall)) {
		s.t.Helper()
		for _, accept := range []string{"application/json", "application/problem+json"} {
			c := call
			c.header = map[string]string{"Accept": accept}
			maps.Copy(c.header, call.header)
			change(&c)
			status, _ := s.do(c)
			require.Equal(s.t, want, status, "%s %s", method, op)
		}
	}
	refused(401, func(c *apiCall) { c.as = "" })
	refused(401, func(c *apiCall) { c.as = "key " + secret[:40] + "x" })
	refused(400, func(c *apiCall) { c.header["X-Api-Token"], c.header["X-Api-User"] = secret, "x" })
	if op != "/v1/usage" {
		refused(403, func(c *apiCall) { c.as = "key " + secret })
	} else {
		other, id := s.create("ann")
		s.do(apiCall{method: "PATCH", path: "/v1/org/api-keys/" + id, op: "/v1/org/api-keys/{prefix}", as: "olga", body: apiObject{"disabled": true}})
		refused(403, func(c *apiCall) { c.as = "key " + other })
	}
	if documented(404) {
		refused(404, func(c *apiCall) { c.path = unnamed })
	}
	if documented(413) {
		refused(413, func(c *apiCall) { c.body = "{" + strings.Repeat(" ", 64<<10) + "}" })
		refused(415, func(c *apiCall) { c.header["Content-Type"] = "text/plain" })
		refused(400, func(c *apiCall) { c.body = `{"unknown":1}` })
		refused(400, func(c *apiCall) { c.body = `{` })
	}
	if documented(428) {
		refused(428, func(c *apiCall) { delete(c.header, "If-Match") })
	}
	if documented(409) && op != "/v1/api-keys" {
		s.store.conflict.Store(true)
		switch op {
		case "/v1/api-keys/{prefix}/rotate":
			s.store.conflict.Store(false)
			s.do(apiCall{method: "POST", path: named, op: op, as: "olga", body: apiObject{"grace": 3600}})
		case "/v1/org/users/{user}/token-permission":
			u, err := s.mgr.User(s.t.Context(), "acme", "olga")
			require.NoError(s.t, err)
			u.Permitted = method == "DELETE" // so that there is something to change
			require.NoError(s.t, s.store.Store.PutUser(s.t.Context(), u))
		}
		refused(409, func(*apiCall) {})
		s.store.conflict.Store(false)
	}
	s.store.down.Store(true)
	refused(503, func(*apiCall) {})
	s.store.down.Store(false)
}

// TestAPIContractIsHeld: an exchange that is not in the contract is found.
func TestAPIContractIsHeld(t *testing.T) {
	t.Parallel()
	s := newAPIService(t)
	const key = `{"prefix":"csk_live_a1b2c3d4","name":"x","scopes":[],"dailyLimit":null,"status":"active","reasons":[],` +
		`"createdAt":"2026-01-01T00:00:00Z","expiresAt":null,"ownExpiresAt":null,"lastUsedAt":null,"revokedAt":null`
	const good = `{"success":true,"data":` + key + `}}`
	const refusal = `{"success":false,"status":403,"message":"No.","error":{"code":"Forbidden","reason":"owner_required","message":"No."}}`
	tests := []struct {
		name         string
		method, body string // of the request
		status       int
		answer       string
		ok           bool
	}{
		{"as it is", "PATCH", `{"name":"x"}`, 200, good, true},
		{"a refusal", "PATCH", `{"name":"x"}`, 403, refusal, true},
		{"a bad request that is refused", "PATCH", `{"nam":"x"}`, 403, refusal, true},
		{"a bad request that is taken", "PATCH", `{"nam":"x"}`, 200, good, false},
		{"an empty change that is taken", "PATCH", `{}`, 200, good, false},
		{"a limit of 0 that is taken", "PATCH", `{"dailyLimit":0}`, 200, good, false},
		{"a member more", "GET", "", 200, `{"success":true,"data":` + key + `,"digest":"x"}}`, false},
		{"a token in it", "GET", "", 200, `{"success":true,"data":` + key + `,"key":"x"}}`, false},
		{"a message at the top", "GET", "", 200, `{"success":true,"message":"x","data":` + key + `}}`, false},
		{"a member less", "GET", "", 200, strings.Replace(good, `"reasons":[],`, "", 1), false},
		{"another type", "GET", "", 200, strings.Replace(good, `"scopes":[]`, `"scopes":null`, 1), false},
		{"no state", "GET", "", 200, strings.Replace(good, `"active"`, `"fine"`, 1), false},
		{"no time", "GET", "", 200, strings.Replace(good, "T00:00:00Z", " 00:00:00", 1), false},
		{"a whole token for a prefix", "GET", "", 200, strings.Replace(good, "a1b2c3d4", "a1b2c3d4e5f6", 1), false},
		{"another status", "GET", "", 202, good, false},
		{"no code", "GET", "", 403, strings.Replace(refusal, "Forbidden", "AccessDenied", 1), false},
		{"a refusal that succeeds", "GET", "", 403, strings.Replace(refusal, "false", "true", 1), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), test.method, s.url+"/v1/api-keys/csk_live_a1b2c3d4", nil)
			require.NoError(t, err)
			r.Header.Set("Authorization", "Bearer ann.x.jwt")
			if test.body != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			res := &http.Response{StatusCode: test.status, Header: http.Header{
				"Content-Type":           {"application/json; charset=utf-8"},
				"Cache-Control":          {"no-store"},
				"X-Content-Type-Options": {"nosniff"},
			}}
			problems := s.check(r, []byte(test.body), res, []byte(test.answer))
			require.Equal(t, test.ok, len(problems) == 0, "%v", problems)
		})
	}
	for _, header := range []string{"Cache-Control", "X-Content-Type-Options", "Content-Type"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/api-keys/csk_live_a1b2c3d4", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer ann.x.jwt")
		res := &http.Response{StatusCode: 200, Header: http.Header{
			"Content-Type":           {"application/json; charset=utf-8"},
			"Cache-Control":          {"no-store"},
			"X-Content-Type-Options": {"nosniff"},
		}}
		require.Empty(t, s.check(r, nil, res, []byte(good)))
		res.Header.Del(header)
		require.NotEmpty(t, s.check(r, nil, res, []byte(good)), "without %s", header)
	}
}
