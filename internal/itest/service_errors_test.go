package itest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
)

// refused requires a refusal in the form of D1, with what its status asks for (D13,
// D14, D38, D40), in the usual form and in that of RFC 9457.
func (s *service) refused(status int, code, reason, method, path, credential string, body any, header ...string) reply {
	s.tb.Helper()
	got := s.require(status, method, path, credential, body, header...)
	e, _ := got.json["error"].(map[string]any)
	require.Equal(s.tb, code, e["code"], got.body)
	require.Equal(s.tb, reason, e["reason"], got.body)
	require.Equal(s.tb, false, got.json["success"])
	require.EqualValues(s.tb, status, got.json["status"])
	require.NotEmpty(s.tb, got.json["message"])
	require.NotEmpty(s.tb, e["message"])
	require.Equal(s.tb, "application/json; charset=utf-8", got.header.Get("Content-Type"))
	require.Equal(s.tb, "no-store", got.header.Get("Cache-Control"))
	require.Equal(s.tb, "nosniff", got.header.Get("X-Content-Type-Options"))
	require.Equal(s.tb, status == 429 || status == 503, got.header.Get("Retry-After") != "", "D38")
	require.Equal(s.tb, status == 429, got.header.Get("RateLimit") != "", "D4")
	challenge := got.header.Values("WWW-Authenticate")
	switch {
	case status != 401:
		require.Empty(s.tb, challenge)
	case reason == "no_credentials":
		require.Equal(s.tb, []string{`Bearer realm="api"`}, challenge)
	default:
		require.Equal(s.tb, []string{`Bearer realm="api", error="invalid_token"`}, challenge)
	}
	problem := s.require(status, method, path, credential, body, append(header, "Accept", "application/problem+json")...)
	require.Equal(s.tb, "application/problem+json", problem.header.Get("Content-Type"))
	require.Equal(s.tb, code, problem.json["code"])
	require.Equal(s.tb, reason, problem.json["reason"])
	return got
}

