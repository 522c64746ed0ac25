package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/token"
)

// ErrBusy is the error of a lookup of a key that is not cached while
// [CacheOptions.MaxLookups] of them are under way. It says nothing about the key,
// and is answered as 503 (D13).
var ErrBusy = errors.New("store: too many lookups under way")

// The defaults and bounds of [CacheOptions].
const (
	defaultTTL           = 5 * time.Second
	defaultNegativeTTL   = time.Second
	defaultMaxKeys       = 1_000_000
	defaultMaxLookups    = 64
	defaultLookupTimeout = 2 * time.Second

	maxTTL           = 5 * time.Minute
	maxLookupTimeout = 5 * time.Minute
	maxServeStale    = 24 * time.Hour
)

const (
	// maxTrips is how often a lookup is made anew because what it read was
	// invalidated meanwhile.
	maxTrips = 3

	// retryPause is how long, with ServeStale, the store is left alone after it
	// failed.
	retryPause = time.Second

	// clockSlack is how far ahead of a caller's clock an answer may seem to have
	// been read: callers read the clock before they ask, and not in that order. One
	// further ahead was read before the clock was set back, nobody knows how long.
	clockSlack = time.Second
)

// CacheOptions configure a [Cache]. A nil *CacheOptions stands for the defaults.
type CacheOptions struct {
	// TTL bounds how long an answer is used, counted from the beginning of the
	// read that found it, or of the last poll of Feed that found it unchanged: the
	// longest time that a revocation made in another process can stay unknown in
	// this one, whatever fails and whatever message is lost. (Lookups that are
	// joined to one that is under way count from its beginning, so that
	// LookupTimeout takes the place of a shorter TTL.) What this process is told by
	// [Cache.Invalidate] takes effect at once.
	// Defaults to 5 seconds, at most 5 minutes. Negative: nothing is cached, and
	// all keys count as unseen.
	TTL time.Duration

	// NegativeTTL is the same for digests that were not found, so that a key made
	// by another process can be unknown here for that long, or until the poll of
	// Feed that tells of it. No poll renews such an answer.
	// Defaults to 1 second, or TTL if that is less; at most TTL. Negative: such
	// answers are not cached.
	NegativeTTL time.Duration

	// MaxKeys bounds how many records are held. A key that has not been used for
	// a while makes room for a new one. A record takes about 600 bytes.
	// Defaults to 1 000 000.
	MaxKeys int

	// MaxLookups bounds how many lookups of unseen digests are under way at once:
	// those of keys that are not cached. Beyond it they fail with [ErrBusy] at
	// once, so that a flood of unknown keys meets a bound and does not queue.
	// Lookups that renew what is known of a key, and those of settings, have as
	// many places of their own, which strangers cannot take, and wait for one
	// within their LookupTimeout. So the store sees at most twice MaxLookups reads
	// at once.
	// Defaults to 64.
	MaxLookups int

	// LookupTimeout bounds one lookup, from the first caller that waits for it, and
	// one call of [Verifier.Verify], which may wait for several.
	// Defaults to 2 seconds, at most 5 minutes.
	LookupTimeout time.Duration

	// ServeStale is how long after its TTL an answer is still used while the store
	// fails, unless it was invalidated: availability for a longer time in which a
	// revocation made elsewhere stays unknown. It is never more than that: a key
	// that is not cached fails, and one that the store does not find is not found.
	// Such an answer is marked in [Verified]. When a lookup has failed, and while
	// they go on failing, the store is asked again once a second and nobody waits
	// for it who can be given such an answer.
	// Defaults to 0: never, as a store that is down lets nobody in (S76). At most
	// 24 hours.
	ServeStale time.Duration

	// Feed, if there is one, is polled for changes made by other processes. What
	// has changed is looked up again; everything else counts as read anew at the
	// beginning of the poll, so that a cache takes one trip to the store in each
	// FeedInterval however many keys it holds, and a revocation made elsewhere is
	// known after at most that and a trip. While polls fail the cache is one
	// without a Feed: nothing is renewed, and TTL bounds what is not known.
	//
	// It must be the feed of what the Reader reads, and never be ahead of it: a
	// change that it has returned must be in effect for reads that begin later. A
	// Feed and a Reader that ask different replicas of a database are no such pair.
	// And it must have every change: what is written past it, as with SQL by hand or
	// by restoring a copy of the database, may go unnoticed for as long as polls
	// succeed. Restart the processes then.
	//
	// A cache with a Feed has a goroutine, which [Cache.Close] ends.
	// Defaults to none.
	Feed Feed

	// FeedInterval is the time from the beginning of a poll to that of the next,
	// less up to a tenth of it by chance. It should be a fraction of TTL, so that a
	// poll that fails costs nothing. A poll that fails is followed by the next in
	// the same time.
	// Defaults to 1 second, or half of TTL if that is less; at least 1 millisecond,
	// at most TTL.
	FeedInterval time.Duration

	// FeedWake, if there is one, makes a poll begin when something is received from
	// it, at most every 5 milliseconds: a notification that there are changes. It
	// may be late, lost or for nothing, as it only shortens the wait for a poll. The
	// sender should not wait, and the channel have room for one, so that what is
	// sent during a poll is received after it. Closing the channel ends it.
	// Defaults to none.
	FeedWake <-chan struct{}

	// FeedFailed, if there is one, is called with the error of each poll that
	// failed. Polls wait for it.
	// Defaults to none: such errors are dropped.
	FeedFailed func(error)

	// Now is the clock of [Cache.Lookup] and [Cache.Settings]. It must be the one
	// that the callers of a [Verifier] read.
	// Defaults to [time.Now].
	Now func() time.Time
}

