package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/middleware/refusallog"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store/keys"
)

// A service is what the handlers stand on.
type service struct {
	*config
	base  string    // the URL that it is served at
	out   io.Writer // standard output
	first *bootstrap

	backend  backend
	limiter  ratelimit.Limiter
	mgr      *keys.Manager
	refusals *refusallog.Log // nil without a trail
}

// handler makes everything that is served, and puts the bootstrap in. The function
// that it returns stops what runs beside the server.
func (s *service) handler(ctx context.Context) (http.Handler, func() error, error) {
	mux := http.NewServeMux()
	ps := s.first.people()
	var persons []middleware.Authenticator
	var stops []func() error
	issuer := issuerOptions{url: s.issuer, clientID: s.clientID, jwksURL: s.jwksURL, tokenUse: s.tokenUse, client: http.DefaultClient, discover: true}
	var dev *devIssuer
	if s.dev {
		dev = newDevIssuer(s.base)
		issuer.url, issuer.clientID, issuer.client, issuer.discover = dev.url, dev.clientID, dev.Client(), false
		mux.Handle(devPath+"/", http.StripPrefix(devPath, dev))
		mux.Handle("GET /dev/token/{user}", dev.serveToken(ps))
		signedIn := newSessions(time.Now)
		mountSignIn(mux, signedIn, s.first)
		persons = append(persons, signedIn)
	}
	if issuer.url != "" {
		a, err := ps.authenticator(ctx, s.mgr, issuer)
		if err != nil {
			return nil, nil, err
		}
		persons = append(persons, a)
		stops = append(stops, a.Close)
	}
	if len(persons) == 0 {
		log.Print("nobody can sign in: that needs -issuer, or -dev")
	}
	source, err := addressSource(s.trustedProxies, s.clientIPHeader)
	if err != nil {
		return nil, nil, err
	}
	guard, err := middleware.New(s.mgr.Verifier(), &middleware.Options{
		Authenticators: append([]middleware.Authenticator{middleware.APIKeys(s.mgr.Verifier(), nil)}, persons...),
		ClientIP:       source,
		Limiter:        s.limiter,
		Uses:           s.backend,
		UseInterval:    time.Second,
		UsesFailed:     func(err error) { log.Print("uses: ", err) },
		Observe: func(r *http.Request, e middleware.Event) {
			s.refusals.Observe(r, e)
			if e.Refusal != nil && e.Refusal.Status == http.StatusServiceUnavailable {
				log.Print("unavailable: ", e.Err)
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	stops = append(stops, func() error { return end("writing the last uses", guard.Close) })
	management, err := api.New(s.mgr, guard, &api.Options{
		Failed: func(_ *http.Request, err error) { log.Print("api: ", err) },
	})
	if err != nil {
		return nil, nil, err
	}
	mux.Handle("/v1/", management)
	if err := s.mountConsole(mux, management, persons); err != nil {
		return nil, nil, err
	}
	mux.Handle("/v1/ping", guard.Wrap(http.HandlerFunc(ping)))
	mux.Handle("GET /v1/reports", guard.With(policy.Scope("reports:read")).Wrap(http.HandlerFunc(reports)))
	mux.HandleFunc("/v1/health", health)

	tokens, err := s.first.apply(ctx, s.mgr, s.out)
	if err != nil {
		return nil, nil, fmt.Errorf("bootstrap: %w", err)
	}
	if s.dev && s.bootstrap == "" {
		if err := demoUses(ctx, s.mgr, s.backend, s.first, time.Now()); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case dev == nil:
	case s.bootstrap != "": // standard output is for a program
		dev.hello(os.Stderr, s.base, s.first, nil)
	default:
		dev.hello(s.out, s.base, s.first, tokens)
	}
	mux.Handle(corpBase+"/", newCorpAPI(s.mgr, guard, ps))
	stop := func() error {
		var errs []error
		for _, f := range stops {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	handler := oneSlash(mux)
	if s.dev {
		handler = localOnly(handler)
	}
	return handler, stop, nil
}

// oneSlash takes doubled slashes for one: a client whose base address ends in a
// slash sends them, and takes the redirect of a mux for an error.
func oneSlash(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.EscapedPath(); strings.Contains(path, "//") {
			for strings.Contains(path, "//") {
				path = strings.ReplaceAll(path, "//", "/")
			}
			clean := *r.URL
			clean.RawPath = path
			clean.Path, _ = url.PathUnescape(path) // it was escaped by the URL itself
			r = r.WithContext(r.Context())
			r.URL = &clean
		}
		h.ServeHTTP(w, r)
	})
}

// localOnly refuses requests that name another host than this machine. In
// development mode anybody can be anybody, and the page of another site whose name
// leads here (DNS rebinding) is as near as a person at the keyboard.
func localOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			(&middleware.Refusal{
				Status: http.StatusMisdirectedRequest, Code: "InvalidRequest", Reason: "wrong_host",
				Message: "The development mode is there for localhost only.",
			}).Write(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "pong from the protected handler")
}

// reports is for callers with the scope reports:read.
func reports(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = io.WriteString(w, `{"success":true,"data":{"reports":[]}}`+"\n")
}

// health tells that the service runs. It asks no store: one that fails answers
// 503 where it matters.
func health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, `{"success":true,"data":{"status":"ok"}}`+"\n")
}
