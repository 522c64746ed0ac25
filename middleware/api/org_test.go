package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// TestTable_S47: owners see all keys of the organization with their live status
// (S48), creator, addresses, user agent, times (S49, S50), and of no other.
func TestTable_S47(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, anns := w.create("ann")
	w.clock.Set(start.Add(time.Second))
	_, bobs := w.create("bob")
	w.create("rita")
	w.used(anns, "192.0.2.7", start.Add(time.Minute))
	w.used(anns, "2001:db8::7", start.Add(time.Hour))
	w.settings(object{"apiTokenMaxAge": 30 * 86400})
	rows := w.do("GET", "/v1/org/api-keys", request{as: "olga"}).list("keys")
	require.Equal(t, []string{bobs, anns}, prefixes(rows))
	require.Equal(t, map[string]any{
		"prefix": anns, "name": "export", "scopes": []any{}, "dailyLimit": nil, "status": "active", "reasons": []any{},
		"createdAt": "2026-03-01T12:00:00Z", "expiresAt": "2026-03-31T12:00:00Z", "ownExpiresAt": nil,
		"lastUsedAt": "2026-03-01T13:00:00Z", "revokedAt": nil,
		"createdBy": map[string]any{"id": "ann", "email": "ann@acme.example"},
		"userAgent": "curl/8",
		"addresses": []any{
			map[string]any{"address": "2001:db8::7", "firstUsedAt": "2026-03-01T13:00:00Z", "lastUsedAt": "2026-03-01T13:00:00Z", "count": 1.0},
			map[string]any{"address": "192.0.2.7", "firstUsedAt": "2026-03-01T12:01:00Z", "lastUsedAt": "2026-03-01T12:01:00Z", "count": 1.0},
		},
	}, rows[1])
	require.Nil(t, rows[0]["userAgent"])
	require.Equal(t, []any{}, rows[0]["addresses"])

	// S48: all three, live.
	status := func() map[string]string {
		all := map[string]string{}
		for _, row := range w.do("GET", "/v1/org/api-keys", request{as: "olga"}).list("keys") {
			all[row["prefix"].(string)] = fmt.Sprint(row["status"], row["reasons"])
		}
		return all
	}
	w.clock.Set(start.Add(30 * day))
	require.Equal(t, map[string]string{anns: "expired[expired]", bobs: "active[]"}, status())
	w.settings(object{"restrictedAccessTokens": true})
	require.Equal(t, map[string]string{
		anns: "disabled_by_owner[user_not_permitted expired]", bobs: "disabled_by_owner[user_not_permitted]",
	}, status(), "D12: all reasons")
}

// TestAddresses_D24: the ten addresses used last are shown.
func TestAddresses_D24(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("ann")
	for i := range 12 {
		w.used(prefix, fmt.Sprintf("192.0.2.%d", i), start.Add(time.Duration(i)*time.Minute))
	}
	addresses := w.do("GET", "/v1/org/api-keys", request{as: "olga"}).list("keys")[0]["addresses"].([]any)
	require.Len(t, addresses, 10)
	require.Equal(t, "192.0.2.11", addresses[0].(map[string]any)["address"])
}

// TestTableFilters_S50: search by creator and name, by status, and pages of each.
func TestTableFilters_S50(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser = -1 })
	for i := range 12 {
		w.clock.Set(start.Add(time.Duration(i) * time.Second))
		as := []string{"ann", "bob", "olga"}[i%3]
		_, _, err := w.mgr.Create(t.Context(), keys.CreateParams{Org: org, User: as, Name: fmt.Sprintf("Key %d of %s", i, as)})
		require.NoError(t, err)
	}
	all := w.do("GET", "/v1/org/api-keys", request{as: "olga"}).list("keys")
	require.Len(t, all, 12)
	w.do("PATCH", "/v1/org/api-keys/"+all[0]["prefix"].(string), request{as: "olga", body: object{"disabled": true}}).data(200)
	w.do("DELETE", "/v1/org/api-keys/"+all[1]["prefix"].(string), request{as: "olga"}).data(200)
	for query, want := range map[string]int{
		"":                                  11,
		"revoked=false":                     11,
		"revoked=true":                      12,
		"name=KEY":                          11,
		"name=of+ann":                       4,
		"name=%25":                          0,
		"creator=ANN%40":                    4,
		"creator=acme.example":              11,
		"creator=rita":                      0,
		"status=active":                     10,
		"status=disabled_by_owner":          1,
		"status=revoked":                    1,
		"status=expired":                    0,
		"status=active&creator=ann&name=of": 4,
		"creator=bob&revoked=true":          4,
		"creator=bob":                       3,
	} {
		for _, limit := range []int{1, 3, 100} {
			require.Len(t, w.pages("/v1/org/api-keys?"+query, "keys", request{as: "olga"}, limit), want, "%s by %d", query, limit)
		}
	}
}

