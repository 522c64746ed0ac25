package itest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/oidcauth/oidctest"
)

// A serviceIssuer is an OIDC issuer of a test, with a discovery document if it is
// given one, on a loopback address.
type serviceIssuer struct {
	*oidctest.Issuer
	url string
}

func newServiceIssuer(t *testing.T, keysPath string, discovery func(url string) map[string]any) serviceIssuer {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i := serviceIssuer{oidctest.New(server.URL, "app", nil), server.URL}
	mux.HandleFunc("GET "+keysPath, func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path = "/.well-known/jwks.json"
		i.ServeHTTP(w, r)
	})
	if discovery != nil {
		mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(discovery(server.URL))
		})
	}
	return i
}

const cognitoKeys = "/.well-known/jwks.json"

// TestServiceUnknownPerson: who signs in and is not in the bootstrap file is a plain
// user of the organization of the team claim, or of one of their own, whatever else
// the claims say; who is in it has role and organization from there.
func TestServiceUnknownPerson(t *testing.T) {
	t.Parallel()
	issuer := newServiceIssuer(t, cognitoKeys, nil)
	s := startService(t, "-issuer", issuer.url, "-client-id", "app", "-bootstrap", writeBootstrap(t))
	boast := map[string]any{
		"custom:tier": "Enterprise", "custom:teamId": "acme", "cognito:groups": []string{"owner", "admin"}, "role": "owner", "owner": true,
		"custom:role": "owner", "permitted": true, "org": "zeta", "email": "ann@acme.example", "email_verified": true,
	}
	eve := issuer.AccessToken("eve", boast)
	s.require(200, "GET", "/v1/ping", eve, nil)
	for _, r := range [][2]string{
		{"GET", "/v1/org/token-settings"},
		{"PATCH", "/v1/org/token-settings"},
		{"GET", "/v1/org/api-keys"},
		{"DELETE", "/v1/org/api-keys/" + s.key("ann").Prefix},
		{"PUT", "/v1/org/users/eve/token-permission"},
		{"PATCH", "/api/v0/corps/acme"},
	} {
		s.require(403, r[0], r[1], eve, map[string]any{"apiTokenMaxAge": 0, "restrictedAccessTokens": false})
	}
	s.require(404, "DELETE", "/v1/api-keys/"+s.key("ann").Prefix, eve, nil)
	s.require(404, "GET", "/api/v0/corps/zeta", eve, nil)

	// ann, who owns acme, sees her as what she is.
	ann := issuer.AccessToken("ann", map[string]any{"custom:teamId": "zeta"}) // the file says acme
	users := s.require(200, "GET", "/v1/org/users", ann, nil).data("users").([]any)
	found := false
	for _, u := range users {
		if u := u.(map[string]any); u["id"] == "eve" {
			found = true
			require.Equal(t, false, u["owner"])
			require.Equal(t, false, u["tokenPermission"])
		}
	}
	require.True(t, found)

	// The restriction of acme binds eve too.
	token, _ := s.create(eve, map[string]any{"name": "x"})
	s.require(200, "GET", "/v1/ping", token, nil)
	s.settings(ann, map[string]any{"restrictedAccessTokens": true})
	s.require(403, "GET", "/v1/ping", token, nil)

	// Without a team there is an organization of one's own, without an owner.
	solo := issuer.AccessToken("solo", map[string]any{"custom:tier": "Pro"})
	s.create(solo, map[string]any{"name": "x"})
	s.require(403, "GET", "/v1/org/users", solo, nil)
	s.require(200, "GET", "/api/v0/corps/user:solo", solo, nil)
	s.require(401, "GET", "/v1/ping", issuer.AccessToken("solo", map[string]any{"custom:teamId": "user:eve"}), nil)
}

