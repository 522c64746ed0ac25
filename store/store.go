package store

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/token"
)

// The answers of a store that are not failures. They may be wrapped; every other
// error is a failure of the store, and means that nothing is known. A failure
// wraps none of them, so that an outage is never taken for an unknown key.
var (
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("store: not found")
	// ErrExists: a key with that ID or digest, or a user with that ID, exists.
	ErrExists = errors.New("store: exists already")
	// ErrConflict: the row was changed since it was read.
	ErrConflict = errors.New("store: changed by somebody else")
	// ErrLimit: the user has as many keys as allowed.
	ErrLimit = errors.New("store: limit reached")
)

// Bounds of the strings that a [Store] keeps, in bytes.
const (
	// MaxID bounds what names a row: Key.ID, Key.Family, Key.Org, Key.User,
	// User.Org, User.ID and Settings.Org. It leaves room for every e-mail address,
	// and lets a database have an index over several of them.
	MaxID = 512
	// MaxText bounds every other string, and the scopes of a key taken together.
	MaxText = 64 << 10
)

// A Key is the record kept of a token. The zero Time means never.
type Key struct {
	ID     string       // the public prefix of the token, unique in the store (D27); not empty
	Digest token.Digest // unique in the store; not zero

	Org  string // with User: whose key it is; both immutable and not empty
	User string

	Name       string
	Scopes     []string // in the order given; nil and empty are the same
	DailyLimit int64    // 0: the default of the service, -1: unlimited

	CreatedAt  time.Time
	NotAfter   time.Time // the key's own end
	DisabledAt time.Time // by an owner
	RevokedAt  time.Time // when it ends; lies ahead in the grace period of a rotation (D39)
	Revoked    bool      // ended for good, whatever a clock says of RevokedAt

	// Family is what the quota belongs to: the ID of the first of a chain of
	// rotated keys (D39). Empty: the key's own ID.
	Family string

	// Version is 1 for a new key and is raised by the store with every update.
	Version int64
}

// RevokedBy reports whether the key is revoked at now: for good, or because the
// grace period of its rotation is over (D39). What was revoked for good stays so
// when a clock steps back or is behind (S19).
func (k *Key) RevokedBy(now time.Time) bool {
	return k.Revoked || !k.RevokedAt.IsZero() && !now.Before(k.RevokedAt)
}

// A User is what the host told of a user. A key works only while its user's row
// exists.
type User struct {
	Org string
	ID  string // unique within Org; both immutable and not empty

	Email string // as in x-api-user; empty: the ID is the e-mail (D16)
	Tier  string

	Owner     bool // may manage the organization
	Permitted bool // the grant to create and use keys while the organization restricts that (S31)

	SuspendedAt time.Time // zero: not suspended (D17)

	// Version is 0 in a user to be made, 1 for a new row, and is raised by the
	// store with every update.
	Version int64
}

// A Record is what a digest leads to: the key, its user, and the principal that
// they make. It is built once, by [NewRecord], and shared between requests:
// nothing that it points to may be changed.
type Record struct {
	Key       *Key
	User      *User
	Principal *policy.Principal
}

// NewRecord returns the record of a key and its user. It keeps both pointers,
// so neither may be changed afterwards.
//
// The principal is Disabled if the key's DisabledAt is set at all: that an owner
// disabled a key is a fact and not an appointment.
func NewRecord(k *Key, u *User) *Record {
	return &Record{Key: k, User: u, Principal: &policy.Principal{
		Credential: policy.APIKey,
		Org:        k.Org,
		User:       k.User,
		Owner:      u.Owner,
		Permitted:  u.Permitted,
		Disabled:   !k.DisabledAt.IsZero(),
		KeyID:      k.ID,
		Quota:      cmp.Or(k.Family, k.ID),
		Scopes:     k.Scopes,
		Tier:       u.Tier,
		IssuedAt:   k.CreatedAt,
		NotAfter:   k.NotAfter,
		DailyLimit: k.DailyLimit,
	}}
}

// A Reader is all that verification needs. Implementations are safe for
// concurrent use, return what later writes do not change, and return an error
// that wraps ctx.Err when the context ends.
type Reader interface {
	// Lookup returns the record of the key with that digest, in one consistent
	// read of the key and its user. ErrNotFound if there is no such key, or no row
	// of its user. Revoked, disabled and suspended ones are returned as they are:
	// the store decides nothing.
	Lookup(ctx context.Context, d token.Digest) (*Record, error)

	// Settings returns the settings of an organization: zero ones, but for Org,
	// if none were ever written.
	Settings(ctx context.Context, org string) (*policy.Settings, error)
}

