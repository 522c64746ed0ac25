package middleware_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
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

// authenticatorFunc makes a function an Authenticator.
type authenticatorFunc func(*http.Request) (*policy.Principal, error)

func (f authenticatorFunc) Authenticate(r *http.Request) (*policy.Principal, error) { return f(r) }

// TestAuthenticatorChain: the order, what is final, and what each error answers
// (D13, D33, F33, echo's outage that became 401).
func TestAuthenticatorChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	person := func(kind policy.Credential) middleware.Authenticator {
		return authenticatorFunc(func(*http.Request) (*policy.Principal, error) {
			return &policy.Principal{Credential: kind, Org: testOrg, User: "person"}, nil
		})
	}
	fails := func(err error) middleware.Authenticator {
		return authenticatorFunc(func(*http.Request) (*policy.Principal, error) {
			return &policy.Principal{Credential: policy.JWT, Owner: true}, err // must be ignored
		})
	}
	unused := authenticatorFunc(func(*http.Request) (*policy.Principal, error) {
		t.Error("asked after a final answer")
		return nil, nil
	})
	keyAuth := middleware.APIKeys(w.mgr.Verifier(), &middleware.APIKeyOptions{Now: w.clock.Now})
	none := fails(fmt.Errorf("nothing here: %w", middleware.ErrNoCredential))
	const jwt = "aaa.bbb.ccc"
	type chain []middleware.Authenticator
	tests := []struct {
		name    string
		chain   chain
		request *http.Request
		status  int
		reason  policy.Reason
	}{
		{"key first", chain{keyAuth, unused}, bearer(w.token.Reveal()), 200, ""},
		{"bad key is final (D33)", chain{keyAuth, unused}, bearer(unknownToken), 401, policy.InvalidToken},
		{"JWT falls to the next", chain{keyAuth, person(policy.JWT)}, bearer(jwt), 200, ""},
		{"JWT that nobody claims", chain{keyAuth, none}, bearer(jwt), 401, policy.InvalidToken},
		{"nothing presented", chain{keyAuth, none}, do0(), 401, policy.NoCredentials},
		{"invalid", chain{fails(fmt.Errorf("%w: bad signature", middleware.ErrInvalidCredential)), unused}, bearer(jwt), 401, policy.InvalidToken},
		{"outage", chain{fails(errors.New("no route to host")), unused}, bearer(jwt), 503, policy.StoreUnavailable},
		{"neither principal nor error", chain{authenticatorFunc(func(*http.Request) (*policy.Principal, error) { return nil, nil }), unused}, bearer(jwt), 503, policy.StoreUnavailable},
		{"principal of no kind", chain{person(0)}, bearer(jwt), 401, policy.NoCredentials},
		{"key without anything to count", chain{person(policy.APIKey)}, bearer(jwt), 503, policy.StoreUnavailable},
		{"session without header credential (D34)", chain{keyAuth, person(policy.Session)}, do0(), 200, ""},
		{"session beside Basic", chain{keyAuth, person(policy.Session)}, basic(), 200, ""},
		{"session does not rescue a bad key", chain{keyAuth, person(policy.Session)}, bearer(unknownToken), 401, policy.InvalidToken},
		{"session does not rescue half a pair", chain{keyAuth, person(policy.Session)}, pair(testEmail, ""), 401, policy.InvalidToken},
		{"session does not replace an unclaimed JWT", chain{keyAuth, person(policy.Session)}, bearer(jwt), 401, policy.InvalidToken},
		{"half a pair is judged before anyone is asked (D34)", chain{unused}, pair(testEmail, ""), 401, policy.InvalidToken},
		{"Bearer without a token, too", chain{unused}, bearer(""), 401, policy.InvalidToken},
		{"two credentials are counted before anyone is asked", chain{unused}, both(w.token.Reveal()), 400, policy.MultipleCredentials},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := do(w.guard(&middleware.Options{Authenticators: test.chain}).Wrap(pong), test.request)
			if test.status == 200 {
				require.Equal(t, 200, got.Code, got.Body.String())
				return
			}
			requireRefusal(t, got, test.status, test.reason)
		})
	}
}

