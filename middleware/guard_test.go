package middleware_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata" // the tests know the zones wherever they run

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/token"
)

const unknownToken = "csk_live_00000000000000000000000000000000"

// TestBothHeaderForms: S2 (the pair), S52 and D34 (Bearer): one token works
// either way.
func TestBothHeaderForms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(nil).Wrap(pong)
	for _, r := range []*http.Request{bearer(w.token.Reveal()), pair(testEmail, w.token.Reveal())} {
		got := do(h, r)
		require.Equal(t, http.StatusOK, got.Code)
		require.Equal(t, "pong from the protected handler", got.Body.String())
	}
}

// TestPresentedCredentials: S74, D13, D32-D34, D41 and F18-F30: exactly one
// credential, in one grammar.
func TestPresentedCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(nil).Wrap(pong)
	secret := w.token.Reveal()
	type lines map[string][]string
	tests := []struct {
		name   string
		header lines
		status int
		reason policy.Reason
	}{
		{"nothing", lines{}, 401, policy.NoCredentials},
		{"Bearer", lines{"Authorization": {"Bearer " + secret}}, 200, ""},
		{"scheme in lower case", lines{"Authorization": {"bearer " + secret}}, 200, ""},
		{"scheme in upper case", lines{"Authorization": {"BEARER " + secret}}, 200, ""},
		{"several spaces", lines{"Authorization": {"Bearer    " + secret}}, 200, ""},
		{"tab after the scheme", lines{"Authorization": {"Bearer\t" + secret}}, 401, policy.InvalidToken},
		{"space and tab after the scheme", lines{"Authorization": {"Bearer \t" + secret}}, 401, policy.InvalidToken},
		{"no space after the scheme", lines{"Authorization": {"Bearer" + secret}}, 401, policy.NoCredentials},
		{"scheme alone", lines{"Authorization": {"Bearer"}}, 401, policy.InvalidToken},
		{"scheme and a space", lines{"Authorization": {"Bearer "}}, 401, policy.InvalidToken},
		{"a longer scheme", lines{"Authorization": {"BearerX " + secret}}, 401, policy.NoCredentials},
		{"a shorter scheme", lines{"Authorization": {"Bear " + secret}}, 401, policy.NoCredentials},
		{"one letter", lines{"Authorization": {"B"}}, 401, policy.NoCredentials},
		{"an empty value", lines{"Authorization": {""}}, 401, policy.NoCredentials},
		{"Basic alone is as if nothing was sent", lines{"Authorization": {"Basic YTpi"}}, 401, policy.NoCredentials},
		{"Basic without a colon", lines{"Authorization": {"Basic YQ=="}}, 401, policy.NoCredentials},
		{"token without a scheme", lines{"Authorization": {secret}}, 401, policy.NoCredentials},
		{"trailing space inside the value", lines{"Authorization": {"Bearer " + secret + " "}}, 401, policy.InvalidToken},
		{"trailing character", lines{"Authorization": {"Bearer " + secret + "0"}}, 401, policy.InvalidToken},
		{"shortened", lines{"Authorization": {"Bearer " + secret[:40]}}, 401, policy.InvalidToken},
		{"upper-case digits", lines{"Authorization": {"Bearer csk_live_" + strings.ToUpper(secret[9:])}}, 401, policy.InvalidToken},
		{"upper-case prefix", lines{"Authorization": {"Bearer CSK_LIVE_" + secret[9:]}}, 401, policy.InvalidToken},
		{"two tokens in one line", lines{"Authorization": {"Bearer " + secret + ", Bearer " + secret}}, 401, policy.InvalidToken},
		{"parameter after the token", lines{"Authorization": {"Bearer " + secret + `, realm="x"`}}, 401, policy.InvalidToken},
		{"folded line", lines{"Authorization": {"Bearer " + secret[:20] + "\r\n " + secret[20:]}}, 401, policy.InvalidToken},
		{"NUL", lines{"Authorization": {"Bearer " + secret + "\x00"}}, 401, policy.InvalidToken},
		{"opaque bytes", lines{"Authorization": {"Bearer " + secret[:40] + "\xff"}}, 401, policy.InvalidToken},
		{"digest of the token", lines{"Authorization": {"Bearer " + fmt.Sprintf("%x", w.key.Digest[:])}}, 401, policy.InvalidToken},
		{"the public prefix", lines{"Authorization": {"Bearer " + w.key.ID}}, 401, policy.InvalidToken},
		{"something like a JWT", lines{"Authorization": {"Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln"}}, 401, policy.InvalidToken},
		{"a key prefix with dots is no JWT", lines{"Authorization": {"Bearer csk_live_a.b.c"}}, 401, policy.InvalidToken},
		{"16 KiB and more", lines{"Authorization": {"Bearer " + strings.Repeat("a", 16<<10+1)}}, 401, policy.InvalidToken},
		{"1 MB of dots", lines{"Authorization": {"Bearer " + strings.Repeat(".", 1<<20)}}, 401, policy.InvalidToken},
		{"two lines of Authorization", lines{"Authorization": {"Bearer " + secret, "Bearer " + secret}}, 400, policy.MultipleCredentials},
		{"two lines, the second empty", lines{"Authorization": {"Bearer " + secret, ""}}, 400, policy.MultipleCredentials},
		{"two lines of another scheme", lines{"Authorization": {"Basic YTpi", "Basic YTpi"}}, 400, policy.MultipleCredentials},

		{"pair", lines{"X-Api-User": {testEmail}, "X-Api-Token": {secret}}, 200, ""},
		{"user without token", lines{"X-Api-User": {testEmail}}, 401, policy.InvalidToken},
		{"token without user", lines{"X-Api-Token": {secret}}, 401, policy.InvalidToken},
		{"empty user", lines{"X-Api-User": {""}, "X-Api-Token": {secret}}, 401, policy.InvalidToken},
		{"blank user", lines{"X-Api-User": {"  "}, "X-Api-Token": {secret}}, 401, policy.InvalidToken},
		{"empty token", lines{"X-Api-User": {testEmail}, "X-Api-Token": {""}}, 401, policy.InvalidToken},
		{"both empty", lines{"X-Api-User": {""}, "X-Api-Token": {""}}, 401, policy.InvalidToken},
		{"token with Bearer before it", lines{"X-Api-User": {testEmail}, "X-Api-Token": {"Bearer " + secret}}, 401, policy.InvalidToken},
		{"a JWT in the pair", lines{"X-Api-User": {testEmail}, "X-Api-Token": {"a.b.c"}}, 401, policy.InvalidToken},
		{"1 MB of user", lines{"X-Api-User": {strings.Repeat("a", 1<<20)}, "X-Api-Token": {secret}}, 401, policy.InvalidToken},
		{"two lines of the user", lines{"X-Api-User": {testEmail, testEmail}, "X-Api-Token": {secret}}, 400, policy.MultipleCredentials},
		{"two lines of the token", lines{"X-Api-User": {testEmail}, "X-Api-Token": {secret, secret}}, 400, policy.MultipleCredentials},
		{"pair and Bearer", lines{"Authorization": {"Bearer " + secret}, "X-Api-User": {testEmail}, "X-Api-Token": {secret}}, 400, policy.MultipleCredentials},
		{"half a pair and Bearer", lines{"Authorization": {"Bearer " + secret}, "X-Api-User": {testEmail}}, 400, policy.MultipleCredentials},
		{"empty half and Bearer", lines{"Authorization": {"Bearer " + secret}, "X-Api-Token": {""}}, 400, policy.MultipleCredentials},
		{"pair and Basic", lines{"Authorization": {"Basic YTpi"}, "X-Api-User": {testEmail}, "X-Api-Token": {secret}}, 400, policy.MultipleCredentials},

		{"underscores are another header (F37)", lines{"X_api_user": {testEmail}, "X_api_token": {secret}}, 401, policy.NoCredentials},
		{"Proxy-Authorization is another header", lines{"Proxy-Authorization": {"Bearer " + secret}}, 401, policy.NoCredentials},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/v1/ping?access_token="+secret, nil) // no credential in URLs (F45)
			r.Header = http.Header(test.header)
			got := do(h, r)
			if test.status == http.StatusOK {
				require.Equal(t, http.StatusOK, got.Code, got.Body.String())
				return
			}
			requireRefusal(t, got, test.status, test.reason)
			require.NotContains(t, got.Body.String()+fmt.Sprint(got.Header()), secret[9:], "S75: the secret is repeated")
		})
	}
}

