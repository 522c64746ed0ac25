package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// exampleKey makes a Manager, a user, and a key with the scope reports:read.
func exampleKey() (*keys.Manager, string) {
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := mgr.PutUser(ctx, &store.User{Org: "acme", ID: "u1", Email: "ann@acme.example"}); err != nil {
		log.Fatal(err)
	}
	token, _, err := mgr.Create(ctx, keys.CreateParams{
		Org: "acme", User: "u1", Name: "CI", Scopes: []string{"reports:read"},
	})
	if err != nil {
		log.Fatal(err)
	}
	return mgr, token.Reveal()
}

// exampleAsk sends a request with a key to h and prints the answer.
func exampleAsk(h http.Handler, path, token string) {
	r := httptest.NewRequest("GET", path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body.String())))
}

func exampleHello(w http.ResponseWriter, r *http.Request) {
	caller, _ := middleware.PrincipalFrom(r.Context())
	fmt.Fprintf(w, "hello %s", caller.User)
}

func Example() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	hello := http.HandlerFunc(exampleHello)
	mux := http.NewServeMux()
	mux.Handle("GET /v1/hello", guard.Wrap(hello))
	mux.Handle("GET /v1/reports", guard.With(policy.Scope("reports:read")).Wrap(hello))
	mux.Handle("GET /v1/admin", guard.With(policy.Scope("admin")).Wrap(hello))
	exampleAsk(mux, "/v1/hello", token)
	exampleAsk(mux, "/v1/reports", token)
	exampleAsk(mux, "/v1/admin", token)
	// Output:
	// 200 hello u1
	// 200 hello u1
	// 403 {"success":false,"status":403,"message":"The credential lacks a scope that this request needs.","error":{"code":"Forbidden","reason":"insufficient_scope","message":"The credential lacks a scope that this request needs."}}
}

// A Guard around the whole mux lets no route be forgotten; the handlers inside
// say what else they need.
func ExampleGuard_Authenticate() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/reports", guard.With(policy.Scope("reports:read")).Wrap(http.HandlerFunc(exampleHello)))
	mux.HandleFunc("/v1/forgotten", exampleHello)
	server := guard.Authenticate(mux)
	exampleAsk(server, "/v1/reports", token)
	exampleAsk(server, "/v1/forgotten", "")
	// Output:
	// 200 hello u1
	// 401 {"success":false,"status":401,"message":"This request needs an API key or another credential.","error":{"code":"Unauthorized","reason":"no_credentials","message":"This request needs an API key or another credential."}}
}

// A rule about paths beside the mux decides by another reading of the path than
// the router: here "//v1/reports" is checked by nobody, and cleaned and served.
// Wrap the handler instead.
func ExampleGuard_Wrap_incorrect() {
	mgr, _ := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	reports := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secrets") })
	guarded := guard.Wrap(reports)
	byPath := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/reports" { // do not do this
			guarded.ServeHTTP(w, r)
			return
		}
		http.StripPrefix("/", reports).ServeHTTP(w, r)
	})
	exampleAsk(byPath, "//v1/reports", "")
	// Output:
	// 200 secrets
}

// The cheapest way through a Guard: no context, no copy of the request.
func ExampleGuard_WrapFunc() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	h := guard.WrapFunc(func(w http.ResponseWriter, _ *http.Request, caller *policy.Principal) {
		fmt.Fprintf(w, "hello %s", caller.User)
	})
	exampleAsk(h, "/", token)
	// Output: 200 hello u1
}

// With adds requirements and shares everything else, the quota included.
func ExampleGuard_With() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	people := guard.With(policy.Via(policy.JWT, policy.Session))
	exampleAsk(people.Wrap(http.HandlerFunc(exampleHello)), "/", token)
	// Output:
	// 403 {"success":false,"status":403,"message":"This request cannot be made with this kind of credential.","error":{"code":"Forbidden","reason":"wrong_credential_kind","message":"This request cannot be made with this kind of credential."}}
}

// For frameworks with handlers of their own: Check decides, Admit also counts.
func ExampleGuard_Admit() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	caller, quota, err := guard.Admit(r)
	fmt.Println(caller.User, quota.Remaining, err)

	r.Header.Del("Authorization")
	_, _, err = guard.Admit(r)
	if refusal, ok := errors.AsType[*middleware.Refusal](err); ok {
		fmt.Println(refusal.Status, refusal.Reason)
		refusal.Write(httptest.NewRecorder(), r) // or translate it
	}
	// Output:
	// u1 249 <nil>
	// 401 no_credentials
}

func ExampleGuard_Check() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	caller, err := guard.Check(r)
	fmt.Println(caller.User, err)
	// Output: u1 <nil>
}

// Everything that is wrong with the options is reported at once.
func ExampleNew() {
	mgr, _ := exampleKey()
	_, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Realm:     "the \"best\" API",
		Unmetered: true,
		Limiter:   ratelimit.NewDaily(ratelimit.NewMemory(), nil),
	})
	fmt.Println(err)
	// Output:
	// middleware: Options.Unmetered: contradicts Limiter
	// middleware: Options.Realm: contains something else than printable ASCII without quote and backslash
}