// A Store keeps keys, users and settings. Implementations must pass storetest.
//
// They are safe for concurrent use, by other processes too where the medium is
// shared. Every write is one atomic step, after whose return every read sees it;
// one that returns an error of this package has changed nothing, and neither has
// one whose context had ended before it began. They read no clock. They copy what
// they are given, never change it, and return copies, but for the Record of
// Lookup, which is shared.
//
// Strings are kept as they are, byte for byte, and compared so: two that look
// alike, or differ in case, are two. A string that has a NUL, is not valid UTF-8
// or is longer than [MaxID] or [MaxText] is refused with an error before
// anything is written, never shortened. To ask for such a string is no error: no
// row has it.
//
// Times are kept in UTC with a precision of one microsecond; whatever is finer
// is cut off, toward the past, from every time that a method is given. The zero
// Time stays the zero Time and means never, while the Unix epoch is an ordinary
// date (D22). Times outside of the years 1 to 9999 are refused.
type Store interface {
	Reader

	// InsertKey adds a key with Version 1, in one atomic step with all that
	// follows. k.User must exist in k.Org: else ErrNotFound. ErrExists if the ID
	// or the digest is taken, by a revoked key too (D27). ErrLimit if the user has
	// max or more keys whose RevokedAt is zero (S12, S13, D10); a negative max is
	// no cap. If several apply, any of them is returned.
	//
	// A non-nil replaces is the key of the same user that k takes the place of (D39),
	// as it was read except for RevokedAt, which must be set, and Revoked. The store
	// writes those two and raises its Version by one; it no longer counts toward max.
	// ErrNotFound if there is no key with its ID. ErrConflict if its
	// Version is not current, the stored RevokedAt is not zero, or its Org, User
	// or Digest are not those stored.
	InsertKey(ctx context.Context, k, replaces *Key, max int) error

	// Keys returns the keys that q asks for, newest first by (CreatedAt, ID).
	Keys(ctx context.Context, q Query) ([]*Key, error)

	// UpdateKey writes Name, Scopes, DailyLimit, NotAfter, DisabledAt,
	// RevokedAt and Revoked of the key with k.ID; the rest of a key never changes,
	// and the rest of k is not looked at. ErrConflict unless k.Version is the stored one,
	// which is raised by one; ErrNotFound if there is no such key. The cap is not
	// checked, so RevokedAt should not be set back to zero.
	UpdateKey(ctx context.Context, k *Key) error

	// PurgeKeys deletes the keys of every organization whose RevokedAt is set and
	// before that time, and their use facts, and returns how many keys (D37). The
	// IDs and digests of what it deleted may be used again.
	PurgeKeys(ctx context.Context, revokedBefore time.Time) (int, error)

	// Users returns the users that q asks for, ordered by ID, byte for byte.
	Users(ctx context.Context, q UserQuery) ([]*User, error)

	// PutUser adds a user whose Version is 0, or replaces the row whose Version
	// is u.Version and raises it by one. ErrExists or ErrConflict otherwise, and
	// ErrNotFound if there is no row to replace.
	PutUser(ctx context.Context, u *User) error

	// UpdateSettings replaces the settings of s.Org if s.Version is the stored
	// one (0 if there are none) and raises it by one. ErrConflict otherwise. What
	// s.Validate reports is refused.
	UpdateSettings(ctx context.Context, s *policy.Settings) error
}

// A Query selects keys. Its fields are all required to match; a zero field
// selects everything.
type Query struct {
	Org  string
	User string
	ID   string
	Name string // a part of the name, ASCII letters in either case

	Revoked bool // also keys whose RevokedAt is set

	After Cursor // the last key of the page before
	Limit int    // at most that many; 0 or less: 100, more than 1000: 1000
}

// A Cursor is a place in the order of [Store.Keys]. The zero Cursor is its
// beginning.
type Cursor struct {
	CreatedAt time.Time
	ID        string
}

// A UserQuery selects users of one organization.
type UserQuery struct {
	Org string // of no organization if empty: a user's ID says nothing without one
	ID  string // empty: every user

	After string // the ID of the last user of the page before
	Limit int    // at most that many; 0 or less: 100, more than 1000: 1000
}

// Uses keeps facts about the use of keys (S49, D24). Implementations must pass
// storetest and are safe for concurrent use.
type Uses interface {
	// RecordUses adds a batch, in one atomic step. Uses of unknown keys are
	// dropped. Facts only grow: an older use that arrives late adds to the counts
	// and moves no time back. What is beyond the bounds of a [UseSummary], and of
	// the store's [UseRetention], is forgotten when the whole batch has been added.
	//
	// The slice is the caller's again afterwards: what is kept of it is copied.
	//
	// A use with a Count below 1 or without a time is refused, and the batch with
	// it. A use whose Last is before its First, as when the clock was set back, is
	// taken the other way around.
	RecordUses(ctx context.Context, uses []Use) error

	// Uses returns the summaries of those keys of an organization, in the order
	// asked for; one of a key that was never used, or is unknown, has only its
	// KeyID. Nothing beyond the store's [UseRetention] is among them.
	Uses(ctx context.Context, org string, keyIDs []string) ([]UseSummary, error)
}

