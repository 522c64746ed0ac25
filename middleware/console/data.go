package console

import (
	"slices"
	"time"
)

// What the API answers, as far as pages show it.

// An account is who looks at a page.
type account struct {
	Organization           string
	User                   user
	RestrictedAccessTokens bool
	APITokenMaxAge         int64  // seconds; 0: never
	MaxDailyLimit          *int64 // nil: any
	Places                 struct {
		Limit    int // -1: no cap
		Prefixes []string
	}
	CreationRefused *struct{ Reason, Message string }
}

// MaxAge is the organization's period.
func (a *account) MaxAge() time.Duration { return time.Duration(a.APITokenMaxAge) * time.Second }

type user struct {
	ID, Email       string
	Tier            *string
	Owner           bool
	TokenPermission bool
	SuspendedAt     *time.Time
}

// A key is one of a list, or by itself. Its last three fields are in what owners see.
type key struct {
	Prefix, Name string
	Scopes       []string
	DailyLimit   *int64 // nil: the default of the service; -1: unlimited
	Status       string
	Reasons      []string
	CreatedAt    time.Time
	ExpiresAt    *time.Time
	OwnExpiresAt *time.Time
	LastUsedAt   *time.Time
	RevokedAt    *time.Time

	CreatedBy struct{ ID, Email string }
	Addresses []address
	UserAgent *string
}

type address struct {
	Address     string
	FirstUsedAt *time.Time
	LastUsedAt  *time.Time
	Count       int64
}

// Limit is the daily limit: 0 is the default of the service, -1 none.
func (k *key) Limit() int64 {
	if k.DailyLimit == nil {
		return 0
	}
	return *k.DailyLimit
}

// Works reports whether requests with the key are let through.
func (k *key) Works() bool { return k.Status == "active" }

// Ending reports whether the key was rotated and works beside the new one yet (D39).
func (k *key) Ending() bool { return k.RevokedAt != nil && k.Status != "revoked" }

// CanRotate reports whether the key can be given a new token (D39).
func (k *key) CanRotate() bool { return k.Works() && !k.Ending() }

// Disabled reports whether an owner disabled the key itself.
func (k *key) Disabled() bool { return slices.Contains(k.Reasons, "key_disabled") }

// Why tells people why the key does not work.
func (k *key) Why() (why []string) {
	for _, reason := range k.Reasons {
		switch {
		case reason == "invalid_token" && k.Status == "revoked":
			why = append(why, "It was deleted, or rotated.")
		case reason == "invalid_token":
			why = append(why, "Its user is suspended.")
		case reason == "expired" && k.OwnExpiresAt != nil && k.ExpiresAt != nil && k.OwnExpiresAt.Equal(*k.ExpiresAt):
			why = append(why, "It has come to its own end.")
		case reason == "expired":
			why = append(why, "It is older than the organization allows.")
		default:
			why = append(why, reasonText(reason))
		}
	}
	return why
}

// reasonText tells people what a reason of the API means.
func reasonText(reason string) string {
	switch reason {
	case "invalid_token":
		return "It is not valid any more."
	case "key_disabled":
		return "An owner has disabled it."
	case "user_not_permitted":
		return "The organization restricts API keys to chosen people, and its user is not one of them."
	case "expired":
		return "It has expired."
	case "address_not_allowed":
		return "API keys may not be used from this address."
	case "daily_limit":
		return "Today's requests are used up."
	case "burst_limit":
		return "Too many requests at once."
	case "store_unavailable":
		return "This is not known now."
	}
	return reason
}

type keyPage struct {
	Keys       []key
	NextCursor string // empty: null
}

// A keyUsage is how much a key is used.
type keyUsage struct {
	Usage *usage // nil: not counted, or not known now
	Days  []dayCount
}

type usage struct {
	Used, Limit, Remaining int64 // Limit -1: unlimited
	ResetAt                *time.Time
}

// Unlimited reports whether there is no limit.
func (u *usage) Unlimited() bool { return u.Limit < 0 }

type dayCount struct {
	Day   string // of ISO 8601, in UTC
	Count int64
}

type settings struct {
	RestrictedAccessTokens bool
	APITokenMaxAge         int64 // seconds; 0: never
	APIAllowedIPs          []string
	Warnings               []struct{ Code, Message string }
}

type userPage struct {
	Users      []user
	NextCursor string
}

// An explanation tells why a key works, or does not.
type explanation struct {
	Prefix    string
	Address   *string // nil: unknown
	Status    string
	Reasons   []string
	ExpiresAt *time.Time
	Allowed   bool
	Reason    string
	Rules     []rule
}

type rule struct {
	Rule    string
	Allowed bool
	Reason  string
}

// Text says what the rule asks for.
func (r rule) Text() string {
	switch r.Rule {
	case "known":
		return "The service knows the user of the key"
	case "revoked":
		return "The key is not deleted"
	case "suspended":
		return "Its user is not suspended"
	case "enabled":
		return "No owner has disabled it"
	case "permitted":
		return "Its user may use API keys"
	case "expiry":
		return "It has not expired"
	case "address":
		return "The address is allowed"
	case "quota":
		return "There are requests left for today"
	}
	return r.Rule
}
