package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// TestCreate_S56 makes a key with a JWT: the full key once (S57, D29), in the
// envelope of D2 with the members of the original.
func TestCreate_S56(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "  CI Pipeline "}})
	data := got.data(201)
	secret := data["key"].(string)
	require.Regexp(t, `^csk_live_[0-9a-f]{32}$`, secret, "S53")
	require.Equal(t, map[string]any{
		"key": secret, "prefix": secret[:17], "name": "CI Pipeline", "scopes": []any{}, "dailyLimit": nil,
		"status": "active", "reasons": []any{}, "createdAt": "2026-03-01T12:00:00Z",
		"expiresAt": nil, "ownExpiresAt": nil, "lastUsedAt": nil, "revokedAt": nil,
	}, data)
	require.Equal(t, "200", w.use(secret))
	require.Equal(t, "200", w.use(secret))
}

// TestCreateWithEverything: optional members, times in UTC (D1), and the earlier of
// the own end and the period of the organization (D23).
func TestCreateWithEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings(object{"apiTokenMaxAge": 30 * 86400})
	data := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{
		"name": "x", "scopes": []string{"b", "a"}, "dailyLimit": 10, "expiresAt": "2026-12-24T20:00:00.123456789+02:00",
	}}).data(201)
	require.Equal(t, []any{"b", "a"}, data["scopes"])
	require.EqualValues(t, 10, data["dailyLimit"])
	require.Equal(t, "2026-12-24T18:00:00.123456Z", data["ownExpiresAt"])
	require.Equal(t, "2026-03-31T12:00:00Z", data["expiresAt"])
	again := w.do("GET", "/v1/api-keys/"+data["prefix"].(string), request{as: "ann"}).data(200)
	delete(data, "key")
	require.Equal(t, data, again)
}

// TestNames_D30: names are trimmed; 1 to 100 printable characters of any script.
func TestNames_D30(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		value any
		ok    bool
	}{
		{"S15: empty", "", false},
		{"blanks", " \t ", false},
		{"null", nil, false},
		{"number", 1, false},
		{"100 characters", strings.Repeat("ж", 100), true},
		{"101 characters", strings.Repeat("x", 101), false},
		{"control", "a\x00b", false},
		{"line break", "a\nb", false},
		{"direction", "a\u202eb", false},
		{"markup", `<script>"'&`, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			before := w.dump()
			got := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": test.value}})
			if test.ok {
				require.Equal(t, test.value, got.data(201)["name"])
				return
			}
			got.invalid("name")
			require.Equal(t, before, w.dump())
		})
	}
	w := newWorld(t)
	require.Equal(t, "is required", w.do("POST", "/v1/api-keys", request{as: "ann", body: "{}"}).invalid("name").Message)
	w.create("ann")
	w.create("ann") // the name again
}

// TestDailyLimit_D6 and D7: who may set which limit, on creation and change.
func TestDailyLimit_D6(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, as, value string // the value as JSON
		ok              bool
	}{
		{"one", "ann", "1", true},
		{"the maximum of a user (D7)", "ann", "250", true},
		{"more than that", "ann", "251", false},
		{"unlimited by a user", "ann", "-1", false},
		{"unlimited by an owner", "olga", "-1", true},
		{"more by an owner", "olga", "1000000", true},
		{"the largest number", "olga", "999999999999999", true},
		{"one more", "olga", "1000000000000000", false},
		{"too large a number", "olga", "9223372036854775808", false},
		{"zero", "olga", "0", false},
		{"negative zero", "olga", "-0", false},
		{"another negative number", "olga", "-2", false},
		{"a fraction", "olga", "1.0", false},
		{"an exponent", "olga", "1e2", false},
		{"text", "olga", `"10"`, false},
		{"null: the default", "ann", "null", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			secret, prefix := w.create(test.as)
			before := w.dump()
			made := w.do("POST", "/v1/api-keys", request{as: test.as, body: `{"name":"x","dailyLimit":` + test.value + `}`})
			if !test.ok {
				made.invalid("dailyLimit")
				w.do("PATCH", "/v1/api-keys/"+prefix, request{as: test.as, body: `{"dailyLimit":` + test.value + `}`}).invalid("dailyLimit")
				require.Equal(t, before, w.dump())
				return
			}
			require.Equal(t, test.value, asJSON(t, made.data(201)["dailyLimit"]))
			changed := w.do("PATCH", "/v1/api-keys/"+prefix, request{as: test.as, body: `{"dailyLimit":` + test.value + `}`})
			require.Equal(t, test.value, asJSON(t, changed.data(200)["dailyLimit"]))
			require.Equal(t, "200", w.use(secret))
		})
	}
}

