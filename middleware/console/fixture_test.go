package console_test

import (
	"context"
	"errors"
	"html"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/middleware/console"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

const (
	org = "acme"
	day = 24 * time.Hour
)

var (
	start   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	errDown = errors.New("connection refused")
	olga    = keys.Actor{ID: "olga", Role: keys.Owner}
)

// A world is a service in small: a store, a Manager, a Guard, the API and the console
// over it. In the organization acme are ann and bob, plain users, and the owner olga.
// The clock stands still until it is set.
type world struct {
	t     *testing.T
	mem   *memstore.Store
	mgr   *keys.Manager
	guard *middleware.Guard
	api   http.Handler
	h     http.Handler // the console, not mounted anywhere
	now   time.Time

	mu     sync.Mutex
	asked  []*http.Request // of the API
	failed []error
}

// A setup is what a test changes before a world is made.
type setup struct {
	keys    keys.Options
	guard   middleware.Options
	console console.Options
	auth    middleware.Authenticator
	trusted []string                        // origins that the API trusts
	api     func(http.Handler) http.Handler // around the API
}

func newWorld(t *testing.T, change ...func(*setup)) *world {
	t.Helper()
	w := &world{t: t, mem: memstore.New(), now: start}
	now := func() time.Time { return w.now }
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: now})
	s := setup{
		keys:  keys.Options{Now: now, Uses: w.mem, Limiter: daily, Tiers: []string{"Pro"}},
		guard: middleware.Options{Now: now, Limiter: daily},
		console: console.Options{Failed: func(_ *http.Request, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.failed = append(w.failed, err)
		}},
		auth: persons{},
		api:  func(h http.Handler) http.Handler { return h },
	}
	for _, c := range change {
		c(&s)
	}
	var err error
	w.mgr, err = keys.New(w.mem, &s.keys)
	require.NoError(t, err)
	s.guard.Authenticators = []middleware.Authenticator{middleware.APIKeys(w.mgr.Verifier(), nil), persons{}}
	w.guard, err = middleware.New(w.mgr.Verifier(), &s.guard)
	require.NoError(t, err)
	w.api, err = api.New(w.mgr, w.guard, &api.Options{TrustedOrigins: s.trusted})
	require.NoError(t, err)
	around := s.api(w.api)
	w.h, err = console.New(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.asked = append(w.asked, r.Clone(r.Context()))
		w.mu.Unlock()
		around.ServeHTTP(rw, r)
	}), s.auth, &s.console)
	require.NoError(t, err)
	for _, u := range []store.User{{ID: "ann"}, {ID: "bob"}, {ID: "olga", Owner: true}} {
		w.put(u)
	}
	return w
}

// A trail is a Sink that keeps events.
type trail struct {
	mu     sync.Mutex
	events []audit.Event
}

func (s *trail) Write(_ context.Context, e audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	return nil
}

// take returns the events and forgets them.
func (s *trail) take() []audit.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	s.events = nil
	return events
}

// put pushes a user of acme.
func (w *world) put(u store.User) {
	w.t.Helper()
	u.Org = org
	if u.Email == "" {
		u.Email = u.ID + "@acme.example"
	}
	if u.Tier == "" {
		u.Tier = "Pro"
	}
	require.NoError(w.t, w.mgr.PutUser(w.t.Context(), &u))
}

// create makes a key and returns its token and prefix.
func (w *world) create(user, name string) (secret, prefix string) {
	w.t.Helper()
	t, k, err := w.mgr.Create(w.t.Context(), keys.CreateParams{Org: org, User: user, Name: name, Actor: keys.Actor{ID: user}})
	require.NoError(w.t, err)
	w.now = w.now.Add(time.Second) // so that lists have an order
	return t.Reveal(), k.ID
}

// settings changes the settings of acme.
func (w *world) settings(change func(*policy.Settings)) {
	w.t.Helper()
	s, err := w.mgr.Settings(w.t.Context(), org)
	require.NoError(w.t, err)
	changed := *s
	change(&changed)
	_, err = w.mgr.UpdateSettings(w.t.Context(), olga, &changed)
	require.NoError(w.t, err)
}

// used notes uses of a key.
func (w *world) used(prefix, addr, agent string, at time.Time, count int64) {
	w.t.Helper()
	require.NoError(w.t, w.mem.RecordUses(w.t.Context(), []store.Use{{
		KeyID: prefix, Addr: netip.MustParseAddr(addr), UserAgent: agent, First: at, Last: at, Count: count,
	}}))
}

// persons authenticates the cookie "session=user" and "Bearer user.x.jwt".
type persons struct{}