// withDefaults returns the options with every default filled in, and everything
// that is wrong with them, joined.
func (o *CacheOptions) withDefaults() (CacheOptions, error) {
	var opts CacheOptions
	if o != nil {
		opts = *o
	}
	var errs []error
	bad := func(field, problem string) {
		errs = append(errs, fmt.Errorf("store: CacheOptions.%s: %s", field, problem))
	}

	if opts.TTL == 0 {
		opts.TTL = defaultTTL
	}
	if opts.TTL > maxTTL {
		bad("TTL", "more than 5 minutes")
	}
	switch {
	case opts.TTL < 0 && opts.NegativeTTL > 0:
		bad("NegativeTTL", "set while TTL turns the cache off")
	case opts.TTL < 0:
		opts.NegativeTTL = -1
	case opts.NegativeTTL == 0:
		opts.NegativeTTL = min(defaultNegativeTTL, opts.TTL)
	case opts.NegativeTTL > opts.TTL:
		bad("NegativeTTL", "more than TTL")
	}
	if opts.MaxKeys == 0 {
		opts.MaxKeys = defaultMaxKeys
	}
	if opts.MaxKeys < 0 {
		bad("MaxKeys", "negative")
	}
	if opts.MaxLookups == 0 {
		opts.MaxLookups = defaultMaxLookups
	}
	if opts.MaxLookups < 0 {
		bad("MaxLookups", "negative")
	}
	if opts.LookupTimeout == 0 {
		opts.LookupTimeout = defaultLookupTimeout
	}
	switch {
	case opts.LookupTimeout < 0:
		bad("LookupTimeout", "negative")
	case opts.LookupTimeout > maxLookupTimeout:
		bad("LookupTimeout", "more than 5 minutes")
	}
	switch {
	case opts.ServeStale < 0:
		bad("ServeStale", "negative")
	case opts.ServeStale > maxServeStale:
		bad("ServeStale", "more than 24 hours")
	}
	if opts.ServeStale > 0 && opts.TTL < 0 {
		bad("ServeStale", "set while TTL turns the cache off")
	}
	switch {
	case opts.Feed == nil:
		if opts.FeedInterval != 0 {
			bad("FeedInterval", "set without Feed")
		}
		if opts.FeedWake != nil {
			bad("FeedWake", "set without Feed")
		}
		if opts.FeedFailed != nil {
			bad("FeedFailed", "set without Feed")
		}
	default:
		if opts.TTL < 0 {
			bad("Feed", "set while TTL turns the cache off")
		}
		if opts.FeedInterval == 0 {
			opts.FeedInterval = max(min(defaultFeedInterval, opts.TTL/2), minFeedInterval)
		}
		if opts.FeedInterval < minFeedInterval {
			bad("FeedInterval", "less than 1 millisecond")
		}
		if opts.TTL >= 0 && opts.FeedInterval > opts.TTL {
			bad("FeedInterval", "more than TTL")
		}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return opts, errors.Join(errs...)
}

// A Cache is a [Reader] in front of another. It is safe for concurrent use, and
// starts no goroutine that outlives a lookup, but for the one that polls a Feed
// until [Cache.Close]. The zero Cache fails every lookup.
//
// An answer is used for a bounded time ([CacheOptions.TTL]) and until it is
// invalidated, by [Cache.Invalidate] or a change in [CacheOptions.Feed]. What is
// cached is answered without a lock, an allocation or a trip to the store.
// Callers that ask for the same while it is looked up share one trip, which goes
// on when one of them gives up: its context has the values, but neither the end
// nor the deadline, of the first caller's. What happens while the store
// fails is in a table of the package's documentation.
//
// Only what the store found takes room as a key. Digests that it did not find are
// remembered apart, in a small table of fixed size in which new ones overwrite
// old ones. That table only saves trips and decides nothing: a digest that is not
// in it is asked for.
//
// A record whose digest is not the one asked for, or settings of another
// organization, are a failure, whatever the reason. So is a record whose
// parts do not name the same user.
//
// The records that a Cache returns are equal to those of its Reader, but not the
// same: strings and users that are the same for several keys are kept once. Besides
// its keys a Cache takes about 1 MB, and 15 MB when its tables of fixed size, of
// organizations and of unknown digests, are full; lists of addresses come on top.
type Cache struct {
	reader Reader
	now    func() time.Time
	base   time.Time // instants are kept as nanoseconds since

	ttl           int64 // of an answer, in nanoseconds; negative: none is kept
	negativeTTL   int64
	serveStale    int64
	lookupTimeout time.Duration

	// An answer that holds, of a read that began after the invalidation numbered
	// renewable, is as good as one of a read that began at the instant renewed.
	// Until a Feed was polled there is no such number.
	renewable atomic.Uint64
	renewed   atomic.Int64
	follower  *follower // nil: there is no Feed

	shards   []shard
	maxKeys  int64
	cells    []cellSet
	absences []absenceSet
	scopes   *[scopeSlots]atomic.Pointer[[]string]
	seed     maphash.Seed // of the hashes of users, organizations and scopes

	// The places of lookups: of unseen digests, and of all others.
	unseen chan struct{}
	known  chan struct{}

	invalid *invalidations

	cellMu sync.Mutex // for adding to cells

	_       [64]byte
	keys    atomic.Int64 // how many are held
	retryAt atomic.Int64 // with ServeStale: when to ask again a store that failed; 0: it did not
}

// NewCache returns a cache in front of r, which has to be closed if there is a
// [CacheOptions.Feed]. A nil opts stands for the defaults. The error reports
// everything that is wrong, joined.
func NewCache(r Reader, opts *CacheOptions) (*Cache, error) {
	o, err := opts.withDefaults()
	if r == nil {
		err = errors.Join(errors.New("store: NewCache: nil Reader"), err)
	}
	if err != nil {
		return nil, err
	}
	c := &Cache{
		reader:        r,
		now:           o.Now,
		base:          o.Now(),
		ttl:           int64(o.TTL),
		negativeTTL:   int64(o.NegativeTTL),
		serveStale:    int64(o.ServeStale),
		lookupTimeout: o.LookupTimeout,
		shards:        newShards(o.MaxKeys),
		maxKeys:       int64(o.MaxKeys),
		cells:         make([]cellSet, cellSets),
		absences:      make([]absenceSet, absenceSets),
		scopes:        new([scopeSlots]atomic.Pointer[[]string]),
		seed:          maphash.MakeSeed(),
		unseen:        make(chan struct{}, o.MaxLookups),
		known:         make(chan struct{}, o.MaxLookups),
		invalid:       new(invalidations),
	}
	c.renewable.Store(math.MaxUint64)
	if o.Feed != nil {
		f, ctx := newFollower(&o)
		c.follower = f
		go c.follow(ctx)
	}
	return c, nil
}

var errZeroCache = errors.New("store: the Cache was not made by NewCache")

// Lookup implements [Reader]. The error wraps [ErrNotFound], or [ErrBusy], or
// ctx.Err if ctx ends first; any other is a failure of the Reader.
func (c *Cache) Lookup(ctx context.Context, d token.Digest) (*Record, error) {
	if c == nil || c.reader == nil {
		return nil, errZeroCache
	}
	e, _, err := c.lookup(ctx, new(patience), &d, c.instant(c.now()))
	if err != nil {
		return nil, err
	}
	return &e.record, nil
}

// Settings implements [Reader]. Errors are those of [Cache.Lookup], but for
// ErrNotFound, which is a failure here.
func (c *Cache) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	if c == nil || c.reader == nil {
		return nil, errZeroCache
	}
	s, _, err := c.settings(ctx, new(patience), c.cell(org), c.instant(c.now()))
	return s, err
}

