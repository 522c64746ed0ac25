// Service is a whole service around keystile, the way a product would embed it:
// a guarded route, the management API for people, sign-in with any OIDC issuer,
// the settings of organizations, an audit trail, and the API in the shape of the
// system that the requirements come from.
//
// The one command to see it is
//
//	go run ./examples/service -dev
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/middleware/refusallog"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/store/sqlitestore"
)

// A config is what the flags say.
type config struct {
	addr, store, redis, issuer, clientID, jwksURL, tokenUse, trustedProxies, clientIPHeader, audit, bootstrap string

	dev          bool
	defaultLimit int64
}

func main() {
	var c config
	flag.StringVar(&c.addr, "addr", "127.0.0.1:8080", "`address` to serve on")
	flag.StringVar(&c.store, "store", "memory", "`place` where keys are kept: memory, sqlite:FILE or postgres://...")
	flag.StringVar(&c.redis, "redis", "", "`URL` of a Redis or Valkey server that counts requests, as redis://host:6379; the store counts without it")
	flag.StringVar(&c.issuer, "issuer", "", "`URL` of the OIDC issuer of people")
	flag.StringVar(&c.clientID, "client-id", "", "`ID` of the client that its tokens are for: client_id of access tokens, aud of others")
	flag.StringVar(&c.jwksURL, "jwks-url", "", "`URL` of the issuer's keys; without it the discovery document of the issuer is asked, and if there is none, ISSUER/.well-known/jwks.json")
	flag.StringVar(&c.tokenUse, "token-use", "access", "`uses` of tokens to accept, by their claim token_use: access, id, and unstated for issuers without that claim")
	flag.BoolVar(&c.dev, "dev", false, "be the issuer: anybody can be anybody; on loopback addresses only")
	flag.StringVar(&c.trustedProxies, "trusted-proxies", "", "`addresses` and ranges of proxies, separated by commas")
	flag.StringVar(&c.clientIPHeader, "client-ip-header", "", "`name` of the header in which they write the client's address")
	flag.Int64Var(&c.defaultLimit, "default-limit", 250, "requests a day of keys without a limit of their own; -1: no limit")
	flag.StringVar(&c.audit, "audit", "", "`file` to append the audit trail to")
	flag.StringVar(&c.bootstrap, "bootstrap", "", "`file` of organizations, people and keys to begin with")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("service: ")
	if flag.NArg() > 0 {
		log.Fatalf("there are no arguments, only flags: %q", flag.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.run(ctx, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// check reports everything that is wrong with the flags.
func (c *config) check() error {
	var errs []error
	bad := func(text string) { errs = append(errs, errors.New(text)) }
	if c.dev {
		if c.issuer != "" || c.clientID != "" {
			bad("-dev is an issuer by itself: leave -issuer and -client-id out")
		}
		if !loopback(c.addr) {
			bad("-dev lets anybody be anybody: -addr must be a loopback address")
		}
	} else if (c.issuer == "") != (c.clientID == "") {
		bad("-issuer and -client-id need each other")
	}
	if c.jwksURL != "" && c.issuer == "" {
		bad("-jwks-url needs -issuer")
	}
	if _, err := readTokenUses(c.tokenUse); err != nil {
		errs = append(errs, err)
	}
	if c.defaultLimit == 0 || c.defaultLimit < -1 {
		bad("-default-limit must be at least 1, or -1 for no limit")
	}
	if _, err := addressSource(c.trustedProxies, c.clientIPHeader); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// A backend is a store with all that stands beside it.
type backend interface {
	store.Store
	store.Uses
	store.Feed
	ratelimit.Counter
}

// openStore opens what -store names. The function it returns closes it.
func openStore(ctx context.Context, name string) (backend, func() error, error) {
	kind, file, _ := strings.Cut(name, ":")
	switch {
	case name == "memory":
		return memstore.New(), func() error { return nil }, nil
	case kind == "sqlite" && file != "":
		db, err := sql.Open("sqlite", sqlitestore.DSN(file))
		if err != nil {
			return nil, nil, err
		}
		s, err := sqlitestore.New(db, nil)
		return migrated(ctx, s, db, err)
	case kind == "postgres" || kind == "postgresql":
		db, err := sql.Open("pgx", name)
		if err != nil {
			// The name has a password, which the error may repeat.
			return nil, nil, errors.New("-store is no data source name of PostgreSQL")
		}
		db.SetMaxOpenConns(8)
		db.SetMaxIdleConns(8)
		s, err := postgresstore.New(db, nil)
		return migrated(ctx, s, db, err)
	}
	return nil, nil, errors.New("-store is none of memory, sqlite:FILE and a postgres:// address")
}

// migrated brings the tables of a store that was opened up to date.
func migrated[S interface {
	backend
	Migrate(context.Context) error
}](ctx context.Context, s S, db *sql.DB, err error) (backend, func() error, error) {
	if err == nil {
		err = s.Migrate(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("-store: %w", err), db.Close())
	}
	return s, db.Close, nil
}

// openRedis connects to the server of -redis. What goes wrong later is a 503 for
// the request, but a mistake in the flag is better noticed now.
func openRedis(ctx context.Context, address string) (*redis.Client, error) {
	client, err := rediscounter.Open(address)
	if err != nil {
		return nil, fmt.Errorf("-redis: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("-redis: %w", err), client.Close())
	}
	return client, nil
}

// run serves until ctx ends.
func (c *config) run(ctx context.Context, out io.Writer) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	first := &bootstrap{}
	switch {
	case c.bootstrap != "":
		if first, err = readBootstrap(c.bootstrap); err != nil {
			return fmt.Errorf("-bootstrap: %w", err)
		}
	case c.dev:
		first = demoBootstrap(time.Now())
	}
	s, closeStore, err := openStore(ctx, c.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()

	var counter ratelimit.Counter = s
	if c.redis != "" {
		client, err := openRedis(ctx, c.redis)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		// Each request takes the trip to Redis, which makes every count exact and
		// every refusal timely. Where the trips are too many, ratelimit.NewLeased
		// goes between, and a refusal can come early for a second.
		counter = rediscounter.New(client, nil)
	}
	limiter := ratelimit.NewDaily(counter, &ratelimit.DailyOptions{Limit: c.defaultLimit})
	options := &keys.Options{
		Tiers: []string{"Pro", "Team", "Enterprise"}, Uses: s, Limiter: limiter, MaxDailyLimit: c.defaultLimit,
		// The feed tells of what other processes on the same store have changed.
		Cache: &store.CacheOptions{Feed: s, FeedFailed: func(err error) { log.Print("feed: ", err) }},
	}
	auditFailed := func(err error) { log.Print("audit: ", err) }
	var refusals *refusallog.Log // nil: nothing is written
	if c.audit != "" {
		trail, openErr := os.OpenFile(c.audit, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if openErr != nil {
			return fmt.Errorf("-audit: %w", openErr)
		}
		defer func() { err = errors.Join(err, trail.Close()) }()
		sink := audit.NewJSON(trail)
		options.Audit, options.AuditRequired, options.AuditFailed = sink, true, auditFailed
		if refusals, err = refusallog.New(sink, &refusallog.Options{Failed: auditFailed}); err != nil {
			return err
		}
	}
	mgr, err := keys.New(s, options)
	if err != nil {
		return err
	}
	defer mgr.Close()

	listener, err := net.Listen("tcp", c.addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	base := "http://" + listener.Addr().String()
	handler, stop, err := c.handler(ctx, out, base, mgr, s, limiter, refusals, first)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Print("serving on ", base)
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(ending), stop(ending), refusals.Close(ending))
}

// handler makes everything that is served, and puts the bootstrap in. The
// function that it returns stops what runs beside the server.
func (c *config) handler(
	ctx context.Context, out io.Writer, base string,
	mgr *keys.Manager, s backend, limiter ratelimit.Limiter, refusals *refusallog.Log, first *bootstrap,
) (http.Handler, func(context.Context) error, error) {
	mux := http.NewServeMux()
	ps := first.people()
	var persons anyOf
	stops := []func(context.Context) error{}
	issuer := issuerOptions{url: c.issuer, clientID: c.clientID, jwksURL: c.jwksURL, tokenUse: c.tokenUse, client: http.DefaultClient, discover: true}
	var dev *devIssuer
	if c.dev {
		dev = newDevIssuer(base)
		issuer.url, issuer.clientID, issuer.client, issuer.discover = dev.url, dev.clientID, dev.Client(), false
		mux.Handle(devPath+"/", http.StripPrefix(devPath, dev))
		mux.Handle("GET /dev/token/{user}", dev.serveToken(ps))
		signedIn := newSessions(time.Now)
		mountSignIn(mux, signedIn, first)
		persons = append(persons, signedIn)
	}
	if issuer.url != "" {
		a, err := ps.authenticator(ctx, mgr, issuer)
		if err != nil {
			return nil, nil, err
		}
		persons = append(persons, a)
		stops = append(stops, func(context.Context) error { return a.Close() })
	}
	if len(persons) == 0 {
		log.Print("nobody can sign in: that needs -issuer, or -dev")
	}
	source, err := addressSource(c.trustedProxies, c.clientIPHeader)
	if err != nil {
		return nil, nil, err
	}
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: append([]middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil)}, persons...),
		ClientIP:       source,
		Limiter:        limiter,
		Uses:           s,
		UseInterval:    time.Second,
		UsesFailed:     func(err error) { log.Print("uses: ", err) },
		Observe: func(r *http.Request, e middleware.Event) {
			refusals.Observe(r, e)
			if e.Refusal != nil && e.Refusal.Status == http.StatusServiceUnavailable {
				log.Print("unavailable: ", e.Err)
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	stops = append(stops, guard.Close)
	management, err := api.New(mgr, guard, &api.Options{
		Failed: func(_ *http.Request, err error) { log.Print("api: ", err) },
	})
	if err != nil {
		return nil, nil, err
	}
	mux.Handle("/v1/", management)
	if err := c.mountConsole(mux, management, persons); err != nil {
		return nil, nil, err
	}
	mux.Handle("/v1/ping", guard.Wrap(http.HandlerFunc(ping)))
	mux.Handle("GET /v1/reports", guard.With(policy.Scope("reports:read")).Wrap(http.HandlerFunc(reports)))
	mux.HandleFunc("/v1/health", health)

	tokens, err := first.apply(ctx, mgr, out)
	if err != nil {
		return nil, nil, fmt.Errorf("bootstrap: %w", err)
	}
	if c.dev && c.bootstrap == "" {
		if err := demoUses(ctx, mgr, s, first, time.Now()); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case dev == nil:
	case c.bootstrap != "": // standard output is for a program
		dev.hello(os.Stderr, base, first, nil)
	default:
		dev.hello(out, base, first, tokens)
	}
	mux.Handle(corpBase+"/", newCorpAPI(mgr, guard, ps))
	stop := func(ctx context.Context) error {
		var errs []error
		for _, s := range stops {
			errs = append(errs, s(ctx))
		}
		return errors.Join(errs...)
	}
	handler := oneSlash(mux)
	if c.dev {
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