// TestLongCredentialsAreNotRead: D41: what is longer than 16 KiB is refused before
// anybody looks at it, in either form.
func TestLongCredentialsAreNotRead(t *testing.T) {
	t.Parallel()
	const most = 16 << 10
	var asked []int
	everybody := authenticatorFunc(func(r *http.Request) (*policy.Principal, error) {
		presented, _ := middleware.BearerToken(r)
		asked = append(asked, len(presented)+len(r.Header.Get("x-api-user"))+len(r.Header.Get("x-api-token")))
		return &policy.Principal{Credential: policy.JWT, User: "somebody"}, nil
	})
	h := newWorld(t).guard(&middleware.Options{Authenticators: []middleware.Authenticator{everybody}}).Wrap(pong)
	long := strings.Repeat("a", most+1)
	for _, r := range []*http.Request{bearer(long[1:]), pair(long[1:], "t"), pair("u", long[1:])} {
		asked = nil
		require.Equal(t, 200, do(h, r).Code)
		require.Len(t, asked, 1)
		require.GreaterOrEqual(t, asked[0], most)
	}
	for _, r := range []*http.Request{bearer(long), pair(long, "t"), pair("u", long)} {
		asked = nil
		requireRefusal(t, do(h, r), 401, policy.InvalidToken)
		require.Empty(t, asked)
	}
	_, ok := middleware.BearerToken(bearer(long))
	require.False(t, ok)
}

// TestEmailComparison: D15: blanks around and ASCII case, and nothing else.
func TestEmailComparison(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.putUser(&store.User{Org: testOrg, ID: "K@acme.example"})
	byID, _ := w.create(keys.CreateParams{Org: testOrg, User: "K@acme.example", Name: "id as e-mail"})
	h := w.guard(nil).Wrap(pong)
	tests := []struct {
		name   string
		email  string
		token  token.Token
		status int
	}{
		{"exact", testEmail, w.token, 200},
		{"upper case", strings.ToUpper(testEmail), w.token, 200},
		{"blanks around", " \t" + testEmail + " ", w.token, 200},
		{"blank inside", "ann @acme.example", w.token, 401},
		{"plus part", "ann+x@acme.example", w.token, 401},
		{"dot", "a.nn@acme.example", w.token, 401},
		{"longer", testEmail + "x", w.token, 401},
		{"the user's ID beside an e-mail", testUser, w.token, 401},
		{"the ID where there is no e-mail (D16)", "k@ACME.example", byID, 200},
		{"Kelvin sign is no K", "\u212a@acme.example", byID, 401},
		{"at sign and grave differ by the case bit only", strings.Replace(testEmail, "@", "`", 1), w.token, 401},
		{"no e-mail at all", "", byID, 401},
		{"another user's (S3)", "K@acme.example", w.token, 401},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.status, do(h, pair(test.email, test.token.Reveal())).Code)
		})
	}
}

// TestChangedEmailStopsTheOldOne: D16, with the cache warm.
func TestChangedEmailStopsTheOldOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(nil).Wrap(pong)
	require.Equal(t, 200, do(h, pair(testEmail, w.token.Reveal())).Code)
	w.putUser(&store.User{Org: testOrg, ID: testUser, Email: "new@acme.example"})
	require.Equal(t, 401, do(h, pair(testEmail, w.token.Reveal())).Code)
	require.Equal(t, 200, do(h, pair("new@acme.example", w.token.Reveal())).Code)
}

