package oidcauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
)

// An Authenticator judges the JWTs of one issuer. It implements
// middleware.Authenticator. All methods are safe for concurrent use. The zero
// Authenticator accepts no token; see [New].
type Authenticator struct {
	opts      Options
	issuer    string
	clientIDs []string
	keys      *keySet
	cache     *cache
}

var _ middleware.Authenticator = (*Authenticator)(nil)

// New returns an Authenticator for the tokens that issuer issues to the clients
// named by clientIDs. The issuer is compared with the claim iss as it is, byte for
// byte; it is https, or http on a loopback address. That of Cognito is
// https://cognito-idp.{region}.amazonaws.com/{pool}, and different in some
// partitions. At least one client is required: else every app client of the pool,
// whoever made it, could send its tokens.
//
// New does not need the network: it starts a goroutine, which fetches the keys of
// the issuer at once and then now and again, until [Authenticator.Close]. Its error
// reports everything that is wrong with the arguments, as joined values of
// *[OptionError].
func New(issuer string, clientIDs []string, opts *Options) (*Authenticator, error) {
	o, err := withDefaults(issuer, clientIDs, opts)
	if err != nil {
		return nil, err
	}
	return &Authenticator{
		opts:      o,
		issuer:    issuer,
		clientIDs: slices.Clone(clientIDs),
		keys:      newKeySet(&o),
		cache:     newCache(o.CacheSize),
	}, nil
}

// Close stops the goroutine of a and waits for its end. The Authenticator goes on
// judging with the keys that it has, up to Options.KeysMaxAge, and fetches no more.
// The error is always nil.
func (a *Authenticator) Close() error {
	if a != nil && a.keys != nil {
		a.keys.close()
	}
	return nil
}

// Authenticate returns the person whose token r carries as "Authorization: Bearer",
// as a Principal of kind policy.JWT: User is the sub, Scopes is the claim scope, and
// NotAfter is exp with the leeway added. Org, Team, Tier and Owner are as [Identity]
// says. The Principal is shared between requests: do not change it.
//
// The error wraps middleware.ErrNoCredential unless there is one Bearer token and it
// has exactly two dots (D33), and middleware.ErrInvalidCredential if that is not
// acceptable. Any other error means that nobody can tell: the keys could not be
// fetched, or Options.Map or Options.Users failed. No error contains any part of the
// token.
func (a *Authenticator) Authenticate(r *http.Request) (*policy.Principal, error) {
	// BearerToken has refused what is longer than 16 KiB (D41). Counting dots before
	// anything is cut costs the same for every token.
	token, ok := middleware.BearerToken(r)
	if !ok || strings.Count(token, ".") != 2 {
		return nil, middleware.ErrNoCredential
	}
	if a == nil || a.keys == nil {
		return nil, errNotNew
	}
	now := a.opts.Now()
	d := sum(token)
	if e, ok := a.cache.get(d, now); ok && a.keys.holds(e.key, now) {
		return e.principal, nil
	}

	key, claims, err := a.verify(r.Context(), token)
	if err != nil {
		return nil, err
	}
	p, exp, err := a.check(claims, now)
	if err != nil {
		return nil, err
	}
	if err := a.identify(r.Context(), claims, p); err != nil {
		return nil, err
	}
	a.cache.put(d, entry{key, p, earlier(exp, now.Add(cacheFor))}, now)
	return p, nil
}

var errNotNew = errors.New("oidcauth: Authenticator was not made by New")

// refused returns an error for a token that is not acceptable, for a variable: it
// says which rule the token breaks, and nothing of the token.
func refused(why string) error {
	return fmt.Errorf("oidcauth: %s: %w", why, middleware.ErrInvalidCredential)
}

// verify returns the claims of a token with two dots, and the key that signed them.
// No claim is looked at, nor decoded, before the signature is found good.
func (a *Authenticator) verify(ctx context.Context, token string) (*key, map[string]any, error) {
	j, err := parse(token)
	if err != nil {
		return nil, nil, err
	}
	key, err := a.keys.find(ctx, j.kid)
	if err != nil {
		return nil, nil, err
	}
	claims, err := j.verify(key)
	return key, claims, err
}
