package policy

import (
	"slices"
	"time"
)

// allowed is the answer of every policy here that does not refuse.
var allowed = Decision{Allow: true}

// refuse returns the refusal for that reason.
func refuse(why Reason) Decision { return Decision{Reason: why} }

// anonymous reports whether there is nobody to decide about: no principal, or
// one with no credential that this package knows. It takes no Request: where that
// is copied for an inlined call, the copy costs more than the rest of a rule.
func anonymous(p *Principal) bool {
	return p == nil || p.Credential < APIKey || p.Credential > Session
}

// Default returns the rules that hold for every request, in the order of S72:
// All([Enabled](), [PermittedUsers](), [Expiry](), [AllowedIPs]()).
func Default() Policy { return defaults{} }

// defaults is that conjunction in one piece: without the calls, which cost as
// much as the rules.
type defaults struct{}

func (defaults) Evaluate(r Request) Decision {
	p, s := r.Principal, r.Settings
	switch {
	case anonymous(p):
		return refuse(NoCredentials)
	case p.Credential != APIKey:
		return expiry(r)
	case p.Disabled:
		return refuse(KeyDisabled)
	case s == nil, s.RestrictUsers && !p.Permitted:
		return refuse(UserNotPermitted)
	}
	if p.expired(s, r.Time) {
		return refuse(Expired)
	}
	if s.AllowedIPs.Restricts() && !s.AllowedIPs.Contains(r.Addr) {
		return refuse(AddressNotAllowed)
	}
	return allowed
}

// Enabled refuses API keys that an owner disabled ([Principal.Disabled]), with
// [KeyDisabled]. Like every policy here it refuses a request without a principal,
// or without a credential that it knows, with [NoCredentials].
func Enabled() Policy { return Func(enabled) }

func enabled(r Request) Decision {
	switch {
	case anonymous(r.Principal):
		return refuse(NoCredentials)
	case r.Principal.Credential == APIKey && r.Principal.Disabled:
		return refuse(KeyDisabled)
	}
	return allowed
}

// PermittedUsers refuses API keys of users without a grant
// ([Principal.Permitted]) while the organization restricts the use of keys
// ([Settings.RestrictUsers]), with [UserNotPermitted]. Owners are not exempt
// (S29). An API key without Settings is refused alike: we fail closed here
// because a restriction that could not be read may be there.
func PermittedUsers() Policy { return Func(permittedUsers) }

func permittedUsers(r Request) Decision {
	switch {
	case anonymous(r.Principal):
		return refuse(NoCredentials)
	case r.Principal.Credential != APIKey:
		return allowed
	case r.Settings == nil, r.Settings.RestrictUsers && !r.Principal.Permitted:
		return refuse(UserNotPermitted)
	}
	return allowed
}

// Expiry refuses credentials from the instant of [Principal.ExpiresAt] on (D22),
// with [Expired]: API keys that are as old as [Settings.MaxAge], and credentials
// of any kind that have reached their own end, [Principal.NotAfter]. An API key
// without Settings is refused alike, and where there is an end, so is a request
// without a time: we fail closed here because nothing says that the end is not
// reached.
func Expiry() Policy { return Func(expiry) }

func expiry(r Request) Decision {
	if anonymous(r.Principal) {
		return refuse(NoCredentials)
	}
	if r.Principal.Credential == APIKey && r.Settings == nil {
		return refuse(Expired)
	}
	if r.Principal.expired(r.Settings, r.Time) {
		return refuse(Expired)
	}
	return allowed
}

// expired reports whether at now, or at an unknown time, the end of p is reached.
func (p *Principal) expired(s *Settings, now time.Time) bool {
	ends := !p.NotAfter.IsZero()
	if ends && !now.Before(p.NotAfter) {
		return true
	}
	if p.Credential == APIKey && s != nil && s.MaxAge != 0 {
		ends = true
		if s.MaxAge < 0 || p.IssuedAt.IsZero() || reached(now, p.IssuedAt, s.MaxAge) {
			return true
		}
	}
	return ends && noInstant(now)
}

// reached reports whether now is not before start + after. Whole seconds decide
// unless the two are within about a second of each other, so that start + after is
// seldom computed.
func reached(now, start time.Time, after time.Duration) bool {
	const far = 1 << 60 // seconds: below it differences cannot overflow
	n, s, whole := now.Unix(), start.Unix(), int64(after/time.Second)
	if n > -far && n < far && s > -far && s < far && (n-s < whole || n-s > whole+1) {
		return n-s > whole
	}
	return !now.Before(start.Add(after))
}

// noInstant reports whether t is the zero Time or before it. It is small enough to
// be inlined, which Time.Before is not.
func noInstant(t time.Time) bool {
	const year1 = -62135596800 // the zero Time's Unix
	return t.Unix()-year1 < 0 || t.IsZero()
}