// TestSessionsBesideHeaderCredentials: D34: cookies are ambient, so a session is looked
// for only if no header credential came, wherever its Authenticator stands: it neither
// replaces a key, nor rescues a bad one, nor does its outage refuse a good one.
func TestSessionsBesideHeaderCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	down := errors.New("session store: connection refused")
	byCookie := func(err error) middleware.Authenticator {
		return authenticatorFunc(func(r *http.Request) (*policy.Principal, error) {
			if _, none := r.Cookie("session"); none != nil {
				return nil, fmt.Errorf("%w: %w", middleware.ErrNoCredential, none)
			}
			return &policy.Principal{Credential: policy.Session, User: "somebody"}, err
		})
	}
	known := authenticatorFunc(func(*http.Request) (*policy.Principal, error) { // by something else
		return &policy.Principal{Credential: policy.Session, User: "somebody"}, nil
	})
	keyAuth := middleware.APIKeys(w.mgr.Verifier(), &middleware.APIKeyOptions{Now: w.clock.Now})
	const somebody = "somebody"
	for _, credential := range []struct {
		name     string
		request  *http.Request
		status   int
		reason   policy.Reason
		user     string
		sessions bool // are asked
	}{
		{"good key", bearer(w.token.Reveal()), 200, "", testUser, false},
		{"good pair", pair(testEmail, w.token.Reveal()), 200, "", testUser, false},
		{"bad key", bearer(unknownToken), 401, policy.InvalidToken, "", false},
		{"another kind of token", bearer("a.b.c"), 401, policy.InvalidToken, "", false},
		{"half a pair", pair(testEmail, ""), 401, policy.InvalidToken, "", false},
		{"none", do0(), 200, "", somebody, true},
		{"Basic", basic(), 200, "", somebody, true},
	} {
		credential.request.Header.Set("Cookie", "a=b; session=c")
		for name, sessions := range map[string]middleware.Authenticator{"up": byCookie(nil), "down": byCookie(down), "known otherwise": known} {
			for order, chain := range map[string][]middleware.Authenticator{"before": {sessions, keyAuth}, "after": {keyAuth, sessions}} {
				t.Run(strings.Join([]string{credential.name, name, order}, ", "), func(t *testing.T) {
					t.Parallel()
					var event middleware.Event
					g := w.guard(&middleware.Options{
						Authenticators: chain, Unmetered: true,
						Observe: func(_ *http.Request, e middleware.Event) { event = e },
					})
					user := ""
					got := do(g.WrapFunc(func(_ http.ResponseWriter, r *http.Request, p *policy.Principal) {
						user = p.User
						if cookie, err := r.Cookie("session"); err != nil || cookie.Value != "c" {
							t.Error("the handler does not see the cookies")
						}
					}), credential.request)
					if name == "down" && credential.sessions {
						requireRefusal(t, got, 503, policy.StoreUnavailable)
						require.ErrorIs(t, event.Err, down)
						return
					}
					if credential.status != 200 {
						requireRefusal(t, got, credential.status, credential.reason)
						require.ErrorIs(t, event.Err, middleware.ErrInvalidCredential)
						require.Nil(t, event.Principal)
						return
					}
					require.Equal(t, 200, got.Code, got.Body.String())
					require.Equal(t, credential.user, user)
					require.NoError(t, event.Err)
				})
			}
		}
	}
}

