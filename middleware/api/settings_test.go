package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const settingsPath = "/v1/org/token-settings"

// TestSettings_S24: one atomic PATCH of what is given; the names of the original; the
// default restricts nothing (S11, S21, S35, S43); the version is the ETag.
func TestSettings_S24(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.do("GET", settingsPath, request{as: "olga"})
	require.Equal(t, map[string]any{
		"restrictedAccessTokens": false, "apiTokenMaxAge": 0.0, "apiAllowedIPs": []any{}, "version": 0.0, "warnings": []any{},
	}, got.data(200))
	require.Equal(t, `"0"`, got.Header().Get("ETag"))

	patch := func(tag string, body object) *reply {
		return w.do("PATCH", settingsPath, request{as: "olga", body: body, headers: map[string]string{"If-Match": tag}})
	}
	got = patch(`"0"`, object{"restrictedAccessTokens": true})
	require.Equal(t, true, got.data(200)["restrictedAccessTokens"])
	require.Equal(t, `"1"`, got.Header().Get("ETag"))
	got = patch(`"1"`, object{"apiTokenMaxAge": 86400, "apiAllowedIPs": []string{"192.0.2.0/24"}})
	want := map[string]any{
		"restrictedAccessTokens": true, "apiTokenMaxAge": 86400.0, "apiAllowedIPs": []any{"192.0.2.0/24"}, "version": 2.0, "warnings": []any{},
	}
	require.Equal(t, want, got.data(200))
	got = w.do("GET", settingsPath, request{as: "otto"})
	require.Equal(t, want, got.data(200))
	require.Equal(t, `"2"`, got.Header().Get("ETag"))
	require.Equal(t, 0.0, w.do("GET", settingsPath, request{as: "rita"}).data(200)["version"], "of another organization")
}

// TestIfMatch: mandatory on PATCH; settings that were changed meanwhile are not
// changed again.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, value  string
		status       int
		code, reason string
	}{
		{"missing", "", 428, "InvalidRequest", "if_match_required"},
		{"blank", " ", 428, "InvalidRequest", "if_match_required"},
		{"commas", " , ,", 428, "InvalidRequest", "if_match_required"},
		{"current", `"1"`, 200, "", ""},
		{"any", " * ", 200, "", ""},
		{"one of several", `"0", "1"`, 200, "", ""},
		{"one of several, and empty ones", `, "1" ,,`, 200, "", ""},
		{"older", `"0"`, 409, "Conflict", "version_conflict"},
		{"newer", `"2"`, 409, "Conflict", "version_conflict"},
		{"weak", `W/"1"`, 409, "Conflict", "version_conflict"},
		{"other spelling", `"01"`, 409, "Conflict", "version_conflict"},
		{"empty", `""`, 409, "Conflict", "version_conflict"},
		{"without quotes", `1`, 400, "InvalidRequest", "malformed_if_match"},
		{"half quoted", `"1`, 400, "InvalidRequest", "malformed_if_match"},
		{"quoted twice", `"1"2"`, 400, "InvalidRequest", "malformed_if_match"},
		{"weak without quotes", `W/1`, 400, "InvalidRequest", "malformed_if_match"},
		{"any and one", `*, "1"`, 400, "InvalidRequest", "malformed_if_match"},
		{"too long", `"1"` + strings.Repeat(",", 8<<10), 400, "InvalidRequest", "malformed_if_match"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.settings(object{"apiTokenMaxAge": 1})
			before := w.dump()
			got := w.do("PATCH", settingsPath, request{as: "olga", body: object{"apiTokenMaxAge": 2}, headers: map[string]string{"If-Match": test.value}})
			if test.status == 200 {
				require.Equal(t, 2.0, got.data(200)["version"])
				return
			}
			got.refused(test.status, test.code, test.reason)
			require.Equal(t, before, w.dump())
		})
	}
}

// TestSettingsRace: of owners who change the same version one succeeds.
func TestSettingsRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	codes := make([]int, 20)
	var group sync.WaitGroup
	for i := range codes {
		group.Go(func() {
			codes[i] = w.do("PATCH", settingsPath, request{as: "olga", body: object{"apiTokenMaxAge": i + 1}, headers: map[string]string{"If-Match": `"0"`}}).Code
		})
	}
	group.Wait()
	counts := map[int]int{}
	for _, code := range codes {
		counts[code]++
	}
	require.Equal(t, map[int]int{200: 1, 409: 19}, counts)
}

