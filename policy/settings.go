package policy

import (
	"errors"
	"fmt"
	"time"
)

// MaxAgeLimit is the longest period that [Settings.MaxAge] takes: 36 500 days
// (D21).
const MaxAgeLimit = 36500 * 24 * time.Hour

// Settings are the rules of one organization, which its owners set. A Settings
// value is a snapshot: it is shared between requests and must not be changed.
// The zero Settings restricts nothing. The rules bind API keys, not people
// (JWT, Session), so that a person can always undo them (D20).
type Settings struct {
	// Org is the organization. It is required.
	Org string

	// MaxAge is how long after its creation a key works; 0: for ever. It is in
	// whole seconds, at most [MaxAgeLimit]. A longer period brings expired keys
	// back, since expiry is computed at each request and stored nowhere (S35-S42).
	// A negative one, which [Settings.Validate] refuses, lets no key work.
	MaxAge time.Duration

	// AllowedIPs are the addresses that keys may be used from; the zero IPList
	// does not restrict (S43).
	AllowedIPs IPList

	// RestrictUsers admits only keys of users with a grant, owners included
	// (S21-S34).
	RestrictUsers bool

	// Version is 0 for an organization whose settings were never written, and
	// is raised by the store with every write.
	Version int64
}

// A FieldError is one thing that is wrong with a value. Its text may be shown to
// people: it contains no input but numbers.
type FieldError struct {
	Field   string // the type and field, such as "Settings.MaxAge"
	Problem string // what is wrong with it
}

// Error returns "policy: ", the field and the problem.
func (e *FieldError) Error() string { return "policy: " + e.Field + ": " + e.Problem }

// Validate reports everything that is wrong with s, as joined *[FieldError]s;
// nil if s can be stored.
func (s *Settings) Validate() error {
	var errs []error
	if s.Org == "" {
		errs = append(errs, &FieldError{"Settings.Org", "is required"})
	}
	if s.MaxAge < 0 || s.MaxAge > MaxAgeLimit {
		errs = append(errs, errMaxAge())
	}
	if s.MaxAge%time.Second != 0 {
		errs = append(errs, &FieldError{"Settings.MaxAge", "must be in whole seconds"})
	}
	return errors.Join(errs...)
}

// MaxAgeFromSeconds returns the period of that many seconds, for
// [Settings.MaxAge]; 0 is none. Values below 0 and above [MaxAgeLimit] are
// refused with a *[FieldError], before they are multiplied (D21): a product that
// overflowed would be a period that nobody chose.
func MaxAgeFromSeconds(seconds int64) (time.Duration, error) {
	if seconds < 0 || seconds > int64(MaxAgeLimit/time.Second) {
		return 0, errMaxAge()
	}
	return time.Duration(seconds) * time.Second, nil
}

func errMaxAge() error {
	return &FieldError{"Settings.MaxAge", fmt.Sprintf("must be between 0 and %d seconds", int64(MaxAgeLimit/time.Second))}
}
