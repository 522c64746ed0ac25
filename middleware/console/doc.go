// Package console is the pages on which people see and manage their API keys in a
// browser: a handler to be mounted in the host's own server, at any path.
//
//	keysAPI, err := api.New(mgr, guard, nil)
//	if err != nil { ... }
//	pages, err := console.New(keysAPI, sessions, &console.Options{SignInURL: "/login"})
//	if err != nil { ... }
//	mux.Handle("/console/", http.StripPrefix("/console", pages))
//
// These are the pages:
//
//	GET /                     my keys: make, rotate and delete them
//	GET /keys/{prefix}        one of them, with its requests day by day
//	GET /org/keys             all keys of the organization; for owners, as what follows
//	GET /org/keys/{prefix}    one of them, and why it works or does not
//	GET /org/settings         restriction by user, period and addresses
//	GET /org/people           who may make and use keys while that is restricted
//
// # A client of the API
//
// The console knows nothing that package api does not tell, and does nothing that
// package api does not offer (S1): each page is made of answers to GET requests
// that the console makes to the API in the process, with the credentials of whoever
// looks; and what a page changes is a request of the browser, as JSON, to the same
// API, which the console passes on below /api/: what the API's document has as
// /v1/api-keys is api/v1/api-keys there. Who may do what is therefore decided in one
// place. All pages can be read without JavaScript, and nothing can be changed.
//
// To the Observe of the API's Guard a page is as many requests as it is made of: two
// to four, and for My keys two and one for each key on it.
//
// # Who is signed in
//
// Sign-in is the host's: the [middleware.Authenticator] says who a request comes
// from, by a session of the host in a cookie, or by a JWT that a proxy adds. It has
// to be one of those of the Guard of the API too, which judges again. Without a
// person the answer is 401 and a page with a link to [Options.SignInURL]. An API key
// signs nobody in, whatever the Authenticator says.
//
// # Security
//
// Every answer has a Content-Security-Policy that allows this origin's own script,
// style, images and connections and nothing else, Trusted Types included; it is not
// framed, not stored by any cache, and not sniffed. What changes something is taken
// from this origin only, by [http.CrossOriginProtection] in front of everything,
// and from [Options.TrustedOrigins]. What another origin asks of the API
// is refused by the API itself, whose audit trail has the attempt.
//
// A new token is in the answer to its creation and in one element of the page,
// until Continue: in no address, history, form field or storage.
//
// Strict-Transport-Security is the host's, since it concerns all that the host
// serves: set it where TLS ends, for a year (ASVS 5.0, 3.4.1). So is the cookie of
// the session, which should have the prefix __Host-, HttpOnly and SameSite=Lax.
//
// # What it does not do
//
// It signs nobody in or out, has no state of its own, and reads neither a store nor
// a clock. It is in English, and its colours follow the browser's scheme.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package console