// TestRefusalsAreByteEqual: S73, D13: malformed, unknown, revoked, foreign
// e-mail and suspended cannot be told apart, neither by header nor by body.
func TestRefusalsAreByteEqual(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.putUser(&store.User{Org: testOrg, ID: "u2", Email: "bob@acme.example"})
	revoked, revokedKey := w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "revoked"})
	require.NoError(t, w.mgr.Revoke(t.Context(), keys.Actor{}, keys.Ref{Org: testOrg, ID: revokedKey.ID}))
	w.putUser(&store.User{Org: testOrg, ID: "u3", Email: "eve@acme.example"})
	suspended, _ := w.create(keys.CreateParams{Org: testOrg, User: "u3", Name: "suspended"})
	w.putUser(&store.User{Org: testOrg, ID: "u3", Email: "eve@acme.example", SuspendedAt: w.clock.now})

	h := w.guard(nil).Wrap(pong)
	answer := func(r *http.Request) string {
		got := do(h, r)
		requireRefusal(t, got, 401, policy.InvalidToken)
		return fmt.Sprint(got.Code, got.Header(), got.Body.String())
	}
	want := answer(bearer(unknownToken))
	for name, r := range map[string]*http.Request{
		"unknown token":              pair(testEmail, unknownToken),
		"unknown user":               pair("nobody@acme.example", unknownToken),
		"unknown user, right token":  pair("nobody@acme.example", w.token.Reveal()),
		"another user's token (S3)":  pair("bob@acme.example", w.token.Reveal()),
		"known prefix, other secret": bearer(w.key.ID + unknownToken[17:]), // S71
		"malformed":                  bearer("csk_live_zz"),
		"something else":             bearer("hello"),
		"revoked (S19)":              bearer(revoked.Reveal()),
		"suspended (D17)":            bearer(suspended.Reveal()),
		"suspended, by pair":         pair("eve@acme.example", suspended.Reveal()),
	} {
		require.Equal(t, want, answer(r), name)
	}
	// D17: un-suspending restores the keys.
	w.putUser(&store.User{Org: testOrg, ID: "u3", Email: "eve@acme.example"})
	require.Equal(t, 200, do(h, bearer(suspended.Reveal())).Code)
}

// TestDecisionTable: D13 and S72, with S26, S29, S38, S45, in the codes of S68,
// S69 and D3 and with a text for people (S6): what each rule answers, that the first in the order answers when several apply, and that a
// refused request spends nothing (D5, F56, F58).
func TestDecisionTable(t *testing.T) {
	t.Parallel()
	restrict := func(s *policy.Settings) { s.RestrictUsers = true }
	expire := func(s *policy.Settings) { s.MaxAge = time.Hour }
	elsewhere := func(s *policy.Settings) {
		s.AllowedIPs, _ = policy.ParseIPList("10.0.0.0/8")
	}
	disable := func(w *world) {
		_, err := w.mgr.Disable(w.tb.Context(), keys.Actor{Role: keys.Owner}, keys.Ref{Org: testOrg, ID: w.key.ID})
		require.NoError(w.tb, err)
	}
	suspend := func(w *world) {
		w.putUser(&store.User{Org: testOrg, ID: testUser, Email: testEmail, SuspendedAt: w.clock.now})
	}
	tests := []struct {
		name   string
		set    []func(*policy.Settings)
		act    []func(*world)
		policy policy.Policy
		status int
		reason policy.Reason
	}{
		{name: "everything right", status: 200},
		{name: "disabled", act: []func(*world){disable}, status: 403, reason: policy.KeyDisabled},
		{name: "user without permission (S26)", set: []func(*policy.Settings){restrict}, status: 403, reason: policy.UserNotPermitted},
		{name: "older than the period (S38)", set: []func(*policy.Settings){expire}, status: 401, reason: policy.Expired},
		{name: "address (S45)", set: []func(*policy.Settings){elsewhere}, status: 403, reason: policy.AddressNotAllowed},
		{name: "scope", policy: policy.Scope("admin"), status: 403, reason: policy.InsufficientScope},
		{name: "tier (D26)", policy: policy.Tier("Enterprise"), status: 403, reason: policy.TierNotAllowed},
		{name: "kind (S60)", policy: policy.Via(policy.JWT, policy.Session), status: 403, reason: policy.WrongCredentialKind},
		{name: "a host's own rule", policy: policy.Func(func(policy.Request) policy.Decision {
			return policy.Decision{Reason: "full_moon"}
		}), status: 403, reason: "full_moon"},
		{name: "a zero decision", policy: policy.Func(func(policy.Request) policy.Decision { return policy.Decision{} }), status: 403},
		{name: "a nil policy", policy: nil, status: 403},

		{name: "suspended before disabled", act: []func(*world){disable, suspend}, status: 401, reason: policy.InvalidToken},
		{name: "disabled before restriction", act: []func(*world){disable}, set: []func(*policy.Settings){restrict}, status: 403, reason: policy.KeyDisabled},
		{name: "restriction before expiration", set: []func(*policy.Settings){restrict, expire}, status: 403, reason: policy.UserNotPermitted},
		{name: "expiration before address", set: []func(*policy.Settings){expire, elsewhere}, status: 401, reason: policy.Expired},
		{name: "address before scope", set: []func(*policy.Settings){elsewhere}, policy: policy.Scope("admin"), status: 403, reason: policy.AddressNotAllowed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			limiter := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: w.clock.Now})
			g := w.guard(&middleware.Options{Limiter: limiter})
			require.Equal(t, 200, do(g.Wrap(pong), bearer(w.token.Reveal())).Code, "warms the cache")
			for _, set := range test.set {
				w.settings(set)
			}
			for _, act := range test.act {
				act(w)
			}
			w.clock.now = w.clock.now.Add(2 * time.Hour)
			if test.policy != nil || test.name == "a nil policy" {
				g = g.With(test.policy)
			}
			for _, r := range []*http.Request{bearer(w.token.Reveal()), pair(testEmail, w.token.Reveal())} {
				got := do(g.Wrap(pong), r)
				if test.status == 200 {
					require.Equal(t, 200, got.Code)
				} else {
					requireRefusal(t, got, test.status, test.reason)
				}
			}
			result, err := limiter.Peek(t.Context(), w.key.Family, 0)
			require.NoError(t, err)
			want := int64(1)
			if test.status == 200 {
				want = 3
			}
			require.Equal(t, want, result.Used, "a refused request spent quota")
		})
	}
}

