// Package api is the management of API keys over HTTP: people make, list, rotate and
// revoke their keys, and owners manage those of their organization. It is a handler
// to be mounted in the host's own server, at any prefix:
//
//	h, err := api.New(mgr, guard, nil)
//	if err != nil { ... }
//	mux.Handle("/keys/", http.StripPrefix("/keys", h))
//
// These are its operations. What they take and answer is described to the last
// member by an OpenAPI 3.1 document, which is one of them:
//
//	POST   /v1/api-keys                              make a key; the answer has the token, once
//	GET    /v1/api-keys                              the caller's keys
//	GET    /v1/api-keys/{prefix}                     one of them
//	PATCH  /v1/api-keys/{prefix}                     its name, scopes, limit and end
//	DELETE /v1/api-keys/{prefix}                     revoke it
//	POST   /v1/api-keys/{prefix}/rotate              give it a new token
//	GET    /v1/api-keys/{prefix}/usage               its requests of today and of the last 30 days
//	GET    /v1/me                                    who the caller is, and may make keys with
//	GET    /v1/usage                                 how the caller's quota stands; for keys too
//	GET    /v1/org/token-settings                    restriction, period and addresses
//	PATCH  /v1/org/token-settings                    change them, with If-Match
//	POST   /v1/org/token-settings/preview            what a change would do
//	GET    /v1/org/api-keys                          everybody's keys
//	GET    /v1/org/api-keys/{prefix}                 one of them
//	PATCH  /v1/org/api-keys/{prefix}                 disable or enable one, or set its limit
//	DELETE /v1/org/api-keys/{prefix}                 revoke one
//	GET    /v1/org/api-keys/{prefix}/explain         why it works, or does not
//	GET    /v1/org/api-keys/{prefix}/usage           how much it is used
//	GET    /v1/org/users                             the users
//	PUT    /v1/org/users/{user}/token-permission     permit one to have keys
//	DELETE /v1/org/users/{user}/token-permission     withdraw that
//	GET    /v1/openapi.json                          the document; open to everybody
//
// # Who may
//
// Keys manage nothing, not even themselves: everything but GET /v1/usage asks the Guard
// for a person, a JWT or a session of the host (S60, D25). Which user and which
// organization that is comes from the credential alone. What the user is comes from
// the store, read anew for each request: an owner is whom keys.Manager.PutUser
// last said to be one, whatever Principal.Owner says, which can be an hour old; a
// suspended user is refused, and so is one that the store does not know. Owners of
// an organization see what is under /v1/org, others get 403. The keys of others are
// not found (S20).
//
// A session travels in a cookie, which browsers send unasked: what a browser changes,
// by whatever credential, has to come from the service's own pages or
// [Options.TrustedOrigins], by [http.CrossOriginProtection] in front of everything
// that changes something. Only JSON is taken, which no form of a web page can send.
//
// # Decisions
//
// A PATCH changes what it names, and all of that or nothing. One of the settings
// needs the If-Match of the version that it is meant to change: without it the
// answer is 428; if somebody was faster it is 409, the status that the code Conflict
// has everywhere (D3), and not 412. Null has a meaning where the document gives it
// one: for dailyLimit the default of the service, for expiresAt no end of its own.
// The members of a body and the parameters of a query that are not known are
// refused, as are ones that are there twice. Codes are those of D3; statuses
// without one there, 405, 413, 415 and 428, have InvalidRequest.
//
// # What it does not do
//
// It answers no CORS preflight (D36), signs nobody in, makes no users, and limits
// nobody's pace of asking. It does not log: keys.Options.Audit has the trail of what
// was done, and of what people were refused here because of who they are or because
// somebody was faster; middleware.Options.Observe has that of who was let in. Package
// refusallog writes the keys that were refused there, since keys manage nothing, to
// the same trail.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package api
