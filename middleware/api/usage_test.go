package api_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// TestUsage_S61: used, limit, reset, tier and period for a key, which spends nothing
// by asking, and is answered at the limit too (D5), where other requests are told 429
// (S62, S70); both forms of key (D34).
func TestUsage_S61(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x", "dailyLimit": 2}}).data(201)
	secret := made["key"].(string)
	second, _ := w.create("ann")
	for used := range 4 {
		for _, as := range []string{"key:" + secret, "pair:ann@acme.example:" + secret, "key:" + secret} {
			require.Equal(t, map[string]any{
				"used": float64(min(used, 2)), "limit": 2.0, "remaining": float64(max(2-used, 0)), "tier": "pro",
				"periodStart": "2026-03-01T00:00:00Z", "resetAt": "2026-03-02T00:00:00Z",
			}, w.do("GET", "/v1/usage", request{as: as}).data(200))
		}
		want := "200"
		if used >= 2 {
			want = "429 daily_limit"
		}
		require.Equal(t, want, w.use(secret))
	}
	other := w.do("GET", "/v1/usage", request{as: "key:" + second}).data(200)
	require.EqualValues(t, 0, other["used"], "S63: the limit is per key")
	require.EqualValues(t, 250, other["limit"], "S61: the default")
	w.clock.Set(start.Add(12 * 3600e9))
	require.EqualValues(t, 0, w.do("GET", "/v1/usage", request{as: "key:" + secret}).data(200)["used"], "a new day (D4)")
}

// TestUsageOfPeople: only keys are counted (D5).
func TestUsageOfPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, as := range []string{"ann", "session:ann"} {
		require.Equal(t, map[string]any{
			"used": 0.0, "limit": -1.0, "remaining": -1.0, "tier": "pro",
			"periodStart": "2026-03-01T00:00:00Z", "resetAt": "2026-03-02T00:00:00Z",
		}, w.do("GET", "/v1/usage", request{as: as}).data(200))
	}
	w.claims = func(p *policy.Principal) { p.Tier = "" }
	require.Nil(t, w.do("GET", "/v1/usage", request{as: "ann"}).data(200)["tier"])
}

// TestUsageIsGuarded: a key that the rules refuse is told so, not its usage.
func TestUsageIsGuarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	w.do("PATCH", "/v1/org/api-keys/"+prefix, request{as: "olga", body: object{"disabled": true}}).data(200)
	w.do("GET", "/v1/usage", request{as: "key:" + secret}).refused(403, "Forbidden", "key_disabled")
	w.do("DELETE", "/v1/org/api-keys/"+prefix, request{as: "olga"}).data(200)
	w.do("GET", "/v1/usage", request{as: "key:" + secret}).refused(401, "Unauthorized", "invalid_token")
}

// failing is a limiter that cannot answer.
type failing struct{}

func (failing) Take(context.Context, string, int64) (ratelimit.Result, error) {
	return ratelimit.Result{}, errDown
}

func (failing) Peek(context.Context, string, int64) (ratelimit.Result, error) {
	return ratelimit.Result{}, errDown
}

// TestUsageLimiters: the Guard's limiter unless the host names another; without one
// nothing is counted; one that fails is 503 (S76), and the host is told why.
func TestUsageLimiters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) {
		s.guard.Limiter = ratelimit.All(ratelimit.NewBurst(1, 1, nil), s.guard.Limiter)
		s.api.Limiter = s.keys.Limiter
	})
	secret, _ := w.create("ann")
	require.Equal(t, "200", w.use(secret))
	require.Equal(t, "429 burst_limit", w.use(secret))
	require.EqualValues(t, 250, w.do("GET", "/v1/usage", request{as: "key:" + secret}).data(200)["limit"], "of the day")

	w = newWorld(t, func(s *setup) { s.guard.Limiter, s.guard.Unmetered, s.keys.Limiter = nil, true, nil })
	secret, prefix := w.create("ann")
	require.Equal(t, map[string]any{
		"used": 0.0, "limit": -1.0, "remaining": -1.0, "tier": "pro", "periodStart": nil, "resetAt": nil,
	}, w.do("GET", "/v1/usage", request{as: "key:" + secret}).data(200))
	require.Nil(t, w.do("GET", "/v1/org/api-keys/"+prefix+"/explain", request{as: "olga"}).data(200)["usage"])

	w = newWorld(t, func(s *setup) { s.api.Limiter, s.keys.Limiter = failing{}, failing{} })
	secret, prefix = w.create("ann")
	w.do("GET", "/v1/usage", request{as: "key:" + secret}).refused(503, "Unavailable", "store_unavailable")
	require.Equal(t, []error{errDown}, w.failed)
	got := w.do("GET", "/v1/org/api-keys/"+prefix+"/explain", request{as: "olga"}).data(200)
	require.Nil(t, got["usage"])
	require.Equal(t, "store_unavailable", got["reason"])
	require.Len(t, w.failed, 2)
}
