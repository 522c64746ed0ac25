package oidcauth_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/middleware/oidcauth/oidctest"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// S52, S64, S66, S67: the access token of a Cognito user, RS256, is sent as Bearer,
// and its custom claims are read.
func TestAuthenticate_AccessToken_S66(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := open(t, shared(), oidcauth.Options{})
		now := time.Now().UTC()
		p := accepted(t, a, shared().AccessToken("alice", map[string]any{"custom:tier": "Pro", "custom:teamId": "acme"}))
		require.Equal(t, &policy.Principal{
			Credential: policy.JWT,
			Org:        "acme",
			User:       "alice",
			Team:       "acme",
			Scopes:     []string{"openid", "profile"},
			Tier:       "Pro",
			IssuedAt:   now,
			NotAfter:   now.Add(time.Hour + 30*time.Second),
		}, p)
	})
}

// S66: a Cognito refresh token is an encrypted JWE, with four dots. D33: two dots
// are a JWT's, and whatever else there is belongs to somebody else.
func TestAuthenticate_NotOurs_D33(t *testing.T) {
	t.Parallel()
	a := open(t, shared(), oidcauth.Options{})
	good := shared().AccessToken("alice", nil)
	for _, tt := range []struct {
		name   string
		header http.Header
	}{
		{"nothing", http.Header{}},
		{"another scheme", http.Header{"Authorization": {"Basic " + good}}},
		{"API key", http.Header{"Authorization": {"Bearer csk_live_" + strings.Repeat("0", 32)}}},
		{"no dot", http.Header{"Authorization": {"Bearer abc"}}},
		{"one dot", http.Header{"Authorization": {"Bearer a.b"}}},
		{"refresh token", http.Header{"Authorization": {"Bearer eyJjdHkiOiJKV1QifQ.a.b.c.d"}}},
		{"many dots", http.Header{"Authorization": {"Bearer " + strings.Repeat(".", 16<<10)}}}, // F28
		{"over 16 KiB", http.Header{"Authorization": {"Bearer " + strings.Repeat("x", 16<<10) + "." + good}}},
		{"two lines", http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}},
		{"beside a pair", http.Header{"Authorization": {"Bearer " + good}, "X-Api-User": {"a"}, "X-Api-Token": {"b"}}},
		{"in a pair", http.Header{"X-Api-User": {"alice@example.com"}, "X-Api-Token": {good}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := a.Authenticate(&http.Request{Header: tt.header})
			require.Nil(t, p)
			require.ErrorIs(t, err, middleware.ErrNoCredential)
		})
	}
}

// faults are the faults of oidctest by the reason for which each must be refused; a
// fault that is refused for another one is not tested.
var faults = map[string][]string{
	"no credential": {"longer than 16 KiB", "two parts", "four parts"}, // not ours at all
	"part of the token is not base64url": {
		"padded", "alphabet of plain base64", "bits hidden behind the payload", "bits hidden behind the signature",
	},
	"header is not a JSON object": {"header that is not JSON", "header with text after it", "alg twice", "kid twice"},
	"alg is not RS256": {
		"alg missing", "alg in lower case", "alg a list", "Alg for alg", "alg none", "alg none, signed",
		"alg HS256 by the public key", "alg RS384", "alg RS512", "alg PS256",
	},
	"kid is missing":  {"kid missing", "kid empty", "kid a number"},
	"kid is unknown":  {"kid unknown", "signature by a key of its own kid"},
	"header has crit": {"crit", "crit unknown", "crit null"},
	"signature is wrong": {
		"alg RS256 by HS256", "alg RS256 by PS256", "signature missing", "signature of another token", "signature changed",
		"signature cut", "signature of a stranger", "signature by a key that the header brings", "claims changed",
	},
	"payload is not a JSON object": {
		"payload that is not JSON", "payload a list", "payload with text after it", "payload in bad UTF-8", "sub twice",
		"exp twice", "sub twice, once in disguise", "name twice within a claim",
	},
	"iss is another": {"iss missing", "iss another", "iss with a slash more", "iss a list", "Iss for iss"},
	"token_use is not accepted": {
		"token_use missing", "token_use empty", "token_use refresh", "token_use a list", "ID token",
	},
	"client_id or aud is not": {"client_id missing", "client_id another", "client_id a list", "client_id in aud"},
	"sub is missing": {
		"sub missing", "sub empty", "sub a number", "sub with a line break", "sub too long", "Sub for sub",
	},
	"scope is not":           {"scope a list"},
	"exp is missing":         {"exp missing", "Exp for exp"},
	"token has expired":      {"exp passed", "exp zero"}, // S65
	"token is not valid yet": {"nbf ahead", "iat ahead"},
	"is not a number of seconds": {
		"exp -1", "exp 1e300", "exp 1e400", "exp true", "exp [1]", "exp a string",
		"nbf -1", "nbf 1e300", "nbf 1e400", "nbf true", "nbf [1]", "nbf a string",
		"iat -1", "iat 1e300", "iat 1e400", "iat true", "iat [1]", "iat a string",
	},
}