// Invalidate makes the cache forget what the changes touched. Call it when the
// write has been made: once Invalidate has returned, no answer that was read
// before is given to anybody, neither from the cache nor from a lookup that is
// still under way, which is made again. It takes no lock, and a time that does
// not depend on what is cached. It may forget more than it was told to, which
// costs a lookup.
//
// That a digest was not found is forgotten with a change of its key, not with one
// of a user: if a key is not found because its user's row is gone, it is found
// again NegativeTTL after that row came back.
//
// A change of a kind that is not known counts as [ChangedAll].
func (c *Cache) Invalidate(changes ...Change) {
	if c == nil || c.reader == nil || len(changes) == 0 {
		return
	}
	n := c.invalid.last.Add(1)
	for i := range changes {
		switch ch := &changes[i]; ch.Kind {
		case ChangedKey:
			raise(&c.invalid.digests[digestSlot(&ch.Digest)], n)
		case ChangedUser:
			raise(&c.invalid.users[c.userHash(ch.Org, ch.User)%invalidationSlots], n)
		case ChangedSettings:
			raise(&c.invalid.settings[c.orgHash(ch.Org)%invalidationSlots], n)
		default:
			raise(&c.invalid.all, n)
		}
	}
}

const invalidationSlots = 1 << 14

// invalidations are numbered, in one sequence. Each leaves its number in the
// slots of what it touched. An answer remembers the number of the last
// invalidation before its read began, and holds as long as none of its slots has
// a higher one. So nothing has to be found to be invalidated, and a read that
// began before an invalidation cannot outlive it, wherever its answer is.
//
// Several things share a slot, by their hash: an invalidation of one costs the
// others a lookup.
type invalidations struct {
	all      atomic.Uint64 // of everything
	digests  [invalidationSlots]atomic.Uint64
	users    [invalidationSlots]atomic.Uint64
	settings [invalidationSlots]atomic.Uint64

	last atomic.Uint64 // the last number taken; here, away from what a hit reads
}

