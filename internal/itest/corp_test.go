package itest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sigsci "github.com/signalsciences/go-sigsci"
	"github.com/stretchr/testify/require"
)

func daysAgo(n int) string {
	return time.Now().UTC().Add(-time.Duration(n) * 24 * time.Hour).Format(time.RFC3339)
}

// TestServiceVendorClient: the vendor's own client lists corps and users with a
// token, by the pair and, without an e-mail, as Bearer, and reads the refusals
// (S7, S10, requirements section 4).
func TestServiceVendorClient(t *testing.T) {
	// Not parallel: the address of the client is a global of its package.
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t))
	token := s.key("ann").Token
	for _, base := range []string{s.base + "/api", s.base + "/api/"} { // a slash too many, too
		sigsci.SetAPIUrl(base)
		for _, email := range []string{"ann@acme.example", ""} {
			client := sigsci.NewTokenClient(email, token)
			corps, err := client.ListCorps()
			require.NoError(t, err)
			require.Len(t, corps, 1)
			require.Equal(t, "acme", corps[0].Name)
			require.False(t, corps[0].Created.IsZero())
			corp, err := client.GetCorp("acme")
			require.NoError(t, err)
			require.Equal(t, "acme", corp.DisplayName)
			users, err := client.ListCorpUsers("acme")
			require.NoError(t, err)
			require.Len(t, users, 4)
			user, err := client.GetCorpUser("acme", "bob@acme.example")
			require.NoError(t, err)
			require.Equal(t, "user", user.Role)
		}
	}
	sigsci.SetAPIUrl(s.base + "/api")
	for _, test := range []struct {
		client sigsci.Client
		want   string
	}{
		{sigsci.NewTokenClient("bob@acme.example", token), "The credential is not valid."},
		{sigsci.NewTokenClient("ann@acme.example", "csk_live_00000000000000000000000000000000"), "The credential is not valid."},
		{sigsci.NewTokenClient("bob@acme.example", s.key("off").Token), "disabled by an owner"},
	} {
		_, err := test.client.ListCorps()
		require.ErrorContains(t, err, test.want)
		require.NotContains(t, err.Error(), token[17:])
	}
	client := sigsci.NewTokenClient("ann@acme.example", token)
	_, err := client.GetCorp("zeta")
	require.ErrorContains(t, err, "no such thing", "another corp is as good as none")
}