// S64, S65, S66: every token that is spoiled in one of the ways of the requirements'
// section 5.2 is refused for that fault, and nothing of it is in the error. Behind a
// Guard all get the same 401, byte for byte; so does whoever sends no JWT at all.
func TestAuthenticate_Spoiled_S64(t *testing.T) {
	t.Parallel()
	a := open(t, shared(), oidcauth.Options{})
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil), a},
	})
	require.NoError(t, err)
	h := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	serve := func(token string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, bearer(token))
		return w
	}
	require.Equal(t, http.StatusOK, serve(shared().AccessToken("alice", nil)).Code)
	unknown := serve("csk_live_" + strings.Repeat("0", 32))

	reasons := map[string]string{}
	for why, names := range faults {
		for _, name := range names {
			reasons[name] = why
		}
	}
	for fault, token := range shared().Spoiled("alice") {
		why, ok := reasons[fault]
		require.True(t, ok, "no reason is known for %q", fault)
		delete(reasons, fault)
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			p, err := a.Authenticate(bearer(token))
			require.Nil(t, p)
			require.ErrorContains(t, err, why)
			require.Equal(t, why == "no credential", errors.Is(err, middleware.ErrNoCredential))
			require.Equal(t, why != "no credential", errors.Is(err, middleware.ErrInvalidCredential))
			requireNothingOf(t, token, err)

			w := serve(token)
			require.Equal(t, http.StatusUnauthorized, w.Code)
			require.Equal(t, unknown.Body.String(), w.Body.String())
			require.Equal(t, unknown.Header(), w.Header())
		})
	}
	require.Empty(t, reasons, "faults that no token has")
}

// requireNothingOf requires that an error repeats no part of a token.
func requireNothingOf(t *testing.T, token string, err error) {
	t.Helper()
	for part := range strings.SplitSeq(token, ".") {
		if part != "" {
			require.NotContains(t, err.Error(), part)
		}
	}
	for _, secret := range []string{"alice", "mallory", "invalid"} {
		require.NotContains(t, strings.ReplaceAll(err.Error(), "invalid credential", ""), secret)
	}
}

// Section 5.2 (2) and (7): what may stand in a token beside what is checked.
func TestAuthenticate_Tolerated(t *testing.T) {
	t.Parallel()
	a := open(t, shared(), oidcauth.Options{})
	claims := map[string]any{
		"iss": issuerURL, "sub": "alice", "client_id": clientID, "token_use": "access", "exp": time.Now().Add(time.Hour).Unix(),
	}
	for _, tt := range []struct {
		name   string
		header map[string]any
		claims map[string]any
	}{
		{"as little as possible", nil, nil},
		{"typ", map[string]any{"typ": "at+jwt"}, nil},
		{"keys in the header", map[string]any{"jku": "https://evil.example", "x5u": 1, "x5c": []string{"x"}, "jwk": map[string]any{"kty": "RSA"}}, nil},
		{"Alg beside alg", map[string]any{"Alg": "none", "ALG": "HS256"}, nil},
		{"aud of an API", nil, map[string]any{"aud": []string{"https://api.example"}}},
		{"iat and nbf", nil, map[string]any{"iat": time.Now().Unix(), "nbf": time.Now().Unix()}},
		{"exp with a fraction", nil, map[string]any{"exp": json.RawMessage("4102444800.75")}},
		{"exp with an exponent", nil, map[string]any{"exp": json.RawMessage("4.1024448e9")}},
		{"claims of other types", nil, map[string]any{"a": nil, "b": []any{1, nil, []any{}}, "c": map[string]any{"a": 1}, "jti": 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			all := maps.Clone(claims)
			maps.Copy(all, tt.claims)
			require.Equal(t, "alice", accepted(t, a, shared().Sign(tt.header, all)).User)
		})
	}
}

// S67: names of claims are compared exactly. encoding/json would make an Enterprise
// of this Free user.
func TestAuthenticate_ExactCase_S67(t *testing.T) {
	t.Parallel()
	a := open(t, shared(), oidcauth.Options{})
	p := accepted(t, a, shared().AccessToken("alice", map[string]any{
		"custom:tier": "Free", "custom:TIER": "Enterprise", "Custom:tier": "Enterprise",
		"custom:teamId": "acme", "custom:TeamId": "globex", "custom:teamid": "globex",
		"SUB": "mallory", "Scope": "admin",
	}))
	require.Equal(t, "Free", p.Tier)
	require.Equal(t, "acme", p.Team)
	require.Equal(t, "acme", p.Org)
	require.Equal(t, "alice", p.User)
	require.Equal(t, []string{"openid", "profile"}, p.Scopes)
}