// TestChain: D34 beside a Guard: one credential, in order, and no cookie beside it.
func TestChain(t *testing.T) {
	t.Parallel()
	down := errors.New("session store: connection refused")
	jwts := authenticatorFunc(func(r *http.Request) (*policy.Principal, error) {
		switch presented, _ := middleware.BearerToken(r); presented {
		case "good":
			return &policy.Principal{Credential: policy.JWT, User: "by JWT"}, nil
		case "bad":
			return nil, middleware.ErrInvalidCredential
		}
		return nil, middleware.ErrNoCredential
	})
	sessions := authenticatorFunc(func(r *http.Request) (*policy.Principal, error) {
		switch cookie, err := r.Cookie("session"); {
		case err != nil:
			return nil, middleware.ErrNoCredential
		case cookie.Value == "down":
			return nil, down
		}
		return &policy.Principal{Credential: policy.Session, User: "by session"}, nil
	})
	with := func(r *http.Request, cookie string) *http.Request {
		r.Header.Set("Cookie", "session="+cookie)
		return r
	}
	for _, test := range []struct {
		name    string
		request *http.Request
		user    string
		err     error
	}{
		{"JWT", with(bearer("good"), "down"), "by JWT", nil},
		{"bad JWT", with(bearer("bad"), "good"), "", middleware.ErrInvalidCredential},
		{"nobody's", with(bearer("other"), "good"), "", middleware.ErrNoCredential},
		{"session", with(do0(), "good"), "by session", nil},
		{"session beside Basic", with(basic(), "good"), "by session", nil},
		{"session down", with(do0(), "down"), "", down},
		{"nothing", do0(), "", middleware.ErrNoCredential},
		{"two credentials", with(both("good"), "good"), "", middleware.ErrInvalidCredential},
		{"half a pair", with(pair(testEmail, ""), "good"), "", middleware.ErrInvalidCredential},
	} {
		for _, chain := range []middleware.Authenticator{middleware.Chain(jwts, sessions), middleware.Chain(sessions, jwts)} {
			p, err := chain.Authenticate(test.request)
			require.ErrorIs(t, err, test.err, test.name)
			if test.err != nil {
				require.Nil(t, p, test.name)
			} else {
				require.Equal(t, test.user, p.User, test.name)
			}
		}
	}
	_, err := middleware.Chain().Authenticate(do0())
	require.ErrorIs(t, err, middleware.ErrNoCredential)
	require.Panics(t, func() { middleware.Chain(jwts, nil) })
	_, err = middleware.New(newWorld(t).mgr.Verifier(), &middleware.Options{Authenticators: []middleware.Authenticator{middleware.Chain()}})
	require.ErrorContains(t, err, "Options.Authenticators: is empty")
}

// TestOrganizationOfAHostsPrincipal: whoever an Authenticator of the host names, the
// settings of the organization are looked up; if they cannot be, nobody can tell; and an
// API key is bound by them, whoever found it.
func TestOrganizationOfAHostsPrincipal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings(func(s *policy.Settings) { s.AllowedIPs, _ = policy.ParseIPList("10.0.0.0/8") })
	down := errors.New("connection refused")
	for _, test := range []struct {
		name      string
		principal policy.Principal
		verifier  middleware.Verifier
		status    int
		reason    policy.Reason
	}{
		{"person", policy.Principal{Credential: policy.JWT, Org: testOrg}, w.mgr.Verifier(), 200, ""},
		{"person, settings down", policy.Principal{Credential: policy.JWT, Org: testOrg}, failing{err: down}, 503, policy.StoreUnavailable},
		{"nobody's person, settings down", policy.Principal{Credential: policy.JWT}, failing{err: down}, 200, ""},
		{"key", policy.Principal{Credential: policy.APIKey, KeyID: "k", Org: testOrg, Permitted: true}, w.mgr.Verifier(), 403, policy.AddressNotAllowed},
		{"key of another", policy.Principal{Credential: policy.APIKey, KeyID: "k", Org: "other", Permitted: true}, w.mgr.Verifier(), 200, ""},
		{"key, settings down", policy.Principal{Credential: policy.APIKey, KeyID: "k", Org: testOrg, Permitted: true}, failing{err: down}, 503, policy.StoreUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var event middleware.Event
			g, err := middleware.New(test.verifier, &middleware.Options{
				Authenticators: []middleware.Authenticator{authenticatorFunc(func(*http.Request) (*policy.Principal, error) {
					return &test.principal, nil
				})},
				Observe: func(_ *http.Request, e middleware.Event) { event = e },
			})
			require.NoError(t, err)
			got := do(g.Wrap(pong), do0())
			if test.status == 200 {
				require.Equal(t, 200, got.Code, got.Body.String())
				return
			}
			requireRefusal(t, got, test.status, test.reason)
			if test.status == 503 {
				require.ErrorIs(t, event.Err, down)
			}
		})
	}
}