// TestServiceTokens_S66: an access token of the configured client is accepted, and
// nothing else of the same issuer (S64-S66, requirements section 5.2).
func TestServiceTokens_S66(t *testing.T) {
	t.Parallel()
	issuer := newServiceIssuer(t, cognitoKeys, nil)
	s := startService(t, "-issuer", issuer.url, "-client-id", "app", "-bootstrap", writeBootstrap(t))
	s.require(200, "GET", "/v1/api-keys", issuer.AccessToken("bob", nil), nil)
	s.refused(401, "Unauthorized", "invalid_token", "GET", "/v1/api-keys", issuer.IDToken("bob", nil), nil)
	walked := 0
	for name, token := range issuer.Spoiled("bob") {
		got := s.do("GET", "/v1/api-keys", token, nil)
		require.Equal(t, 401, got.status, name)
		require.Equal(t, "invalid_token", got.reason(), name)
		walked++
	}
	require.Greater(t, walked, 20)
}

// TestServiceOtherIssuers: issuers that are not Cognito: the discovery document says
// where the keys are, or -jwks-url does, and tokens may not say what they are for.
func TestServiceOtherIssuers(t *testing.T) {
	t.Parallel()
	const elsewhere = "/oauth2/v1/keys"
	discovery := func(url string) map[string]any {
		return map[string]any{"issuer": url, "jwks_uri": url + elsewhere}
	}
	// As of an issuer without token_use: the aud is compared.
	unstated := map[string]any{"token_use": nil, "client_id": nil, "aud": "app"}
	for _, test := range []struct {
		name      string
		keys      string
		discovery func(url string) map[string]any
		args      func(url string) []string
		access    int // the status of an access token as of Cognito
		id        int
		unstated  int
	}{
		{name: "as Cognito", keys: cognitoKeys, access: 200, id: 401, unstated: 401},
		{
			name: "something else at the place", keys: cognitoKeys, access: 200, id: 401, unstated: 401,
			discovery: func(string) map[string]any { return map[string]any{"keys": []any{}} },
		},
		{name: "discovery", keys: elsewhere, discovery: discovery, access: 200, id: 401, unstated: 401},
		{
			name: "a place of its own", keys: elsewhere, access: 200, id: 401, unstated: 401,
			args: func(url string) []string { return []string{"-jwks-url", url + elsewhere} },
		},
		{
			name: "the flag comes first", keys: elsewhere, access: 200, id: 401, unstated: 401,
			discovery: func(string) map[string]any { return map[string]any{"issuer": "https://other.example"} },
			args:      func(url string) []string { return []string{"-jwks-url", url + elsewhere} },
		},
		{
			name: "unstated", keys: elsewhere, discovery: discovery, access: 401, id: 401, unstated: 200,
			args: func(string) []string { return []string{"-token-use", "unstated"} },
		},
		{
			name: "several", keys: elsewhere, discovery: discovery, access: 200, id: 200, unstated: 401,
			args: func(string) []string { return []string{"-token-use", "access,id"} },
		},
		{name: "keys nowhere", keys: elsewhere, access: 503, id: 503, unstated: 503},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			issuer := newServiceIssuer(t, test.keys, test.discovery)
			args := []string{"-issuer", issuer.url, "-client-id", "app"}
			if test.args != nil {
				args = append(args, test.args(issuer.url)...)
			}
			s := startService(t, args...)
			require.Equal(t, test.access, s.do("GET", "/v1/ping", issuer.AccessToken("bob", nil), nil).status, "access")
			require.Equal(t, test.id, s.do("GET", "/v1/ping", issuer.IDToken("bob", nil), nil).status, "id")
			require.Equal(t, test.unstated, s.do("GET", "/v1/ping", issuer.AccessToken("bob", unstated), nil).status, "unstated")
		})
	}
}

// TestServiceBadIssuer: an issuer that says it is somebody else, or keeps its keys
// where they could be changed on the way, is not served with.
func TestServiceBadIssuer(t *testing.T) {
	t.Parallel()
	binary, err := buildService()
	require.NoError(t, err)
	for _, test := range []struct {
		name, want string
		discovery  func(url string) map[string]any
	}{
		{"another issuer", "-issuer must be", func(url string) map[string]any {
			return map[string]any{"issuer": url + "/", "jwks_uri": url + cognitoKeys}
		}},
		{"no keys", "jwks_uri", func(url string) map[string]any { return map[string]any{"issuer": url} }},
		{"keys without TLS", "JWKSURL", func(url string) map[string]any {
			return map[string]any{"issuer": url, "jwks_uri": "http://keys.example/jwks"}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			issuer := newServiceIssuer(t, cognitoKeys, test.discovery)
			cmd := exec.CommandContext(t.Context(), binary, "-addr", "127.0.0.1:0", "-issuer", issuer.url, "-client-id", "app")
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(out), test.want)
			require.NotContains(t, string(out), "serving")
		})
	}
}