// TestServiceErrorTable: every code and reason of D3 that the service can give, over
// HTTP, with what belongs to it (S68-S70, D13).
func TestServiceErrorTable(t *testing.T) {
	t.Parallel()
	trail := filepath.Join(t.TempDir(), "audit.log")
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-audit", trail)
	ann, bob := s.jwt("ann"), s.jwt("bob")
	key := func(ref string) string { return s.key(ref).Token }
	const unknown = "csk_live_00000000000000000000000000000000"
	named := map[string]any{"name": "x"}

	// 401
	s.refused(401, "Unauthorized", "no_credentials", "GET", "/v1/ping", "", nil)
	s.refused(401, "Unauthorized", "no_credentials", "GET", "/v1/ping", "", nil, "Authorization", "Basic YTpi") // D34
	one := s.refused(401, "Unauthorized", "invalid_token", "GET", "/v1/ping", unknown, nil)
	for _, credential := range []string{
		key("gone"), "csk_live_short", "a.b.c", strings.ToUpper(key("old")),
		"ann@acme.example " + key("old"), "nobody@acme.example " + key("old"), "bob@acme.example " + unknown,
	} {
		other := s.refused(401, "Unauthorized", "invalid_token", "GET", "/v1/ping", credential, nil)
		require.Equal(t, one.body, other.body, "S73: equal to the byte")
	}
	s.refused(401, "Unauthorized", "invalid_token", "GET", "/v1/ping", "", nil, "X-Api-Token", key("old"))
	s.refused(401, "Unauthorized", "invalid_token", "GET", "/v1/ping", "", nil, "X-Api-User", "bob@acme.example")
	s.refused(401, "Unauthorized", "expired", "GET", "/v1/ping", key("late"), nil)

	// 400
	s.refused(400, "InvalidRequest", "multiple_credentials", "GET", "/v1/ping", key("old"), nil, "X-Api-User", "bob@acme.example", "X-Api-Token", key("old"))
	s.refused(400, "InvalidRequest", "multiple_credentials", "GET", "/v1/ping", "bob@acme.example "+key("old"), nil, "Authorization", "Basic YTpi")
	s.refused(400, "InvalidRequest", "malformed_body", "POST", "/v1/api-keys", bob, []int{})
	s.refused(400, "ValidationError", "invalid_fields", "POST", "/v1/api-keys", bob, map[string]any{"name": ""})
	s.refused(400, "ValidationError", "invalid_fields", "POST", "/v1/api-keys", bob, map[string]any{"name": "x", "dailyLimit": 0})
	s.refused(400, "ValidationError", "invalid_fields", "POST", "/v1/api-keys", bob, map[string]any{"name": "x", "dailyLimit": 251})
	s.refused(415, "InvalidRequest", "unsupported_media_type", "POST", "/v1/api-keys", bob, named, "Content-Type", "text/plain")
	s.refused(428, "InvalidRequest", "if_match_required", "PATCH", "/v1/org/token-settings", ann, map[string]any{"apiTokenMaxAge": 0})

	// 403
	s.refused(403, "Forbidden", "key_disabled", "GET", "/v1/ping", key("off"), nil)
	s.refused(403, "Forbidden", "address_not_allowed", "GET", "/v1/ping", key("zoe"), nil)
	s.refused(403, "Forbidden", "insufficient_scope", "GET", "/v1/reports", key("old"), nil)
	s.refused(403, "Forbidden", "wrong_credential_kind", "GET", "/v1/api-keys", key("old"), nil)
	s.refused(403, "Forbidden", "tier_not_allowed", "POST", "/v1/api-keys", s.jwt("dee"), named)
	s.refused(403, "Forbidden", "owner_required", "GET", "/v1/org/api-keys", bob, nil)
	s.settings(ann, map[string]any{"restrictedAccessTokens": true})
	s.refused(403, "Forbidden", "user_not_permitted", "GET", "/v1/ping", key("old"), nil)
	s.refused(403, "Forbidden", "user_not_permitted", "POST", "/v1/api-keys", bob, named)
	s.settings(ann, map[string]any{"restrictedAccessTokens": false})

	// 404, 405 and 409
	s.refused(404, "NotFound", "not_found", "GET", "/v1/api-keys/csk_live_00000000", bob, nil)
	s.refused(404, "NotFound", "not_found", "DELETE", "/v1/api-keys/"+s.key("ann").Prefix, bob, nil)
	s.refused(405, "InvalidRequest", "method_not_allowed", "PUT", "/v1/api-keys", bob, nil)
	s.refused(409, "Conflict", "version_conflict", "PATCH", "/v1/org/token-settings", ann, map[string]any{"apiTokenMaxAge": 0}, "If-Match", `"0"`)
	s.create(bob, map[string]any{"name": "fifth", "scopes": []string{"reports:read"}})
	s.refused(409, "TokenLimitReached", "token_limit", "POST", "/v1/api-keys", bob, named)

	// 429
	for range 3 {
		s.require(200, "GET", "/v1/ping", key("three"), nil)
	}
	s.refused(429, "RateLimitExceeded", "daily_limit", "GET", "/v1/ping", key("three"), nil)
	s.stop()

	// What was refused is in the trail, each under what it was, and who it was.
	text, err := os.ReadFile(trail)
	require.NoError(t, err)
	for _, want := range []string{
		`"action":"authentication","outcome":"failure","reason":"invalid_token"`,
		`"action":"authentication","outcome":"failure","reason":"address_not_allowed"`,
		`"action":"authentication","outcome":"failure","reason":"wrong_credential_kind"`,
		`"action":"authentication","outcome":"failure","reason":"forbidden"`, // an owner's view, by bob
		`"action":"settings.update","outcome":"failure","reason":"conflict"`,
		`"action":"key.create","outcome":"failure","reason":"limit_reached"`,
		`"id":"` + s.key("zoe").Prefix + `"`,
	} {
		require.Contains(t, string(text), want)
	}
	require.NotContains(t, string(text), `"reason":"daily_limit"`, "quotas are for metrics")
}

// TestServiceScopes: a route that asks for a scope is served to keys that have it.
func TestServiceScopes(t *testing.T) {
	t.Parallel()
	s := startService(t, "-dev")
	token, _ := s.create(s.jwt("demo-user"), map[string]any{"name": "x", "scopes": []string{"reports:read"}})
	s.require(200, "GET", "/v1/reports", token, nil)
}