// TestQuotaOfAHostsKey: a key that an Authenticator of the host found is counted under
// its Quota, and without one under its ID.
func TestQuotaOfAHostsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: w.clock.Now})
	for name, p := range map[string]policy.Principal{
		"by-id": {Credential: policy.APIKey, KeyID: "by-id", Permitted: true},
		"group": {Credential: policy.APIKey, KeyID: "one-of-it", Quota: "group", Permitted: true},
	} {
		h := w.guard(&middleware.Options{Limiter: daily, Authenticators: []middleware.Authenticator{
			authenticatorFunc(func(*http.Request) (*policy.Principal, error) { return &p, nil }),
		}}).Wrap(pong)
		require.Equal(t, 200, do(h, do0()).Code)
		result, err := daily.Peek(t.Context(), name, 0)
		require.NoError(t, err)
		require.EqualValues(t, 1, result.Used, name)
	}
}

func do0() *http.Request {
	r := bearer("")
	r.Header.Del("Authorization")
	return r
}

func basic() *http.Request {
	r := do0()
	r.SetBasicAuth("a", "b")
	return r
}

func both(secret string) *http.Request {
	r := pair(testEmail, secret)
	r.Header.Set("Authorization", "Bearer "+secret)
	return r
}

// TestPeopleAreNotCounted: D5, S63, D20: a JWT spends no quota, has no RateLimit
// fields, and the settings of the organization do not bind it.
func TestPeopleAreNotCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings(func(s *policy.Settings) {
		s.RestrictUsers, s.MaxAge = true, time.Second
		s.AllowedIPs, _ = policy.ParseIPList("10.0.0.0/8")
	})
	h := w.guard(&middleware.Options{
		Authenticators: []middleware.Authenticator{anybody{}},
		Limiter:        failing{err: errors.New("must not be asked")},
	}).Wrap(pong)
	got := do(h, bearer("a.b.c"))
	require.Equal(t, 200, got.Code)
	require.Empty(t, got.Header().Get("RateLimit"))
}

// TestKeyAndJWTReachTheSame: S52, S55: on one path, behind one Guard, a key and a
// JWT both get through as Bearer.
func TestKeyAndJWTReachTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(&middleware.Options{Authenticators: []middleware.Authenticator{
		middleware.APIKeys(w.mgr.Verifier(), nil), anybody{},
	}}).Wrap(pong)
	for _, token := range []string{w.token.Reveal(), "a.b.c"} {
		require.Equal(t, 200, do(h, bearer(token)).Code)
	}
}

// TestRouteRestrictsTheForm: D34: a route can take keys in one form only.
func TestRouteRestrictsTheForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	guard := func(o middleware.APIKeyOptions) http.Handler {
		o.Now = w.clock.Now
		return w.guard(&middleware.Options{
			Authenticators: []middleware.Authenticator{middleware.APIKeys(w.mgr.Verifier(), &o)},
		}).Wrap(pong)
	}
	b, p := bearer(w.token.Reveal()), pair(testEmail, w.token.Reveal())
	h := guard(middleware.APIKeyOptions{RefuseBearer: true})
	requireRefusal(t, do(h, b), 401, policy.InvalidToken)
	require.Equal(t, 200, do(h, p).Code)
	h = guard(middleware.APIKeyOptions{RefuseHeaderPair: true})
	require.Equal(t, 200, do(h, b).Code)
	requireRefusal(t, do(h, p), 401, policy.InvalidToken)
}