// TestOwnersChangeKeys_D12: an owner disables and enables any key, and sets any limit
// (D7), in one step; who made it cannot undo that.
func TestOwnersChangeKeys_D12(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	path := "/v1/org/api-keys/" + prefix
	got := w.do("PATCH", path, request{as: "olga", body: object{"disabled": true}}).data(200)
	require.Equal(t, "disabled_by_owner", got["status"])
	require.Equal(t, []any{"key_disabled"}, got["reasons"])
	require.Equal(t, "403 key_disabled", w.use(secret))
	w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: object{"disabled": false}}).invalid("disabled")
	w.do("POST", "/v1/api-keys/"+prefix+"/rotate", request{as: "ann"}).refused(409, "Conflict", "not_active")
	require.Equal(t, "active", w.do("PATCH", path, request{as: "olga", body: object{"disabled": false}}).data(200)["status"])
	require.Equal(t, "200", w.use(secret))

	got = w.do("PATCH", path, request{as: "olga", body: object{"disabled": true, "dailyLimit": -1}}).data(200)
	require.Equal(t, "disabled_by_owner", got["status"])
	require.EqualValues(t, -1, got["dailyLimit"])
	got = w.do("PATCH", path, request{as: "olga", body: `{"disabled":false,"dailyLimit":null}`}).data(200)
	require.Equal(t, "active", got["status"])
	require.Nil(t, got["dailyLimit"])

	before := w.dump()
	w.do("PATCH", path, request{as: "olga", body: "{}"}).invalid("")
	for _, bad := range []string{"null", "1", `"true"`} {
		w.do("PATCH", path, request{as: "olga", body: `{"dailyLimit":5,"disabled":` + bad + `}`}).invalid("disabled")
	}
	w.do("PATCH", path, request{as: "olga", body: `{"disabled":true,"dailyLimit":0}`}).invalid("dailyLimit")
	w.do("PATCH", path, request{as: "olga", body: object{"name": "x"}}).invalid("name")
	require.Equal(t, before, w.dump())

	w.do("DELETE", path, request{as: "olga"}).data(200)
	w.do("PATCH", path, request{as: "olga", body: object{"disabled": true}}).refused(404, "NotFound", "not_found")
	w.do("DELETE", path, request{as: "olga"}).refused(404, "NotFound", "not_found")
}

// TestExplain: each rule's verdict now, in the order of S72, spending nothing.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x", "dailyLimit": 2}}).data(201)
	prefix := made["prefix"].(string)
	w.use(made["key"].(string))
	path := "/v1/org/api-keys/" + prefix + "/explain"
	got := w.do("GET", path+"?address=192.0.2.1", request{as: "olga"}).data(200)
	require.Equal(t, true, got["allowed"])
	require.NotContains(t, got, "reason")
	require.Equal(t, "192.0.2.1", got["address"])
	require.Equal(t, "active", got["status"])
	require.Equal(t, map[string]any{
		"used": 1.0, "limit": 2.0, "remaining": 1.0, "periodStart": "2026-03-01T00:00:00Z", "resetAt": "2026-03-02T00:00:00Z",
	}, got["usage"])
	var rules []string
	for _, r := range got["rules"].([]any) {
		rule := r.(map[string]any)
		require.Equal(t, true, rule["allowed"])
		rules = append(rules, rule["rule"].(string))
	}
	require.Equal(t, []string{"known", "revoked", "suspended", "enabled", "permitted", "expiry", "address", "quota"}, rules)
	require.EqualValues(t, 1, w.do("GET", path, request{as: "olga"}).data(200)["usage"].(map[string]any)["used"], "nothing was spent")

	w.settings(object{"restrictedAccessTokens": true, "apiAllowedIPs": []string{"192.0.2.0/24"}})
	for query, want := range map[string][]string{
		"":                           {"permitted user_not_permitted", "address address_not_allowed"}, // from an unknown address
		"?address=203.0.113.1":       {"permitted user_not_permitted", "address address_not_allowed"},
		"?address=192.0.2.9":         {"permitted user_not_permitted"},
		"?address=%3A%3Affff:c0:201": {"permitted user_not_permitted", "address address_not_allowed"},
		"?address=::ffff:192.0.2.9":  {"permitted user_not_permitted"},
	} {
		got := w.do("GET", path+query, request{as: "olga"}).data(200)
		require.Equal(t, false, got["allowed"])
		require.Equal(t, "user_not_permitted", got["reason"])
		var refuse []string
		for _, r := range got["rules"].([]any) {
			if rule := r.(map[string]any); rule["allowed"] == false {
				refuse = append(refuse, fmt.Sprint(rule["rule"], " ", rule["reason"]))
			}
		}
		require.Equal(t, want, refuse, query)
		require.Equal(t, query == "", got["address"] == nil)
		require.NotContains(t, fmt.Sprint(got["address"]), "ffff", "in normal form")
	}
	for _, bad := range []string{"", "x", "192.0.2.1:80", "fe80::1%25eth0", "192.0.2.0/24", "10.0.0.01", "%20192.0.2.1"} {
		w.do("GET", path+"?address="+bad, request{as: "olga"}).invalid("address")
	}
	w.do("DELETE", "/v1/org/api-keys/"+prefix, request{as: "olga"}).data(200)
	require.Equal(t, "revoked", w.do("GET", path, request{as: "olga"}).data(200)["status"], "revoked keys too")
}

