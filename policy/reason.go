package policy

// A Reason says why a request was refused, finer than an HTTP status. Reasons
// are stable: clients may decide by them (D3). A host's own policies may use
// reasons of their own, in the same spelling; they answer 403, and so does the
// empty Reason.
type Reason string

// The reasons of D3, with the status that each answers (D13).
const (
	NoCredentials       Reason = "no_credentials"        // 401: nothing was presented
	InvalidToken        Reason = "invalid_token"         // 401: malformed, unknown, revoked, or another user's
	Expired             Reason = "expired"               // 401: by its own end or by the organization's period
	MultipleCredentials Reason = "multiple_credentials"  // 400: two credentials, or a repeated header line
	UserNotPermitted    Reason = "user_not_permitted"    // 403: restriction by user
	KeyDisabled         Reason = "key_disabled"          // 403: the key, by an owner
	AddressNotAllowed   Reason = "address_not_allowed"   // 403: outside of a list of addresses
	InsufficientScope   Reason = "insufficient_scope"    // 403: the credential lacks a scope
	WrongCredentialKind Reason = "wrong_credential_kind" // 403: such as a key where a person is asked for
	TierNotAllowed      Reason = "tier_not_allowed"      // 403: the user's tier is not among those named
	DailyLimit          Reason = "daily_limit"           // 429: the quota of the day is spent
	BurstLimit          Reason = "burst_limit"           // 429: too many requests at once
	StoreUnavailable    Reason = "store_unavailable"     // 503: a store or counter gave no answer
)