// ExpiresAt returns the instant from which p is refused by [Expiry] under s: the
// earlier of NotAfter and, for API keys, IssuedAt + s.MaxAge (D23). The zero
// Time is never. A nil s has no period.
//
// Where no period can be counted, because it is negative or IssuedAt is zero,
// the instant is in the year 1: such a key is expired under any period (D22).
// Only the part of s moves when s changes; it may move back into the future
// (S39).
func (p *Principal) ExpiresAt(s *Settings) time.Time {
	if p.Credential != APIKey || s == nil || s.MaxAge == 0 {
		return p.NotAfter
	}
	end := longAgo
	if s.MaxAge > 0 && !p.IssuedAt.IsZero() {
		end = p.IssuedAt.Add(s.MaxAge) // the last instant of a Time, if beyond it
	}
	if !p.NotAfter.IsZero() && p.NotAfter.Before(end) {
		return p.NotAfter
	}
	if noInstant(end) { // not the zero Time, which would be never
		return longAgo
	}
	return end
}

// longAgo is the first instant that is not the zero Time.
var longAgo = time.Time{}.Add(1)

// AllowedIPs refuses API keys that are used from outside of the organization's
// list ([Settings.AllowedIPs]), where that restricts, with [AddressNotAllowed].
// The zero Addr is in no list. An API key without Settings is refused alike: we
// fail closed here because a list that could not be read may be there.
func AllowedIPs() Policy { return Func(allowedIPs) }

func allowedIPs(r Request) Decision {
	switch {
	case anonymous(r.Principal):
		return refuse(NoCredentials)
	case r.Principal.Credential != APIKey:
		return allowed
	case r.Settings == nil,
		r.Settings.AllowedIPs.Restricts() && !r.Settings.AllowedIPs.Contains(r.Addr):
		return refuse(AddressNotAllowed)
	}
	return allowed
}

// From refuses every caller, whatever the credential, whose address is not in
// the list, with [AddressNotAllowed]. The zero IPList, which restricts nothing
// in [Settings], contains nobody and refuses everybody here: we fail closed
// because who asks for a list wants one.
func From(list IPList) Policy {
	return Func(func(r Request) Decision {
		switch {
		case anonymous(r.Principal):
			return refuse(NoCredentials)
		case !list.Contains(r.Addr):
			return refuse(AddressNotAllowed)
		}
		return allowed
	})
}

// Via refuses every credential that is not of one of those kinds, with
// [WrongCredentialKind]. It is how a route asks for a person, Via(JWT, Session):
// asked as what is wanted, never as what is not (D25). Via of none refuses
// everybody.
func Via(kinds ...Credential) Policy {
	kinds = slices.Clone(kinds)
	return Func(func(r Request) Decision {
		switch {
		case anonymous(r.Principal):
			return refuse(NoCredentials)
		case !slices.Contains(kinds, r.Principal.Credential):
			return refuse(WrongCredentialKind)
		}
		return allowed
	})
}

// Scope refuses every caller that lacks one of the named scopes, with
// [InsufficientScope]. All of them are needed, and they are compared byte for
// byte. It binds every kind of credential alike: what carries a scope must not
// change what it allows. Scope of no names refuses everybody, and so does an
// empty name.
//
// A scope is worth what decided who gets it. Those of API keys are chosen by
// whoever makes the key, and bounded only by what the host sets for that, such as
// MayGiveScope of package keys: without it a user whose JWT lacks a scope passes
// with a key that names it. Then Scope keeps a key to what it was made for, and is
// no authorization of its user.
func Scope(names ...string) Policy {
	names = slices.Clone(names)
	none := len(names) == 0 || slices.Contains(names, "")
	return Func(func(r Request) Decision {
		if anonymous(r.Principal) {
			return refuse(NoCredentials)
		}
		if none {
			return refuse(InsufficientScope)
		}
		for _, name := range names {
			if !slices.Contains(r.Principal.Scopes, name) {
				return refuse(InsufficientScope)
			}
		}
		return allowed
	})
}

// Tier refuses every caller whose tier is not one of those named, with
// [TierNotAllowed]. ASCII letters are compared without case (D26), and nothing
// else is folded. Tier of no names refuses everybody; a caller without a tier is
// refused whatever the names.
func Tier(names ...string) Policy {
	names = slices.Clone(names)
	return Func(func(r Request) Decision {
		if anonymous(r.Principal) {
			return refuse(NoCredentials)
		}
		for _, name := range names {
			if name != "" && equalFold(r.Principal.Tier, name) {
				return allowed
			}
		}
		return refuse(TierNotAllowed)
	})
}

// equalFold is strings.EqualFold for ASCII only: that of Unicode takes "ſ" for
// "s".
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
