package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"
)

const (
	defaultFeedInterval = time.Second
	minFeedInterval     = time.Millisecond

	// wakePause is the least time between two polls, so that wake-ups that come
	// faster share one.
	wakePause = 5 * time.Millisecond

	// fullPage is how many changes a Feed returns at most. Fewer, but for those
	// after a ChangedAll, are all there are.
	fullPage = 1000
)

// errFeedPlace is a failure of a Feed: to go on from there could miss a change,
// or see the same ones for ever.
var errFeedPlace = errors.New("store: feed: the place to go on from is not that of the last change")

// A follower polls a Feed for a Cache, on a goroutine of its own.
type follower struct {
	feed     Feed
	interval time.Duration
	wake     <-chan struct{}
	failed   func(error)

	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended
	call chan struct{} // the one place for a call of the Feed
}

// newFollower returns a follower and the context of its goroutine.
func newFollower(o *CacheOptions) (*follower, context.Context) {
	f := &follower{
		feed:     o.Feed,
		interval: o.FeedInterval,
		wake:     o.FeedWake,
		failed:   o.FeedFailed,
		done:     make(chan struct{}),
		call:     make(chan struct{}, 1),
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	return f, ctx
}

// Close ends the polls of [CacheOptions.Feed]. When it has returned no poll is
// waited for and FeedFailed is not running; a poll that was under way has been
// cancelled. The cache goes on as one without a Feed: what the last poll renewed
// is used for TTL after it.
//
// Close may be called more than once, and does nothing without a Feed. It waits
// for FeedFailed, which must not call it.
func (c *Cache) Close() {
	if c == nil || c.follower == nil {
		return
	}
	c.follower.stop()
	<-c.follower.done
}

// follow polls until ctx ends.
func (c *Cache) follow(ctx context.Context) {
	f := c.follower
	defer close(f.done)
	place := int64(-1)
	for n := uint64(0); ; n++ {
		from := time.Now()
		var err error
		place, err = c.poll(ctx, place)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			from = time.Now() // a feed that hangs is left alone for a while, too
			if f.failed != nil {
				f.failed(err)
			}
		}
		// Nodes that were started together, or met the same failure, drift apart. A
		// poll can be early but not late, so that the interval is a bound.
		jitter := maphash.Comparable(c.seed, n) % uint64(f.interval/10)
		if !f.pause(ctx, from.Add(f.interval-time.Duration(jitter))) {
			return
		}
	}
}

// pause waits until then or for a wake-up, and reports whether there is to be
// another poll. A wake-up that comes before the pause is as good as one in it.
func (f *follower) pause(ctx context.Context, until time.Time) bool {
	select {
	case <-time.After(min(wakePause, f.interval)):
	case <-ctx.Done():
		return false
	}
	timer := time.After(time.Until(until))
	for {
		select {
		case <-timer:
			return true
		case _, open := <-f.wake:
			if open {
				return true
			}
			f.wake = nil // closed: it would wake for ever
		case <-ctx.Done():
			return false
		}
	}
}

// poll reads the feed from place to its end, and makes the cache forget what has
// changed. It returns the place to go on from, also with an error. The first
// place is -1.
//
// Each poll that gets to the end renews every answer that is left: it is as good
// as one read when the last call of Changes began. That is right because
//
//   - a change that the call did not return took effect after it began, or lies
//     before the place asked for (the feed is in order, and nothing appears before
//     a place that was given out);
//   - of those before the place all since the first place were returned before,
//     and what they touched was forgotten: unless it was read after that, when
//     they were in effect, since what the feed returns is (see
//     [CacheOptions.Feed]). An answer of a read that had begun and comes later is
//     not kept, like with any invalidation;
//   - of those before the first place nobody told. They were in effect for the
//     reads that began after it was returned; earlier reads may have missed them.
//     So a number is taken from the sequence of the invalidations at that moment,
//     and answers with lower numbers are never renewed: they are used for their
//     TTL, as without a Feed, and looked up again.
//
// What is renewed is stored last, and looked at first by those who use answers
// (see fresh): whoever sees a renewal sees the invalidations that it rests on.
//
// An error renews nothing. Neither does ChangedAll, whatever comes with it, since
// it says that changes are missing: everything is looked up again. The next poll
// goes on from the place given and renews what was read after it.
func (c *Cache) poll(ctx context.Context, place int64) (int64, error) {
	for {
		began := c.instant(c.now())
		p := c.page(ctx, place)
		switch {
		case p.err != nil:
			return place, p.err
		case p.last < 0:
			c.Invalidate(p.changes...)
			return place, errFeedPlace
		case place < 0:
			c.renewable.Store(c.invalid.last.Add(1))
			return p.last, nil
		}
		c.Invalidate(p.changes...)
		switch {
		case incomplete(p.changes):
			return p.last, nil
		case p.last < place, (p.last == place) != (len(p.changes) == 0):
			return place, errFeedPlace
		case len(p.changes) < fullPage:
			c.renewed.Store(began)
			return p.last, nil
		}
		place = p.last
	}
}

// incomplete reports whether changes stand for others that are not among them.
func incomplete(changes []Change) bool {
	for i := range changes {
		switch changes[i].Kind {
		case ChangedKey, ChangedUser, ChangedSettings:
		default:
			return true
		}
	}
	return false
}

// A page is an answer of Changes.
type page struct {
	changes []Change
	last    int64
	err     error
}

// page asks the Feed for the changes after a place. Like a lookup it is given up
// after LookupTimeout, also if the Feed does not heed its context; then the next
// call waits for that one, so that there is never more than one.
func (c *Cache) page(ctx context.Context, after int64) page {
	f := c.follower
	ctx, cancel := context.WithTimeout(ctx, c.lookupTimeout)
	defer cancel()
	select {
	case f.call <- struct{}{}:
	case <-ctx.Done():
		return page{err: feedError(ctx.Err())}
	}
	answer := make(chan page, 1)
	go func() {
		p := page{err: feedError(errNoReturn)}
		defer func() {
			if r := recover(); r != nil {
				p.err = fmt.Errorf("store: the feed panicked: %v", r)
			}
			<-f.call
			answer <- p
		}()
		changes, last, err := f.feed.Changes(ctx, after)
		if err != nil {
			err = feedError(err)
		}
		p = page{changes, last, err}
	}()
	select {
	case p := <-answer:
		return p
	case <-ctx.Done():
		return page{err: feedError(ctx.Err())}
	}
}

func feedError(err error) error { return fmt.Errorf("store: feed: %w", err) }