// TestMaxAge_D21: seconds; 0 never; 1 second to 36 500 days (S36); checked before
// it is multiplied.
func TestMaxAge_D21(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, good := range []string{"0", "1", "2592000", "3153600000"} {
		require.Equal(t, good, fmt.Sprintf("%.0f", w.settings(object{"apiTokenMaxAge": json.Number(good)})["apiTokenMaxAge"]))
	}
	before := w.dump()
	for _, bad := range []string{"-1", "3153600001", "9223372036854775807", "9223372036854775808", "1.5", "1e3", `"30d"`, "null", "true", "[]"} {
		w.do("PATCH", settingsPath, request{as: "olga", body: `{"apiTokenMaxAge":` + bad + `}`, headers: map[string]string{"If-Match": "*"}}).
			invalid("apiTokenMaxAge")
	}
	for _, bad := range []string{"null", "0", `"true"`, "[]"} {
		w.do("PATCH", settingsPath, request{as: "olga", body: `{"restrictedAccessTokens":` + bad + `}`, headers: map[string]string{"If-Match": "*"}}).
			invalid("restrictedAccessTokens")
	}
	w.do("PATCH", settingsPath, request{as: "olga", body: "{}", headers: map[string]string{"If-Match": "*"}}).invalid("")
	require.Equal(t, before, w.dump())
}

// TestAllowedIPs_D19: an entry an element (S44), shown back in normal form; three
// states.
func TestAllowedIPs_D19(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		in, want []string
		use      string // of a key from 192.0.2.1
	}{
		{"none", []string{}, []string{}, "200"},
		{"blank lines", []string{"", " \t"}, []string{}, "200"},
		{"only a comment: nobody", []string{"# closed"}, []string{"# closed"}, "403 address_not_allowed"},
		{
			"everything",
			[]string{" 10.0.0.5/24 ", "2001:DB8::1", "192.0.2.0-192.0.2.9 # office", "", "::ffff:198.51.100.1"},
			[]string{"10.0.0.0/24", "2001:db8::1", "192.0.2.0-192.0.2.9 # office", "198.51.100.1"},
			"200",
		},
		{"elsewhere (S45)", []string{"203.0.113.0/24"}, []string{"203.0.113.0/24"}, "403 address_not_allowed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			secret, prefix := w.create("ann")
			require.Equal(t, "200", w.use(secret))
			want := []any{}
			for _, line := range test.want {
				want = append(want, line)
			}
			require.Equal(t, want, w.settings(object{"apiAllowedIPs": test.in})["apiAllowedIPs"])
			require.Equal(t, test.use, w.use(secret), "S46: the next request is told")
			require.Equal(t, "active", w.do("GET", "/v1/api-keys/"+prefix, request{as: "ann"}).data(200)["status"], "S45")
			w.settings(object{"apiAllowedIPs": want})
			w.settings(object{"apiAllowedIPs": []string{}})
			require.Equal(t, "200", w.use(secret))
		})
	}
}

// TestBadLine_S24: one bad line refuses the whole, names the line, repeats nothing of
// it, and changes nothing, the other members included (D19).
func TestBadLine_S24(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		list string // JSON
		line int
	}{
		{"a name", `["192.0.2.1","office.example","192.0.2.3"]`, 2},
		{"a zone", `["fe80::1%eth0"]`, 1},
		{"leading zero", `["","10.0.0.01"]`, 2},
		{"reversed", `["# x","","10.0.0.9-10.0.0.1"]`, 3},
		{"mapped", `["::ffff:10.0.0.0/90"]`, 1},
		{"LF in an element", `["192.0.2.1","192.0.2.2\n192.0.2.3"]`, 2},
		{"CR at the end", `["192.0.2.1\r"]`, 1},
		{"CRLF at the end", `["192.0.2.1","192.0.2.2\r\n"]`, 2},
		{"control", `["192.0.2.1","# a\u0000"]`, 2},
		{"null", `["192.0.2.1",null]`, 2},
		{"number", `["192.0.2.1","192.0.2.2",3]`, 3},
		{"array", `[["192.0.2.1"]]`, 1},
		{"no array", `"192.0.2.1"`, 0},
		{"null at all", `null`, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.settings(object{"apiAllowedIPs": []string{"192.0.2.0/24"}})
			before := w.dump()
			body := `{"restrictedAccessTokens":true,"apiTokenMaxAge":60,"apiAllowedIPs":` + test.list + `}`
			got := w.do("PATCH", settingsPath, request{as: "olga", body: body, headers: map[string]string{"If-Match": "*"}})
			problem := got.invalid("apiAllowedIPs")
			require.Equal(t, test.line, problem.Line)
			if test.line > 0 && !strings.Contains(test.list, "null") && !strings.Contains(test.list, "[[") && !strings.HasSuffix(test.list, "3]") {
				require.Contains(t, problem.Message, fmt.Sprintf("line %d", test.line))
			}
			require.NotContains(t, got.Body.String(), "office")
			require.Equal(t, before, w.dump())
			w.do("POST", settingsPath+"/preview", request{as: "olga", body: body}).invalid("apiAllowedIPs")
		})
	}
	w := newWorld(t)
	f := w.do("PATCH", settingsPath, request{as: "olga", body: object{"apiAllowedIPs": []string{"x", "192.0.2.1", "y"}}, headers: map[string]string{"If-Match": "*"}}).
		refused(400, "ValidationError", "invalid_fields")
	require.Len(t, f.Error.Fields, 2)
	require.Equal(t, 1, f.Error.Fields[0].Line)
	require.Equal(t, 3, f.Error.Fields[1].Line)
	require.Contains(t, f.Message, "line 1")
	require.Contains(t, f.Message, "1 more")

	// A list that is short as it is given, and too long in its normal form.
	long := strings.Repeat(`"a::1#b",`, 7200)
	w.do("PATCH", settingsPath, request{as: "olga", body: `{"apiAllowedIPs":[` + long[:len(long)-1] + `]}`, headers: map[string]string{"If-Match": "*"}}).data(200)
}