// raise sets a to n unless it is higher already, as it is if a later
// invalidation was faster.
func raise(a *atomic.Uint64, n uint64) {
	for {
		old := a.Load()
		if old >= n || a.CompareAndSwap(old, n) {
			return
		}
	}
}

// keyHolds reports whether neither the key with digest d nor everything was
// invalidated after number.
func (v *invalidations) keyHolds(d *token.Digest, number uint64) bool {
	return v.digests[digestSlot(d)].Load() <= number && v.all.Load() <= number
}

// holds reports whether e was not invalidated.
func (v *invalidations) holds(e *entry) bool {
	number := e.number()
	return v.keyHolds(&e.record.Key.Digest, number) && v.users[e.owner.slot].Load() <= number
}

// settingsHold reports whether settings of cl from a read after number were not
// invalidated.
func (v *invalidations) settingsHold(cl *cell, number uint64) bool {
	return v.settings[cl.slot].Load() <= number && v.all.Load() <= number
}

// Different bytes of a digest choose its shard, its place there, its tag, its
// absence set and its invalidation slot, so that these are independent. The bytes
// of a digest are as good as any hash: who wants digests that collide has to find
// them first, and gains a place in a set of absences.
func (c *Cache) shard(d *token.Digest) *shard { return &c.shards[int(d[31])&(len(c.shards)-1)] }
func digestHome(d *token.Digest) uint64       { return binary.LittleEndian.Uint64(d[0:8]) }
func digestTag(d *token.Digest) uint32        { return binary.LittleEndian.Uint32(d[8:12]) | 1 }
func digestSet(d *token.Digest) uint32        { return binary.LittleEndian.Uint32(d[12:16]) % absenceSets }