// TestServiceCorpAPI: the corp-shaped API: reading by token either way, management
// by people only, whole objects sent back, unknown members ignored.
func TestServiceCorpAPI(t *testing.T) {
	t.Parallel()
	trail := filepath.Join(t.TempDir(), "audit.log")
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-audit", trail)
	ann, bob, key := s.jwt("ann"), s.jwt("bob"), "ann@acme.example "+s.key("ann").Token

	// The seed's own Go program.
	request, err := http.NewRequestWithContext(t.Context(), "GET", s.base+"/api/v0/corps", nil)
	require.NoError(t, err)
	request.Header.Set("x-api-user", "ann@acme.example")
	request.Header.Set("x-api-token", s.key("ann").Token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Add("User-Agent", "SigSci Go-Example")
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	var corps struct {
		Data []struct {
			Name    string
			Created time.Time
			Sites   struct{ URI string }
		}
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&corps))
	require.Len(t, corps.Data, 1)
	require.Equal(t, "acme", corps.Data[0].Name)

	// S60: whatever a token is sent as, it manages nothing.
	for _, credential := range []string{key, s.key("ann").Token} {
		for _, r := range [][2]string{
			{"PATCH", "/api/v0/corps/acme"},
			{"PATCH", "/api/v0/corps/acme/users/bob@acme.example"},
			{"GET", "/api/v0/user/apitokens"},
			{"POST", "/api/v0/user/apitokens"},
			{"DELETE", "/api/v0/user/apitokens/" + s.key("ann").Prefix},
		} {
			s.require(403, r[0], r[1], credential, map[string]any{"name": "x", "restrictedAccessTokens": true})
		}
	}
	s.require(401, "GET", "/api/v0/corps", "", nil)
	s.require(404, "GET", "/api/v0/corps/zeta", key, nil)
	require.NotEmpty(t, s.require(404, "GET", "/api/v0/nothing", key, nil).json["message"])

	// Own tokens.
	made := s.require(201, "POST", "/api/v0/user/apitokens", bob, map[string]any{"name": "corp"})
	token := made.json["token"].(string)
	require.NotContains(t, made.json, "message")
	s.require(200, "GET", "/api/v0/corps", "bob@acme.example "+token, nil)
	list := s.require(200, "GET", "/api/v0/user/apitokens", bob, nil)
	require.Contains(t, list.body, token[:17])
	require.NotContains(t, list.body, token[17:])
	s.require(204, "DELETE", "/api/v0/user/apitokens/"+token[:17], bob, nil)
	s.require(404, "DELETE", "/api/v0/user/apitokens/"+token[:17], bob, nil)
	s.require(401, "GET", "/api/v0/corps", "bob@acme.example "+token, nil)

	// S21-S34 under the names of the original: the whole corp is sent back.
	s.require(403, "PATCH", "/api/v0/corps/acme", bob, map[string]any{"restrictedAccessTokens": true})
	corp := s.require(200, "GET", "/api/v0/corps/acme", ann, nil).json
	corp["restrictedAccessTokens"] = true
	corp["somethingElse"] = 1
	require.Equal(t, true, s.require(200, "PATCH", "/api/v0/corps/acme", ann, corp).json["restrictedAccessTokens"])
	s.require(403, "GET", "/api/v0/corps", key, nil) // S29: the owner's own token
	user := s.require(200, "GET", "/api/v0/corps/acme/users/ann@acme.example", ann, nil).json
	require.Equal(t, false, user["accessTokenAllowed"])
	user["accessTokenAllowed"] = true
	require.Equal(t, true, s.require(200, "PATCH", "/api/v0/corps/acme/users/ann@acme.example", ann, user).json["accessTokenAllowed"])
	s.require(200, "GET", "/api/v0/corps", key, nil)
	s.require(403, "PATCH", "/api/v0/corps/acme/users/bob@acme.example", bob, map[string]any{"accessTokenAllowed": true})

	// A whole user sent back while there is no restriction grants nothing.
	s.require(200, "PATCH", "/api/v0/corps/acme", ann, map[string]any{"restrictedAccessTokens": false})
	user = s.require(200, "GET", "/api/v0/corps/acme/users/bob@acme.example", ann, nil).json
	require.Equal(t, true, user["accessTokenAllowed"])
	s.require(200, "PATCH", "/api/v0/corps/acme/users/bob@acme.example", ann, user)
	s.require(200, "PATCH", "/api/v0/corps/acme", ann, map[string]any{"restrictedAccessTokens": true})
	status, _ := s.ping(s.key("old").Token)
	require.Equal(t, 403, status)

	// S24: one bad value changes nothing.
	bad := s.require(400, "PATCH", "/api/v0/corps/acme", ann,
		map[string]any{"restrictedAccessTokens": false, "apiAllowedIPs": []string{"127.0.0.1", "nonsense"}})
	require.Contains(t, bad.body, "line 2")
	require.Contains(t, s.require(200, "GET", "/api/v0/corps/acme", ann, nil).body, `"restrictedAccessTokens":true`)

	// If-Match is optional, and holds if it is sent.
	etag := s.require(200, "GET", "/api/v0/corps/acme", ann, nil).header.Get("ETag")
	s.require(409, "PATCH", "/api/v0/corps/acme", ann, map[string]any{"apiTokenMaxAge": 60}, "If-Match", `"1"`)
	require.Contains(t, s.require(200, "GET", "/api/v0/corps/acme", ann, nil).body, `"apiTokenMaxAge":0`)
	s.require(200, "PATCH", "/api/v0/corps/acme", ann, map[string]any{"apiTokenMaxAge": 60}, "If-Match", etag)

	// What was refused is in the trail.
	s.stop()
	text, err := os.ReadFile(trail)
	require.NoError(t, err)
	for _, want := range []string{
		`"action":"settings.update","outcome":"failure","reason":"forbidden"`,
		`"action":"settings.update","outcome":"failure","reason":"conflict"`,
		`"action":"user.permission","outcome":"failure","reason":"forbidden"`,
		`"action":"authentication","outcome":"failure","reason":"wrong_credential_kind"`,
	} {
		require.Contains(t, string(text), want)
	}
}

