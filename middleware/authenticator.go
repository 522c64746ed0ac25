package middleware

import (
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/keystile/keystile/policy"
)

var (
	// ErrNoCredential is wrapped by the error of an [Authenticator] that found
	// nothing in the request that is its to judge: the next one is asked.
	ErrNoCredential = errors.New("middleware: no credential")

	// ErrInvalidCredential is wrapped by the error of an [Authenticator] that
	// found a credential of its kind and refuses it: the answer is 401
	// invalid_token, whatever else the error says.
	ErrInvalidCredential = errors.New("middleware: invalid credential")
)

// An Authenticator finds out who sent a request. Implementations are safe for
// concurrent use.
//
// Authenticate returns the caller, or an error: one that wraps [ErrNoCredential]
// lets the next Authenticator try, and every other is final. One that wraps
// [ErrInvalidCredential] is answered by 401; any other means that nobody can
// tell, and is answered by 503, since a failed look-up is neither a bad
// credential nor a good one. No error may contain the credential: it reaches
// Options.Observe.
//
// A Guard counts the credentials in the headers of a request before it asks any
// Authenticator, and refuses two, and one that cannot be any, such as half a pair
// (D34). If there is one, an Authenticator sees the request without its cookies, and
// a principal of kind [policy.Session] counts as ErrNoCredential: what browsers send
// unasked must not rescue a request that presented a bad key, and a session store that
// is down must not refuse one that presented a good key. Sessions that are known by
// something else than a cookie are best asked last.
//
// Authenticate must not change the request, which may be a copy.
type Authenticator interface {
	Authenticate(r *http.Request) (*policy.Principal, error)
}

// Chain returns an Authenticator that asks the given ones as a Guard does: only if the
// headers of the request carry at most one credential, which can be one; in order,
// without cookies if one came (D34). It is for what authenticates people beside a Guard,
// such as the pages of a console. In Options.Authenticators it stands for its parts. It
// panics if one of them is nil.
func Chain(authenticators ...Authenticator) Authenticator {
	if slices.Contains(authenticators, nil) {
		panic("middleware: Chain of a nil Authenticator")
	}
	return chain(slices.Clone(authenticators))
}

type chain []Authenticator

// Authenticate implements [Authenticator].
func (as chain) Authenticate(r *http.Request) (*policy.Principal, error) {
	var c credentials
	c.read(r.Header)
	switch c.presented {
	case presentedMultiple:
		return nil, errMultiple
	case presentedMalformed:
		return nil, errMalformed
	}
	return as.ask(r, c.presented)
}

// ask returns the first answer that is not ErrNoCredential, and that if there is none.
func (as chain) ask(r *http.Request, presented presentation) (*policy.Principal, error) {
	for _, a := range as {
		p, err := askHost(a, r, presented)
		if !errors.Is(err, ErrNoCredential) || errors.Is(err, ErrInvalidCredential) {
			return p, err
		}
	}
	return nil, ErrNoCredential
}

// askHost asks an Authenticator of the host. Where a credential came in a header, a
// cookie is nobody's: browsers send it unasked (D34).
func askHost(a Authenticator, r *http.Request, presented presentation) (*policy.Principal, error) {
	if presented != presentedNothing && len(r.Header["Cookie"]) > 0 {
		bare := *r
		bare.Header = maps.Clone(r.Header)
		delete(bare.Header, "Cookie")
		r = &bare
	}
	p, err := a.Authenticate(r)
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		return nil, errNobody
	case p.Credential == policy.Session && presented != presentedNothing:
		return nil, ErrNoCredential // a session that is known by something else than a cookie
	}
	return p, nil
}

// errNobody is what is wrong with an Authenticator that gives no answer.
var errNobody = errors.New("middleware: Authenticator returned neither a principal nor an error")