// TestDailyLimit: S61, S62, S63, S70, D4, D5: 250 pass and the 251st is refused
// until the day ends; another key is untouched; the handler's failure is counted.
func TestDailyLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "other"})
	g := w.guard(nil)
	h := g.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }))
	w.clock.now = time.Date(2026, 3, 1, 23, 59, 58, 500e6, time.UTC)
	for i := range 250 {
		got := do(h, bearer(w.token.Reveal()))
		require.Equal(t, http.StatusTeapot, got.Code)
		require.Equal(t, `"daily";q=250;w=86400`, got.Header().Get("RateLimit-Policy"))
		require.Equal(t, fmt.Sprintf(`"daily";r=%d;t=2`, 249-i), got.Header().Get("RateLimit"))
	}
	got := do(h, bearer(w.token.Reveal()))
	requireRefusal(t, got, 429, policy.DailyLimit)
	require.Equal(t, "2", got.Header().Get("Retry-After"), "1.5 s are rounded up (D4)")
	require.Equal(t, `"daily";r=0;t=2`, got.Header().Get("RateLimit"))
	require.Equal(t, `"daily";q=250;w=86400`, got.Header().Get("RateLimit-Policy"))
	require.Equal(t, http.StatusTeapot, do(h, bearer(other.Reveal())).Code, "S63")
	require.Equal(t, 429, do(h, pair(testEmail, w.token.Reveal())).Code, "one key, whatever the headers")

	w.clock.now = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	got = do(h, bearer(w.token.Reveal()))
	require.Equal(t, http.StatusTeapot, got.Code)
	require.Equal(t, `"daily";r=249;t=86400`, got.Header().Get("RateLimit"))

	w.clock.now = time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC)
	require.Equal(t, 429, do(h, bearer(w.token.Reveal())).Code, "a clock that steps back reopens no finished day")
}

// TestLongestDay: D4: on a day of 25 hours, t and Retry-After are a day at most.
func TestLongestDay(t *testing.T) {
	t.Parallel()
	newYork, err := time.LoadLocation("America/New_York")
	require.NoError(t, err)
	w := newWorld(t)
	limiter := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Limit: 1, Location: newYork})
	h := w.guard(&middleware.Options{Limiter: limiter}).Wrap(pong)
	midnight := time.Date(2026, 11, 1, 0, 0, 0, 0, newYork)
	for _, test := range []struct {
		after time.Duration
		want  string
	}{{0, "86400"}, {time.Hour, "86400"}, {time.Hour + time.Second, "86399"}} {
		tok, _ := w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "n"})
		w.clock.set(midnight.Add(test.after))
		got := do(h, bearer(tok.Reveal()))
		require.Equal(t, 200, got.Code)
		require.Equal(t, `"daily";r=0;t=`+test.want, got.Header().Get("RateLimit"))
		got = do(h, bearer(tok.Reveal()))
		requireRefusal(t, got, 429, policy.DailyLimit)
		require.Equal(t, `"daily";r=0;t=`+test.want, got.Header().Get("RateLimit"))
		require.Equal(t, test.want, got.Header().Get("Retry-After"))
	}
}

// TestDailyLimitOfKey: D6: -1 has no limit and no fields; a limit of its own counts.
func TestDailyLimitOfKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := keys.Actor{Role: keys.Owner}
	unlimited, _ := w.create(keys.CreateParams{Actor: owner, Org: testOrg, User: testUser, Name: "unlimited", DailyLimit: -1})
	three, _ := w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "three", DailyLimit: 3})
	h := w.guard(nil).Wrap(pong)
	for range 300 {
		got := do(h, bearer(unlimited.Reveal()))
		require.Equal(t, 200, got.Code)
		require.Empty(t, got.Header().Get("RateLimit"))
		require.Empty(t, got.Header().Get("RateLimit-Policy"))
	}
	burst := w.guard(&middleware.Options{Limiter: ratelimit.NewBurst(1, 1, nil)}).Wrap(pong)
	got := do(burst, bearer(unlimited.Reveal()))
	require.Equal(t, 200, got.Code)
	require.Empty(t, got.Header().Get("RateLimit"), "nor of another limiter")
	requireRefusal(t, do(burst, bearer(unlimited.Reveal())), 429, policy.BurstLimit)
	require.NotEmpty(t, do(burst, bearer(three.Reveal())).Header().Get("RateLimit"))

	for range 3 {
		require.Equal(t, 200, do(h, bearer(three.Reveal())).Code)
	}
	got = do(h, bearer(three.Reveal()))
	requireRefusal(t, got, 429, policy.DailyLimit)
	require.Equal(t, `"daily";q=3;w=86400`, got.Header().Get("RateLimit-Policy"))
}

// TestLimitBeyondStructuredFields: a limit of the host's that no structured field
// can have (RFC 9651 3.3.1) is shown as the largest that it can.
func TestLimitBeyondStructuredFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	limiter := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Limit: math.MaxInt64, Now: w.clock.Now})
	got := do(w.guard(&middleware.Options{Limiter: limiter}).Wrap(pong), bearer(w.token.Reveal()))
	require.Equal(t, `"daily";q=999999999999999;w=86400`, got.Header().Get("RateLimit-Policy"))
	require.Regexp(t, `^"daily";r=999999999999999;t=[0-9]+$`, got.Header().Get("RateLimit"))
}

// TestParallelRequestsAdmitExactlyTheLimit: 300 requests at once against 250
// admit exactly 250 (D8, F55).
func TestParallelRequestsAdmitExactlyTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(nil).Wrap(pong)
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			switch do(h, bearer(w.token.Reveal())).Code {
			case 200:
				admitted.Add(1)
			case 429:
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 250, admitted.Load())
	require.EqualValues(t, 50, refused.Load())
}

