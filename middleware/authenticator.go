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
// Authenticator, and refuses two. It accepts a principal of kind
// [policy.Session] only if no credential came in a header: a cookie is sent by
// browsers unasked, so it must not rescue a request that presented a bad key.
type Authenticator interface {
	Authenticate(r *http.Request) (*policy.Principal, error)
}
