package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

const (
	org = "acme"
	day = 24 * time.Hour
)

var (
	start   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	errDown = errors.New("connection refused")
)

// A world is a service in small: a store, a Manager, a Guard that knows people by
// JWT and by session beside keys, and the API. In the organization acme are ann and
// bob, plain users, and olga and otto, owners; in another one, rival, is rita, an
// owner. The clock stands still until it is set.
type world struct {
	t      *testing.T
	mem    *memstore.Store // what is really stored
	store  *faulty         // what the Manager sees of it
	mgr    *keys.Manager
	guard  *middleware.Guard
	h      http.Handler
	clock  *clock
	daily  *ratelimit.Daily
	failed []error
	claims func(p *policy.Principal) // what tokens say beside the user
}

// Settings of a world.
type setup struct {
	keys  keys.Options
	guard middleware.Options
	api   api.Options
}

func newWorld(t *testing.T, change ...func(*setup)) *world {
	t.Helper()
	w := &world{t: t, mem: memstore.New(), clock: &clock{t: start}, claims: func(*policy.Principal) {}}
	w.store = &faulty{Store: w.mem}
	w.daily = ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: w.clock.Now})
	var mu sync.Mutex
	s := setup{
		keys:  keys.Options{Now: w.clock.Now, Uses: w.store, Limiter: w.daily, Tiers: []string{"Pro", "Team", "Enterprise"}},
		guard: middleware.Options{Now: w.clock.Now, Limiter: w.daily},
		api: api.Options{Failed: func(_ *http.Request, err error) {
			mu.Lock()
			defer mu.Unlock()
			w.failed = append(w.failed, err)
		}},
	}
	for _, c := range change {
		c(&s)
	}
	var err error
	w.mgr, err = keys.New(w.store, &s.keys)
	require.NoError(t, err)
	s.guard.Authenticators = []middleware.Authenticator{middleware.APIKeys(w.mgr.Verifier(), nil), people{w}}
	w.guard, err = middleware.New(w.mgr.Verifier(), &s.guard)
	require.NoError(t, err)
	w.h, err = api.New(w.mgr, w.guard, &s.api)
	require.NoError(t, err)
	for _, u := range []store.User{
		{Org: org, ID: "ann"},
		{Org: org, ID: "bob"},
		{Org: org, ID: "olga", Owner: true},
		{Org: org, ID: "otto", Owner: true},
		{Org: "rival", ID: "rita", Owner: true},
	} {
		u.Email, u.Tier = u.ID+"@"+u.Org+".example", "Pro"
		w.put(u)
	}
	return w
}

func (w *world) put(u store.User) {
	w.t.Helper()
	require.NoError(w.t, w.mgr.PutUser(w.t.Context(), &u))
}

func (w *world) user(id string) store.User {
	w.t.Helper()
	u, err := w.mgr.User(w.t.Context(), org, id)
	require.NoError(w.t, err)
	return *u
}

// people authenticates "Bearer user.org.jwt" and the cookie "session=user.org".
type people struct{ w *world }

func (a people) Authenticate(r *http.Request) (*policy.Principal, error) {
	p := &policy.Principal{Credential: policy.JWT}
	text, ok := middleware.BearerToken(r)
	if !ok {
		c, err := r.Cookie("session")
		if err != nil {
			return nil, middleware.ErrNoCredential
		}
		p.Credential, text = policy.Session, c.Value+".session"
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, middleware.ErrNoCredential
	}
	p.User, p.Org, p.Tier = parts[0], parts[1], "Pro"
	a.w.claims(p)
	return p, nil
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

// A faulty store counts its calls and fails the one with that number.
type faulty struct {
	*memstore.Store
	calls, fail atomic.Int64
	on          func(call int64) // before each call, if there is one
}

func (f *faulty) call() error {
	n := f.calls.Add(1)
	if f.on != nil {
		f.on(n)
	}
	if n == f.fail.Load() {
		return errDown
	}
	return nil
}

func try[T any](f *faulty, do func() (T, error)) (T, error) {
	if err := f.call(); err != nil {
		var zero T
		return zero, err
	}
	return do()
}

func (f *faulty) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	return try(f, func() (*store.Record, error) { return f.Store.Lookup(ctx, d) })
}

func (f *faulty) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	return try(f, func() (*policy.Settings, error) { return f.Store.Settings(ctx, org) })
}

func (f *faulty) InsertKey(ctx context.Context, k, replaces *store.Key, max int) error {
	_, err := try(f, func() (any, error) { return nil, f.Store.InsertKey(ctx, k, replaces, max) })
	return err
}