// asJSON writes a number of an answer as it was sent.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("%.0f", f)
	}
	require.Nil(t, v)
	return "null"
}

// TestExpiresAt: RFC 3339 only, ahead, and null for none; the zero Time is no back
// door to "none".
func TestExpiresAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("ann")
	before := w.dump()
	for _, bad := range []string{
		`""`, `"2027-01-01"`, `"2027-01-01 00:00:00Z"`, `"2027-01-01T00:00:00"`, `"2027-01-01T00:00:00,5Z"`, `"2027-02-30T00:00:00Z"`,
		`"2027-01-01T0:00:00Z"`, `"2027-01-01T00:00:00+25:00"`, `1798761600`, `true`, `{}`, `"2026-03-01T12:00:00Z"`,
		`"2025-01-01T00:00:00Z"`, `"0001-01-01T00:00:00Z"`, `"0001-01-01T00:00:00.0000001Z"`, `"0001-01-01T00:00:00+23:00"`,
		`"0000-01-01T00:00:00Z"`, `"9999-12-31T23:59:59-01:00"`,
	} {
		w.do("POST", "/v1/api-keys", request{as: "ann", body: `{"name":"x","expiresAt":` + bad + `}`}).invalid("expiresAt")
		w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: `{"expiresAt":` + bad + `}`}).invalid("expiresAt")
	}
	require.Equal(t, before, w.dump())
	got := w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: `{"expiresAt":"2026-03-02T00:00:00Z"}`}).data(200)
	require.Equal(t, "2026-03-02T00:00:00Z", got["ownExpiresAt"])
	require.Nil(t, w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: `{"expiresAt":null}`}).data(200)["ownExpiresAt"])

	w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: `{"expiresAt":"2026-03-02T00:00:00Z"}`}).data(200)
	w.clock.Set(start.Add(day))
	w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: `{"expiresAt":null}`}).refused(409, "Conflict", "not_active")
}

// TestUpdate: what is not given stays; all is changed or nothing; scopes are checked
// one by one.
func TestUpdate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("ann")
	path := "/v1/api-keys/" + prefix
	before := w.do("GET", path, request{as: "ann"}).data(200)
	got := w.do("PATCH", path, request{as: "ann", body: object{"name": "new", "scopes": []string{"a"}}}).data(200)
	want := maps.Clone(before)
	want["name"], want["scopes"] = "new", []any{"a"}
	require.Equal(t, want, got)

	dump := w.dump()
	w.do("PATCH", path, request{as: "ann", body: "{}"}).invalid("")
	for _, bad := range []string{`["a","a"]`, `[""]`, `["a b"]`, `["a",null]`, `["a",1]`, `"a"`, `null`, `[["a"]]`, `["` + strings.Repeat("a", 101) + `"]`} {
		w.do("PATCH", path, request{as: "ann", body: `{"name":"other","scopes":` + bad + `}`}).invalid("scopes")
	}
	two := w.do("PATCH", path, request{as: "ann", body: `{"name":"","dailyLimit":9999}`}).refused(400, "ValidationError", "invalid_fields")
	require.Len(t, two.Error.Fields, 2, "all problems at once")
	require.Equal(t, dump, w.dump())
}

