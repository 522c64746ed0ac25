package middleware

import (
	"net/http"
	"strings"
)

// The headers that carry a credential, in the canonical form in which net/http
// keeps every spelling of them (S4). Reading the map by these keys saves
// canonicalizing them at each request.
const (
	headerAuthorization = "Authorization"
	headerAPIUser       = "X-Api-User"
	headerAPIToken      = "X-Api-Token"
)

// maxCredential is how long one credential may be (D41). Longer ones are
// refused before anything looks at them.
const maxCredential = 16 << 10

// A presentation is what a request presented of itself, counted once, before
// any [Authenticator] sees the request (D34).
type presentation uint8

const (
	presentedNothing presentation = iota // also another scheme than Bearer
	presentedBearer
	presentedPair
	presentedMalformed // something that can be no credential of ours
	presentedMultiple  // two credentials, or a repeated header line
)

// credentials are the credentials of one request, still as the client wrote
// them. They are used and dropped on the path of the request; nothing keeps
// them.
type credentials struct {
	presented presentation
	token     string // of either form
	user      string // with presentedPair
}

// read finds the credentials in h, for a zero c. It looks at no more than the
// three header fields, and counts lines, not values: net/http hands over every
// line of a repeated field, and a guard that reads the first only is at odds
// with a proxy that reads the last (RFC 9110 5.3). It fills c in place, since
// a struct that was just written word by word is slow to copy (see CONTRIBUTING).
func (c *credentials) read(h http.Header) {
	authorization, users, tokens := h[headerAuthorization], h[headerAPIUser], h[headerAPIToken]
	switch pair := len(users)+len(tokens) > 0; {
	case len(authorization) > 1 || len(users) > 1 || len(tokens) > 1 || pair && len(authorization) > 0:
		c.presented = presentedMultiple
	case pair:
		// Half a pair authenticates nobody (S2). A missing half is no empty one
		// that might match something: it is refused here.
		if len(users) == 0 || len(tokens) == 0 || users[0] == "" || tokens[0] == "" ||
			len(users[0]) > maxCredential || len(tokens[0]) > maxCredential {
			c.presented = presentedMalformed
			return
		}
		c.presented, c.user, c.token = presentedPair, users[0], tokens[0]
	case len(authorization) == 1:
		c.presented, c.token = readBearer(authorization[0])
	}
}

// readBearer reads the value of an Authorization field: the scheme Bearer in
// any case, one or more spaces, and the token (RFC 9110 11.4, D32). What a token
// may consist of is left to those who judge it, each of whom has a stricter
// grammar than token68.
func readBearer(value string) (presentation, string) {
	const scheme = "Bearer"
	if len(value) < len(scheme) || value[:len(scheme)] != scheme && !strings.EqualFold(value[:len(scheme)], scheme) {
		return presentedNothing, "" // another scheme: as if nothing was sent
	}
	rest := value[len(scheme):]
	if rest != "" && rest[0] != ' ' && isTokenChar(rest[0]) {
		return presentedNothing, "" // "BearerX": another scheme too
	}
	token := rest
	for token != "" && token[0] == ' ' {
		token = token[1:]
	}
	if token == "" || len(token) == len(rest) || len(token) > maxCredential {
		return presentedMalformed, ""
	}
	return presentedBearer, token
}

// BearerToken returns the token of a request's one "Authorization: Bearer" line,
// for an [Authenticator] of another kind of token. It returns false if there is
// none, or if the request carries anything beside it that a Guard would refuse.
// What the token consists of is the caller's to check; it is at most 16 KiB long.
func BearerToken(r *http.Request) (token string, ok bool) {
	var c credentials
	c.read(r.Header)
	return c.token, c.presented == presentedBearer
}

// isTokenChar reports whether c can be part of the name of an authentication
// scheme, a token of RFC 9110 5.6.2.
func isTokenChar(c byte) bool {
	return c > ' ' && ('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0)
}
