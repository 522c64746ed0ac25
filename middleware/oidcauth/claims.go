package oidcauth

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// What makes the claims of a well signed token unacceptable.
var (
	errIssuer    = refused("iss is another issuer")
	errUse       = refused("token_use is not accepted")
	errClient    = refused("client_id or aud is not among the clients")
	errSubject   = refused("sub is missing or unusable")
	errDate      = refused("exp, nbf or iat is not a number of seconds")
	errNoExpiry  = refused("exp is missing")
	errExpired   = refused("token has expired")
	errNotYet    = refused("token is not valid yet")
	errLifetime  = refused("token is valid for too long")
	errScope     = refused("scope is not a string")
	errClaim     = refused("claim about the person is not a usable string")
	errOwnPrefix = refused("claim names an organization of one person")
)

// lastSecond is the last one of the year 9999, the last that RFC 3339 can write.
const lastSecond = 253402300799

// check holds claims to 5.2 (5) and (6) of the requirements: the issuer, the use of
// the token, the client, the subject and the times. It returns a Principal in which
// the Identity is missing, and exp.
func (a *Authenticator) check(claims map[string]any, now time.Time) (*policy.Principal, time.Time, error) {
	if claims["iss"] != a.issuer {
		return nil, time.Time{}, errIssuer
	}
	if err := a.checkClient(claims); err != nil {
		return nil, time.Time{}, err
	}
	sub, ok := text(claims["sub"])
	if !ok || sub == "" {
		return nil, time.Time{}, errSubject
	}
	issued, exp, err := a.checkTimes(claims, now)
	if err != nil {
		return nil, time.Time{}, err
	}
	scope, ok := claims["scope"].(string)
	if _, present := claims["scope"]; present && !ok {
		return nil, time.Time{}, errScope
	}
	return &policy.Principal{
		Credential: policy.JWT,
		User:       sub,
		Scopes:     strings.FieldsFunc(scope, func(r rune) bool { return r == ' ' }), // RFC 6749 3.3
		IssuedAt:   issued,
		// With the leeway: the rule policy.Expiry compares this with our clock, and
		// would take the leeway back.
		NotAfter: exp.Add(a.opts.Leeway),
	}, exp, nil
}

// checkClient checks what the token is for, and whom it was issued to.
func (a *Authenticator) checkClient(claims map[string]any) error {
	use := Unstated
	if v, present := claims["token_use"]; present {
		s, _ := v.(string)
		if use = TokenUse(s); use == Unstated {
			return errUse
		}
	}
	if !slices.Contains(a.opts.TokenUses, use) {
		return errUse
	}
	if use == Access {
		if !a.isClient(claims["client_id"]) {
			return errClient
		}
		return nil
	}
	audiences, ok := claims["aud"].([]any)
	if !ok {
		audiences = []any{claims["aud"]}
	}
	// All of them: a token that is for somebody else too was issued to a client that
	// is not ours to trust (OpenID Connect Core 3.1.3.7).
	if len(audiences) == 0 || slices.ContainsFunc(audiences, func(aud any) bool { return !a.isClient(aud) }) {
		return errClient
	}
	return nil
}

func (a *Authenticator) isClient(v any) bool {
	s, ok := v.(string)
	return ok && slices.Contains(a.clientIDs, s)
}

// checkTimes checks exp, nbf and iat, and returns iat, zero if there is none, and
// exp.
func (a *Authenticator) checkTimes(claims map[string]any, now time.Time) (issued, exp time.Time, err error) {
	exp, ok := date(claims["exp"])
	issued, okIssued := date(claims["iat"])
	notBefore, okNotBefore := date(claims["nbf"])
	earliest := now.Add(a.opts.Leeway)
	switch _, present := claims["exp"]; {
	case !present:
		err = errNoExpiry
	case !ok || !okIssued || !okNotBefore:
		err = errDate
	case !now.Before(exp.Add(a.opts.Leeway)):
		err = errExpired
	case notBefore.After(earliest), issued.After(earliest):
		err = errNotYet
	case a.opts.MaxLifetime > 0 && (issued.IsZero() || exp.Sub(issued) > a.opts.MaxLifetime):
		err = errLifetime
	}
	return issued, exp, err
}

// date returns the time of a claim, a number of seconds since 1970 that may have a
// fraction, which is cut off (RFC 7519 2). Without the claim it is zero. It is not
// ok if the claim is something else, or a time that has no year of four digits.
func date(claim any) (t time.Time, ok bool) {
	if claim == nil {
		return time.Time{}, true
	}
	n, _ := claim.(json.Number)
	seconds, err := strconv.ParseFloat(string(n), 64)
	if err != nil || !(0 <= seconds && seconds <= lastSecond) {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0).UTC(), true
}

// text returns the string of a claim, empty if there is no claim. It is not ok if
// the claim is something else, or a string that cannot be kept in a record.
func text(claim any) (s string, ok bool) {
	if claim == nil {
		return "", true
	}
	s, ok = claim.(string)
	return s, ok && len(s) <= store.MaxID && !strings.ContainsFunc(s, unicode.IsControl)
}

// earlier returns the earlier of two times.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