func (f *faulty) Keys(ctx context.Context, q store.Query) ([]*store.Key, error) {
	return try(f, func() ([]*store.Key, error) { return f.Store.Keys(ctx, q) })
}

func (f *faulty) UpdateKey(ctx context.Context, k *store.Key) error {
	_, err := try(f, func() (any, error) { return nil, f.Store.UpdateKey(ctx, k) })
	return err
}

func (f *faulty) Users(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
	return try(f, func() ([]*store.User, error) { return f.Store.Users(ctx, q) })
}

func (f *faulty) PutUser(ctx context.Context, u *store.User) error {
	_, err := try(f, func() (any, error) { return nil, f.Store.PutUser(ctx, u) })
	return err
}

func (f *faulty) UpdateSettings(ctx context.Context, s *policy.Settings) error {
	_, err := try(f, func() (any, error) { return nil, f.Store.UpdateSettings(ctx, s) })
	return err
}

func (f *faulty) Uses(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
	return try(f, func() ([]store.UseSummary, error) { return f.Store.Uses(ctx, org, ids) })
}

// A request is made by world.do; what is left out is left out.
type request struct {
	as      string            // "ann": by JWT; "session:ann"; "key:..."; "pair:user:..."
	body    any               // a string as it is, or what is marshaled
	headers map[string]string // added, or taken away if empty
}

func (w *world) do(method, path string, q request) *reply {
	w.t.Helper()
	return w.serve(w.h, method, path, q)
}

func (w *world) serve(h http.Handler, method, path string, q request) *reply {
	w.t.Helper()
	var r *http.Request
	if q.body == nil {
		r = httptest.NewRequestWithContext(w.t.Context(), method, path, nil)
	} else {
		text, ok := q.body.(string)
		if !ok {
			b, err := json.Marshal(q.body)
			require.NoError(w.t, err)
			text = string(b)
		}
		r = httptest.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(text))
		r.Header.Set("Content-Type", "application/json")
	}
	kind, who, found := strings.Cut(q.as, ":")
	switch {
	case q.as == "":
	case !found:
		o := org
		if q.as == "rita" {
			o = "rival"
		}
		r.Header.Set("Authorization", "Bearer "+q.as+"."+o+".jwt")
	case kind == "session":
		r.AddCookie(&http.Cookie{Name: "session", Value: who + "." + org})
	case kind == "key", kind == "bearer":
		r.Header.Set("Authorization", "Bearer "+who)
	case kind == "pair":
		email, secret, _ := strings.Cut(who, ":")
		r.Header.Set("X-Api-User", email)
		r.Header.Set("X-Api-Token", secret)
	}
	for name, value := range q.headers {
		if value == "" {
			r.Header.Del(name)
		} else {
			r.Header.Set(name, value)
		}
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	got := &reply{ResponseRecorder: rec, t: w.t}
	got.check()
	return got
}

// A reply is an answer of the API.
type reply struct {
	*httptest.ResponseRecorder
	t *testing.T
}

// check demands what every answer has: the headers of D40, the envelope of D1 or D2,
// no redirect, and neither a message at the top of a success nor a digest anywhere.
func (p *reply) check() {
	p.t.Helper()
	body := p.Body.String()
	require.NotEqual(p.t, 3, p.Code/100)
	require.Equal(p.t, "no-store", p.Header().Get("Cache-Control"), "D40")
	require.Equal(p.t, "nosniff", p.Header().Get("X-Content-Type-Options"), "D40")
	require.NotContains(p.t, strings.ToLower(body), "digest")
	require.NotContains(p.t, strings.ToLower(body), "hash")
	retries := p.Code == 429 || p.Code == 503
	require.Equal(p.t, retries, p.Header().Get("Retry-After") != "", "D38")
	if p.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		require.Equal(p.t, "application/problem+json", p.Header().Get("Content-Type"))
		return
	}
	var envelope map[string]any
	require.NoError(p.t, json.Unmarshal(p.Body.Bytes(), &envelope), body)
	if envelope["openapi"] != nil {
		return
	}
	require.Equal(p.t, p.Code < 300, envelope["success"])
	if p.Code < 300 {
		require.Len(p.t, envelope, 2, "D2: never a message at the top of a success")
		require.Contains(p.t, envelope, "data")
		return
	}
	require.EqualValues(p.t, p.Code, envelope["status"])
	require.NotEmpty(p.t, envelope["message"], "S6")
	reason := envelope["error"].(map[string]any)["reason"].(string)
	require.Regexp(p.t, `\b`+reason+`\b`, reasons(), "a reason that is not documented")
}