// TestList_S51: own keys only, newest first, in pages, each with what there is to
// know; revoked keys are in no list (D12), rotated ones until they stop.
func TestList_S51(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser = -1 })
	var want []string
	for i := range 7 {
		w.clock.Set(start.Add(time.Duration(i) * time.Second))
		_, prefix := w.create("ann")
		want = append(want, prefix)
		w.create("bob")
	}
	slices.Reverse(want)
	w.used(want[0], "192.0.2.7", start.Add(time.Minute))
	first := w.do("GET", "/v1/api-keys", request{as: "ann"})
	require.Nil(t, first.data(200)["nextCursor"])
	require.Equal(t, want, prefixes(first.list("keys")))
	require.Equal(t, "2026-03-01T12:01:00Z", first.list("keys")[0]["lastUsedAt"])
	require.Nil(t, first.list("keys")[1]["lastUsedAt"])

	for limit := 1; limit <= 8; limit++ {
		require.Equal(t, want, prefixes(w.pages("/v1/api-keys", "keys", request{as: "ann"}, limit)))
	}
	w.do("DELETE", "/v1/api-keys/"+want[2], request{as: "ann"}).data(200)
	rotated := w.do("POST", "/v1/api-keys/"+want[3]+"/rotate", request{as: "ann", body: object{"grace": 60}}).data(201)
	list := w.do("GET", "/v1/api-keys", request{as: "ann"}).list("keys")
	require.Contains(t, prefixes(list), rotated["prefix"])
	require.Contains(t, prefixes(list), want[3], "in its grace period")
	require.NotContains(t, prefixes(list), want[2])
	require.Empty(t, w.do("GET", "/v1/api-keys", request{as: "otto"}).list("keys"))
}

func prefixes(items []map[string]any) (all []string) {
	for _, item := range items {
		all = append(all, item["prefix"].(string))
	}
	return all
}

// pages reads a list to its end.
func (w *world) pages(path, name string, q request, limit int) (all []map[string]any) {
	w.t.Helper()
	query := fmt.Sprintf("limit=%d", limit)
	if !strings.Contains(path, "?") {
		path += "?"
	} else {
		path += "&"
	}
	for next := path + query; ; {
		page := w.do("GET", next, q)
		items := page.list(name)
		require.LessOrEqual(w.t, len(items), limit)
		all = append(all, items...)
		cursor, more := page.data(200)["nextCursor"].(string)
		if !more {
			return all
		}
		next = path + query + "&cursor=" + cursor
	}
}

// TestRevoke_S59: DELETE stops the key at once (S19) and frees its place (S14) among
// five (S12, D9); a second DELETE finds nothing (D28).
func TestRevoke_S59(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var prefix, secret string
	for range 5 {
		secret, prefix = w.create("ann")
	}
	sixth := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "6th"}}).refused(409, "TokenLimitReached", "token_limit")
	require.Contains(t, sixth.Message, "limit of 5", "D9")
	require.Equal(t, "200", w.use(secret))
	got := w.do("DELETE", "/v1/api-keys/"+prefix, request{as: "ann"}).data(200)
	require.Len(t, got, 1)
	require.NotEmpty(t, got["message"])
	require.Equal(t, "401 invalid_token", w.use(secret))
	w.do("DELETE", "/v1/api-keys/"+prefix, request{as: "ann"}).refused(404, "NotFound", "not_found")
	w.do("GET", "/v1/api-keys/"+prefix, request{as: "ann"}).refused(404, "NotFound", "not_found")
	w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: object{"name": "x"}}).refused(404, "NotFound", "not_found")
	w.create("ann")
}

