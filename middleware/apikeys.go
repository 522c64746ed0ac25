package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// A Verifier finds the record that a presented token stands for. It is
// implemented by [store.Verifier], which the Manager of package keys hands out.
// Implementations are safe for concurrent use.
type Verifier interface {
	// Claims reports whether presented is to be judged as one of the Verifier's
	// tokens, and so as nothing else (D33): a Guard asks no other Authenticator
	// about it, wherever that one stands.
	Claims(presented string) bool

	// Verify returns the record of presented and the settings of its
	// organization, as of now. An error that wraps [token.ErrMalformed] or
	// [store.ErrNotFound] says that there is no such key; any other, that nobody
	// can tell.
	Verify(ctx context.Context, presented string, now time.Time) (store.Verified, error)

	// Settings returns the settings of an organization, as of now.
	Settings(ctx context.Context, org string, now time.Time) (*policy.Settings, error)
}

// APIKeyOptions configure [APIKeys]. A nil *APIKeyOptions means the defaults.
type APIKeyOptions struct {
	// RefuseBearer refuses keys in the header "Authorization: Bearer".
	// Defaults to false: accepted.
	RefuseBearer bool

	// RefuseHeaderPair refuses keys in the headers x-api-user and x-api-token.
	// Defaults to false: accepted.
	RefuseHeaderPair bool

	// Now is the clock. Used only where Authenticate is called by something else
	// than a Guard, which hands over its own reading.
	// Defaults to time.Now.
	Now func() time.Time
}

// APIKeys returns the Authenticator of API keys, in both forms: as
// "Authorization: Bearer" (S52) and as x-api-token together with x-api-user,
// the e-mail of the key's user (S2). It refuses, all alike, malformed and
// unknown tokens, revoked keys, another user's e-mail, and keys of suspended
// users (D13, D17, S73). It is the default of a Guard.
//
// E-mails are compared with surrounding blanks trimmed and ASCII letters in
// either case, and nothing else folded (D15).
func APIKeys(v Verifier, opts *APIKeyOptions) Authenticator {
	a := &apiKeys{verifier: v}
	if opts != nil {
		a.opts = *opts
	}
	if a.opts.Now == nil {
		a.opts.Now = time.Now
	}
	return a
}

type apiKeys struct {
	verifier Verifier
	opts     APIKeyOptions
}

// What makes a key that was found an invalid credential. The client sees no
// difference; Options.Observe does.
var (
	errRevoked     = fmt.Errorf("%w: key is revoked", ErrInvalidCredential)
	errSuspended   = fmt.Errorf("%w: user is suspended", ErrInvalidCredential)
	errOtherUser   = fmt.Errorf("%w: key of another user than x-api-user", ErrInvalidCredential)
	errUnknownKey  = fmt.Errorf("%w: no such key", ErrInvalidCredential)
	errUnclaimed   = fmt.Errorf("%w: of no kind that is accepted here", ErrInvalidCredential)
	errRefusedForm = fmt.Errorf("%w: a key in a form that is refused here", ErrInvalidCredential)
	errMalformed   = fmt.Errorf("%w: malformed", ErrInvalidCredential)
	errMultiple    = fmt.Errorf("%w: more than one credential or header line", ErrInvalidCredential)
	errNoVerifier  = errors.New("middleware: APIKeys without a Verifier")
	errNoRecord    = errors.New("middleware: Verifier returned neither a record nor an error")
)

// Authenticate implements Authenticator.
func (a *apiKeys) Authenticate(r *http.Request) (*policy.Principal, error) {
	var c credentials
	c.read(r.Header)
	switch {
	case c.presented == presentedMultiple:
		return nil, errMultiple
	case c.presented == presentedMalformed:
		return nil, errMalformed
	case !a.claims(&c):
		return nil, ErrNoCredential
	}
	verified, err := a.verify(r.Context(), &c, a.opts.Now())
	if err != nil {
		return nil, err
	}
	return verified.Record.Principal, nil
}

// claims reports whether c is one of a's tokens, in either form, and so nobody else's
// (D33). One that nobody can judge must not be taken for another's.
func (a *apiKeys) claims(c *credentials) bool {
	return (c.presented == presentedBearer || c.presented == presentedPair) && (a.verifier == nil || a.verifier.Claims(c.token))
}

// verify judges c, which a claims. With an error that wraps ErrInvalidCredential it
// still returns the record if one was found, for Options.Observe.
func (a *apiKeys) verify(ctx context.Context, c *credentials, now time.Time) (store.Verified, error) {
	switch {
	case a.verifier == nil:
		return store.Verified{}, errNoVerifier
	case c.presented == presentedBearer && a.opts.RefuseBearer, c.presented == presentedPair && a.opts.RefuseHeaderPair:
		return store.Verified{}, errRefusedForm
	}
	verified, err := a.verifier.Verify(ctx, c.token, now)
	switch {
	case err == nil:
	case errors.Is(err, store.ErrNotFound):
		return store.Verified{}, errUnknownKey
	case errors.Is(err, token.ErrMalformed):
		return store.Verified{}, errMalformed
	default:
		return store.Verified{}, err
	}
	if r := verified.Record; r == nil || r.Key == nil || r.User == nil || r.Principal == nil || verified.Settings == nil {
		return store.Verified{}, errNoRecord
	}
	// The order of S72: the user, then what became of the key and its user.
	key, user := verified.Record.Key, verified.Record.User
	if c.presented == presentedPair && !sameEmail(c.user, user) {
		return verified, errOtherUser
	}
	if key.RevokedBy(now) {
		return verified, errRevoked
	}
	if !user.SuspendedAt.IsZero() {
		return verified, errSuspended
	}
	return verified, nil
}

// sameEmail reports whether presented is the current e-mail of u, or its ID
// where the host has no other (D15, D16).
func sameEmail(presented string, u *store.User) bool {
	email := u.Email
	if email == "" {
		email = u.ID
	}
	return equalFoldASCII(trimBlanks(presented), trimBlanks(email))
}

func trimBlanks(s string) string { return strings.Trim(s, " \t") }

// equalFoldASCII is strings.EqualFold without Unicode folding, by which "K"
// would equal the Kelvin sign. An empty string equals nothing: a user without
// any e-mail is nobody's to claim.
func equalFoldASCII(a, b string) bool {
	if len(a) != len(b) || a == "" {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
