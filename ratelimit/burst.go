package ratelimit

import (
	"container/list"
	"context"
	"errors"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// defaultMaxKeys is how many keys a burst limiter keeps by default.
	defaultMaxKeys = 100_000

	// burstShards is the number of parts that have a lock each. Limiters for fewer
	// keys than burstShardKeys each have one part, so that the split does not
	// matter.
	burstShards    = 16
	burstShardKeys = 64
)

var (
	errBurst   = errors.New("ratelimit: a burst limiter needs a positive rate and burst, and at most 24 hours to refill")
	errMaxKeys = errors.New("ratelimit: BurstOptions.MaxKeys is negative")
)

// BurstOptions are the options of [NewBurst].
type BurstOptions struct {
	// MaxKeys is how many keys are remembered at most. When another comes the one
	// that was idle for longest is forgotten, and starts full when it comes back.
	// Nobody is refused because there are many. The bound holds exactly; as keys
	// are kept in parts, a part may be full a few per cent before the whole.
	// Defaults to 100 000, of about 200 bytes each and the key itself. A negative
	// number is an error, which every Take and Peek returns, and [Validate].
	MaxKeys int

	// Now is the clock. Defaults to time.Now, whose monotonic reading makes the
	// limiter indifferent to the setting of the clock; a Now should keep it. While
	// a clock without it stands behind its own highest reading, time goes on from
	// that reading at real speed: setting such a clock back, once or again and
	// again, neither gives tokens away nor withholds them.
	Now func() time.Time
}

// NewBurst returns a [Limiter] that lets every key make burst requests at once
// and refills r of them a second: a token bucket of x/time/rate for each key, in
// the memory of this process. Its Results are named "burst".
//
// It smooths and is no quota: a full bucket and what is refilled meanwhile come
// to nearly twice the burst within the time that an empty one takes to refill.
// For so many a day use [Daily]. Therefore a bucket has to refill within 24
// hours. R and burst must be positive, and r less than rate.Inf. Otherwise every
// Take and Peek returns an error.
//
// The limit of a key does not concern it: Take and Peek ignore it, also if it is
// Unlimited, but refuse those that are an error for every Limiter. The Limit of a
// Result is burst, its Window the time in which an empty bucket refills, its
// Reset the time at which this one is full. Remaining is what can be taken at
// once. It has no Start.
func NewBurst(r rate.Limit, burst int, opts *BurstOptions) Limiter {
	var o BurstOptions
	if opts != nil {
		o = *opts
	}
	b := &burstLimiter{rate: r, burst: burst, now: time.Now, seed: maphash.MakeSeed()}
	fill := float64(burst) / float64(r) // seconds
	b.err = errors.Join(
		when(burst <= 0 || !(r > 0) || r >= rate.Inf || !(fill <= 24*60*60), errBurst),
		when(o.MaxKeys < 0, errMaxKeys),
	)
	if b.err == nil {
		b.window = max(duration(fill), 1)
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = defaultMaxKeys
	}
	if o.Now != nil {
		b.now = steady(o.Now)
	}
	parts := 1
	if o.MaxKeys >= burstShards*burstShardKeys {
		parts = burstShards
	}
	b.shards = make([]burstShard, parts)
	for i := range b.shards {
		s := &b.shards[i]
		s.max = o.MaxKeys / parts
		s.buckets = make(map[string]*list.Element)
	}
	return b
}

// A burstLimiter is the Limiter of NewBurst.
type burstLimiter struct {
	rate   rate.Limit
	burst  int
	window time.Duration
	now    func() time.Time
	err    error // if it cannot decide
	seed   maphash.Seed
	shards []burstShard
}

// A burstShard holds the buckets of the keys whose hashes end alike.
type burstShard struct {
	mu      sync.Mutex
	max     int
	buckets map[string]*list.Element // of used
	used    list.List                // of *bucket, the one last used in front

	_ [64]byte // so that shards do not share a cache line
}

type bucket struct {
	key    string
	tokens *rate.Limiter
}

// Take implements [Limiter].
func (b *burstLimiter) Take(ctx context.Context, key string, limit int64) (Result, error) {
	if err := b.check(ctx, limit); err != nil {
		return Result{}, err
	}
	s := b.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	// The clock is read under the lock: x/time/rate would take a time that is
	// older than the one before for a step back, and the next for a step ahead.
	now := b.now()
	e := s.buckets[key]
	if e == nil {
		e = s.add(key, rate.NewLimiter(b.rate, b.burst))
	}
	s.used.MoveToFront(e)
	tokens := e.Value.(*bucket).tokens
	ok := tokens.AllowN(now, 1)
	return b.result(ok, tokens.TokensAt(now), now), nil
}

// Peek implements [Limiter]. It does not make a key the one last used.
func (b *burstLimiter) Peek(ctx context.Context, key string, limit int64) (Result, error) {
	if err := b.check(ctx, limit); err != nil {
		return Result{}, err
	}
	s := b.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := b.now()
	tokens := float64(b.burst)
	if e := s.buckets[key]; e != nil {
		tokens = e.Value.(*bucket).tokens.TokensAt(now)
	}
	r := b.result(true, tokens, now)
	r.OK = r.Remaining > 0
	return r, nil
}

func (b *burstLimiter) check(ctx context.Context, limit int64) error {
	switch {
	case b.err != nil:
		return b.err
	case limit < Unlimited:
		return errLimit
	default:
		return ended(ctx)
	}
}

func (b *burstLimiter) shard(key string) *burstShard {
	return &b.shards[maphash.String(b.seed, key)%uint64(len(b.shards))]
}

// add adds a bucket, in the place of the one unused for longest if there is no
// other.
func (s *burstShard) add(key string, tokens *rate.Limiter) *list.Element {
	if len(s.buckets) >= s.max {
		idlest := s.used.Back()
		delete(s.buckets, idlest.Value.(*bucket).key)
		s.used.Remove(idlest)
	}
	key = strings.Clone(key) // pins no larger string
	e := s.used.PushFront(&bucket{key, tokens})
	s.buckets[key] = e
	return e
}

// result describes a bucket with so many tokens. Times are rounded to the next
// nanosecond, and a token that is nearly a nanosecond away counts, as it does for
// x/time/rate: so a bucket is ready when RetryAfter is over, however its numbers
// round.
func (b *burstLimiter) result(ok bool, tokens float64, now time.Time) Result {
	perSecond := float64(b.rate)
	r := Result{
		OK:        ok,
		Name:      BurstName,
		Window:    b.window,
		Limit:     int64(b.burst),
		Remaining: int64(min(tokens+perSecond*0.75e-9, float64(b.burst))),
		Reset:     now.Add(duration((float64(b.burst) - tokens) / perSecond)),
	}
	r.Used = r.Limit - r.Remaining
	if r.Remaining == 0 {
		r.RetryAfter = max(duration((1-tokens)/perSecond), 1)
	}
	return r
}

// duration returns so many seconds.
func duration(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds * 1e9))
}

// steady returns a clock that follows now and never goes back. While now stands
// behind its highest reading, the clock goes on from there by the monotonic time
// of the process. We do not stop it instead, because a clock that had been ahead
// by a day would then refill nothing for a day; and we do not go back and forth
// with it, because every step ahead would refill.
func steady(now func() time.Time) func() time.Time {
	var (
		mu       sync.Mutex
		reading  time.Time // the last one given
		readWhen time.Time // by the monotonic clock
	)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		t, when := now(), time.Now()
		if t.Before(reading) {
			t = reading.Add(when.Sub(readWhen))
		}
		reading, readWhen = t, when
		return t
	}
}