// TestServiceIssuerSilent: an issuer that does not answer when the service starts is
// asked again; if it goes on, the service does not start, rather than with keys from
// somewhere else. One that says that it has no document has none.
func TestServiceIssuerSilent(t *testing.T) {
	t.Parallel()
	const elsewhere = "/oauth2/v1/keys"
	// flaky returns an issuer that answers with each of the statuses in turn, with the
	// last one from then on; 0 is no answer, 200 the document.
	flaky := func(t *testing.T, statuses ...int) serviceIssuer {
		t.Helper()
		mux := http.NewServeMux()
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		i := serviceIssuer{oidctest.New(server.URL, "app", nil), server.URL}
		mux.HandleFunc("GET "+elsewhere, func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			r.URL.Path = cognitoKeys
			i.ServeHTTP(w, r)
		})
		var asked atomic.Int64
		mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			switch status := statuses[min(int(asked.Add(1)), len(statuses))-1]; status {
			case 0:
				panic(http.ErrAbortHandler)
			case 200:
				_ = json.NewEncoder(w).Encode(map[string]any{"issuer": server.URL, "jwks_uri": server.URL + elsewhere})
			default:
				w.WriteHeader(status)
			}
		})
		return i
	}
	t.Run("answers in the end", func(t *testing.T) {
		t.Parallel()
		issuer := flaky(t, 503, 0, 502, 200)
		s := startService(t, "-issuer", issuer.url, "-client-id", "app")
		s.require(200, "GET", "/v1/ping", issuer.AccessToken("bob", nil), nil)
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		startService(t, "-issuer", flaky(t, 410).url, "-client-id", "app")
	})
	for name, status := range map[string]int{"500": 500, "403": 403, "302": 302, "broken off": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			binary, err := buildService()
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), binary, "-addr", "127.0.0.1:0", "-issuer", flaky(t, status).url, "-client-id", "app")
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(out), "-issuer: no answer for the discovery document")
			require.Contains(t, string(out), "-jwks-url")
			require.NotContains(t, string(out), "serving")
		})
	}
}

// TestServiceDevIsLocal: the development mode, in which anybody can be anybody,
// answers to names of this machine only: the page of another site whose name leads
// here (DNS rebinding) gets nothing.
func TestServiceDevIsLocal(t *testing.T) {
	t.Parallel()
	s := startService(t, "-dev")
	for host, want := range map[string]int{
		"evil.example": 421, "evil.example:80": 421, "localhost.evil.example": 421, "10.0.0.1": 421,
		"localhost": 200, "LOCALHOST:8080": 200, "127.0.0.1": 200, "127.0.0.9:1": 200, "[::1]": 200, "[::1]:80": 200,
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.base+"/dev/token/demo-user", nil)
		require.NoError(t, err)
		r.Host = host
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, want, response.StatusCode, host)
	}
}

// TestServiceDoubledSlashes: a base address that ends in a slash is no mistake of the
// client's: no answer is a redirect (S8, requirements section 4).
func TestServiceDoubledSlashes(t *testing.T) {
	t.Parallel()
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t))
	token, bob := s.key("old").Token, s.jwt("bob")
	for _, path := range []string{"//v1/ping", "/v1//ping", "///v1///usage", "//api/v0/corps", "/api//v0//corps/acme"} {
		s.require(200, "GET", path, token, nil)
	}
	s.require(200, "GET", "//v1/api-keys", bob, nil)
	s.require(201, "POST", "//v1//api-keys", bob, map[string]any{"name": "x"})
	s.require(404, "GET", "/api/v0/corps/acme%2Fusers", token, nil) // one name, not two
	s.require(404, "GET", "/api/v0//corps/acme%2F%2Fusers", token, nil)
	s.require(200, "GET", "/api/v0//corps/acme/users/bob%40acme.example", token, nil)
}