// TestUsers: the users of the organization by ID, in pages, with the grant as a
// property of the user (S31), settable at any time.
func TestUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.user("bob")
	u.Tier, u.Email, u.SuspendedAt = "", "", start
	w.put(u)
	users := w.do("GET", "/v1/org/users", request{as: "olga"}).list("users")
	require.Len(t, users, 4)
	require.Equal(t, map[string]any{
		"id": "ann", "email": "ann@acme.example", "tier": "Pro", "owner": false, "tokenPermission": false, "suspendedAt": nil,
	}, users[0])
	require.Equal(t, map[string]any{
		"id": "bob", "email": "bob", "tier": nil, "owner": false, "tokenPermission": false, "suspendedAt": "2026-03-01T12:00:00Z",
	}, users[1])
	require.Equal(t, true, users[2]["owner"])
	for limit := 1; limit <= 5; limit++ {
		require.Equal(t, users, w.pages("/v1/org/users", "users", request{as: "olga"}, limit))
	}

	require.Equal(t, true, w.do("PUT", "/v1/org/users/ann/token-permission", request{as: "olga", body: "{}"}).data(200)["tokenPermission"])
	require.Equal(t, true, w.do("PUT", "/v1/org/users/ann/token-permission", request{as: "otto"}).data(200)["tokenPermission"], "again")
	require.Equal(t, true, w.do("GET", "/v1/org/users", request{as: "olga"}).list("users")[0]["tokenPermission"])
	w.do("PUT", "/v1/org/users/ann/token-permission", request{as: "olga", body: object{"permitted": false}}).invalid("permitted")
	for _, unknown := range []string{"zoe", "rita", "ann@acme.example", "%00", "ANN"} {
		w.do("PUT", "/v1/org/users/"+unknown+"/token-permission", request{as: "olga"}).refused(404, "NotFound", "not_found")
		w.do("DELETE", "/v1/org/users/"+unknown+"/token-permission", request{as: "olga"}).refused(404, "NotFound", "not_found")
	}
	require.False(t, w.user("bob").Permitted)
}

// TestOddUsers: a user whose ID looks like a path or a cursor is one all the same.
func TestOddUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range []string{"..", ".", "a/b", "a?b", "ü", "a b", "a+b@x.example", "%2F"} {
		w.put(store.User{Org: org, ID: id})
	}
	require.Len(t, w.pages("/v1/org/users", "users", request{as: "olga"}, 1), 12)
	for _, escaped := range []string{"%2e%2e", "%2E", "a%2Fb", "a%3Fb", "%C3%BC", "a%20b", "a+b@x.example", "%252F"} {
		w.do("PUT", "/v1/org/users/"+escaped+"/token-permission", request{as: "olga"}).data(200)
	}
	permitted := 0
	for _, u := range w.do("GET", "/v1/org/users", request{as: "olga"}).list("users") {
		if u["tokenPermission"] == true {
			permitted++
		}
	}
	require.Equal(t, 8, permitted)
}
