package middleware_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

const (
	testOrg   = "acme"
	testUser  = "u1"
	testEmail = "ann@acme.example"
)

// tenPrefixes is an allowlist of ten entries, among them the peer address of
// httptest.NewRequest.
const tenPrefixes = `192.0.2.0/24
10.0.0.0/8
172.16.0.0/12
192.168.0.0/16
198.51.100.0/24
203.0.113.0/24
2001:db8::/32
fd00::/8
100.64.0.0/10
198.18.0.0/15`

// A world is a service in small: a store, a Manager, one user with one key, and
// a clock that stands still until it is set.
type world struct {
	tb    testing.TB
	store *countingStore
	mgr   *keys.Manager
	key   *store.Key
	token token.Token
	clock *clock
}

// A countingStore counts the look-ups that reach the store, and can hold one up
// between the reading of the row and the answer.
type countingStore struct {
	*memstore.Store
	lookups atomic.Int64
	blocked atomic.Pointer[func()]
}

// block holds up the next look-up, and no other, by a call of wait.
func (s *countingStore) block(wait func()) { s.blocked.Store(&wait) }

func (s *countingStore) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	s.lookups.Add(1)
	r, err := s.Store.Lookup(ctx, d)
	if wait := s.blocked.Swap(nil); wait != nil {
		(*wait)()
	}
	return r, err
}

// A clock stands still until it is set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{tb: tb, store: &countingStore{Store: memstore.New()}, clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	var err error
	w.mgr, err = keys.New(w.store, &keys.Options{Now: w.clock.Now})
	require.NoError(tb, err)
	w.putUser(&store.User{Org: testOrg, ID: testUser, Email: testEmail, Tier: "Pro"})
	w.token, w.key = w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "test", Scopes: []string{"reports:read"}})
	return w
}

func (w *world) putUser(u *store.User) {
	w.tb.Helper()
	err := w.mgr.PutUser(w.tb.Context(), u)
	require.NoError(w.tb, err)
}

func (w *world) create(p keys.CreateParams) (token.Token, *store.Key) {
	w.tb.Helper()
	t, k, err := w.mgr.Create(w.tb.Context(), p)
	require.NoError(w.tb, err)
	return t, k
}

func (w *world) settings(change func(*policy.Settings)) {
	w.tb.Helper()
	s, err := w.mgr.Settings(w.tb.Context(), testOrg)
	require.NoError(w.tb, err)
	changed := *s
	change(&changed)
	_, err = w.mgr.UpdateSettings(w.tb.Context(), keys.Actor{Role: keys.Owner}, &changed)
	require.NoError(w.tb, err)
}

func (w *world) guard(opts *middleware.Options) *middleware.Guard {
	w.tb.Helper()
	o := middleware.Options{}
	if opts != nil {
		o = *opts
	}
	if o.Now == nil {
		o.Now = w.clock.Now
	}
	g, err := middleware.New(w.mgr.Verifier(), &o)
	require.NoError(w.tb, err)
	return g
}

// bearer is a request with a token in the form of seed C.
func bearer(t string) *http.Request {
	r := httptest.NewRequest("GET", "/v1/ping", nil)
	r.Header.Set("Authorization", "Bearer "+t)
	return r
}

// pair is a request with a token in the form of seeds A and B.
func pair(email, t string) *http.Request {
	r := httptest.NewRequest("GET", "/v1/ping", nil)
	r.Header.Set("x-api-user", email)
	r.Header.Set("x-api-token", t)
	return r
}

// do serves one request and returns the recorded answer.
func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// pong is a handler that must be reached by admitted requests only.
var pong = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write([]byte("pong from the protected handler"))
})

// requireRefusal checks everything that every refusal has: status, code and
// reason in the one body of D1, the headers of C1, D14, D38, D40, and that the
// handler was not reached.
func requireRefusal(tb testing.TB, w *httptest.ResponseRecorder, status int, reason policy.Reason) {
	tb.Helper()
	code := map[int]string{
		400: "InvalidRequest", 401: "Unauthorized", 403: "Forbidden", 429: "RateLimitExceeded", 503: "Unavailable",
	}[status]
	require.Equal(tb, status, w.Code, w.Body.String())
	body := w.Body.String()
	require.NotContains(tb, body, "pong")
	require.Contains(tb, body, `"success":false`)
	require.Regexp(tb, `"message":"[A-Z][^"]{10,}\."`, body, "S6: a text that people can read")
	require.Contains(tb, body, `"code":"`+code+`"`)
	require.Contains(tb, body, `"reason":"`+string(reason)+`"`)
	require.Equal(tb, "application/json; charset=utf-8", w.Header().Get("Content-Type"))
	require.Equal(tb, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(tb, "nosniff", w.Header().Get("X-Content-Type-Options"))
	challenges := w.Header().Values("WWW-Authenticate")
	if status == http.StatusUnauthorized {
		require.Len(tb, challenges, 1)
		require.True(tb, strings.HasPrefix(challenges[0], `Bearer realm="`), challenges[0])
		require.Equal(tb, reason != policy.NoCredentials, strings.Contains(challenges[0], `error="invalid_token"`))
	} else {
		require.Empty(tb, challenges)
	}
	retries := status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
	require.Equal(tb, retries, w.Header().Get("Retry-After") != "")
	for _, field := range []string{"RateLimit", "RateLimit-Policy"} { // D4: never on 400, 401, 403
		require.Equal(tb, status == http.StatusTooManyRequests, w.Header().Get(field) != "", field)
	}
}

// refusing is a Limiter at its limit.
type refusing struct{}

func (refusing) Take(context.Context, string, int64) (ratelimit.Result, error) {
	now := time.Now()
	return ratelimit.Result{
		Name: "daily", Window: 24 * time.Hour, Limit: 250, Used: 250, Reset: now.Add(time.Hour), RetryAfter: time.Hour,
	}, nil
}

func (l refusing) Peek(ctx context.Context, key string, limit int64) (ratelimit.Result, error) {
	return l.Take(ctx, key, limit)
}