// TestServiceCorpEmails: a user is found by the e-mail as it is written, or else but
// for the case of ASCII letters (D15); one of several is not picked.
func TestServiceCorpEmails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "b.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"orgs":[{"name":"x","users":[
		{"id":"owner","email":"","role":"owner"},
		{"id":"sam","email":"sam@x.example","role":"user"},
		{"id":"long","email":"\u017fam@x.example","role":"user"},
		{"id":"max1","email":"max@x.example","role":"user"},
		{"id":"max2","email":"Max@x.example","role":"user"},
		{"id":"eve1","email":"eve@x.example","role":"user"},
		{"id":"eve2","email":"eve@x.example","role":"user"}]}]}`), 0o600))
	s := startService(t, "-dev", "-bootstrap", file)
	owner := s.jwt("owner")
	for email, id := range map[string]string{
		"sam@x.example": "sam", "SAM@X.example": "sam", "\u017fam@x.example": "long", "max@x.example": "max1", "Max@x.example": "max2",
		"owner": "owner", // without an e-mail it is the ID (D16)
	} {
		got := s.require(200, "GET", "/api/v0/corps/x/users/"+url.PathEscape(email), owner, nil)
		require.Equal(t, id, got.json["name"], email)
	}
	for email, status := range map[string]int{"MAX@x.example": 409, "eve@x.example": 409, "nobody@x.example": 404} {
		path := "/api/v0/corps/x/users/" + email
		s.require(status, "GET", path, owner, nil)
		s.require(status, "PATCH", path, owner, map[string]any{"accessTokenAllowed": true})
	}
	// What is there is the same at each start.
	require.Equal(t, "1970-01-01T00:00:00Z", s.require(200, "GET", "/api/v0/corps/x", owner, nil).json["created"])
}

// TestServiceCorpBodies: a member is known by its name as it is written, and is there
// once: nothing that only looks like a setting, or that says two things, changes one
// (S24).
func TestServiceCorpBodies(t *testing.T) {
	t.Parallel()
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t))
	ann := s.jwt("ann")
	const corp, user, tokens = "/api/v0/corps/acme", "/api/v0/corps/acme/users/bob@acme.example", "/api/v0/user/apitokens"
	s.require(200, "PATCH", corp, ann, map[string]any{"restrictedAccessTokens": true, "apiTokenMaxAge": 600, "apiAllowedIPs": []string{"127.0.0.1"}})
	state := func() (all [3]string) {
		for i, path := range []string{corp, user, tokens} {
			all[i] = s.require(200, "GET", path, ann, nil).body
		}
		return all
	}
	before := state()
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		reason                   string
	}{
		{"another case", "PATCH", corp, `{"displayName":"x","RestrictedAccesstokens":false,"APIALLOWEDIPS":[],"apitokenmaxage":0}`, 200, ""},
		{"another letter of the same fold", "PATCH", corp, `{"reſtrictedAccessTokens":false}`, 200, ""},
		{"twice", "PATCH", corp, `{"restrictedAccessTokens":true,"restrictedAccessTokens":false}`, 400, "invalid_json"},
		{"age twice", "PATCH", corp, `{"apiTokenMaxAge":600,"apiTokenMaxAge":0}`, 400, "invalid_json"},
		{"addresses twice, once escaped", "PATCH", corp, `{"apiAllowedIPs":["127.0.0.1"],"apiAllowedIPs":[]}`, 400, "invalid_json"},
		{"null", "PATCH", corp, `null`, 400, "invalid_json"},
		{"array", "PATCH", corp, `[{"restrictedAccessTokens":false}]`, 400, "invalid_json"},
		{"text after", "PATCH", corp, `{} {"restrictedAccessTokens":false}`, 400, "invalid_json"},
		{"nothing", "PATCH", corp, ``, 400, "invalid_json"},
		{"null for the restriction", "PATCH", corp, `{"restrictedAccessTokens":null}`, 400, "invalid_field"},
		{"null for the age", "PATCH", corp, `{"apiTokenMaxAge":null}`, 400, "invalid_field"},
		{"null for addresses", "PATCH", corp, `{"apiAllowedIPs":null}`, 400, "invalid_field"},
		{"null for an address", "PATCH", corp, `{"apiAllowedIPs":[null]}`, 400, "invalid_field"},
		{"text for the restriction", "PATCH", corp, `{"restrictedAccessTokens":"false","apiTokenMaxAge":0}`, 400, "invalid_field"},
		{"grant in another case", "PATCH", user, `{"AccessTokenAllowed":true}`, 200, ""},
		{"grant twice", "PATCH", user, `{"accessTokenAllowed":false,"accessTokenAllowed":true}`, 400, "invalid_json"},
		{"grant of null", "PATCH", user, `{"accessTokenAllowed":null}`, 400, "invalid_field"},
		{"grant of a text", "PATCH", user, `{"accessTokenAllowed":"true"}`, 400, "invalid_field"},
		{"name in another case", "POST", tokens, `{"Name":"x"}`, 400, "invalid_field"},
		{"name twice", "POST", tokens, `{"name":"x","name":"y"}`, 400, "invalid_json"},
		{"name of null", "POST", tokens, `{"name":null}`, 400, "invalid_field"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, s.base+test.path, strings.NewReader(test.body))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+ann)
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		var got reply
		require.NoError(t, json.NewDecoder(response.Body).Decode(&got.json))
		require.NoError(t, response.Body.Close())
		require.Equal(t, test.status, response.StatusCode, test.name)
		require.Equal(t, test.reason, got.reason(), test.name)
		require.Equal(t, before, state(), test.name)
	}
}
