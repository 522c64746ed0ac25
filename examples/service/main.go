// Service is a whole service around keystile, the way a product would embed it:
// guarded routes, the management API and the console for people, sign-in with any
// OIDC issuer, the settings of organizations, an audit trail, counting in the store
// or in Redis, and the API in the shape of the system that the requirements come
// from. Several of it on one store are one service.
//
// The one command to see it is
//
//	go run ./examples/service -dev
package main

import (
	"context"
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
	"slices"
	"syscall"
	"time"

	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/middleware/refusallog"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
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
	// In "service 2>&1 | tee log" Ctrl-C ends tee as well. What is logged then must not end
	// the program by SIGPIPE, before the last uses and refusals are written.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	// Canceled is what was under way before it served, if anything: no failure either.
	if err := c.run(ctx, os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// maxKeys is the cap on the keys of one user (S12, D11).
const maxKeys = 5

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
	if u, err := url.Parse(c.issuer); c.issuer != "" && (err != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Host))) {
		bad("-issuer must be an https address, or http on a loopback address")
	}
	if c.jwksURL != "" && c.issuer == "" {
		bad("-jwks-url needs -issuer")
	}
	uses, err := readTokenUses(c.tokenUse)
	if err != nil {
		errs = append(errs, err)
	}
	if c.dev && err == nil && !slices.Contains(uses, oidcauth.Access) {
		bad("-dev gives access tokens: access must be among -token-use")
	}
	if c.defaultLimit == 0 || c.defaultLimit < -1 {
		bad("-default-limit must be at least 1, or -1 for no limit")
	}
	if _, err := addressSource(c.trustedProxies, c.clientIPHeader); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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
	// The address comes first, so that one in use leaves no new database behind.
	listener, err := net.Listen("tcp", c.addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	defer listener.Close()
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
		Tiers: []string{"Pro", "Team", "Enterprise"}, Uses: s, Limiter: limiter, MaxDailyLimit: c.defaultLimit, MaxPerUser: maxKeys,
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

	svc := &service{
		config: c, base: "http://" + listener.Addr().String(), out: out, first: first,
		backend: s, limiter: limiter, mgr: mgr, refusals: refusals,
	}
	handler, stop, err := svc.handler(ctx)
	if err != nil {
		return err
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
	log.Print("serving on ", svc.base)
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	unfinished := end("ending the requests", server.Shutdown)
	if errors.Is(unfinished, context.DeadlineExceeded) {
		// That is no failure: clients must not decide how the service ends.
		log.Print("cutting off connections that take too long")
		unfinished = server.Close()
	}
	return errors.Join(err, unfinished, stop(), end("writing the last refusals", refusals.Close))
}

// grace is how long each thing has to come to its end.
const grace = 5 * time.Second

// end calls what ends something with a time of its own, so that a client that is slow
// takes nothing from those that write what is still in memory, and says in the error
// which one it was.
func end(what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := f(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