// Section 5.2 (5): which client a token was issued to stands in client_id or aud, by
// its use; nobody signs in by a token for another purpose.
func TestAuthenticate_TokenUse_S66(t *testing.T) {
	t.Parallel()
	with := func(uses ...oidcauth.TokenUse) *oidcauth.Authenticator {
		return open(t, shared(), oidcauth.Options{TokenUses: uses})
	}
	access, id, unstated := with(oidcauth.Access), with(oidcauth.ID), with(oidcauth.Unstated)
	both := with(oidcauth.Access, oidcauth.ID)
	const use, client = "token_use is not accepted", "client_id or aud"
	aud := func(v any) string { return shared().IDToken("alice", map[string]any{"aud": v}) }
	none := func(v any) string { return shared().IDToken("alice", map[string]any{"token_use": nil, "aud": v}) }
	for _, tt := range []struct {
		name  string
		a     *oidcauth.Authenticator
		token string
		want  string // empty: accepted
	}{
		{"access", access, shared().AccessToken("alice", nil), ""},
		{"access where ID", id, shared().AccessToken("alice", map[string]any{"aud": clientID}), use},
		{"access where both", both, shared().AccessToken("alice", nil), ""},
		{"access where unstated", unstated, shared().AccessToken("alice", map[string]any{"aud": clientID}), use},
		{"ID", id, aud(clientID), ""},
		{"ID where both", both, aud(clientID), ""},
		{"ID, aud a list", id, aud([]string{clientID}), ""},
		{"ID, aud two of our clients", id, aud([]string{clientID, "another"}), ""},
		{"ID, aud another client", id, aud("mallory"), client},
		{"ID, aud another client too", id, aud([]string{clientID, "mallory"}), client},
		{"ID, aud missing", id, aud(nil), client},
		{"ID, aud an empty list", id, aud([]string{}), client},
		{"ID, aud a number", id, aud(1), client},
		{"ID, aud a list with a number", id, aud([]any{clientID, 1}), client},
		{"ID, aud in a list in a list", id, aud([]any{[]any{clientID}}), client},
		{"ID, client_id for aud", id, shared().IDToken("alice", map[string]any{"aud": nil, "client_id": clientID}), client},
		{"unstated", unstated, none(clientID), ""},
		{"unstated, aud another client", unstated, none("mallory"), client},
		{"unstated where ID", id, none(clientID), use},
		{"ID where unstated", unstated, aud(clientID), use},
		{"token_use empty where unstated", unstated, shared().IDToken("alice", map[string]any{"token_use": ""}), use},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.want == "" {
				accepted(t, tt.a, tt.token)
				return
			}
			refused(t, tt.a, tt.token, tt.want)
		})
	}
}