// TestPrefixes_D28: the exact prefix of an own key, and nothing else; what was sent
// instead is not repeated, least of all a whole token (S75).
func TestPrefixes_D28(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	before := w.dump()
	for _, bad := range []string{
		secret, prefix[:16], prefix + "0", strings.ToUpper(prefix), "%20" + prefix, prefix + "%00", "csk_live_", "*", "%25", "%2F", "..%2f", "%ff",
		prefix + "%2frotate", strings.Repeat("a", 4000),
	} {
		for _, path := range []string{"/v1/api-keys/", "/v1/org/api-keys/"} {
			got := w.do("DELETE", path+bad, request{as: "olga"})
			got.refused(404, "NotFound", "not_found")
			require.NotContains(t, got.Body.String(), bad)
			require.NotContains(t, got.Body.String(), "csk_live_")
		}
		w.do("GET", "/v1/api-keys/"+bad, request{as: "ann"}).refused(404, "NotFound", "not_found")
		w.do("PATCH", "/v1/api-keys/"+bad, request{as: "ann", body: object{"name": "x"}}).refused(404, "NotFound", "not_found")
		w.do("POST", "/v1/api-keys/"+bad+"/rotate", request{as: "ann"}).refused(404, "NotFound", "not_found")
		w.do("GET", "/v1/org/api-keys/"+bad+"/explain", request{as: "olga"}).refused(404, "NotFound", "not_found")
	}
	require.Equal(t, before, w.dump())
}

// TestForeignKeys_S20: a plain user, and an owner among the own keys, gets 404 for
// the key of somebody else, and an owner of another organization everywhere (D27).
func TestForeignKeys_S20(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	before := w.dump()
	for _, as := range []string{"bob", "olga", "rita"} {
		w.do("GET", "/v1/api-keys/"+prefix, request{as: as}).refused(404, "NotFound", "not_found")
		w.do("PATCH", "/v1/api-keys/"+prefix, request{as: as, body: object{"name": "x"}}).refused(404, "NotFound", "not_found")
		w.do("DELETE", "/v1/api-keys/"+prefix, request{as: as}).refused(404, "NotFound", "not_found")
		w.do("POST", "/v1/api-keys/"+prefix+"/rotate", request{as: as, body: "{}"}).refused(404, "NotFound", "not_found")
	}
	w.do("DELETE", "/v1/org/api-keys/"+prefix, request{as: "rita"}).refused(404, "NotFound", "not_found")
	w.do("PATCH", "/v1/org/api-keys/"+prefix, request{as: "rita", body: object{"disabled": true}}).refused(404, "NotFound", "not_found")
	w.do("GET", "/v1/org/api-keys/"+prefix+"/explain", request{as: "rita"}).refused(404, "NotFound", "not_found")
	require.Equal(t, before, w.dump())
	require.Equal(t, "200", w.use(secret))
	w.do("DELETE", "/v1/org/api-keys/"+prefix, request{as: "otto"}).data(200)
	require.Equal(t, "401 invalid_token", w.use(secret))
}