// TestAPIKeysAlone: the Authenticator by itself, outside of a Guard.
func TestAPIKeysAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := middleware.APIKeys(w.mgr.Verifier(), nil)
	p, err := a.Authenticate(bearer(w.token.Reveal()))
	require.NoError(t, err)
	require.Equal(t, testUser, p.User)
	_, err = a.Authenticate(do0())
	require.ErrorIs(t, err, middleware.ErrNoCredential)
	for _, r := range []*http.Request{bearer(unknownToken), bearer("csk_live_"), both(w.token.Reveal()), pair("x", w.token.Reveal())} {
		_, err = a.Authenticate(r)
		require.ErrorIs(t, err, middleware.ErrInvalidCredential)
		require.NotContains(t, err.Error(), w.token.Reveal()[9:])
	}
	_, err = middleware.APIKeys(nil, nil).Authenticate(bearer(w.token.Reveal()))
	require.Error(t, err)
	require.NotErrorIs(t, err, middleware.ErrNoCredential)
	require.NotErrorIs(t, err, middleware.ErrInvalidCredential)
}

// TestAPIKeysClock: outside of a Guard, keys are judged by the given clock.
func TestAPIKeysClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := middleware.APIKeys(w.mgr.Verifier(), &middleware.APIKeyOptions{Now: w.clock.Now})
	_, _, err := w.mgr.Rotate(t.Context(), keys.RotateParams{Ref: keys.Ref{Org: testOrg, ID: w.key.ID}, Grace: time.Hour})
	require.NoError(t, err)
	w.clock.set(w.clock.Now().Add(time.Hour - 1))
	_, err = a.Authenticate(bearer(w.token.Reveal()))
	require.NoError(t, err)
	w.clock.set(w.clock.Now().Add(1))
	_, err = a.Authenticate(bearer(w.token.Reveal()))
	require.ErrorContains(t, err, "revoked")
}

// TestUnmetered: counting turned off by name.
func TestUnmetered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(&middleware.Options{Unmetered: true}).Wrap(pong)
	for range 260 {
		got := do(h, bearer(w.token.Reveal()))
		require.Equal(t, 200, got.Code)
		require.Empty(t, got.Header().Get("RateLimit"))
	}
}

// TestBearerToken: for Authenticators of other kinds of token.
func TestBearerToken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		r     *http.Request
		token string
		ok    bool
	}{
		{"Bearer", bearer("a.b.c"), "a.b.c", true},
		{"nothing", do0(), "", false},
		{"Basic", basic(), "", false},
		{"pair", pair(testEmail, unknownToken), "", false},
		{"two credentials", both(unknownToken), "", false},
		{"no token", bearer(""), "", false},
	} {
		token, ok := middleware.BearerToken(test.r)
		require.Equal(t, test.ok, ok, test.name)
		if ok {
			require.Equal(t, test.token, token, test.name)
		}
	}
}

