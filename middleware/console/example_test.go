package console_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/middleware/console"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// sessions stands for the way in which the host's people sign in.
type sessions struct{}

func (sessions) Authenticate(r *http.Request) (*policy.Principal, error) {
	c, err := r.Cookie("__Host-session")
	if err != nil {
		return nil, middleware.ErrNoCredential
	}
	return &policy.Principal{Credential: policy.Session, Org: "acme", User: c.Value}, nil
}

func ExampleNew() {
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	err = mgr.PutUser(context.Background(), &store.User{Org: "acme", ID: "ada", Email: "ada@acme.example"})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil), sessions{}},
	})
	if err != nil {
		log.Fatal(err)
	}
	keysAPI, err := api.New(mgr, guard, nil)
	if err != nil {
		log.Fatal(err)
	}
	pages, err := console.New(keysAPI, sessions{}, &console.Options{SignInURL: "/login"})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/console/", http.StripPrefix("/console", pages))

	for _, session := range []string{"", "ada"} {
		r := httptest.NewRequest("GET", "/console/", nil)
		if session != "" {
			r.AddCookie(&http.Cookie{Name: "__Host-session", Value: session})
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("Content-Type"))
	}
	// Output:
	// 401 text/html; charset=utf-8
	// 200 text/html; charset=utf-8
}