// TestRotate_D39: a new token beside the old one for the grace, with the rest as it
// was; once only.
func TestRotate_D39(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "n", "scopes": []string{"a"}, "dailyLimit": 3}}).data(201)
	old, prefix := made["key"].(string), made["prefix"].(string)
	path := "/v1/api-keys/" + prefix + "/rotate"
	for _, bad := range []string{`-1`, `2592001`, `1.5`, `"60"`, `null`, `9223372036854775807`} {
		w.do("POST", path, request{as: "ann", body: `{"grace":` + bad + `}`}).invalid("grace")
	}
	got := w.do("POST", path, request{as: "ann", body: object{"grace": 60}}).data(201)
	secret := got["key"].(string)
	require.NotEqual(t, old, secret)
	require.Equal(t, "n", got["name"])
	require.Equal(t, []any{"a"}, got["scopes"])
	require.EqualValues(t, 3, got["dailyLimit"])
	require.Equal(t, "2026-03-01T12:01:00Z", w.do("GET", "/v1/api-keys/"+prefix, request{as: "ann"}).data(200)["revokedAt"])
	require.Equal(t, "200", w.use(old))
	require.Equal(t, "200", w.use(secret))
	require.Equal(t, "200", w.use(old))
	require.Equal(t, "429 daily_limit", w.use(secret), "one quota for both")
	w.do("POST", path, request{as: "ann"}).refused(409, "Conflict", "not_active")

	w.clock.Set(start.Add(time.Minute))
	require.Equal(t, "401 invalid_token", w.use(old))

	got = w.do("POST", "/v1/api-keys/"+secret[:17]+"/rotate", request{as: "ann"}).data(201)
	require.Equal(t, "401 invalid_token", w.use(secret), "without a body the grace is 0")
	got = w.do("POST", "/v1/api-keys/"+got["prefix"].(string)+"/rotate",
		request{as: "ann", body: "", headers: map[string]string{"Content-Type": "application/json"}}).data(201) // S5
	w.do("POST", "/v1/api-keys/"+got["prefix"].(string)+"/rotate", request{as: "ann", body: "", headers: map[string]string{"Content-Type": "text/plain"}}).
		refused(415, "InvalidRequest", "unsupported_media_type")
}

// TestReplacedKeys_S12: as many replaced keys as the cap work at a time, so that
// rotating again and again with a grace makes no sixth key.
func TestReplacedKeys_S12(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("ann")
	rotate := func(grace int) *reply {
		return w.do("POST", "/v1/api-keys/"+prefix+"/rotate", request{as: "ann", body: object{"grace": grace}})
	}
	for range 5 {
		prefix = rotate(3600).data(201)["prefix"].(string)
	}
	full := rotate(3600).refused(409, "TokenLimitReached", "grace_limit")
	require.Contains(t, full.Message, "5 replaced")
	rotate(0).data(201)
}

// TestTiers_S54: keys are for tiers Pro, Team and Enterprise: 403 on creation for
// others, by what the store says of the user (D26).
func TestTiers_S54(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for tier, ok := range map[string]bool{"Free": false, "": false, "pro": true, "TEAM": true, "Enterprise": true} {
		u := w.user("ann")
		u.Tier = tier
		w.put(u)
		got := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x"}})
		if ok {
			got.data(201)
		} else {
			got.refused(403, "Forbidden", "tier_not_allowed")
		}
	}
}

// TestCap_D10: expired and disabled keys count toward the cap, since they can come
// back; the cap is one of the service (D11).
func TestCap_D10(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.keys.MaxPerUser = 3 })
	w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "ends", "expiresAt": "2026-03-01T13:00:00Z"}}).data(201)
	_, disabled := w.create("ann")
	w.do("PATCH", "/v1/org/api-keys/"+disabled, request{as: "olga", body: object{"disabled": true}}).data(200)
	w.create("ann")
	w.clock.Set(start.Add(2 * time.Hour))
	full := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x"}}).refused(409, "TokenLimitReached", "token_limit")
	require.Contains(t, full.Message, "limit of 3")
	w.create("bob")
}

// TestCap_S13: 50 parallel creations through HTTP leave exactly 5 keys (S12).
func TestCap_S13(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := httptest.NewServer(w.h)
	defer server.Close()
	codes := make([]int, 50)
	var group sync.WaitGroup
	for i := range codes {
		group.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/v1/api-keys", strings.NewReader(`{"name":"x"}`))
			if err != nil {
				return
			}
			r.Header.Set("Authorization", "Bearer ann.acme.jwt")
			r.Header.Set("Content-Type", "application/json")
			res, err := server.Client().Do(r)
			if err == nil {
				codes[i] = res.StatusCode
				_ = res.Body.Close()
			}
		})
	}
	group.Wait()
	counts := map[int]int{}
	for _, code := range codes {
		counts[code]++
	}
	require.Equal(t, map[int]int{201: 5, 409: 45}, counts)
	require.Len(t, w.do("GET", "/v1/api-keys", request{as: "ann"}).list("keys"), 5)
}