// A Use is a number of admitted requests with one key from one address.
type Use struct {
	KeyID string

	// Addr is kept unmapped and without a zone, as lists of addresses take it. The
	// zero Addr is unknown: counted, but not listed.
	Addr netip.Addr

	// UserAgent is that of the last of the requests. It is chosen by the client,
	// so it is made to fit and not refused: each run of NULs and of bytes that are
	// not UTF-8 is replaced by one U+FFFD, and then up to 256 bytes are kept, on a
	// rune's border.
	UserAgent string

	First time.Time
	Last  time.Time
	Count int64 // counted for the day, in UTC, of Last
}

// Bounds of a [UseSummary] (D24).
const (
	MaxUseAddrs = 10 // the addresses used last are kept
	MaxUseDays  = 30 // the last days, that of the last use included
)

// A UseRetention says how much a store keeps of what tells where and with what a
// key was used: addresses, and the last user agent, which are personal data in
// many places (S49, D24). The zero UseRetention keeps the last ten addresses of a
// key, and its user agent, until the key is purged.
//
// What is beyond it is never returned by [Uses], and is deleted by RecordUses: of a
// key when the key is used, and of keys that are not used any more in rounds over
// all keys, of which one begins an hour after the last has ended, and each call
// does a part. How far a round has come a process keeps to itself, and the first one
// of a process begins at random if its first call has uses. There is no goroutine for it, so that a service without any use
// deletes nothing; a call without uses is enough. When and how often a key was
// used stays: it is needed to tell which keys are idle, and says nothing of where.
//
// An address that is used again after it was forgotten starts anew, with a First
// and a Count of its own. A preview of an address list (keys.Manager.Preview) knows
// of no addresses but those that are kept. Processes that share a medium should
// have the same UseRetention: what one of them deletes is gone for all.
type UseRetention struct {
	// Addrs is how many addresses of a key are kept, those used last, up to
	// [MaxUseAddrs]; -1 is none.
	// Defaults to [MaxUseAddrs].
	Addrs int

	// Age is for how long an address is kept after the key was last used from it,
	// and the user agent after the last use of the key; an hour at least. It is
	// measured by the store's clock and not by what uses say of their time: one that
	// is ahead makes no other fact older, and its own are kept for as much longer.
	// Defaults to 0: they are kept, however old they are.
	Age time.Duration
}

// A UseSummary is what is known of the use of one key.
type UseSummary struct {
	KeyID     string
	LastUsed  time.Time // zero: never
	UserAgent string    // of the last use
	Addrs     []AddrUse // last used first
	Days      []DayUse  // newest first; days without use are left out
}

// An AddrUse is the use of a key from one address.
type AddrUse struct {
	Addr        netip.Addr
	First, Last time.Time
	Count       int64
}

// A DayUse is the use of a key on one day, in UTC.
type DayUse struct {
	Day   time.Time // its midnight
	Count int64
}

// A Feed lists changes in the order in which they took effect, so that caches
// elsewhere can drop what has changed. Implementations must pass storetest.
type Feed interface {
	// Changes returns changes after a place in the feed, oldest first, at most
	// 1000, and the place to go on from: that of the last one returned, or after
	// if there is none. A change is in the feed once its write has returned, and no
	// change ever appears before a place that was given out. The feed of an empty
	// store ends at 0.
	//
	// With a negative after it returns no changes and the feed's end. If changes
	// after that place are no longer kept, or the place lies beyond the feed's end,
	// as after a database was restored from a copy, the first change is of
	// ChangedAll; which of the changes that are still kept follow is up to the
	// implementation.
	Changes(ctx context.Context, after int64) (changes []Change, last int64, err error)
}

// A Change says what a write touched.
type Change struct {
	Kind   ChangeKind
	Digest token.Digest // with ChangedKey
	Org    string       // with every kind but ChangedAll
	User   string       // with ChangedKey and ChangedUser
}

// A ChangeKind is the kind of a [Change].
type ChangeKind uint8

// The kinds of change. The zero ChangeKind is not one of them: what does not
// know a kind takes it for ChangedAll.
const (
	ChangedAll      ChangeKind = iota + 1 // anything may have changed
	ChangedKey                            // a key was made, updated, rotated or purged
	ChangedUser                           // a user was made or updated
	ChangedSettings                       // the settings of an organization were written
)
