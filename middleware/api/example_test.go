package api_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// signedIn stands for the way in which the host's people sign in: package oidcauth
// has one for JWTs, and any cookie session can be another.
type signedIn struct{}

func (signedIn) Authenticate(r *http.Request) (*policy.Principal, error) {
	c, err := r.Cookie("session")
	if err != nil {
		return nil, middleware.ErrNoCredential
	}
	return &policy.Principal{Credential: policy.Session, Org: "acme", User: c.Value}, nil
}

func exampleService(opts *api.Options) http.Handler {
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	err = mgr.PutUser(context.Background(), &store.User{Org: "acme", ID: "olga", Email: "olga@acme.example", Owner: true})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil), signedIn{}},
	})
	if err != nil {
		log.Fatal(err)
	}
	h, err := api.New(mgr, guard, opts)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/keys/", http.StripPrefix("/keys", h))
	return mux
}

// exampleAsk sends a request of olga's and prints the answer.
func exampleAsk(h http.Handler, method, path, body string, headers ...string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.AddCookie(&http.Cookie{Name: "session", Value: "olga"})
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body.String())
}

func ExampleNew() {
	h := exampleService(nil)
	exampleAsk(h, "GET", "/keys/v1/org/token-settings", "")
	exampleAsk(h, "PATCH", "/keys/v1/org/token-settings", `{"apiTokenMaxAge":2592000}`, "If-Match", `"0"`)
	exampleAsk(h, "GET", "/keys/v1/api-keys", "")
	// Output:
	// 200 {"success":true,"data":{"restrictedAccessTokens":false,"apiTokenMaxAge":0,"apiAllowedIPs":[],"version":0,"warnings":[]}}
	// 200 {"success":true,"data":{"restrictedAccessTokens":false,"apiTokenMaxAge":2592000,"apiAllowedIPs":[],"version":1,"warnings":[]}}
	// 200 {"success":true,"data":{"keys":[],"nextCursor":null}}
}

// A change by a session has to come from a page of the service, or of one that it
// trusts.
func ExampleOptions() {
	h := exampleService(&api.Options{TrustedOrigins: []string{"https://console.example.com"}})
	for _, origin := range []string{"https://console.example.com", "https://elsewhere.example"} {
		exampleAsk(h, "PUT", "/keys/v1/org/users/olga/token-permission", "{}", "Origin", origin, "Sec-Fetch-Site", "cross-site")
	}
	// Output:
	// 200 {"success":true,"data":{"id":"olga","email":"olga@acme.example","tier":null,"owner":true,"tokenPermission":true,"suspendedAt":null}}
	// 403 {"success":false,"status":403,"message":"This request comes from another site.","error":{"code":"Forbidden","reason":"cross_origin","message":"This request comes from another site."}}
}

// A Guard with keys alone lets nobody manage anything: it needs an Authenticator of
// people.
func ExampleNew_incorrect() {
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(mgr.Verifier(), nil) // only API keys
	if err != nil {
		log.Fatal(err)
	}
	h, err := api.New(mgr, guard, nil)
	if err != nil {
		log.Fatal(err)
	}
	exampleAsk(h, "GET", "/v1/api-keys", "")
	// Output:
	// 401 {"success":false,"status":401,"message":"This request needs an API key or another credential.","error":{"code":"Unauthorized","reason":"no_credentials","message":"This request needs an API key or another credential."}}
}