// TestSecretOnce_S16: a token is in the answer to its creation, and in no other.
func TestSecretOnce_S16(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	rotated := w.do("POST", "/v1/api-keys/"+prefix+"/rotate", request{as: "ann", body: object{"grace": 60}}).data(201)["key"].(string)
	w.used(prefix, "192.0.2.1", start)
	var later strings.Builder
	for _, p := range []string{"/v1/api-keys", "/v1/api-keys/" + prefix, "/v1/org/api-keys?revoked=true", "/v1/org/api-keys/" + prefix + "/explain", "/v1/org/users", "/v1/org/token-settings"} {
		for _, as := range []string{"ann", "olga"} {
			later.WriteString(w.do("GET", p, request{as: as}).Body.String())
		}
	}
	later.WriteString(w.do("POST", "/v1/org/token-settings/preview", request{as: "olga", body: object{"restrictedAccessTokens": true}}).Body.String())
	later.WriteString(w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: object{secret: 1, "name": 1}}).Body.String())
	later.WriteString(w.do("GET", "/v1/api-keys?"+secret+"=1&cursor="+secret, request{as: "ann"}).Body.String())
	later.WriteString(w.do("DELETE", "/v1/api-keys/"+secret, request{as: "ann"}).Body.String())
	later.WriteString(w.do("DELETE", "/v1/api-keys/"+prefix, request{as: "ann"}).Body.String())
	later.WriteString(w.do("PUT", "/v1/org/users/"+secret+"/token-permission", request{as: "olga"}).Body.String())
	later.WriteString(w.dump())
	for _, s := range []string{secret, rotated} {
		require.NotContains(t, later.String(), s)
		require.NotContains(t, later.String(), s[17:], "nor the secret part of it")
	}
}

// TestRestriction_D35: without permission nobody makes, uses or rotates keys, owners
// included (S25, S26, S29), but everybody lists and deletes their own; nothing is
// deleted by restricting (S27), and lifting it brings all back (S34).
func TestRestriction_D35(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	ownersSecret, _ := w.create("olga")
	w.settings(object{"restrictedAccessTokens": true})
	for _, as := range []string{"ann", "olga"} {
		w.do("POST", "/v1/api-keys", request{as: as, body: object{"name": "x"}}).refused(403, "Forbidden", "user_not_permitted")
	}
	require.Equal(t, "403 user_not_permitted", w.use(secret))
	require.Equal(t, "403 user_not_permitted", w.use(ownersSecret))
	w.do("POST", "/v1/api-keys/"+prefix+"/rotate", request{as: "ann"}).refused(409, "Conflict", "not_active")
	own := w.do("GET", "/v1/api-keys", request{as: "ann"}).list("keys")
	require.Equal(t, "disabled_by_owner", own[0]["status"])
	require.Equal(t, []any{"user_not_permitted"}, own[0]["reasons"])

	permission := "/v1/org/users/ann/token-permission"
	w.do("PUT", permission, request{as: "bob"}).refused(403, "Forbidden", "owner_required") // S30
	require.Equal(t, true, w.do("PUT", permission, request{as: "olga"}).data(200)["tokenPermission"])
	require.Equal(t, "200", w.use(secret), "S28: the same token works again")
	require.Equal(t, "403 user_not_permitted", w.use(ownersSecret))
	w.do("PUT", "/v1/org/users/olga/token-permission", request{as: "olga"}).data(200)
	require.Equal(t, "200", w.use(ownersSecret), "S29: they must grant themselves")
	require.Equal(t, false, w.do("DELETE", permission, request{as: "olga"}).data(200)["tokenPermission"])
	require.Equal(t, "403 user_not_permitted", w.use(secret), "S33")

	w.settings(object{"restrictedAccessTokens": false})
	require.Equal(t, "200", w.use(secret), "S34")
	w.settings(object{"restrictedAccessTokens": true})
	require.Equal(t, "200", w.use(ownersSecret), "S32: the grant is remembered")
	w.do("DELETE", "/v1/api-keys/"+prefix, request{as: "ann"}).data(200)
}

