package oidcauth_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/middleware/oidcauth/oidctest"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

const (
	issuerURL = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_example"
	clientID  = "client-1"
)

// shared is an Issuer for tests that leave its keys alone: making a key takes long.
var shared = sync.OnceValue(func() *oidctest.Issuer { return oidctest.New(issuerURL, clientID, nil) })

// open returns an Authenticator of that issuer, which is closed when the test ends.
func open(t testing.TB, issuer *oidctest.Issuer, o oidcauth.Options) *oidcauth.Authenticator {
	t.Helper()
	if o.HTTPClient == nil {
		o.HTTPClient = issuer.Client()
	}
	a, err := oidcauth.New(issuerURL, []string{"another", clientID}, &o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// bearer returns a request with that token.
func bearer(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// accepted returns whom a finds behind a token.
func accepted(t testing.TB, a *oidcauth.Authenticator, token string) *policy.Principal {
	t.Helper()
	p, err := a.Authenticate(bearer(token))
	require.NoError(t, err)
	require.NotNil(t, p)
	return p
}

// refused requires that a refuses a token, for a reason that contains why.
func refused(t testing.TB, a *oidcauth.Authenticator, token, why string) {
	t.Helper()
	p, err := a.Authenticate(bearer(token))
	require.Nil(t, p)
	require.ErrorIs(t, err, middleware.ErrInvalidCredential)
	require.ErrorContains(t, err, why)
}

// unavailable requires that a can tell neither that a token is good nor that it is
// bad: a Guard answers 503.
func unavailable(t testing.TB, a *oidcauth.Authenticator, token, why string) {
	t.Helper()
	p, err := a.Authenticate(bearer(token))
	require.Nil(t, p)
	require.NotErrorIs(t, err, middleware.ErrInvalidCredential)
	require.NotErrorIs(t, err, middleware.ErrNoCredential)
	require.ErrorContains(t, err, why)
}

// An answerer answers the requests of a client in place of a server.
type answerer func(*http.Request) (*http.Response, error)

func (f answerer) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (f answerer) client() *http.Client { return &http.Client{Transport: f} }

// answer returns a response of that status and body.
func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// always answers every request alike.
func always(status int, body string) *http.Client {
	return answerer(func(*http.Request) (*http.Response, error) { return answer(status, body), nil }).client()
}

// jwk returns the key of the shared issuer as it is published, with members on top,
// of which those that are nil take away.
func jwk(t testing.TB, members map[string]any) map[string]any {
	t.Helper()
	w := httptest.NewRecorder()
	shared().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/.well-known/jwks.json", nil))
	var set struct{ Keys []map[string]any }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
	require.Len(t, set.Keys, 1)
	for name, v := range members {
		if set.Keys[0][name] = v; v == nil {
			delete(set.Keys[0], name)
		}
	}
	return set.Keys[0]
}

// jwks returns a set of keys as JSON.
func jwks(t testing.TB, keys ...any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	require.NoError(t, err)
	return string(b)
}

// people is a Users that counts, and fails on demand.
type people struct {
	mu       sync.Mutex
	users    map[string]*store.User // by org and id
	reads    int
	writes   int
	err      error
	writeErr error
}

func (p *people) SignIn(_ context.Context, org, id string, edit func(u *store.User) error) (*store.User, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	if p.err != nil {
		return nil, p.err
	}
	u := store.User{Org: org, ID: id}
	known := p.users[org+"/"+id]
	if known != nil {
		u = *known
	}
	if err := edit(&u); err != nil {
		return nil, err
	}
	if known != nil && u == *known {
		return known, nil
	}
	p.writes++
	if p.writeErr != nil {
		return nil, p.writeErr
	}
	if p.users == nil {
		p.users = map[string]*store.User{}
	}
	p.users[org+"/"+id] = &u
	return &u, nil
}

func (p *people) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}