// TestKeyIsNothingElse: D33: a token of ours is judged by APIKeys and by nobody else, in
// either form, wherever they stand, and in a form that is refused too.
func TestKeyIsNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	greedy := authenticatorFunc(func(*http.Request) (*policy.Principal, error) {
		return &policy.Principal{Credential: policy.JWT, User: "somebody"}, nil
	})
	down := authenticatorFunc(func(*http.Request) (*policy.Principal, error) { return nil, errors.New("connection refused") })
	keysBy := func(opts *middleware.APIKeyOptions) middleware.Authenticator {
		return middleware.APIKeys(w.mgr.Verifier(), opts)
	}
	secret := w.token.Reveal()
	const legacy = "0123456789abcdef"
	type chain []middleware.Authenticator
	for _, test := range []struct {
		name    string
		chain   chain
		request *http.Request
		user    string // empty: refused
	}{
		{"Bearer, another before", chain{greedy, keysBy(nil)}, bearer(secret), testUser},
		{"pair, another before", chain{greedy, keysBy(nil)}, pair(testEmail, secret), testUser},
		{"Bearer, another that fails before", chain{down, keysBy(nil)}, bearer(secret), testUser},
		{"unknown, another before", chain{greedy, keysBy(nil)}, bearer(unknownToken), ""},
		{"unknown pair, another before", chain{greedy, keysBy(nil)}, pair(testEmail, unknownToken), ""},
		{"malformed, another before", chain{greedy, keysBy(nil)}, bearer("csk_live_a.b.c"), ""},
		{"refused as Bearer", chain{keysBy(&middleware.APIKeyOptions{RefuseBearer: true}), greedy}, bearer(secret), ""},
		{"refused as Bearer, another before", chain{greedy, keysBy(&middleware.APIKeyOptions{RefuseBearer: true})}, bearer(secret), ""},
		{"refused as a pair", chain{keysBy(&middleware.APIKeyOptions{RefuseHeaderPair: true}), greedy}, pair(testEmail, secret), ""},
		{"refused as a pair, another before", chain{greedy, keysBy(&middleware.APIKeyOptions{RefuseHeaderPair: true})}, pair(testEmail, secret), ""},
		{"the other form of that", chain{greedy, keysBy(&middleware.APIKeyOptions{RefuseHeaderPair: true})}, bearer(secret), testUser},
		{"another kind of token", chain{keysBy(nil), greedy}, bearer("a.jwt.of-somebody"), "somebody"},
		{"another kind of token in the pair", chain{keysBy(nil), greedy}, pair(testEmail, legacy), "somebody"},
		{"another before, in a chain", chain{middleware.Chain(greedy, middleware.Chain(keysBy(nil)))}, bearer(secret), testUser},
		{"which nobody else takes", chain{keysBy(nil)}, pair(testEmail, legacy), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			user := ""
			got := do(w.guard(&middleware.Options{Authenticators: test.chain}).WrapFunc(
				func(_ http.ResponseWriter, _ *http.Request, p *policy.Principal) { user = p.User }), test.request)
			if test.user == "" {
				requireRefusal(t, got, 401, policy.InvalidToken)
			}
			require.Equal(t, test.user, user)
		})
	}
}

// TestTwoFormats: D34: keys of two prefixes, as after the prefix was changed, work side
// by side in both forms.
func TestTwoFormats(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	var chain []middleware.Authenticator
	var tokens []string
	var verifier middleware.Verifier
	for _, prefix := range []string{"old_", "new_"} {
		mgr, err := keys.New(s, &keys.Options{Format: &token.Format{Prefix: prefix}})
		require.NoError(t, err)
		t.Cleanup(mgr.Close)
		require.NoError(t, mgr.PutUser(t.Context(), &store.User{Org: testOrg, ID: testUser, Email: testEmail}))
		tok, _, err := mgr.Create(t.Context(), keys.CreateParams{Org: testOrg, User: testUser, Name: prefix})
		require.NoError(t, err)
		verifier = mgr.Verifier()
		chain, tokens = append(chain, middleware.APIKeys(verifier, nil)), append(tokens, tok.Reveal())
	}
	g, err := middleware.New(verifier, &middleware.Options{Authenticators: chain})
	require.NoError(t, err)
	for _, tok := range tokens {
		require.Equal(t, 200, do(g.Wrap(pong), bearer(tok)).Code)
		require.Equal(t, 200, do(g.Wrap(pong), pair(testEmail, tok)).Code)
		requireRefusal(t, do(g.Wrap(pong), pair("other@acme.example", tok)), 401, policy.InvalidToken)
	}
	requireRefusal(t, do(g.Wrap(pong), pair(testEmail, unknownToken)), 401, policy.InvalidToken)
}
