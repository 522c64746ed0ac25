package itest

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// signInByForm picks a person as a browser does and returns the cookie of the session.
func (s *service) signInByForm(user string) string {
	s.tb.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.PostForm(s.base+"/dev/sign-in", url.Values{"user": {user}})
	require.NoError(s.tb, err)
	defer response.Body.Close()
	require.Equal(s.tb, http.StatusSeeOther, response.StatusCode)
	require.Len(s.tb, response.Cookies(), 1)
	c := response.Cookies()[0]
	return c.Name + "=" + c.Value
}

// TestServiceCrossSite: no page of another site changes anything by the session of an
// owner who visits it, on any route that changes something, and what was tried is in
// the trail.
func TestServiceCrossSite(t *testing.T) {
	t.Parallel()
	trail := filepath.Join(t.TempDir(), "audit.log")
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-audit", trail)
	ann, own, bobs := s.jwt("ann"), s.key("ann").Prefix, s.key("old").Prefix
	cookie := s.signInByForm("ann")
	state := func() (all []string) {
		for _, path := range []string{
			"/v1/api-keys", "/v1/org/api-keys", "/v1/org/token-settings", "/v1/org/users",
			"/api/v0/corps", "/api/v0/corps/acme/users", "/api/v0/user/apitokens",
		} {
			all = append(all, s.require(200, "GET", path, ann, nil).body)
		}
		return append(all, s.require(200, "GET", "/v1/me", "", nil, "Cookie", cookie).body)
	}
	settings := map[string]any{"restrictedAccessTokens": true, "apiTokenMaxAge": 60, "apiAllowedIPs": []string{"192.0.2.1"}}
	type route struct {
		method, path string
		body         any
	}
	management := []route{
		{"POST", "/v1/api-keys", map[string]any{"name": "stolen"}},
		{"PATCH", "/v1/api-keys/" + own, map[string]any{"name": "stolen"}},
		{"DELETE", "/v1/api-keys/" + own, nil},
		{"POST", "/v1/api-keys/" + own + "/rotate", map[string]any{"grace": 0}},
		{"PATCH", "/v1/org/token-settings", settings},
		{"POST", "/v1/org/token-settings/preview", settings},
		{"PATCH", "/v1/org/api-keys/" + bobs, map[string]any{"disabled": true}},
		{"DELETE", "/v1/org/api-keys/" + bobs, nil},
		{"PUT", "/v1/org/users/bob/token-permission", nil},
		{"DELETE", "/v1/org/users/cid/token-permission", nil},
	}
	// They are all that the document has.
	documented := 0
	for _, item := range s.require(200, "GET", "/v1/openapi.json", ann, nil).json["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if strings.Contains("post put patch delete", method) {
				documented++
			}
		}
	}
	require.Len(t, management, documented)
	routes := []route{
		{"PATCH", "/api/v0/corps/acme", settings},
		{"PATCH", "/api/v0/corps/acme/users/bob@acme.example", map[string]any{"accessTokenAllowed": true}},
		{"POST", "/api/v0/user/apitokens", map[string]any{"name": "stolen"}},
		{"DELETE", "/api/v0/user/apitokens/" + own, nil},
		{"POST", "/dev/sign-in?user=cid", nil},
		{"POST", "/dev/sign-out", nil},
	}
	for _, r := range management {
		routes = append(routes, r, route{r.method, "/console/api" + r.path, r.body})
	}
	before := state()
	for _, origin := range [][]string{
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"},
	} {
		for _, r := range routes {
			got := s.require(403, r.method, r.path, "", r.body, append(origin, "Cookie", cookie, "If-Match", "*")...)
			if !strings.HasPrefix(r.path, "/dev/") {
				require.Equal(t, "cross_origin", got.reason(), "%s %s", r.method, r.path)
			}
			if strings.HasPrefix(r.path, "/api/v0/") { // by a JWT that a proxy adds, too
				s.require(403, r.method, r.path, ann, r.body, origin...)
			}
		}
		require.Equal(t, before, state(), origin)
	}

	// The same from the service's own pages is taken. Browsers that do not send
	// Sec-Fetch-Site say in a form where it is only if the page lets them.
	require.Equal(t, "same-origin", s.require(200, "GET", "/dev/sign-in", "", nil).header.Get("Referrer-Policy"))
	home := []string{"Cookie", cookie, "Origin", s.base, "Sec-Fetch-Site", "same-origin"}
	s.require(200, "PATCH", "/api/v0/corps/acme", "", map[string]any{"apiTokenMaxAge": 7776000}, home...)
	s.require(200, "PATCH", "/v1/api-keys/"+own, "", map[string]any{"name": "renamed"}, home...)

	s.stop()
	text, err := os.ReadFile(trail)
	require.NoError(t, err)
	for _, action := range []string{"settings.update", "user.permission", "key.create", "key.revoke"} {
		byJWT := 0 // on corps only
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"action":"`+action+`","outcome":"failure","reason":"cross_origin"`) && strings.Contains(line, `"jwt"`) {
				byJWT++
			}
		}
		require.Equal(t, 4, byJWT, "%s, from each origin", action)
	}
}
