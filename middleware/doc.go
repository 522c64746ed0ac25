// Package middleware guards net/http handlers with API keys.
//
// A [Guard] stands between a server and its handlers. For each request it
//
//  1. authenticates: its [Authenticator] values, first the keys, are asked who sent the
//     request; exactly one credential is accepted,
//  2. decides: a policy.Policy looks at the caller, the settings of the caller's
//     organization, the client's address and the time,
//  3. spends: one unit of the key's quota, and only if the policies allowed it,
//  4. serves: the handler gets the caller by [PrincipalFrom], and the
//     ResponseWriter as it came,
//  5. notes: one [Event] for the host, and the use of the key in a batch that is
//     written later.
//
// What is refused is answered with a status, a code and a reason that programs
// can rely on ([Refusal]). Whatever cannot be decided, because a store or a
// counter fails, is refused with 503.
//
// The client's address is the peer's own unless the host says which proxies to
// trust and which one header to read: see [AddrSource].
//
// # Where to mount it
//
// Around one handler:
//
//	mux.Handle("GET /v1/reports", guard.With(policy.Scope("reports:read")).Wrap(reports))
//
// Around a whole mux, so that no route is forgotten, with further requirements at
// the handlers, where they belong:
//
//	http.ListenAndServe(addr, guard.Authenticate(mux))
//
// Handlers inside of Authenticate are metered only if they are wrapped
// themselves. Public routes are mounted outside of the Guard: there is no list of
// exemptions, because a rule about paths that differs from the router's in one
// detail lets requests through.
//
// # What it does not do
//
// It does not answer CORS preflights: mount the CORS middleware around the Guard
// (D36). It makes no decision by path or method, reads no credential from URLs
// or cookies, never rewrites the request's RemoteAddr, and does not slow down
// callers who guess: 128 random bits cannot be guessed, and a counter by address
// is the proxy's to keep (D43). It does not see what a handler does with a
// request that it let through.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package middleware