func digestSlot(d *token.Digest) uint32 {
	return binary.LittleEndian.Uint32(d[16:20]) % invalidationSlots
}

func (c *Cache) orgHash(org string) uint64 { return maphash.String(c.seed, org) }

func (c *Cache) userHash(org, user string) uint64 {
	return maphash.Comparable(c.seed, [2]string{org, user})
}

// instant returns now as it is kept and compared: as nanoseconds since the cache
// was made, of the monotonic clock if now has a reading of it. The farthest
// instants are cut off, so that differences do not overflow.
func (c *Cache) instant(now time.Time) int64 {
	const farthest = 1 << 62
	return min(max(int64(now.Sub(c.base)), -farthest), farthest)
}

// within reports whether at now an instant is at most ttl ago.
func within(now, at, ttl int64) bool {
	age := now - at
	return age <= ttl && age >= -int64(clockSlack)
}

// fresh reports whether at now an answer is at most ttl old: one of a read that
// began at an instant, after the invalidation with that number. Whether it holds
// has to be asked after this, since a poll renews after it has invalidated.
func (c *Cache) fresh(now, at int64, number uint64, ttl int64) bool {
	return within(now, at, ttl) || number >= c.renewable.Load() && within(now, c.renewed.Load(), ttl)
}

// usable reports whether e can be given out at now.
func (c *Cache) usable(e *entry, now int64) bool {
	return c.fresh(now, e.at, e.number(), c.ttl) && c.invalid.holds(e)
}

// has reports whether anything is cached of the key with digest d, valid or not.
func (c *Cache) has(d *token.Digest) bool { return c.shard(d).table.Load().find(d) != nil }

// lookup returns the entry of the key with that digest, and whether it is older
// than its TTL.
func (c *Cache) lookup(ctx context.Context, p *patience, d *token.Digest, now int64) (e *entry, stale bool, err error) {
	e = c.shard(d).table.Load().find(d)
	if e == nil {
		if c.absent(d, now) {
			return nil, false, ErrNotFound
		}
	} else if c.usable(e, now) {
		e.use()
		return e, false, nil
	}
	return c.fetch(ctx, p, *d, now, e)
}

// fetch is lookup for what has to be asked for. old is what the cache has, or
// nil.
func (c *Cache) fetch(ctx context.Context, p *patience, d token.Digest, now int64, old *entry) (*entry, bool, error) {
	e, stale, err := ask(ctx, c, p, now,
		func() bool {
			return old != nil && c.fresh(now, old.at, old.number(), c.ttl+c.serveStale) && c.invalid.holds(old)
		},
		func() (*entry, *trip[*entry], error) { return c.join(ctx, d, now) },
		func(t *trip[*entry]) bool {
			if t.err != nil {
				return c.invalid.keyHolds(&d, t.number)
			}
			return c.invalid.holds(t.value)
		})
	if stale {
		return old, true, nil
	}
	return e, false, err
}

