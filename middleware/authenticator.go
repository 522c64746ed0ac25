package middleware

import (
	"errors"
	"net/http"

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
