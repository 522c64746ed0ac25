package keys

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/token"
)

// The defaults of [Options].
const (
	defaultMaxPerUser    = 5   // S12, D11
	defaultMaxDailyLimit = 250 // S61, D7
)

// Bounds of the loops that start over when somebody else was faster.
const (
	// maxTokens is how many tokens are tried for one key. With a million keys in
	// the store an ID is taken with a probability of 1 in 4 000, so that eight in a
	// row mean that something else is wrong.
	maxTokens = 8

	// maxConflicts is how often a row is read again after a conflict. Whenever one
	// writer loses another has won, so this bounds only how long a writer can be
	// unlucky; it is large because Revoke must get through.
	maxConflicts = 100
)

// Options configure a [Manager]. A nil *Options and the zero Options are the
// default configuration: 5 keys a user of whatever tier, with daily limits of up
// to 250 requests.
type Options struct {
	// Format describes the tokens, and holds the peppers of their digests if there
	// are any. It must not be changed afterwards.
	// Defaults to the zero [token.Format].
	Format *token.Format

	// MaxPerUser is the cap on unrevoked keys of one user, expired and disabled
	// ones included, since they can come back (S12, D10). It is one cap for the
	// whole service (D11). Lowering it takes no key away; -1 is no cap.
	// Defaults to 5.
	MaxPerUser int

	// MaxDailyLimit is the largest daily limit that a plain user may set for a key;
	// owners may set any (D7). It should not exceed the limit that keys without one
	// of their own have, or users can raise it. With -1 plain users may set any
	// number, but never "unlimited".
	// Defaults to 250.
	MaxDailyLimit int64

	// Tiers, if there are any, are the tiers whose users may have keys made, such
	// as "Pro", "Team" and "Enterprise" (S54); ASCII letters match in either case
	// (D26). The tier is looked at when a key is created, not when it is rotated or
	// used: see [policy.Tier] for the latter.
	// Defaults to none: every tier.
	Tiers []string

	// MayGiveScope, if there is one, says whether a key of the user u may get a scope,
	// such as because u may do what the scope stands for. It is asked for each scope of
	// a new key, and for each that an existing key does not have yet, whoever the Actor
	// is, except an [Operator]; it must not change u. A scope that it denies is a
	// [FieldError]. What a key has, it keeps, through rotations too.
	//
	// Defaults to none: everybody may give any scope to keys of their own. Then scopes
	// narrow what a key is for and grant nothing: its maker chose them, so a handler
	// behind [policy.Scope] still has to decide whether the user may do what it does.
	MayGiveScope func(u *store.User, scope string) bool

	// Cache configures the cache that requests are verified with; its Now defaults
	// to that of these Options. Where other processes write to the store, its Feed
	// should be set, to the store itself if that is a [store.Feed]: what they write
	// is known after a poll then. A Manager with a Feed has to be closed.
	// Defaults to the zero [store.CacheOptions].
	Cache *store.CacheOptions

	// Audit, if there is one, is told of every act: each call of a method that
	// writes, by whomever, and whether it was done or refused. It gets one event for
	// each act, when it is over. A call of [Manager.PutUser] or [Manager.SignIn] that
	// changes nothing is not an act, since it may be made at every sign-in.
	//
	// The reasons of acts that were not done are validation_error, forbidden,
	// not_found, conflict, limit_reached, not_active, user_not_permitted,
	// user_suspended, user_unknown, tier_not_allowed, cross_origin, store_unavailable
	// and audit_unavailable.
	// Defaults to none.
	Audit audit.Sink

	// AuditRequired makes Audit a condition: an act that changes something is
	// announced by an intent before its first write, and is refused with [ErrAudit],
	// having changed nothing, if the intent cannot be written. Then it gets an
	// outcome, as without this option; one that cannot be written is reported by
	// AuditFailed, and the method returns what it did, since it has been done.
	// Defaults to false: acts go on while the trail cannot be written.
	AuditRequired bool

	// AuditFailed, if there is one, is called with the error of Audit for each event
	// that could not be written. It is called on the way of the act, from as many
	// goroutines as there are acts.
	// Defaults to none: such errors are dropped.
	AuditFailed func(error)

	// Uses, if there is one, is what [Manager.Table] and [Manager.Preview] read of
	// the use of keys: the one that the middleware writes to.
	// Defaults to none: nothing is known of any use.
	Uses store.Uses

	// Limiter, if there is one, is what [Manager.Explain] asks how a key's quota
	// stands, spending nothing: the one that the middleware spends from, with the
	// same clock.
	// Defaults to none: quotas are not explained.
	Limiter ratelimit.Limiter

	// Now is the clock. The middleware that uses [Manager.Verifier] must be given
	// the same one.
	// Defaults to [time.Now].
	Now func() time.Time
}