func (persons) Authenticate(r *http.Request) (*policy.Principal, error) {
	if text, ok := middleware.BearerToken(r); ok {
		parts := strings.Split(text, ".")
		if len(parts) != 3 {
			return nil, middleware.ErrNoCredential
		}
		return &policy.Principal{Credential: policy.JWT, Org: org, User: parts[0], Tier: "Pro"}, nil
	}
	c, err := r.Cookie("session")
	if err != nil {
		return nil, middleware.ErrNoCredential
	}
	if c.Value == "over" {
		return nil, middleware.ErrInvalidCredential
	}
	return &policy.Principal{Credential: policy.Session, Org: org, User: c.Value, Tier: "Pro"}, nil
}

// request returns a request of somebody's browser; of nobody's if as is empty, and
// with a header "Authorization: Bearer ..." if as begins with that.
func request(ctx context.Context, method, target, as string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, method, target, nil)
	switch {
	case strings.HasPrefix(as, "Bearer "):
		r.Header.Set("Authorization", as)
	case as != "":
		r.AddCookie(&http.Cookie{Name: "session", Value: as})
	}
	return r
}

// A page is an answer of the console.
type page struct {
	*httptest.ResponseRecorder
	t    *testing.T
	read string // what text returns, once it was called
}

func (w *world) do(method, target, as string) *page {
	w.t.Helper()
	return w.serve(request(w.t.Context(), method, target, as))
}

func (w *world) serve(r *http.Request) *page {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, r)
	p := &page{ResponseRecorder: rec, t: w.t}
	p.check()
	return p
}

// get returns a page of that status.
func (w *world) get(status int, target, as string) *page {
	w.t.Helper()
	p := w.do("GET", target, as)
	require.Equal(w.t, status, p.Code, "%s\n%s", target, p.Body)
	return p
}

var (
	tag      = regexp.MustCompile(`<[a-zA-Z!/][^>]*>`)
	idOf     = regexp.MustCompile(`\bid="([^"]*)"`)
	refs     = regexp.MustCompile(`\b(?:for|aria-labelledby|aria-describedby)="([^"]*)"`)
	links    = regexp.MustCompile(`\b(?:href|src|action)="([^"]*)"`)
	handlers = regexp.MustCompile(`(?i)\s(?:on[a-z]+|style)=`)
	values   = regexp.MustCompile(`="[^"]*"`)
	inline   = regexp.MustCompile(`</?(?:a|b|code|span|time)\b[^>]*>`)
)

// check demands what every answer has, and of each page that it can be served under
// the policy, that its ids are unique, and that what refers to one finds it.
func (p *page) check() {
	p.t.Helper()
	for name, value := range headers {
		require.Equal(p.t, []string{value}, p.Header()[name], name)
	}
	if p.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		return
	}
	body := p.Body.String()
	require.True(p.t, strings.HasPrefix(body, "<!DOCTYPE html>\n<html lang=\"en\">"), body)
	require.True(p.t, strings.HasSuffix(body, "</html>\n"), body)
	require.Equal(p.t, 1, strings.Count(body, "<h1>"))
	require.NotContains(p.t, body, "<no value>")
	require.NotContains(p.t, body, "ZgotmplZ")
	ids := map[string]bool{}
	tags := tag.FindAllString(body, -1)
	for _, t := range tags {
		require.NotRegexp(p.t, handlers, values.ReplaceAllString(t, `=""`), "the policy allows no inline style or script")
		for _, m := range idOf.FindAllStringSubmatch(t, -1) {
			require.False(p.t, ids[m[1]], "id %s is there twice", m[1])
			ids[m[1]] = true
		}
	}
	for _, t := range tags {
		for _, m := range refs.FindAllStringSubmatch(t, -1) {
			for id := range strings.FieldsSeq(m[1]) {
				require.True(p.t, ids[id], "%s refers to nothing", t)
			}
		}
	}
	for _, script := range regexp.MustCompile(`<script[^>]*>([^<]*)`).FindAllStringSubmatch(body, -1) {
		require.Empty(p.t, script[1], "no inline script")
	}
}

var headers = map[string]string{
	"Cache-Control": "no-store",
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
}

// text is what a reader without styles sees.
func (p *page) text() string {
	if p.read == "" {
		text := tag.ReplaceAllString(inline.ReplaceAllString(p.Body.String(), ""), " ")
		p.read = strings.Join(strings.Fields(html.UnescapeString(text)), " ")
	}
	return p.read
}

// structure is the page without its texts and the values of attributes.
func (p *page) structure() string {
	var b strings.Builder
	for _, t := range tag.FindAllString(p.Body.String(), -1) {
		b.WriteString(values.ReplaceAllString(t, ""))
	}
	return b.String()
}

// says requires that texts are on the page.
func (p *page) says(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		require.Contains(p.t, p.text(), text)
	}
}

// without requires that texts are not on it.
func (p *page) without(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		require.NotContains(p.t, p.text(), text)
	}
}
