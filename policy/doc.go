// Package policy decides whether an authenticated caller may proceed.
//
// A [Policy] looks at a [Request], which is a [Principal], the [Settings] of its
// organization, an address and a time, and answers with a [Decision]. Policies
// are pure: they do no I/O, read no clock and change nothing, and those of this
// package allocate nothing. [Default] is what every request must pass; services
// add to it with [From], [Via], [Scope], [Tier] and policies of their own
// ([Func]), joined by [All] and [Any].
//
// What is not known is refused. The zero Decision, a nil Policy, a nil Func, a
// nil Principal, a nil Settings for an API key, the zero Credential and the zero
// address all refuse. Policies only take away: there is no Not, and a policy
// that does not concern a caller allows.
//
// Expiry and status are computed at each request, and stored nowhere, so that
// a change of the settings holds from the next request on, in both directions
// (S33, S34, S39, S46).
//
// # What this package does not do
//
// It authenticates nobody: it believes the Principal. It finds no address: it is
// given the client's, see package middleware. It counts nothing: a quota is
// spent only after all policies have allowed, so it is no policy, see package
// ratelimit. It does not know HTTP.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package policy