// TestPollingTouchesNoStore: S9: one token that polls all day is looked up once,
// and nothing is written for any of its requests.
func TestPollingTouchesNoStore(t *testing.T) {
	t.Parallel()
	w, sink := newWorld(t), &useSink{}
	g := w.guard(&middleware.Options{Unmetered: true, Uses: sink, UseInterval: time.Hour})
	h := g.Wrap(pong)
	before := w.store.lookups.Load()
	for range 20_000 {
		require.Equal(t, 200, do(h, pair(testEmail, w.token.Reveal())).Code)
	}
	require.EqualValues(t, 1, w.store.lookups.Load()-before)
	uses, _ := sink.total()
	require.Zero(t, uses)
	require.NoError(t, g.Close(t.Context()))
	uses, requests := sink.total()
	require.Equal(t, 1, uses)
	require.EqualValues(t, 20_000, requests)
}

// TestBurst: burst first and daily last; a burst refusal spends no daily unit.
func TestBurst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: w.clock.Now})
	burst := ratelimit.NewBurst(1, 2, &ratelimit.BurstOptions{Now: w.clock.Now})
	h := w.guard(&middleware.Options{Limiter: ratelimit.All(burst, daily)}).Wrap(pong)
	require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
	require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
	requireRefusal(t, do(h, bearer(w.token.Reveal())), 429, policy.BurstLimit)
	result, err := daily.Peek(t.Context(), w.key.Family, 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, result.Used)
}

// LimiterFailOpen is for a limiter that fails, and not for a client that goes away.
func TestLimiterFailOpenIsNotForWhoLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(&middleware.Options{LimiterFailOpen: true})
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := g.Admit(bearer(w.token.Reveal()).WithContext(ctx)) // the key is cached
	require.NoError(t, err)
	cancel()
	served := false
	h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true }))
	requireRefusal(t, do(h, bearer(w.token.Reveal()).WithContext(ctx)), 503, policy.StoreUnavailable)
	require.False(t, served)
}

// What a handler reads of a form is removed by the server, which has the request that
// the Guard copied.
func TestUploadsLeaveNoFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	w := newWorld(t)
	g := w.guard(nil)
	upload := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1 {
			t.Error("the upload is in no file:", files, err)
		}
	})
	for name, h := range map[string]http.Handler{"Wrap": g.Wrap(upload), "Authenticate": g.Authenticate(g.Wrap(upload))} {
		server := httptest.NewServer(h)
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, err := form.CreateFormFile("f", "f")
		require.NoError(t, err)
		_, _ = part.Write(make([]byte, 11<<20)) // more than is kept in memory
		require.NoError(t, form.Close())
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, &body)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+w.token.Reveal())
		r.Header.Set("Content-Type", form.FormDataContentType())
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		server.Close() // waits for the request to be finished
		require.Equal(t, 200, answer.StatusCode, name)
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, files, name)
	}
}

// What is around the Guard may be stricter than private (D40), and a refusal has the
// length of its own body.
func TestHeaderOfWhatIsAround(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(nil)
	around := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "No-Store")
		rw.Header().Set("Content-Length", "3")
		g.Wrap(nothing).ServeHTTP(rw, r)
	})
	require.Equal(t, "No-Store", do(around, pair(testEmail, w.token.Reveal())).Header().Get("Cache-Control"))
	require.Empty(t, do(around, bearer(unknownToken)).Header().Get("Content-Length"))
}

// An Accept header is not read without bound.
func TestLongAcceptIsNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(nil).Wrap(pong)
	for _, lines := range [][]string{{strings.Repeat(",", 8<<10) + "application/problem+json"}, slices.Repeat([]string{strings.Repeat(",", 99)}, 100)} {
		r := bearer(unknownToken)
		r.Header["Accept"] = append(lines, "application/problem+json")
		require.Equal(t, "application/json; charset=utf-8", do(h, r).Header().Get("Content-Type"))
	}
}

// A limiter of the host's own is no daily one: it is told under its own name.
func TestLimiterOfTheHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := do(w.guard(&middleware.Options{Limiter: perMinute{}}).Wrap(pong), bearer(w.token.Reveal()))
	requireRefusal(t, got, 429, policy.BurstLimit)
	require.Equal(t, `"minute";q=5;w=60`, got.Header().Get("RateLimit-Policy"))
	require.Equal(t, "31", got.Header().Get("Retry-After"))
}

// perMinute is a Limiter of a host, and refuses.
type perMinute struct{ ratelimit.Limiter }

func (perMinute) Take(context.Context, string, int64) (ratelimit.Result, error) {
	return ratelimit.Result{Name: "minute", Window: time.Minute, Limit: 5, RetryAfter: 30*time.Second + 1}, nil
}

// failing is a Verifier or Limiter that gives no answer.
type failing struct {
	middleware.Verifier
	err error
}

func (f failing) Claims(string) bool { return true }
func (f failing) Verify(context.Context, string, time.Time) (store.Verified, error) {
	return store.Verified{}, f.err
}

func (f failing) Settings(context.Context, string, time.Time) (*policy.Settings, error) {
	return nil, f.err
}

func (f failing) Take(context.Context, string, int64) (ratelimit.Result, error) {
	return ratelimit.Result{OK: true}, f.err
}

func (f failing) Peek(context.Context, string, int64) (ratelimit.Result, error) {
	return ratelimit.Result{OK: true}, f.err
}

// TestFailuresNeverLetThrough: S76, D13: 503 with Retry-After, never 401, never
// 200; and with LimiterFailOpen by the host's choice, visible in the Event.
func TestFailuresNeverLetThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	down := errors.New("connection refused")
	g, err := middleware.New(failing{err: down}, nil)
	require.NoError(t, err)
	requireRefusal(t, do(g.Wrap(pong), bearer(w.token.Reveal())), 503, policy.StoreUnavailable)
	_, err = g.Check(bearer(w.token.Reveal()))
	require.ErrorIs(t, err, down, "the cause is for logs")

	var event middleware.Event
	opts := middleware.Options{Limiter: failing{err: down}, Observe: func(_ *http.Request, e middleware.Event) { event = e }}
	requireRefusal(t, do(w.guard(&opts).Wrap(pong), bearer(w.token.Reveal())), 503, policy.StoreUnavailable)
	require.ErrorIs(t, event.Err, down)

	opts.LimiterFailOpen = true
	got := do(w.guard(&opts).Wrap(pong), bearer(w.token.Reveal()))
	require.Equal(t, 200, got.Code)
	require.Empty(t, got.Header().Get("RateLimit"))
	require.ErrorIs(t, event.Err, down)
	require.Nil(t, event.Refusal)
}

