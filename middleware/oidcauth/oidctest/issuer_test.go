package oidctest_test

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/middleware/oidcauth/oidctest"
)

// parts returns the header and the claims of a token.
func parts(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	p := strings.Split(token, ".")
	require.Len(t, p, 3)
	for i, v := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(p[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, v))
	}
	return header, claims
}

// Section 5.1: tokens have what those of Cognito have, S64 RS256 and S65 an hour.
func TestIssuer_Tokens_S64(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_900_000_000, 0)
	i := oidctest.New("https://issuer.example", "client-1", &oidctest.Options{Now: func() time.Time { return now }})
	header, claims := parts(t, i.AccessToken("alice", map[string]any{"custom:tier": "Pro", "scope": nil}))
	require.Equal(t, "RS256", header["alg"])
	require.Regexp(t, `^\+/.*=$`, header["kid"], "a kid that has to be opaque")
	require.Len(t, header, 2)
	for name, want := range map[string]any{
		"iss": "https://issuer.example", "sub": "alice", "token_use": "access", "client_id": "client-1", "username": "alice",
		"iat": 1.9e9, "exp": 1.9e9 + 3600, "custom:tier": "Pro",
	} {
		require.Equal(t, want, claims[name], name)
	}
	for _, name := range []string{"aud", "email", "scope"} {
		require.NotContains(t, claims, name)
	}

	_, claims = parts(t, i.IDToken("alice", map[string]any{"email_verified": false}))
	for name, want := range map[string]any{
		"token_use": "id", "aud": "client-1", "email": "alice@example.com", "email_verified": false, "cognito:username": "alice",
	} {
		require.Equal(t, want, claims[name], name)
	}
	require.NotContains(t, claims, "client_id")
	require.NotEqual(t, i.AccessToken("alice", nil), i.AccessToken("alice", nil), "each token is one of its own")

	header, claims = parts(t, i.Sign(map[string]any{"typ": "JWT", "kid": nil}, map[string]any{"a": 1}))
	require.Equal(t, map[string]any{"alg": "RS256", "typ": "JWT"}, header)
	require.Equal(t, map[string]any{"a": 1.0}, claims)
	require.Panics(t, func() { i.Sign(nil, map[string]any{"a": func() {}}) })
}

// kids returns the names of the keys that are served.
func kids(t *testing.T, i *oidctest.Issuer) (names []string) {
	t.Helper()
	resp, err := i.Client().Get("https://issuer.example/.well-known/jwks.json")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var set struct{ Keys []struct{ Kid string } }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&set))
	for _, k := range set.Keys {
		names = append(names, k.Kid)
	}
	return names
}

func TestIssuer_Rotate(t *testing.T) {
	t.Parallel()
	i := oidctest.New("https://issuer.example", "client-1", nil)
	first := kids(t, i)
	require.Len(t, first, 1)
	i.Rotate()
	both := kids(t, i)
	require.Len(t, both, 2)
	require.Contains(t, both, first[0])
	header, _ := parts(t, i.AccessToken("alice", nil))
	require.NotEqual(t, first[0], header["kid"])
	i.Retire()
	require.Equal(t, []string{header["kid"].(string)}, kids(t, i))
	require.Equal(t, 3, i.Fetches())
}

func TestIssuer_ServeHTTP(t *testing.T) {
	t.Parallel()
	i := oidctest.New("https://issuer.example", "client-1", nil)
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	for _, client := range []*http.Client{server.Client(), i.Client()} {
		get := func(path string) (int, string) {
			resp, err := client.Get(server.URL + path)
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
			return resp.StatusCode, string(body)
		}
		status, body := get("/pool/.well-known/jwks.json")
		require.Equal(t, http.StatusOK, status)
		require.NotContains(t, body, `"d"`, "the private part")
		status, _ = get("/")
		require.Equal(t, http.StatusNotFound, status)
		i.SetDown(true)
		status, _ = get("/.well-known/jwks.json")
		require.Equal(t, http.StatusInternalServerError, status)
		i.SetDown(false)
	}
}

// The names of the faults are those of their tokens, and the iteration can be left.
func TestIssuer_Spoiled(t *testing.T) {
	t.Parallel()
	i := oidctest.New("https://issuer.example", "client-1", nil)
	seen := map[string]bool{}
	tokens := map[string]bool{}
	for fault, token := range i.Spoiled("alice") {
		require.False(t, seen[fault], fault)
		require.False(t, tokens[token], fault)
		seen[fault], tokens[token] = true, true
	}
	require.Greater(t, len(seen), 80)
	for range i.Spoiled("alice") {
		break
	}
}

// Some of the faults go unnoticed by a library with its defaults: that is what they
// are for.
func TestIssuer_Spoiled_Subtle(t *testing.T) {
	t.Parallel()
	i := oidctest.New("https://issuer.example", "client-1", nil)
	header, _ := parts(t, i.AccessToken("alice", nil))
	noticed := map[string]bool{}
	a, err := oidcauth.New("https://issuer.example", []string{"client-1"}, &oidcauth.Options{HTTPClient: i.Client()})
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	resp, err := i.Client().Get("https://issuer.example/.well-known/jwks.json")
	require.NoError(t, err)
	defer resp.Body.Close()
	key := publicKey(t, resp.Body)
	for fault, token := range i.Spoiled("alice") {
		_, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return key, nil })
		noticed[fault] = err != nil
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		_, err = a.Authenticate(r)
		require.Error(t, err, fault)
	}
	require.NotEmpty(t, header["kid"])
	for _, fault := range []string{
		"exp missing", "iss another", "crit unknown", "kid missing", "bits hidden behind the signature", "sub twice", "alg RS512",
		"client_id another", "token_use refresh", "ID token",
	} {
		require.Contains(t, noticed, fault)
		require.False(t, noticed[fault], fault)
	}
}

func Example() {
	issuer := oidctest.New("https://issuer.example", "client-1", nil)
	people, err := oidcauth.New("https://issuer.example", []string{"client-1"}, &oidcauth.Options{HTTPClient: issuer.Client()})
	if err != nil {
		panic(err)
	}
	defer people.Close()
	sign := func(token string) error {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		_, err := people.Authenticate(r)
		return err
	}

	fmt.Println("good:", sign(issuer.AccessToken("alice", nil)))
	for fault, token := range issuer.Spoiled("alice") {
		if sign(token) == nil {
			fmt.Println(fault, "goes unnoticed")
		}
	}
	// Output: good: <nil>
}

// A server of its own, for a program that runs as another process.
func ExampleNew() {
	server := httptest.NewUnstartedServer(nil)
	issuer := oidctest.New("http://"+server.Listener.Addr().String(), "client-1", nil)
	server.Config.Handler = issuer
	server.Start()
	defer server.Close()

	resp, err := http.Get("http://" + server.Listener.Addr().String() + "/.well-known/jwks.json")
	if err != nil {
		panic(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status, issuer.Fetches())
	// Output: 200 OK 1
}

// publicKey returns the one key of a set.
func publicKey(t *testing.T, set io.Reader) *rsa.PublicKey {
	t.Helper()
	var s struct{ Keys []struct{ N string } }
	require.NoError(t, json.NewDecoder(set).Decode(&s))
	require.Len(t, s.Keys, 1)
	n, err := base64.RawURLEncoding.DecodeString(s.Keys[0].N)
	require.NoError(t, err)
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
}
