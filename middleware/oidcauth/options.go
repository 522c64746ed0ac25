package oidcauth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The defaults of [Options].
const (
	defaultCacheSize   = 10_000
	defaultEmailClaim  = "email"
	defaultKeysMaxAge  = 24 * time.Hour
	defaultKeysRefresh = 15 * time.Minute
	defaultLeeway      = 30 * time.Second
	defaultTeamClaim   = "custom:teamId" // S67
	defaultTierClaim   = "custom:tier"   // S67

	maxLeeway      = 5 * time.Minute
	minKeysRefresh = time.Minute
)

// A TokenUse is what a token is for, as its claim token_use says. It decides which
// claim names the client that the token was issued to.
type TokenUse string

// The uses of tokens that can be accepted. Others, such as refresh tokens, cannot.
const (
	// Access tokens are what clients send (S66). Their client_id is compared; an
	// aud, where there is one, names the API and not the client.
	Access TokenUse = "access"

	// ID tokens tell the client who signed in. Their aud is compared.
	ID TokenUse = "id"

	// Unstated is the use of tokens without a claim token_use, which only Cognito
	// has. Their aud is compared as that of an ID token is. The risk of accepting
	// them: an issuer whose tokens do not say what they are for may sign others with
	// the same aud, for another purpose, and they would be accepted too.
	Unstated TokenUse = ""
)

// Options configure an [Authenticator]. A nil *Options means the defaults: access
// tokens as Cognito issues them.
type Options struct {
	// CacheSize is how many verified tokens are remembered, each for at most a
	// minute; -1 is none, so that every request costs a verification, and with it a
	// call of Map and Users.
	// Defaults to 10 000.
	CacheSize int

	// EmailClaim names the claim with the e-mail of a person. The claim "email" is
	// believed only together with an email_verified that is true; an issuer vouches
	// for any other by issuing it.
	// Defaults to "email".
	EmailClaim string

	// HTTPClient fetches the keys. It is copied, and follows no redirect whatever
	// it was made to do; a fetch takes at most five seconds.
	// Defaults to the zero [http.Client].
	HTTPClient *http.Client

	// JWKSURL is where the issuer publishes its keys. It is https, or http on a
	// loopback address.
	// Defaults to the issuer and "/.well-known/jwks.json", as with Cognito.
	JWKSURL string

	// KeysFailed is called, off the path of requests, with what went wrong when the
	// keys were fetched, and with what is wrong with single keys of a set whose
	// others are used. It may be called by several goroutines.
	// Defaults to none.
	KeysFailed func(err error)

	// KeysMaxAge is how long the keys of the last successful fetch are used while no
	// other succeeds. Afterwards every request is answered by 503: we fail closed
	// here because a key that the issuer withdrew may be among them.
	// Defaults to 24 hours; at least KeysRefresh.
	KeysMaxAge time.Duration

	// KeysRefresh is how often the keys are fetched in the background, and with it
	// how long a key that the issuer withdrew is accepted. Up to a tenth of it is
	// taken off at random, so that many processes do not ask at once.
	// Defaults to 15 minutes; at least one minute.
	KeysRefresh time.Duration

	// Leeway is how far the clock of the issuer may be from ours: added to exp, and
	// taken off nbf and iat. -1 is none.
	// Defaults to 30 seconds; at most 5 minutes.
	Leeway time.Duration

	// Map changes what the claims of a token say about a person, where names of
	// claims do not suffice. It is given all claims, the numbers among them as
	// json.Number, and the Identity that those named in these Options make, and
	// returns the one that counts. It is called when a token is verified, not for
	// each request, so that what it finds elsewhere is used for up to a minute. An
	// error that wraps middleware.ErrInvalidCredential is answered by 401, any other
	// by 503.
	// Defaults to none.
	Map func(ctx context.Context, claims map[string]any, id Identity) (Identity, error)

	// MaxLifetime is the longest time from iat to exp that a token may be valid;
	// with it, iat is required.
	// Defaults to 0: any.
	MaxLifetime time.Duration

	// Now is the clock.
	// Defaults to [time.Now].
	Now func() time.Time

	// OrgClaim names the claim with the organization that a person belongs to.
	// Without the claim, or with an empty one, that is the person's own: "user:" and
	// the sub. No claim may name an organization that begins with "user:".
	// Defaults to TeamClaim.
	OrgClaim string

	// OwnerClaim and OwnerValue tell the owners of organizations: the claim is
	// OwnerValue, or an array with OwnerValue in it, as cognito:groups. With an
	// OwnerClaim, a token in which that is not so is no owner's. Without one, tokens
	// say nothing about it.
	// Both default to "": nobody is an owner, unless the record in Users says so.
	OwnerClaim, OwnerValue string

	// TeamClaim names the claim with the team of a person.
	// Defaults to "custom:teamId".
	TeamClaim string

	// TierClaim names the claim with the tier of a person.
	// Defaults to "custom:tier".
	TierClaim string

	// TokenUses are the uses of tokens that are accepted.
	// Defaults to Access alone.
	TokenUses []TokenUse

	// Users keeps records of those who sign in, and decides who is suspended; see
	// [Users].
	// Defaults to none.
	Users Users
}

