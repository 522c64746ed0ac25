package oidcauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/middleware/oidcauth/oidctest"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// People and their API keys on one path (S52). A program takes the issuer's URL from
// its configuration, and leaves HTTPClient out.
func ExampleNew() {
	const url = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_example"
	issuer := oidctest.New(url, "client-1", nil)

	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		panic(err)
	}
	people, err := oidcauth.New(url, []string{"client-1"}, &oidcauth.Options{
		HTTPClient: issuer.Client(),
		Users:      mgr,
	})
	if err != nil {
		panic(err)
	}
	defer people.Close()
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil), people},
	})
	if err != nil {
		panic(err)
	}
	h := guard.WrapFunc(func(_ http.ResponseWriter, _ *http.Request, p *policy.Principal) {
		fmt.Println(p.Credential, p.User, p.Team, p.Tier)
	})

	r := httptest.NewRequest("GET", "/v1/usage", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.AccessToken("alice", map[string]any{
		"custom:tier": "Pro", "custom:teamId": "acme",
	}))
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output: jwt alice acme Pro
}

// The organization is the host's to say: here it comes from a directory, and everybody
// without a tier is Free.
func ExampleOptions_map() {
	const url = "https://issuer.example"
	issuer := oidctest.New(url, "client-1", nil)
	directory := map[string]string{"alice": "acme"}
	people, err := oidcauth.New(url, []string{"client-1"}, &oidcauth.Options{
		HTTPClient: issuer.Client(),
		Map: func(_ context.Context, claims map[string]any, id oidcauth.Identity) (oidcauth.Identity, error) {
			sub, _ := claims["sub"].(string)
			org, ok := directory[sub]
			if !ok {
				return id, fmt.Errorf("not in the directory: %w", middleware.ErrInvalidCredential)
			}
			id.Org = org
			if id.Tier == "" {
				id.Tier = "Free"
			}
			return id, nil
		},
	})
	if err != nil {
		panic(err)
	}
	defer people.Close()

	for _, sub := range []string{"alice", "mallory"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+issuer.AccessToken(sub, nil))
		p, err := people.Authenticate(r)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(p.User, p.Org, p.Tier)
	}
	// Output:
	// alice acme Free
	// oidcauth: Map: not in the directory: middleware: invalid credential
}

// Without API keys among the Authenticators there are none: the list replaces the
// default.
func ExampleNew_incorrect() {
	const url = "https://issuer.example"
	issuer := oidctest.New(url, "client-1", nil)
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		panic(err)
	}
	people, err := oidcauth.New(url, []string{"client-1"}, &oidcauth.Options{HTTPClient: issuer.Client(), Users: mgr})
	if err != nil {
		panic(err)
	}
	defer people.Close()
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{people}, // middleware.APIKeys is missing
	})
	if err != nil {
		panic(err)
	}

	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.AccessToken("alice", nil))
	alice, err := guard.Check(r)
	if err != nil {
		panic(err)
	}
	token, _, err := mgr.Create(r.Context(), keys.CreateParams{Org: alice.Org, User: alice.User, Name: "ci"})
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+token.Reveal())
	_, err = guard.Check(r)
	fmt.Println(err)
	// Output: middleware: refused: invalid_token
}