// TestClientThatHangsUp: who goes away during a look-up is refused as by a failure, and
// is told from one in the Event.
func TestClientThatHangsUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var event middleware.Event
	h := w.guard(&middleware.Options{Observe: func(_ *http.Request, e middleware.Event) { event = e }}).Wrap(pong)
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	w.store.block(func() { cancel(); <-release })
	requireRefusal(t, do(h, bearer(w.token.Reveal()).WithContext(ctx)), 503, policy.StoreUnavailable)
	require.ErrorIs(t, event.Err, context.Canceled)
	close(release)
}

// TestStoreFails: S76 with the real Verifier over a store that is gone.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cache, err := store.NewCache(brokenReader{}, nil)
	require.NoError(t, err)
	v, err := store.NewVerifier(cache, nil)
	require.NoError(t, err)
	g, err := middleware.New(v, nil)
	require.NoError(t, err)
	requireRefusal(t, do(g.Wrap(pong), bearer(w.token.Reveal())), 503, policy.StoreUnavailable)
	requireRefusal(t, do(g.Wrap(pong), bearer("csk_live_")), 401, policy.InvalidToken)

	// Verifiers that were not made: nobody can tell, so never 401.
	for _, v := range []middleware.Verifier{(*store.Verifier)(nil), &store.Verifier{}, nothingVerified{}} {
		g, err := middleware.New(v, nil)
		require.NoError(t, err)
		requireRefusal(t, do(g.Wrap(pong), bearer(w.token.Reveal())), 503, policy.StoreUnavailable)
		requireRefusal(t, do(g.Wrap(pong), pair(testEmail, w.token.Reveal())), 503, policy.StoreUnavailable)
	}
}

// nothingVerified is a Verifier that returns neither a record nor an error.
type nothingVerified struct{ failing }

func (nothingVerified) Verify(context.Context, string, time.Time) (store.Verified, error) {
	return store.Verified{}, nil
}

type brokenReader struct{}

func (brokenReader) Lookup(context.Context, token.Digest) (*store.Record, error) {
	return nil, errors.New("disk on fire")
}

func (brokenReader) Settings(context.Context, string) (*policy.Settings, error) {
	return nil, errors.New("disk on fire")
}

// TestProblemJSON: D1: RFC 9457 only if Accept names it.
func TestProblemJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(&middleware.Options{Limiter: refusing{}})
	for accept, problem := range map[string]bool{
		"":                         false,
		"*/*":                      false,
		"application/*":            false,
		"application/json":         false,
		"application/problem+json": true,
		"text/html, application/problem+json;q=0.5, */*": true,
		"Application/Problem+JSON":                       true,
		"application/problem+json;q=0":                   false,
		"application/problem+json; q=0.000":              false,
		"application/problem+json; v=1; Q=0":             false,
		"application/problem+json;q=0.001":               true,
		"application/problem+jsonx":                      false,
	} {
		t.Run(accept, func(t *testing.T) {
			t.Parallel()
			r := bearer(unknownToken)
			r.Header.Set("Accept", accept)
			got := do(g.Wrap(pong), r)
			require.Equal(t, 401, got.Code)
			var body map[string]any
			require.NoError(t, json.Unmarshal(got.Body.Bytes(), &body))
			if !problem {
				require.Equal(t, "application/json; charset=utf-8", got.Header().Get("Content-Type"))
				require.Equal(t, false, body["success"])
				require.EqualValues(t, 401, body["status"])
				require.NotEmpty(t, body["message"])
				return
			}
			require.Equal(t, "application/problem+json", got.Header().Get("Content-Type"))
			require.Equal(t, map[string]any{
				"type": "about:blank", "title": "Unauthorized", "status": 401.0,
				"detail": "The credential is not valid.", "code": "Unauthorized", "reason": "invalid_token",
			}, body)
		})
	}
	r := bearer(w.token.Reveal())
	r.Header.Set("Accept", "application/problem+json")
	got := do(g.Wrap(pong), r)
	require.Equal(t, 429, got.Code)
	require.Contains(t, got.Body.String(), "https://iana.org/assignments/http-problem-types#quota-exceeded")
	require.Contains(t, got.Body.String(), `"violated-policies":["daily"]`)
}

// TestOverLimitShared: everybody over the same limit in the same second gets the same
// refusal, made once; whoever is over another, by another number, or in another second
// has one of their own. What is told is rounded up to whole seconds (D4).
func TestOverLimitShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	counter := ratelimit.NewMemory()
	g := w.guard(&middleware.Options{Limiter: ratelimit.NewDaily(counter, nil)})
	refused := func(tok token.Token) *middleware.Refusal {
		t.Helper()
		_, quota, err := g.Admit(bearer(tok.Reveal()))
		f, ok := errors.AsType[*middleware.Refusal](err)
		require.True(t, ok, "admitted")
		require.Equal(t, policy.DailyLimit, f.Reason)
		quota.RetryAfter = (quota.RetryAfter + time.Second - 1).Truncate(time.Second)
		require.Equal(t, quota, f.Quota)
		return f
	}
	const used = 10
	key := func(limit, used int64) token.Token {
		t.Helper()
		tok, k := w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "n", DailyLimit: limit})
		_, ok, err := counter.Add(t.Context(), k.Family, time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), used, used)
		require.True(t, ok && err == nil)
		return tok
	}
	a, b, lower, more := key(used, used), key(used, used), key(used-1, used), key(used, used+1)
	now := w.clock.Now().Add(600 * time.Millisecond)
	w.clock.set(now)

	first := refused(a)
	require.Same(t, first, refused(b))
	require.NotSame(t, first, refused(lower))
	require.EqualValues(t, used-1, refused(lower).Quota.Limit)
	require.EqualValues(t, used, refused(lower).Quota.Used)
	require.EqualValues(t, used+1, refused(more).Quota.Used)
	first = refused(a)
	require.Same(t, first, refused(a), "another limit between")

	w.clock.set(now.Add(300 * time.Millisecond))
	require.Same(t, first, refused(b), "the same second")
	w.clock.set(now.Add(500 * time.Millisecond))
	next := refused(b)
	require.Equal(t, first.Quota.RetryAfter-time.Second, next.Quota.RetryAfter)
	got := do(g.Wrap(pong), bearer(a.Reveal()))
	require.Equal(t, strconv.Itoa(int(next.Quota.RetryAfter/time.Second)), got.Header().Get("Retry-After"))

	limitOf := func(err error) int64 {
		f, ok := errors.AsType[*middleware.Refusal](err)
		if !ok {
			return 0
		}
		return f.Quota.Limit
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				_, _, err := g.Admit(bearer(a.Reveal()))
				_, _, lowerErr := g.Admit(bearer(lower.Reveal()))
				if limitOf(err) != used || limitOf(lowerErr) != used-1 {
					t.Error("the refusal of another limit")
				}
			}
		})
	}
	wg.Wait()
}