// An OptionError tells which argument of [New], or field of [Options], cannot be
// used, and why.
type OptionError struct {
	Field   string
	Problem string // for people; it never repeats the value
}

// Error names the field and the problem.
func (e *OptionError) Error() string { return "oidcauth: " + e.Field + ": " + e.Problem }

// withDefaults returns the options with every default filled in, or everything
// that is wrong with the arguments of New, joined.
func withDefaults(issuer string, clientIDs []string, opts *Options) (Options, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	var errs []error
	check := func(field, problem string) {
		if problem != "" {
			errs = append(errs, &OptionError{field, problem})
		}
	}
	check("issuer", checkURL(issuer, false))
	if len(clientIDs) == 0 || slices.Contains(clientIDs, "") {
		check("clientIDs", "must name at least one client, and none may be empty")
	}
	o.CacheSize = orDefault(o.CacheSize, defaultCacheSize)
	if o.CacheSize < -1 {
		check("CacheSize", "must be -1 (none) or more")
	}
	var client http.Client
	if o.HTTPClient != nil {
		client = *o.HTTPClient
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTPClient = &client
	o.JWKSURL = orDefault(o.JWKSURL, strings.TrimSuffix(issuer, "/")+"/.well-known/jwks.json")
	check("JWKSURL", checkURL(o.JWKSURL, true))
	if o.KeysFailed == nil {
		o.KeysFailed = func(error) {}
	}
	o.KeysRefresh = orDefault(o.KeysRefresh, defaultKeysRefresh)
	if o.KeysRefresh < minKeysRefresh {
		check("KeysRefresh", "must be at least a minute")
	}
	o.KeysMaxAge = orDefault(o.KeysMaxAge, defaultKeysMaxAge)
	if o.KeysMaxAge < o.KeysRefresh {
		check("KeysMaxAge", "must be at least KeysRefresh")
	}
	o.Leeway = orDefault(o.Leeway, defaultLeeway)
	if o.Leeway == -1 {
		o.Leeway = 0
	}
	if o.Leeway < 0 || o.Leeway > maxLeeway {
		check("Leeway", "must be -1 (none), or from 0 to 5 minutes")
	}
	if o.MaxLifetime < 0 {
		check("MaxLifetime", "must not be negative")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if (o.OwnerClaim == "") != (o.OwnerValue == "") {
		check("OwnerClaim", "must be set together with OwnerValue")
	}
	o.EmailClaim = orDefault(o.EmailClaim, defaultEmailClaim)
	o.TeamClaim = orDefault(o.TeamClaim, defaultTeamClaim)
	o.TierClaim = orDefault(o.TierClaim, defaultTierClaim)
	o.OrgClaim = orDefault(o.OrgClaim, o.TeamClaim)
	if o.TokenUses = slices.Clone(o.TokenUses); o.TokenUses == nil {
		o.TokenUses = []TokenUse{Access}
	}
	if len(o.TokenUses) == 0 {
		check("TokenUses", "is empty, so that no token could be accepted")
	}
	for _, use := range o.TokenUses {
		if use != Access && use != ID && use != Unstated {
			check("TokenUses", "must be Access, ID or Unstated")
		}
	}
	return o, errors.Join(errs...)
}

// orDefault returns v, or otherwise if v is its type's zero value.
func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// checkURL returns the problem with the URL of an issuer or, with query, of its
// keys; empty if there is none.
func checkURL(s string, query bool) string {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return "must be an absolute URL"
	case u.User != nil || strings.Contains(s, "#") || strings.Contains(s, "?") && !query:
		return "must have neither user information nor a fragment, nor, for an issuer, a query"
	case u.Scheme == "https":
		return ""
	case u.Scheme == "http" && loopback(u.Hostname()):
		return ""
	}
	return "must be https, or http on a loopback address"
}

// loopback reports whether host is this machine by its name or address. The name
// is believed (RFC 6761 6.3): whoever can send it elsewhere owns the machine.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