// TestStatusFollowsPolicy_S38: a 60-day-old key is expired by 30 days, and works
// again with 90 (S39), with the same secret; the lists say so (S37, S42, S48, S49).
func TestStatusFollowsPolicy_S38(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("ann")
	w.clock.Set(start.Add(60 * day))
	for _, step := range []struct {
		days             int
		use, status      string
		expires, reasons any
	}{
		{30, "401 expired", "expired", "2026-03-31T12:00:00Z", []any{"expired"}},
		{90, "200", "active", "2026-05-30T12:00:00Z", []any{}},
		{0, "200", "active", nil, []any{}},
	} {
		w.settings(object{"apiTokenMaxAge": step.days * 86400})
		require.Equal(t, step.use, w.use(secret))
		got := w.do("GET", "/v1/api-keys/"+prefix, request{as: "ann"}).data(200)
		require.Equal(t, step.status, got["status"])
		require.Equal(t, step.expires, got["expiresAt"])
		require.Equal(t, step.reasons, got["reasons"])
	}
}

// TestKeysOfTheHost: keys made by the host's program are seen like
// others (D42).
func TestKeysOfTheHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(store.User{Org: org, ID: "no mail/ö", Tier: "Pro"})
	_, k, err := w.mgr.Create(t.Context(), keys.CreateParams{Actor: keys.Actor{Role: keys.Operator}, Org: org, User: "no mail/ö", Name: "host"})
	require.NoError(t, err)
	row := w.do("GET", "/v1/org/api-keys", request{as: "olga"}).list("keys")[0]
	require.Equal(t, k.ID, row["prefix"])
	require.Equal(t, map[string]any{"id": "no mail/ö", "email": "no mail/ö"}, row["createdBy"], "D16: the ID is the e-mail")
	w.do("PUT", "/v1/org/users/no%20mail%2F%C3%B6/token-permission", request{as: "olga"}).data(200)
	require.True(t, w.user("no mail/ö").Permitted)
}

// TestMayGiveScope: a scope that the host does not let a user give is a problem with
// the member, for a new key and for one that there is; what a key has, it keeps.
func TestMayGiveScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) {
		s.keys.MayGiveScope = func(u *store.User, scope string) bool { return u.Owner || scope == "read" }
	})
	for _, as := range []string{"ann", "session:ann"} {
		problem := w.do("POST", "/v1/api-keys", request{as: as, body: object{"name": "x", "scopes": []string{"read", "admin"}}}).invalid("scopes")
		require.Equal(t, "scope 2 is not one that the user may give", problem.Message)
	}
	require.Empty(t, w.do("GET", "/v1/api-keys", request{as: "ann"}).list("keys"))
	w.do("POST", "/v1/api-keys", request{as: "olga", body: object{"name": "x", "scopes": []string{"admin"}}}).data(201)

	made := w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x", "scopes": []string{"read"}}}).data(201)
	path := "/v1/api-keys/" + made["prefix"].(string)
	w.do("PATCH", path, request{as: "ann", body: object{"name": "y", "scopes": []string{"admin"}}}).invalid("scopes")
	got := w.do("GET", path, request{as: "ann"}).data(200)
	require.Equal(t, []any{"x", []any{"read"}}, []any{got["name"], got["scopes"]})
	w.do("PATCH", path, request{as: "ann", body: object{"scopes": []string{}}}).data(200)
	w.do("PATCH", path, request{as: "ann", body: object{"scopes": []string{"read"}}}).data(200)

	// Without the option anybody gives any.
	newWorld(t).do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x", "scopes": []string{"admin"}}}).data(201)
}
