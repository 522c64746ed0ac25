package audit

import (
	"context"
	"net/netip"
	"time"

	"github.com/keystile/keystile/policy"
)

// An Event is one line of the trail. What is unknown or does not apply is zero.
type Event struct {
	ID    string // of the act, random: the same in its intent and its outcome
	Time  time.Time
	Phase Phase

	Action string // what was done: one of those listed, such as [KeyCreate]
	Actor  Actor  // who asked for it

	// Org, User and KeyID are what it was done to. The KeyID is the public prefix
	// of a token, and never more of it than that.
	Org, User, KeyID string

	// Changes are the fields that the act changed, or was about to change, in a
	// fixed order.
	Changes []Change

	Outcome string // with the phase Outcome: [Success], [Failure] or [Unknown]
	Reason  string // why not, for programs: a stable code, such as "not_found"
	Err     error  // why not, for people; it contains no token and no digest

	// Suppressed, if it is not 0, makes the event stand for that many of its Action
	// and Reason of which no line was written, because there were too many.
	Suppressed int64
}

// A Phase is the place of an [Event] in its act.
type Phase string

// The phases. A Sink that is required gets both of an act that changes something:
// an intent without an outcome was interrupted, and may have taken effect.
const (
	Intent  Phase = "intent"  // it passed all checks and is about to be done
	Outcome Phase = "outcome" // it is over
)

// The values of [Event.Outcome].
const (
	Success = "success" // done, or found done already
	Failure = "failure" // refused: nothing was changed
	Unknown = "unknown" // the store failed, and the act may have taken effect
)

// The actions.
const (
	KeyCreate      = "key.create"
	KeyUpdate      = "key.update"
	KeyRotate      = "key.rotate"
	KeyDisable     = "key.disable"
	KeyEnable      = "key.enable"
	KeyRevoke      = "key.revoke"
	KeysPurge      = "keys.purge"
	UserPut        = "user.put"
	UserPermission = "user.permission" // the grant of a user
	SettingsUpdate = "settings.update"
	Authentication = "authentication" // a request, such as one that was refused
)

// An Actor is who asked for an act, as the host program found out.
type Actor struct {
	ID         string            // a user's ID or the name of a program; empty: the host itself
	Role       string            // what the actor is to the organization, such as "owner"
	Credential policy.Credential // how the actor was authenticated; 0: not by a request
	Addr       netip.Addr        // the client's address
	UserAgent  string            // what the client calls itself
}

// A Change is a field that an act changed. Times are in RFC 3339, UTC, periods in
// whole seconds, scopes are separated by blanks, and a list of addresses is its
// normal form, one entry a line. An empty text stands for none.
//
// The fields of a key are name, scopes, daily_limit, created_at, not_after,
// disabled_at, revoked_at and, of one that is rotated, replaced_by, the ID of the
// new one; of a user email, tier, owner, permitted and suspended_at; of settings
// restrict_users, max_age and allowed_ips; and of a purge revoked_before and
// deleted, how many keys.
type Change struct{ Field, Before, After string }

// A Sink keeps events. Write returns when the event is kept as safely as it ever
// will be, or an error. It is called on the way of the act, which waits for it, so
// a Sink that reaches over a network bounds its own time. It must not change or
// keep e.Changes. Implementations are safe for concurrent use.
type Sink interface {
	Write(ctx context.Context, e Event) error
}