// Observe gets one Event for each request, without any secret in it.
func ExampleEvent() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Observe: func(r *http.Request, e middleware.Event) {
			if e.Refusal != nil {
				fmt.Fprintln(os.Stdout, r.URL.Path, "refused:", e.Refusal.Reason, "because:", e.Err)
				return
			}
			fmt.Fprintln(os.Stdout, r.URL.Path, "by", e.Principal.User, "from", e.Addr)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	h := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	exampleAsk(h, "/a", token)
	exampleAsk(h, "/b", "csk_live_00000000000000000000000000000000")
	// Output:
	// /a by u1 from 192.0.2.1
	// 200
	// /b refused: invalid_token because: middleware: invalid credential: no such key
	// 401 {"success":false,"status":401,"message":"The credential is not valid.","error":{"code":"Unauthorized","reason":"invalid_token","message":"The credential is not valid."}}
}

// Options.Limiter takes several, the burst first, so that what it refuses does
// not cost a unit of the day.
func ExampleOptions() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Limiter: ratelimit.All(
			ratelimit.NewBurst(10, 1, nil), // 10 a second, 1 at once
			ratelimit.NewDaily(ratelimit.NewMemory(), nil),
		),
		Refuse: func(w http.ResponseWriter, _ *http.Request, f *middleware.Refusal) {
			http.Error(w, string(f.Reason), f.Status)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	h := guard.Wrap(http.HandlerFunc(exampleHello))
	exampleAsk(h, "/", token)
	exampleAsk(h, "/", token)
	// Output:
	// 200 hello u1
	// 429 burst_limit
}

// For tests of handlers: a caller without a Guard.
func ExampleWithPrincipal() {
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(middleware.WithPrincipal(r.Context(), &policy.Principal{Credential: policy.JWT, User: "u1"}))
	w := httptest.NewRecorder()
	exampleHello(w, r)
	fmt.Println(w.Body.String())
	// Output: hello u1
}

func ExamplePrincipalFrom() {
	_, ok := middleware.PrincipalFrom(context.Background())
	fmt.Println(ok)
	// Output: false
}

// A handler learns the client's address as the rules understood it.
func ExampleAddrFrom() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	h := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addr, _ := middleware.AddrFrom(r.Context())
		fmt.Fprint(w, addr)
	}))
	exampleAsk(h, "/", token)
	// Output: 200 192.0.2.1
}

// A handler that refuses something answers like its Guard.
func ExampleGuard_Refuse() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), nil)
	if err != nil {
		log.Fatal(err)
	}
	h := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard.Refuse(w, r, &middleware.Refusal{
			Status: http.StatusNotFound, Code: "NotFound", Reason: "not_found", Message: "There is no such report.",
		})
	}))
	exampleAsk(h, "/v1/reports/7", token)
	// Output:
	// 404 {"success":false,"status":404,"message":"There is no such report.","error":{"code":"NotFound","reason":"not_found","message":"There is no such report."}}
}

// A guard that takes keys in the form of one of the source systems only.
func ExampleAPIKeys() {
	mgr, token := exampleKey()
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{
			middleware.APIKeys(mgr.Verifier(), &middleware.APIKeyOptions{RefuseBearer: true}),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("x-api-user", "ann@acme.example")
	r.Header.Set("x-api-token", token)
	w := httptest.NewRecorder()
	guard.Wrap(http.HandlerFunc(exampleHello)).ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body.String())
	// Output: 200 hello u1
}

func ExampleBearerToken() {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln")
	fmt.Println(middleware.BearerToken(r))
	// Output: eyJhbGciOiJSUzI1NiJ9.e30.c2ln true
}

// People at the pages of a service: by a JWT that a proxy adds, or by a cookie, which
// counts for nothing beside that.
func ExampleChain() {
	people := middleware.Chain(exampleJWT{}, exampleSession{})
	r := httptest.NewRequest("GET", "/pages/", nil)
	r.Header.Set("Cookie", "session=left-over")
	r.Header.Set("Authorization", "Bearer ann.x.y")
	p, err := people.Authenticate(r)
	fmt.Println(p.User, err)
	// Output: ann <nil>
}

// exampleJWT takes a JWT for what it says, which only an example may do.
type exampleJWT struct{}

func (exampleJWT) Authenticate(r *http.Request) (*policy.Principal, error) {
	token, ok := middleware.BearerToken(r)
	if !ok || strings.Count(token, ".") != 2 {
		return nil, middleware.ErrNoCredential
	}
	user, _, _ := strings.Cut(token, ".") // a real one verifies the signature first
	return &policy.Principal{Credential: policy.JWT, Org: "acme", User: user}, nil
}

// exampleSession cannot look up any session now.
type exampleSession struct{}

func (exampleSession) Authenticate(r *http.Request) (*policy.Principal, error) {
	if _, err := r.Cookie("session"); err != nil {
		return nil, middleware.ErrNoCredential
	}
	return nil, errors.New("session store: connection refused")
}