// Section 5.2 (6), S65: the boundaries of exp, nbf, iat and the lifetime, to the
// nanosecond, with the leeway on either side.
func TestAuthenticate_Times_S65(t *testing.T) {
	t.Parallel()
	base := time.Unix(1_900_000_000, 0)
	const expired, early, long = "token has expired", "token is not valid yet", "token is valid for too long"
	for _, tt := range []struct {
		name   string
		opts   oidcauth.Options
		now    time.Duration // after base
		claims map[string]int64
		want   string // empty: accepted
	}{
		{"in time", oidcauth.Options{}, 0, map[string]int64{"exp": 1}, ""},
		{"at exp", oidcauth.Options{}, 0, map[string]int64{"exp": 0}, ""},
		{"last instant of the leeway", oidcauth.Options{}, 30*time.Second - 1, map[string]int64{"exp": 0}, ""},
		{"end of the leeway", oidcauth.Options{}, 30 * time.Second, map[string]int64{"exp": 0}, expired},
		{"no leeway, last instant", oidcauth.Options{Leeway: -1}, -1, map[string]int64{"exp": 0}, ""},
		{"no leeway, at exp", oidcauth.Options{Leeway: -1}, 0, map[string]int64{"exp": 0}, expired},
		{"most leeway", oidcauth.Options{Leeway: 5 * time.Minute}, 5*time.Minute - 1, map[string]int64{"exp": 0}, ""},
		{"most leeway, end", oidcauth.Options{Leeway: 5 * time.Minute}, 5 * time.Minute, map[string]int64{"exp": 0}, expired},
		{"nbf within the leeway", oidcauth.Options{}, -30 * time.Second, map[string]int64{"exp": 9, "nbf": 0}, ""},
		{"nbf beyond the leeway", oidcauth.Options{}, -30*time.Second - 1, map[string]int64{"exp": 9, "nbf": 0}, early},
		{"iat within the leeway", oidcauth.Options{}, -30 * time.Second, map[string]int64{"exp": 9, "iat": 0}, ""},
		{"iat beyond the leeway", oidcauth.Options{}, -30*time.Second - 1, map[string]int64{"exp": 9, "iat": 0}, early},
		{"lifetime", oidcauth.Options{MaxLifetime: time.Hour}, 0, map[string]int64{"exp": 3600, "iat": 0}, ""},
		{"lifetime too long", oidcauth.Options{MaxLifetime: time.Hour}, 0, map[string]int64{"exp": 3601, "iat": 0}, long},
		{"lifetime unknown", oidcauth.Options{MaxLifetime: time.Hour}, 0, map[string]int64{"exp": 3600}, long},
		{"any lifetime", oidcauth.Options{}, 0, map[string]int64{"exp": 253402300799 - 1_900_000_000, "iat": -1_900_000_000}, ""},
		{"beyond the year 9999", oidcauth.Options{}, 0, map[string]int64{"exp": 253402300800 - 1_900_000_000}, "number of seconds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			claims := map[string]any{"iss": issuerURL, "sub": "alice", "client_id": clientID, "token_use": "access"}
			for name, v := range tt.claims {
				claims[name] = base.Unix() + v
			}
			now := base.Add(tt.now)
			tt.opts.Now = func() time.Time { return now }
			a := open(t, shared(), tt.opts)
			token := shared().Sign(nil, claims)
			if tt.want != "" {
				refused(t, a, token, tt.want)
				return
			}
			// A Guard must not take the leeway back.
			p := accepted(t, a, token)
			require.True(t, policy.Default().Evaluate(policy.Request{Principal: p, Settings: &policy.Settings{}, Time: now}).Allow)
		})
	}
}

// S52, S55: a key and a JWT are both sent as Bearer and open the same path. D33: a
// key that looks like a JWT stays a key.
func TestGuard_KeyAndJWT_S52(t *testing.T) {
	t.Parallel()
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	a := open(t, shared(), oidcauth.Options{Users: mgr})
	var seen error
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil), a},
		Observe:        func(_ *http.Request, e middleware.Event) { seen = e.Err },
	})
	require.NoError(t, err)
	var caller *policy.Principal
	h := guard.WrapFunc(func(_ http.ResponseWriter, _ *http.Request, p *policy.Principal) { caller = p })
	serve := func(token string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, bearer(token))
		return w.Code
	}

	require.Equal(t, http.StatusOK, serve(shared().AccessToken("alice", map[string]any{"custom:teamId": "acme"})))
	require.Equal(t, policy.JWT, caller.Credential)
	// The sign-in made the user, so that she can have a key (D42).
	token, _, err := mgr.Create(t.Context(), keys.CreateParams{Org: caller.Org, User: caller.User, Name: "ci"})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, serve(token.Reveal()))
	require.Equal(t, policy.APIKey, caller.Credential)
	require.Equal(t, "alice", caller.User)

	require.Equal(t, http.StatusUnauthorized, serve("csk_live_a.b.c"))
	require.ErrorContains(t, seen, "malformed", "judged as a key")
	require.Equal(t, http.StatusUnauthorized, serve("a.b.c"))
	require.ErrorContains(t, seen, "oidcauth")
}

// The zero Authenticator, and none, accept nothing.
func TestAuthenticator_Zero(t *testing.T) {
	t.Parallel()
	var none *oidcauth.Authenticator
	for _, a := range []*oidcauth.Authenticator{none, {}} {
		unavailable(t, a, shared().AccessToken("alice", nil), "not made by New")
		require.NoError(t, a.Close())
	}
}

// A line break in a token, which net/http lets nobody send, is not skipped.
func TestAuthenticate_LineBreak(t *testing.T) {
	t.Parallel()
	a := open(t, shared(), oidcauth.Options{})
	good := shared().AccessToken("alice", nil)
	accepted(t, a, good)
	for _, i := range []int{1, strings.IndexByte(good, '.') + 1, len(good) - 1} {
		refused(t, a, good[:i]+"\n"+good[i:], "not base64url")
		refused(t, a, good[:i]+"\r"+good[i:], "not base64url")
	}
}

var _ oidcauth.Users = (*keys.Manager)(nil)

var _ http.Handler = (*oidctest.Issuer)(nil)
