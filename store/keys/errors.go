package keys

import (
	"errors"
	"fmt"

	"github.com/keystile/keystile/store"
)

// The refusals of a [Manager]. Those of its store, [store.ErrNotFound] and
// [store.ErrConflict], are passed on, wrapped. Every other error, but for
// [FieldError] and [LimitError], is a failure of the store, and the outcome of
// the write is then unknown: it may have taken effect. No error contains a token
// or a digest.
var (
	// ErrNotPermitted: the organization restricts keys to chosen users, and this
	// user is not one of them (S25).
	ErrNotPermitted = errors.New("keys: user is not permitted to have keys made")

	// ErrTier: the user's tier is not one that has keys (S54).
	ErrTier = errors.New("keys: tier of the user has no keys")

	// ErrSuspended: the user is suspended (D17).
	ErrSuspended = errors.New("keys: user is suspended")

	// ErrNotActive: the act needs a key that works (D39), or one whose own end has
	// not passed (D23).
	ErrNotActive = errors.New("keys: key is not active")

	// ErrForbidden: the act is an owner's (S22, S30, D12), and the [Actor] is none.
	ErrForbidden = errors.New("keys: only an owner may do this")

	// ErrUnknownUser: the [Actor] is nobody whom the service was told of. No
	// method returns it: it is for callers of [Manager.Refused].
	ErrUnknownUser = errors.New("keys: actor is not a known user")

	// ErrCrossOrigin: the act was asked for by a page of another site, in the name of
	// the [Actor]. No method returns it: it is for callers of [Manager.Refused].
	ErrCrossOrigin = errors.New("keys: request comes from another site")

	// ErrAudit: the audit trail is required and cannot be written, so nothing was
	// done ([Options.AuditRequired]).
	ErrAudit = errors.New("keys: audit trail cannot be written")
)

// A FieldError is a problem with one field of the parameters or options that a
// method was given. All problems of one call are reported together, joined by
// [errors.Join]: errors.As finds the first, and Unwrap() []error leads to all.
type FieldError struct {
	Field   string // the name of the Go field or parameter, such as "DailyLimit"
	Problem string // for people; it never repeats the value
}

// Error returns the field and the problem.
func (e *FieldError) Error() string { return "keys: " + e.Field + ": " + e.Problem }

// A LimitError says that a user has as many keys as allowed (S12). It is a
// [store.ErrLimit].
type LimitError struct {
	Limit int // the cap in force, [Options.MaxPerUser]

	// Grace says that it is not about the keys that a user has, but about as many
	// replaced ones in their grace: see [Manager.Rotate].
	Grace bool
}

// Error names the limit (D9).
func (e *LimitError) Error() string {
	if e.Grace {
		return fmt.Sprintf("keys: limit of %d replaced keys in their grace per user reached", e.Limit)
	}
	return fmt.Sprintf("keys: limit of %d per user reached", e.Limit)
}

// Unwrap returns [store.ErrLimit].
func (e *LimitError) Unwrap() error { return store.ErrLimit }

// problems collects the FieldErrors of one call.
type problems []error

func (p *problems) add(field, problem string) {
	*p = append(*p, &FieldError{Field: field, Problem: problem})
}

// check adds nothing if problem is empty, which is how the checks of fields.go say
// that there is none.
func (p *problems) check(field, problem string) {
	if problem != "" {
		p.add(field, problem)
	}
}

// err returns all problems joined; nil if there are none.
func (p problems) err() error { return errors.Join(p...) }