// A Manager makes and changes keys, users and settings in a [store.Store], and
// owns the cache that requests are verified with. The zero Manager is not usable;
// see [New]. Its methods are safe for concurrent use, by several Managers over one
// store too.
type Manager struct {
	store    store.Store
	cache    *store.Cache
	verifier *store.Verifier
	format   *token.Format
	clock    func() time.Time

	maxPerUser    int
	maxDailyLimit int64
	tiers         policy.Policy                          // nil: every tier
	mayGiveScope  func(u *store.User, scope string) bool // nil: any

	audit         audit.Sink     // nil: no trail
	idLen         int            // of the IDs of the format; with a trail
	tokens        *regexp.Regexp // finds whole tokens of the format; with a trail
	auditRequired bool
	auditFailed   func(error) // may be nil

	uses    store.Uses        // nil: nothing is known
	limiter ratelimit.Limiter // nil: quotas are not explained
}

// New returns a Manager over s, which may be shared with other processes. All
// problems with the arguments are reported at once, each naming its field.
func New(s store.Store, opts *Options) (*Manager, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Format == nil {
		o.Format = new(token.Format)
	}
	if o.MaxPerUser == 0 {
		o.MaxPerUser = defaultMaxPerUser
	}
	if o.MaxDailyLimit == 0 {
		o.MaxDailyLimit = defaultMaxDailyLimit
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var co store.CacheOptions
	if o.Cache != nil {
		co = *o.Cache
	}
	if co.Now == nil {
		co.Now = o.Now
	}

	var ps problems
	if s == nil {
		ps.add("Store", "must not be nil")
	}
	if err := o.Format.Validate(); err != nil {
		ps = append(ps, fmt.Errorf("keys: Format: %w", err))
	}
	if o.MaxPerUser < -1 {
		ps.add("MaxPerUser", "must be -1 (no cap) or more")
	}
	switch {
	case o.MaxDailyLimit < -1:
		ps.add("MaxDailyLimit", "must be -1 (any number) or more")
	case o.MaxDailyLimit > maxLimit:
		ps.add("MaxDailyLimit", "must be at most "+strconv.FormatInt(maxLimit, 10))
	}
	if o.AuditRequired && o.Audit == nil {
		ps.add("AuditRequired", "needs an Audit")
	}
	for i, name := range o.Tiers {
		ps.check("Tiers["+strconv.Itoa(i)+"]", checkText(name))
	}
	cache, err := store.NewCache(s, &co)
	if err != nil {
		ps = append(ps, fmt.Errorf("keys: Cache: %w", err))
	}
	if err := ps.err(); err != nil {
		cache.Close()
		return nil, err
	}
	verifier, err := store.NewVerifier(cache, o.Format)
	if err != nil {
		cache.Close()
		return nil, fmt.Errorf("keys: %w", err)
	}

	m := &Manager{
		store:         s,
		cache:         cache,
		verifier:      verifier,
		format:        o.Format,
		clock:         o.Now,
		maxPerUser:    o.MaxPerUser,
		maxDailyLimit: o.MaxDailyLimit,
		mayGiveScope:  o.MayGiveScope,
		audit:         o.Audit,
		auditRequired: o.AuditRequired,
		auditFailed:   o.AuditFailed,
		uses:          o.Uses,
		limiter:       o.Limiter,
	}
	if m.audit != nil {
		id := o.Format.Generate().ID()
		m.idLen = len(id)
		m.tokens = regexp.MustCompile("(" + regexp.QuoteMeta(id[:len(id)-8]) + "[0-9a-f]{8})[0-9a-f]{24}")
	}
	if len(o.Tiers) > 0 {
		m.tiers = policy.Tier(o.Tiers...) // which copies them
	}
	return m, nil
}

// Verifier returns what the middleware verifies requests with: the Manager's
// cache and Format. It is the same one at every call.
func (m *Manager) Verifier() *store.Verifier { return m.verifier }

// Close ends the polls of the cache's Feed; without one it does nothing. The
// Manager and its Verifier can be used on: other processes' writes are known here
// after the cache's TTL then. See [store.Cache.Close].
func (m *Manager) Close() { m.cache.Close() }

// now reads the clock, as a time that can be stored.
func (m *Manager) now() time.Time { return instant(m.clock()) }

// instant returns t as it is stored: in UTC, without a monotonic reading, and cut
// to microseconds, which is what every supported database keeps. All times that a
// Manager writes come from here.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// forget makes the cache forget keys. It is called after every write of a key,
// also a failed one, which may have taken effect; and after every read that found
// a key changed by somebody else, so that what a caller is told of a key here
// holds for the requests here.
func (m *Manager) forget(ks ...*store.Key) {
	for _, k := range ks {
		m.cache.Invalidate(store.Change{Kind: store.ChangedKey, Digest: k.Digest, Org: k.Org, User: k.User})
	}
}

// forgetUser does the same for all keys of a user.
func (m *Manager) forgetUser(org, user string) {
	m.cache.Invalidate(store.Change{Kind: store.ChangedUser, Org: org, User: user})
}