// join returns a trip to the store for the key with digest d: one that is under
// way if its answer can still hold, or a new one. It returns no trip but an
// entry if that has come meanwhile, or an error.
func (c *Cache) join(ctx context.Context, d token.Digest, now int64) (*entry, *trip[*entry], error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, lookupError(err)
	}
	s := c.shard(&d)
	s.mu.Lock()
	defer s.mu.Unlock()

	e := s.table.Load().find(&d)
	if e != nil && c.usable(e, now) {
		return e, nil, nil
	}
	if t := s.trips[d]; t != nil && c.invalid.keyHolds(&d, t.number) {
		return nil, t, nil
	}
	places, wait := c.known, true
	if e == nil {
		places, wait = c.unseen, false
		select {
		case places <- struct{}{}:
		default:
			return nil, nil, ErrBusy
		}
	}
	t := newTrip[*entry](ctx, c, now)
	if s.trips == nil {
		s.trips = make(map[token.Digest]*trip[*entry])
	}
	s.trips[d] = t
	go t.run(places, wait,
		func(ctx context.Context) (*entry, error) { return c.read(ctx, &d, t) },
		func() { c.file(&d, t) })
	return nil, t, nil
}

// read reads the record of the key with digest d. Its error is ErrNotFound as
// it is, or a failure.
func (c *Cache) read(ctx context.Context, d *token.Digest, t *trip[*entry]) (*entry, error) {
	r, err := c.reader.Lookup(ctx, *d)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, ErrNotFound
	case err != nil:
		return nil, lookupError(err)
	case r == nil || r.Key == nil || r.User == nil || r.Principal == nil:
		return nil, errors.New("store: lookup: the reader returned an incomplete record and no error")
	case !r.Key.Digest.Equal(*d):
		return nil, errors.New("store: lookup: the reader returned the record of another digest")
	case r.User.Org != r.Key.Org || r.User.ID != r.Key.User ||
		r.Principal.Org != r.Key.Org || r.Principal.User != r.Key.User:
		return nil, errors.New("store: lookup: the reader returned a record of more than one user")
	}
	return c.newEntry(r, t.number, t.at), nil
}

// file ends a trip for the key with digest d: its answer is kept if it holds.
func (c *Cache) file(d *token.Digest, t *trip[*entry]) {
	gone := errors.Is(t.err, ErrNotFound) && c.invalid.keyHolds(d, t.number)
	if gone {
		c.addAbsence(d, t.number, t.at)
	}
	s := c.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case gone:
		if s.remove(d) {
			c.keys.Add(-1)
		}
	case t.err == nil && c.ttl > 0 && c.invalid.holds(t.value):
		c.keep(s, t.value)
	}
	if s.trips[*d] == t {
		delete(s.trips, *d)
	}
}

// failing reports, with ServeStale, whether the store is known to fail, and if
// so whether the caller is the one that should ask it again.
func (c *Cache) failing(now int64) (failed, retry bool) {
	at := c.retryAt.Load()
	if at == 0 {
		return false, false
	}
	// It is due, too, if the pause seems to be longer than it can be for a caller who
	// has waited for a lookup before: then the clock was set back.
	longest := int64(retryPause) + int64(c.lookupTimeout) + int64(clockSlack)
	due := now >= at || at-now > longest
	return true, due && c.retryAt.CompareAndSwap(at, now+int64(retryPause))
}

// note takes account of how a trip to the store ended.
func (c *Cache) note(err error) {
	switch {
	case c.serveStale == 0:
	case err != nil && !errors.Is(err, ErrNotFound):
		c.retryAt.Store(c.instant(c.now()) + int64(retryPause))
	case c.retryAt.Load() != 0:
		c.retryAt.Store(0)
	}
}
