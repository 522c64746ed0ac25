package api_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// TestAccount: who the caller is, the places of S12 and D10 with the keys that take
// them, and why no key can be made, as its creation would say.
func TestAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser, s.keys.MaxDailyLimit = 2, 40 })
	_, first := w.create("ann")
	require.Equal(t, map[string]any{
		"organization": "acme",
		"user": map[string]any{
			"id": "ann", "email": "ann@acme.example", "tier": "Pro", "owner": false, "tokenPermission": false, "suspendedAt": nil,
		},
		"restrictedAccessTokens": false, "apiTokenMaxAge": 0.0, "maxDailyLimit": 40.0,
		"places": map[string]any{"limit": 2.0, "prefixes": []any{first}}, "creationRefused": nil,
	}, w.do("GET", "/v1/me", request{as: "ann"}).data(200))

	w.clock.Set(start.Add(time.Second))
	_, second := w.create("ann")
	tests := []struct {
		name   string
		change func()
		as     string
		reason string
	}{
		{"S12: no place", func() {}, "session:ann", "token_limit"},
		{"S54: the tier", func() { w.put(store.User{Org: org, ID: "ann", Tier: "Free"}) }, "ann", "tier_not_allowed"},
		{"S29: restricted", func() { w.settings(object{"restrictedAccessTokens": true, "apiTokenMaxAge": 1}) }, "olga", "user_not_permitted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.change()
			refused := w.do("GET", "/v1/me", request{as: test.as}).data(200)["creationRefused"].(map[string]any)
			require.Equal(t, test.reason, refused["reason"])
			got := w.do("POST", "/v1/api-keys", request{as: test.as, body: object{"name": "x"}})
			require.Contains(t, got.Body.String(), `"reason":"`+test.reason+`"`)
			require.Contains(t, got.Body.String(), refused["message"].(string))
		})
	}
	ann := w.do("GET", "/v1/me", request{as: "ann"}).data(200)
	require.Equal(t, []any{second, first}, ann["places"].(map[string]any)["prefixes"], "expired keys too")
	require.Equal(t, true, ann["restrictedAccessTokens"])
	require.EqualValues(t, 1, ann["apiTokenMaxAge"])
	require.Nil(t, w.do("GET", "/v1/me", request{as: "olga"}).data(200)["maxDailyLimit"], "D7: owners set any")
	w.do("GET", "/v1/me?x=1", request{as: "ann"}).invalid("x")
}

// TestAccountWithoutCap: -1 is no cap (D11), and no maximum (D7) is null.
func TestAccountWithoutCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser, s.keys.MaxDailyLimit = -1, -1 })
	got := w.do("GET", "/v1/me", request{as: "ann"}).data(200)
	require.Equal(t, map[string]any{"limit": -1.0, "prefixes": []any{}}, got["places"])
	require.Nil(t, got["maxDailyLimit"])
}

// TestKeyUsage: today's use against the limit (S61), and the last 30 days; for the
// person whose key it is, and for owners.
func TestKeyUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	require.Equal(t, "200", w.use(secret))
	w.used(prefix, "192.0.2.1", start)
	w.used(prefix, "192.0.2.1", start.Add(-29*day))
	for path, as := range map[string]string{"/v1/api-keys/": "ann", "/v1/org/api-keys/": "olga"} {
		got := w.do("GET", path+prefix+"/usage", request{as: as}).data(200)
		require.Equal(t, prefix, got["prefix"])
		require.Equal(t, map[string]any{
			"used": 1.0, "limit": 250.0, "remaining": 249.0, "periodStart": "2026-03-01T00:00:00Z", "resetAt": "2026-03-02T00:00:00Z",
		}, got["usage"])
		days := got["days"].([]any)
		require.Len(t, days, 30)
		require.Equal(t, map[string]any{"day": "2026-01-31", "count": 1.0}, days[0])
		require.Equal(t, map[string]any{"day": "2026-02-28", "count": 0.0}, days[28])
		require.Equal(t, map[string]any{"day": "2026-03-01", "count": 1.0}, days[29])
		w.do("GET", path+prefix+"/usage?days=7", request{as: as}).invalid("days")
	}
	w.do("GET", "/v1/api-keys/"+prefix+"/usage", request{as: "bob"}).refused(404, "NotFound", "not_found")
	w.do("GET", "/v1/org/api-keys/"+prefix+"/usage", request{as: "rita"}).refused(404, "NotFound", "not_found")

	// A rotated key shares the quota of its family and not the days (D39).
	made := w.do("POST", "/v1/api-keys/"+prefix+"/rotate", request{as: "ann"}).data(201)
	got := w.do("GET", "/v1/api-keys/"+made["prefix"].(string)+"/usage", request{as: "ann"}).data(200)
	require.EqualValues(t, 1, got["usage"].(map[string]any)["used"])
	require.EqualValues(t, 0, got["days"].([]any)[29].(map[string]any)["count"])
}

// TestKeyUsageLimiters: without a limiter nothing is counted; of one that fails the
// host is told, and the days are shown all the same.
func TestKeyUsageLimiters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.guard.Limiter, s.guard.Unmetered, s.keys.Limiter = nil, true, nil })
	_, prefix := w.create("ann")
	require.Nil(t, w.do("GET", "/v1/api-keys/"+prefix+"/usage", request{as: "ann"}).data(200)["usage"])

	w = newWorld(t, func(s *setup) { s.api.Limiter = failing{} })
	_, prefix = w.create("ann")
	got := w.do("GET", "/v1/api-keys/"+prefix+"/usage", request{as: "ann"}).data(200)
	require.Nil(t, got["usage"])
	require.Len(t, got["days"], 30)
	require.Equal(t, []error{errDown}, w.failed)
}

// TestOrgKey: one row of the owner's table.
func TestOrgKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("ann")
	w.used(prefix, "192.0.2.1", start)
	rows := w.do("GET", "/v1/org/api-keys", request{as: "olga"}).list("keys")
	require.Equal(t, rows[0], w.do("GET", "/v1/org/api-keys/"+prefix, request{as: "olga"}).data(200))
	w.do("GET", "/v1/org/api-keys/"+prefix, request{as: "rita"}).refused(404, "NotFound", "not_found")
	require.NoError(t, w.mgr.Revoke(t.Context(), keys.Actor{}, keys.Ref{Org: org, ID: prefix}))
	w.do("GET", "/v1/org/api-keys/"+prefix, request{as: "olga"}).refused(404, "NotFound", "not_found")
}