// reasons are the reasons that the document has.
var reasons = sync.OnceValue(func() string {
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		return err.Error()
	}
	var doc struct {
		Components struct {
			Schemas struct{ Reason struct{ Description string } }
		}
	}
	_ = json.Unmarshal(text, &doc)
	return doc.Components.Schemas.Reason.Description
})

// data requires a status and returns the data.
func (p *reply) data(status int) map[string]any {
	p.t.Helper()
	require.Equal(p.t, status, p.Code, p.Body.String())
	var envelope struct{ Data map[string]any }
	require.NoError(p.t, json.Unmarshal(p.Body.Bytes(), &envelope))
	return envelope.Data
}

// list returns the objects of an array in the data.
func (p *reply) list(name string) (items []map[string]any) {
	p.t.Helper()
	for _, item := range p.data(200)[name].([]any) {
		items = append(items, item.(map[string]any))
	}
	return items
}

type refusal struct {
	Status  int
	Message string
	Error   struct {
		Code, Reason, Message string
		Fields                []middleware.FieldProblem
	}
}

// refused requires a refusal (D1, D3) and returns it.
func (p *reply) refused(status int, code, reason string) refusal {
	p.t.Helper()
	var f refusal
	require.NoError(p.t, json.Unmarshal(p.Body.Bytes(), &f), p.Body.String())
	require.Equal(p.t, fmt.Sprint(status, " ", code, " ", reason), fmt.Sprint(p.Code, " ", f.Error.Code, " ", f.Error.Reason), p.Body.String())
	require.Equal(p.t, f.Message, f.Error.Message)
	return f
}

// invalid requires a ValidationError that names the field, and returns its problem.
func (p *reply) invalid(field string) middleware.FieldProblem {
	p.t.Helper()
	f := p.refused(400, "ValidationError", "invalid_fields")
	require.NotEmpty(p.t, f.Error.Fields)
	require.Equal(p.t, field, f.Error.Fields[0].Field, p.Body.String())
	require.NotEmpty(p.t, f.Error.Fields[0].Message)
	return f.Error.Fields[0]
}

// object is the body of a request.
type object map[string]any

// create makes a key by the API and returns its token and prefix.
func (w *world) create(as string) (secret, prefix string) {
	w.t.Helper()
	data := w.do("POST", "/v1/api-keys", request{as: as, body: object{"name": "export"}}).data(201)
	return data["key"].(string), data["prefix"].(string)
}

// use sends a request with a key to a handler of the service, and returns the status
// and the reason of a refusal.
func (w *world) use(secret string) string {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), "GET", "/v1/ping", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	_, _, err := w.guard.Admit(r)
	if f, ok := errors.AsType[*middleware.Refusal](err); ok {
		return fmt.Sprint(f.Status, " ", f.Reason)
	}
	require.NoError(w.t, err)
	return "200"
}

// settings changes settings as olga does.
func (w *world) settings(change object) map[string]any {
	w.t.Helper()
	return w.do("PATCH", "/v1/org/token-settings", request{as: "olga", body: change, headers: map[string]string{"If-Match": "*"}}).data(200)
}

// dump is all that is stored of acme.
func (w *world) dump() string {
	w.t.Helper()
	ctx := w.t.Context()
	ks, err := w.mem.Keys(ctx, store.Query{Revoked: true})
	require.NoError(w.t, err)
	us, err := w.mem.Users(ctx, store.UserQuery{Org: org})
	require.NoError(w.t, err)
	s, err := w.mem.Settings(ctx, org)
	require.NoError(w.t, err)
	var b strings.Builder
	for _, k := range ks {
		fmt.Fprintf(&b, "%+v\n", *k)
	}
	for _, u := range us {
		fmt.Fprintf(&b, "%+v\n", *u)
	}
	fmt.Fprintf(&b, "%v %v %q %d", s.RestrictUsers, s.MaxAge, s.AllowedIPs.String(), s.Version)
	return b.String()
}

// used notes a use of a key.
func (w *world) used(prefix, addr string, at time.Time) {
	w.t.Helper()
	require.NoError(w.t, w.mem.RecordUses(w.t.Context(), []store.Use{{
		KeyID: prefix, Addr: netip.MustParseAddr(addr), UserAgent: "curl/8", First: at, Last: at, Count: 1,
	}}))
}

func record(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
