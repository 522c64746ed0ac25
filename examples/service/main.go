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
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/api"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/store/sqlitestore"
)

// A config is what the flags say.
type config struct {
	addr, store, issuer, clientID, trustedProxies, clientIPHeader, audit, bootstrap string

	dev          bool
	defaultLimit int64
}

func main() {
	var c config
	flag.StringVar(&c.addr, "addr", "127.0.0.1:8080", "`address` to serve on")
	flag.StringVar(&c.store, "store", "memory", "where keys are kept: memory, sqlite:FILE or postgres://..., as a `NAME`")
	flag.StringVar(&c.issuer, "issuer", "", "`URL` of the OIDC issuer of people")
	flag.StringVar(&c.clientID, "client-id", "", "`ID` of the client that its tokens are for")
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

// run serves until ctx ends.
func (c *config) run(ctx context.Context, out io.Writer) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	first := &bootstrap{}
	switch {
	case c.bootstrap != "":
		if first, err = readBootstrap(c.bootstrap); err != nil {
			return err
		}
	case c.dev:
		first = demoBootstrap(time.Now())
	}
	s, closeStore, err := openStore(ctx, c.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()

	limiter := ratelimit.NewDaily(s, &ratelimit.DailyOptions{Limit: c.defaultLimit})
	options := &keys.Options{
		Tiers: []string{"Pro", "Team", "Enterprise"}, Uses: s, Limiter: limiter, MaxDailyLimit: c.defaultLimit,
	}
	if c.audit != "" {
		trail, openErr := os.OpenFile(c.audit, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, trail.Close()) }()
		options.Audit, options.AuditRequired = audit.NewJSON(trail), true
		options.AuditFailed = func(err error) { log.Print("audit: ", err) }
	}
	mgr, err := keys.New(s, options)
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", c.addr)
	if err != nil {
		return err
	}
	base := "http://" + listener.Addr().String()
	handler, stop, err := c.handler(ctx, out, base, mgr, s, limiter, first)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Print("serving on ", base)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(ending), stop(ending))
}

// handler makes everything that is served, and puts the bootstrap in. The
// function that it returns stops what runs beside the server.
func (c *config) handler(
	ctx context.Context, out io.Writer, base string,
	mgr *keys.Manager, s backend, limiter ratelimit.Limiter, first *bootstrap,
) (http.Handler, func(context.Context) error, error) {
	mux := http.NewServeMux()
	ps := first.people()
	var persons anyOf
	stops := []func(context.Context) error{}
	issuer, clientID, client := c.issuer, c.clientID, http.DefaultClient
	var dev *devIssuer
	if c.dev {
		dev = newDevIssuer(base)
		issuer, clientID, client = dev.url, dev.clientID, dev.Client()
		mux.Handle(devPath+"/", http.StripPrefix(devPath, dev))
		mux.Handle("GET /dev/token/{user}", dev.serveToken(ps))
		signedIn := newSessions(time.Now)
		mountSignIn(mux, signedIn, first)
		persons = append(persons, signedIn)
	}
	if issuer != "" {
		a, err := ps.authenticator(mgr, issuer, clientID, client, func(err error) { log.Print("issuer: ", err) })
		if err != nil {
			return nil, nil, err
		}
		persons = append(persons, a)
		stops = append(stops, func(context.Context) error { return a.Close() })
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
		Observe: func(_ *http.Request, e middleware.Event) {
			if e.Refusal != nil && e.Refusal.Status == http.StatusServiceUnavailable {
				log.Print("unavailable: ", e.Err)
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	stops = append(stops, guard.Close)
	management, err := api.New(mgr, guard, nil)
	if err != nil {
		return nil, nil, err
	}
	mux.Handle("/v1/", management)
	if err := c.mountConsole(mux, management, persons); err != nil {
		return nil, nil, err
	}
	mux.Handle("/v1/ping", guard.Wrap(http.HandlerFunc(ping)))
	mux.HandleFunc("/v1/health", health)

	if err := first.apply(ctx, mgr, out); err != nil {
		return nil, nil, fmt.Errorf("bootstrap: %w", err)
	}
	if c.dev && c.bootstrap == "" {
		if err := demoUses(ctx, mgr, s, first, time.Now()); err != nil {
			return nil, nil, err
		}
	}
	if dev != nil {
		dev.hello(os.Stderr, base, first)
	}
	corps := newCorpAPI(mgr, guard, ps, time.Now())
	stop := func(ctx context.Context) error {
		var errs []error
		for _, s := range stops {
			errs = append(errs, s(ctx))
		}
		return errors.Join(errs...)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(collapse(r.URL.Path), corpBase+"/") {
			corps.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}), stop, nil
}

func ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "pong from the protected handler")
}

// health tells that the service runs. It asks no store: one that fails answers
// 503 where it matters.
func health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, `{"success":true,"data":{"status":"ok"}}`+"\n")
}