// TestWarnings_D20: whoever locks the own address out is told so, and can undo it:
// the list binds keys, not people.
func TestWarnings_D20(t *testing.T) {
	t.Parallel()
	peer := netip.MustParseAddr("192.0.2.1")
	w := newWorld(t, func(s *setup) { s.guard.ClientIP = func(*http.Request) netip.Addr { return peer } })
	codes := func(settings map[string]any) (all []string) {
		for _, item := range settings["warnings"].([]any) {
			all = append(all, item.(map[string]any)["code"].(string))
		}
		return all
	}
	require.Empty(t, codes(w.settings(object{"apiAllowedIPs": []string{"192.0.2.1"}})))
	warned := w.settings(object{"apiAllowedIPs": []string{"203.0.113.0/24"}})
	require.Equal(t, []string{"own_address_not_allowed"}, codes(warned))
	require.Contains(t, fmt.Sprint(warned["warnings"]), "192.0.2.1")
	require.Len(t, codes(w.do("GET", settingsPath, request{as: "olga"}).data(200)), 1)
	preview := w.do("POST", settingsPath+"/preview", request{as: "olga", body: object{"apiAllowedIPs": []string{"# nobody"}}}).data(200)
	require.Len(t, codes(preview["settings"].(map[string]any)), 1)
	peer = netip.Addr{}
	require.Len(t, codes(w.do("GET", settingsPath, request{as: "olga"}).data(200)), 1, "an unknown address is in no list")
	require.Empty(t, codes(w.settings(object{"apiAllowedIPs": []string{}})))
}

// TestPreview: what would change, and what happens then, are the same; nothing is
// changed.
func TestPreview(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, annsKey := w.create("ann")
	w.clock.Set(start.Add(40 * day))
	_, bobsKey := w.create("bob")
	w.used(annsKey, "192.0.2.7", start.Add(39*day))
	w.used(annsKey, "203.0.113.9", start.Add(15*day))
	w.used(bobsKey, "198.51.100.1", start.Add(40*day))
	before := w.dump()
	body := object{"apiTokenMaxAge": 30 * 86400, "apiAllowedIPs": []string{"198.51.100.0/24"}}
	got := w.do("POST", settingsPath+"/preview", request{as: "olga", body: body}).data(200)
	require.Equal(t, before, w.dump())
	require.EqualValues(t, 2, got["keys"])
	require.EqualValues(t, 1, got["changedKeys"])
	require.EqualValues(t, 1, got["changedUsers"])
	require.EqualValues(t, 1, got["recentlyUsedChangedKeys"])
	require.EqualValues(t, 30, got["days"])
	change := got["changes"].([]any)[0].(map[string]any)
	require.Equal(t, map[string]any{
		"prefix": annsKey, "name": "export", "user": "ann", "lastUsedAt": "2026-04-09T12:00:00Z",
		"from": map[string]any{"status": "active", "reasons": []any{}, "expiresAt": nil},
		"to":   map[string]any{"status": "expired", "reasons": []any{"expired"}, "expiresAt": "2026-03-31T12:00:00Z"},
	}, change)
	require.EqualValues(t, 2, got["refusedAddresses"])
	require.Equal(t, map[string]any{
		"address": "192.0.2.7", "keys": 1.0, "prefixes": []any{annsKey}, "lastUsedAt": "2026-04-09T12:00:00Z",
	}, got["addresses"].([]any)[0])
	proposed := got["settings"].(map[string]any)
	require.Equal(t, []any{"198.51.100.0/24"}, proposed["apiAllowedIPs"])

	fewer := w.do("POST", settingsPath+"/preview?days=7", request{as: "olga", body: body}).data(200)
	require.EqualValues(t, 1, fewer["refusedAddresses"])
	w.do("POST", settingsPath+"/preview?days=31", request{as: "olga", body: body}).invalid("days")
	none := w.do("POST", settingsPath+"/preview", request{as: "olga", body: object{}}).data(200)
	require.EqualValues(t, 0, none["changedKeys"])

	w.settings(body)
	require.Equal(t, change["to"].(map[string]any)["status"], w.do("GET", "/v1/api-keys/"+annsKey, request{as: "ann"}).data(200)["status"])

	// A service that knows of no uses says that it does not know.
	blind := newWorld(t, func(s *setup) { s.keys.Uses = nil })
	got = blind.do("POST", settingsPath+"/preview", request{as: "olga", body: body}).data(200)
	require.Nil(t, got["recentlyUsedChangedKeys"])
	require.Nil(t, got["refusedAddresses"])
	require.Equal(t, []any{}, got["changes"])
	require.Equal(t, []any{}, got["addresses"])
}
