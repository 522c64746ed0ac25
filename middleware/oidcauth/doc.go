// Package oidcauth lets people in with the JSON Web Tokens of one OpenID Connect
// issuer, Amazon Cognito first: its [Authenticator] stands beside that of API keys
// in the middleware.Options of a Guard, and both kinds of credential travel as
// "Authorization: Bearer" (S52).
//
//	people, err := oidcauth.New(issuer, []string{clientID}, &oidcauth.Options{Users: mgr})
//	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
//		Authenticators: []middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil), people},
//	})
//
// Whatever begins like a key is judged as a key and never as a JWT, in whatever order
// they stand. What an Authenticator of this package claims
// for itself has exactly two dots (D33). So a refresh token of Cognito, which is an
// encrypted and opaque thing with four dots, is nobody's and is refused (S66).
//
// # What is checked
//
// The signature, always by RS256 and by a key of the issuer's own set, whatever the
// token says of itself; then the issuer, the use and the client of the token, its
// subject and its times. Names of claims are compared exactly, and a token that
// names anything twice is refused, so that nobody can be read in two ways. All
// refusals are one answer, 401; why is in the error, which reaches
// middleware.Options.Observe. A token that cannot be judged, because the issuer's
// keys cannot be fetched, is answered by 503.
//
// The keys are fetched in the background and kept while the issuer is down. A token
// signed by a key that is not known yet causes one fetch, for all requests
// together; the next is not before some seconds have passed. A badly signed token
// causes none. A token that was verified is remembered for up to a minute, by its
// SHA-256 only, which makes it some twenty times cheaper to see again.
//
// # Deployment
//
// Three traps are outside of what a verifier can see:
//
//   - Who may write a claim. A user with a token of the scope
//     aws.cognito.signin.user.admin can change every custom attribute that the app
//     client may write. So custom:tier and custom:teamId, and whatever else the
//     claims of [Options] are made from, must not be writable by the app client:
//     else people choose their own tier, and the organization that they belong to.
//   - Changes show late. A tier or a team that changes is in the next token, which
//     may be an hour away, or as long as the tokens of the app client live.
//   - Revocation is not visible. Signing out, disabling or deleting a user stops
//     the issue of tokens, and none that was issued: it works until it expires. What
//     must stop at once is said here, by suspending the user in [Options.Users],
//     which is seen within a minute, or by a policy of the Guard.
//
// An access token has the custom claims only if a pre token generation trigger of
// version V2_0 (for users) or V3_0 (also for machine clients) puts them there; it
// never has an e-mail. ID tokens have all of them, as strings whatever the type of
// the attribute.
//
// # What it does not do
//
// It signs nobody in, keeps no session and refreshes no token: clients do that with
// the issuer. It reads no discovery document: an issuer that keeps its keys
// elsewhere than Cognito needs [Options.JWKSURL]. It asks the issuer about no single
// token. It knows one issuer: a second one needs a service of its own, since the
// first would refuse its tokens.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package oidcauth