// TestRefuseHook: the answer can be replaced; what every refusal needs is there.
func TestRefuseHook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(&middleware.Options{Realm: "acme", Refuse: func(rw http.ResponseWriter, _ *http.Request, f *middleware.Refusal) {
		rw.Header().Set("Content-Type", "text/plain")
		rw.WriteHeader(f.Status)
		_, _ = rw.Write([]byte(f.Reason))
	}}).Wrap(pong)
	got := do(h, bearer(unknownToken))
	require.Equal(t, 401, got.Code)
	require.Equal(t, "invalid_token", got.Body.String())
	require.Equal(t, `Bearer realm="acme", error="invalid_token"`, got.Header().Get("WWW-Authenticate"))
	require.Equal(t, "no-store", got.Header().Get("Cache-Control"))

	h = w.guard(&middleware.Options{Limiter: refusing{}, Refuse: func(rw http.ResponseWriter, _ *http.Request, f *middleware.Refusal) {
		rw.WriteHeader(f.Status)
	}}).Wrap(pong)
	got = do(h, bearer(w.token.Reveal()))
	require.Equal(t, 429, got.Code)
	require.Equal(t, "3600", got.Header().Get("Retry-After"))
	require.Equal(t, `"daily";q=250;w=86400`, got.Header().Get("RateLimit-Policy"))
	require.Equal(t, `"daily";r=0;t=3600`, got.Header().Get("RateLimit"))
	require.Equal(t, "no-store", got.Header().Get("Cache-Control"))
	require.Equal(t, "nosniff", got.Header().Get("X-Content-Type-Options"))
}

// TestPrivateAnswers: D40: answers to x-api-token are private unless the handler
// says otherwise; those to Authorization are left alone.
func TestPrivateAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(nil)
	require.Equal(t, []string{"private"}, do(g.Wrap(pong), pair(testEmail, w.token.Reveal())).Header().Values("Cache-Control"))
	require.Empty(t, do(g.Wrap(pong), bearer(w.token.Reveal())).Header().Values("Cache-Control"))
	own := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("Cache-Control", "no-cache") })
	require.Equal(t, []string{"no-cache"}, do(g.Wrap(own), pair(testEmail, w.token.Reveal())).Header().Values("Cache-Control"))
	spoils := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Add("Cache-Control", "max-age=1")
		for _, name := range []string{"Cache-Control", "Ratelimit-Policy", "Ratelimit"} {
			rw.Header()[name][0] = "spoiled"
		}
	})
	require.Len(t, do(g.Wrap(spoils), pair(testEmail, w.token.Reveal())).Header().Values("Cache-Control"), 2)
	after := do(g.Wrap(pong), pair(testEmail, w.token.Reveal())).Header()
	require.Equal(t, []string{"private"}, after.Values("Cache-Control"), "what one handler did shows in another answer")
	require.Equal(t, `"daily";q=250;w=86400`, after.Get("RateLimit-Policy"))
}

// TestRefusalInsideWrap: D4: a handler that refuses behind a Guard that has counted
// leaves no RateLimit fields; and its own refusals have what their status needs (C1,
// D38).
func TestRefusalInsideWrap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(&middleware.Options{Realm: "acme"})
	requireRefusal(t, do(g.Wrap(g.With(policy.Scope("admin")).Wrap(pong)), bearer(w.token.Reveal())), 403, policy.InsufficientScope)
	own := func(f middleware.Refusal) *httptest.ResponseRecorder {
		return do(g.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { g.Refuse(rw, r, &f) })), bearer(w.token.Reveal()))
	}
	got := own(middleware.Refusal{Status: 401, Code: "Unauthorized", Reason: "step_up", Message: "Sign in again, please."})
	requireRefusal(t, got, 401, "step_up")
	require.Equal(t, `Bearer realm="acme", error="invalid_token"`, got.Header().Get("WWW-Authenticate"))
	requireRefusal(t, own(middleware.Refusal{Status: 503, Code: "Unavailable", Reason: "upstream", Message: "Something is down."}), 503, "upstream")
	require.Equal(t, "1", own(middleware.Refusal{Status: 429, Code: "RateLimitExceeded"}).Header().Get("Retry-After"))

	// A policy of the host that answers with the reason of a limit.
	limit := policy.Func(func(policy.Request) policy.Decision { return policy.Decision{Reason: policy.DailyLimit} })
	r := bearer(w.token.Reveal())
	r.Header.Set("Accept", "application/problem+json")
	got = do(g.With(limit).Wrap(pong), r)
	require.Equal(t, 429, got.Code)
	require.Equal(t, "1", got.Header().Get("Retry-After"))
	require.NotContains(t, got.Body.String(), "violated-policies")
}