// TestServiceQuota: S61-S63: of a key without a limit of its own exactly 250
// requests are admitted, the 251st is refused with every field of D4, and neither
// another key of the same user nor the user's JWT is touched by that. Counted by the
// store, and by Redis.
func TestServiceQuota(t *testing.T) {
	t.Parallel()
	for name, newStore := range serviceStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, append([]string{"-dev"}, newStore(t).args...)...)
			user := s.jwt("demo-user")
			token, _ := s.create(user, map[string]any{"name": "250"})
			other, _ := s.create(user, map[string]any{"name": "another"})
			for n := 249; n >= 0; n-- {
				got := s.require(200, "GET", "/v1/ping", token, nil)
				require.Equal(t, `"daily";q=250;w=86400`, got.header.Get("RateLimit-Policy"))
				require.Regexp(t, fmt.Sprintf(`^"daily";r=%d;t=\d+$`, n), got.header.Get("RateLimit"))
				if n == 100 { // what is refused spends nothing (S72, D5)
					s.require(400, "GET", "/v1/ping", token, nil, "X-Api-Token", token)
					s.require(403, "GET", "/v1/reports", token, nil)
					s.require(403, "GET", "/v1/api-keys", token, nil)
					s.require(200, "GET", "/v1/usage", token, nil)
				}
			}
			over := s.refused(429, "RateLimitExceeded", "daily_limit", "GET", "/v1/ping", token, nil)
			require.Equal(t, `"daily";q=250;w=86400`, over.header.Get("RateLimit-Policy"))
			require.Regexp(t, `^"daily";r=0;t=\d+$`, over.header.Get("RateLimit"))
			seconds, err := strconv.Atoi(over.header.Get("Retry-After"))
			require.NoError(t, err)
			require.True(t, 1 <= seconds && seconds <= 86400, seconds)

			usage := s.require(200, "GET", "/v1/usage", token, nil) // at the limit, too (D5)
			require.EqualValues(t, 250, usage.data("used"))
			require.EqualValues(t, 250, usage.data("limit"))
			require.Equal(t, "pro", usage.data("tier"))
			for _, member := range []string{"resetAt", "periodStart"} {
				require.NotEmpty(t, usage.data(member), member)
			}
			s.require(200, "GET", "/v1/ping", other, nil)
			s.require(200, "GET", "/v1/ping", user, nil)
		})
	}
}

// TestServiceDefaultLimit: -default-limit is the limit of keys without one of their
// own, and the most that plain users can set (D7).
func TestServiceDefaultLimit(t *testing.T) {
	t.Parallel()
	s := startService(t, "-dev", "-default-limit", "2")
	user := s.jwt("demo-user")
	token, prefix := s.create(user, map[string]any{"name": "x"})
	for range 2 {
		s.require(200, "GET", "/v1/ping", token, nil)
	}
	s.require(429, "GET", "/v1/ping", token, nil)
	s.require(400, "PATCH", "/v1/api-keys/"+prefix, user, map[string]any{"dailyLimit": 3})
	s.require(400, "PATCH", "/v1/api-keys/"+prefix, user, map[string]any{"dailyLimit": -1})
	s.require(200, "PATCH", "/v1/org/api-keys/"+prefix, s.jwt("demo-owner"), map[string]any{"dailyLimit": 3})
	s.require(200, "GET", "/v1/ping", token, nil)
	s.require(429, "GET", "/v1/ping", token, nil)
	s.require(200, "PATCH", "/v1/org/api-keys/"+prefix, s.jwt("demo-owner"), map[string]any{"dailyLimit": -1})
	for range 5 {
		got := s.require(200, "GET", "/v1/ping", token, nil)
		require.Empty(t, got.header.Get("RateLimit"), "D4: an unlimited key has none")
	}
}

// TestServiceStoreDown: while the store or the counter does not answer, nobody is let
// through whom it would have to be asked about (S76): 503, with Retry-After, for keys
// and for people.
func TestServiceStoreDown(t *testing.T) {
	t.Parallel()
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		p, err := servers.StartPostgres()
		servers.Check(t, err)
		t.Cleanup(func() { require.NoError(t, p.Close()) })
		s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-store", postgresURL(p.DSN()))
		s.require(200, "GET", "/v1/ping", s.key("old").Token, nil)
		bob := s.jwt("bob")
		require.NoError(t, p.Kill())
		for _, credential := range []string{s.key("three").Token, "csk_live_00000000000000000000000000000000", s.key("old").Token} {
			s.refused(503, "Unavailable", "store_unavailable", "GET", "/v1/ping", credential, nil)
		}
		s.refused(503, "Unavailable", "store_unavailable", "POST", "/v1/api-keys", bob, map[string]any{"name": "x"})
		require.Equal(t, http.StatusOK, s.do("GET", "/v1/health", "", nil).status, "the process is well")
		require.NoError(t, p.Start())
		require.Eventually(t, func() bool { status, _ := s.ping(s.key("three").Token); return status == 200 }, eventually, tick)
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		r := startRedis(t)
		s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-redis", r.URL())
		s.require(200, "GET", "/v1/ping", s.key("old").Token, nil)
		require.NoError(t, r.Kill())
		s.refused(503, "Unavailable", "store_unavailable", "GET", "/v1/ping", s.key("old").Token, nil)
		s.require(200, "GET", "/v1/ping", s.jwt("bob"), nil) // people are not counted
		require.NoError(t, r.Start())
		require.Eventually(t, func() bool { status, _ := s.ping(s.key("old").Token); return status == 200 }, eventually, tick)
	})
}