// TestHandlerGetsThePrincipal: by context, and by argument from WrapFunc; the
// ResponseWriter and the request's address are left as they came (F3, F43).
func TestHandlerGetsThePrincipal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(nil)
	r := bearer(w.token.Reveal())
	r.Header.Set("X-Forwarded-For", "10.0.0.1")
	rec := httptest.NewRecorder()
	reached := 0
	check := func(rw http.ResponseWriter, got *http.Request, p *policy.Principal) {
		reached++
		require.Same(t, rec, rw)
		require.Equal(t, r.RemoteAddr, got.RemoteAddr)
		require.Equal(t, policy.APIKey, p.Credential)
		require.Equal(t, testUser, p.User)
		require.Equal(t, w.key.ID, p.KeyID)
		require.Equal(t, []string{"reports:read"}, p.Scopes)
	}
	inner := http.HandlerFunc(func(rw http.ResponseWriter, got *http.Request) {
		p, ok := middleware.PrincipalFrom(got.Context())
		require.True(t, ok)
		check(rw, got, p)
	})
	handlers := []http.Handler{
		g.Wrap(inner), g.WrapFunc(check), g.Authenticate(inner),
		g.Authenticate(g.Wrap(inner)), g.Authenticate(g.WrapFunc(check)), g.Wrap(g.With().Wrap(inner)),
	}
	for _, h := range handlers {
		h.ServeHTTP(rec, r)
	}
	require.Equal(t, len(handlers), reached)
	_, ok := middleware.PrincipalFrom(t.Context())
	require.False(t, ok)
	_, ok = middleware.PrincipalFrom(middleware.WithPrincipal(t.Context(), nil))
	require.False(t, ok)
}

// TestCheckAndAdmit: Check spends nothing, Admit one.
func TestCheckAndAdmit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(nil)
	for range 3 {
		p, err := g.Check(bearer(w.token.Reveal()))
		require.NoError(t, err)
		require.Equal(t, testUser, p.User)
	}
	p, result, err := g.Admit(bearer(w.token.Reveal()))
	require.NoError(t, err)
	require.Equal(t, testUser, p.User)
	require.EqualValues(t, 249, result.Remaining)

	_, err = g.Check(bearer(unknownToken))
	refusal, ok := errors.AsType[*middleware.Refusal](err)
	require.True(t, ok)
	require.Equal(t, policy.InvalidToken, refusal.Reason)
	require.Equal(t, "middleware: refused: invalid_token", err.Error())
	rec := httptest.NewRecorder()
	refusal.Write(rec, bearer(unknownToken))
	requireRefusal(t, rec, 401, policy.InvalidToken)

	_, _, err = w.guard(&middleware.Options{Limiter: refusing{}}).Admit(bearer(w.token.Reveal()))
	refusal, ok = errors.AsType[*middleware.Refusal](err)
	require.True(t, ok)
	require.EqualValues(t, 250, refusal.Quota.Limit)
}

// TestZeroGuardRefuses: deny is the zero value.
func TestZeroGuardRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, g := range []*middleware.Guard{nil, {}, (*middleware.Guard)(nil).With(), (&middleware.Guard{}).With(policy.Default())} {
		for _, h := range []http.Handler{
			g.Wrap(pong), g.Authenticate(pong),
			g.WrapFunc(func(rw http.ResponseWriter, r *http.Request, _ *policy.Principal) { pong(rw, r) }),
		} {
			requireRefusal(t, do(h, bearer(w.token.Reveal())), 503, policy.StoreUnavailable)
		}
		_, err := g.Check(bearer(w.token.Reveal()))
		require.Error(t, err)
		require.NoError(t, g.Close(t.Context()))
	}
	require.Panics(t, func() { w.guard(nil).Wrap(nil) })
	require.Panics(t, func() { w.guard(nil).Authenticate(nil) })
	require.Panics(t, func() { w.guard(nil).WrapFunc(nil) })
}

// TestOptionErrors: everything that is wrong is reported at once (F27).
func TestOptionErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := middleware.New(nil, nil)
	require.EqualError(t, err, "middleware: New without a Verifier")
	_, err = middleware.New(nil, &middleware.Options{Realm: `a"b`, Limiter: ratelimit.NewDaily(nil, &ratelimit.DailyOptions{Limit: -5})})
	for _, problem := range []string{"without a Verifier", "Options.Realm", "Options.Limiter: ratelimit: Daily without a Counter", "DailyOptions.Limit"} {
		require.ErrorContains(t, err, problem)
	}
	none := &middleware.APIKeyOptions{RefuseBearer: true, RefuseHeaderPair: true}
	_, err = middleware.New(w.mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(nil, none)},
	})
	require.EqualError(t, err, "middleware: Options.Authenticators: contains APIKeys without a Verifier\n"+
		"middleware: Options.Authenticators: contains APIKeys that refuse keys in both forms")
	_, err = middleware.New(w.mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{nil},
		Realm:          `a"b`,
		Unmetered:      true,
		Limiter:        refusing{},
		UseInterval:    -1,
	})
	for _, field := range []string{"Authenticators", "Realm", "Unmetered", "UseInterval"} {
		require.ErrorContains(t, err, "Options."+field)
	}
	option, ok := errors.AsType[*middleware.OptionError](err)
	require.True(t, ok)
	require.NotEmpty(t, option.Problem)
	_, err = middleware.New(w.mgr.Verifier(), &middleware.Options{Authenticators: []middleware.Authenticator{}})
	require.ErrorContains(t, err, "Options.Authenticators")
}

// TestClientAddress: the rules see the address that ClientIP gives, the Event
// too; an unknown one fails every list.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings(func(s *policy.Settings) { s.AllowedIPs, _ = policy.ParseIPList("203.0.113.7") })
	proxies, err := middleware.ParseTrustedProxies("192.0.2.1")
	require.NoError(t, err)
	var event middleware.Event
	h := w.guard(&middleware.Options{
		ClientIP: middleware.ForwardedFor(proxies),
		Observe:  func(_ *http.Request, e middleware.Event) { event = e },
	}).Wrap(pong)
	r := bearer(w.token.Reveal())
	requireRefusal(t, do(h, r), 403, policy.AddressNotAllowed)
	r.Header.Set("X-Forwarded-For", "203.0.113.7")
	require.Equal(t, 200, do(h, r).Code)
	require.Equal(t, netip.MustParseAddr("203.0.113.7"), event.Addr)
	r.Header.Set("X-Forwarded-For", "203.0.113.7, unknown")
	requireRefusal(t, do(h, r), 403, policy.AddressNotAllowed)
	require.False(t, event.Addr.IsValid())
}
