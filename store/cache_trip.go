package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// errUnsettled is a failure: there is an answer, but it may be wrong.
	errUnsettled = errors.New("store: invalidated during every lookup")
	// errNoReturn is a failure of a Reader that ended its goroutine.
	errNoReturn = errors.New("store: the reader did not return")
)

func lookupError(err error) error { return fmt.Errorf("store: lookup: %w", err) }

// A trip is one read of the store, shared by all callers who ask for the same.
// It is made on a goroutine and in a context of its own.
type trip[T any] struct {
	cache  *Cache
	ctx    context.Context // ends after LookupTimeout
	cancel context.CancelFunc

	number uint64 // of the last invalidation before it began
	at     int64  // when it began

	done  chan struct{} // closed when value and err are there
	value T
	err   error
}

// newTrip returns a trip that begins at now, for a caller with that context.
func newTrip[T any](ctx context.Context, c *Cache, now int64) *trip[T] {
	t := &trip[T]{cache: c, number: c.invalid.last.Load(), at: now, done: make(chan struct{})}
	t.ctx, t.cancel = context.WithTimeout(context.WithoutCancel(ctx), c.lookupTimeout) //nolint:gosec // run cancels it
	return t
}

// run makes the trip: it reads once it has one of the places, for which it waits
// or which its caller has taken already, then files the answer and tells those who
// wait. A Reader that panics has failed, in the sense that this gives every
// caller an error; the program goes on, as net/http does in a handler.
func (t *trip[T]) run(places chan struct{}, wait bool, read func(context.Context) (T, error), file func()) {
	held := !wait
	t.err = errNoReturn
	defer func() {
		if p := recover(); p != nil {
			t.err = fmt.Errorf("store: the reader panicked: %v", p)
		}
		t.cache.note(t.err)
		if held {
			<-places
		}
		file()
		close(t.done)
		t.cancel()
	}()
	if wait {
		select {
		case places <- struct{}{}:
			held = true
		case <-t.ctx.Done():
			t.err = lookupError(t.ctx.Err())
			return
		}
	}
	t.value, t.err = read(t.ctx)
}

// A patience is how long a caller waits in all, however many trips it takes:
// for LookupTimeout from the first one on. Its zero value has not begun.
type patience struct{ until time.Time }

// limit returns a channel that ends the wait for a trip which goes on for longer
// than p, or nil if it does not.
func (p *patience) limit(trip context.Context, timeout time.Duration) <-chan time.Time {
	now := time.Now()
	if p.until.IsZero() {
		p.until = now.Add(timeout)
	}
	if end, _ := trip.Deadline(); end.After(p.until) {
		return time.After(p.until.Sub(now))
	}
	return nil
}

// wait returns the answer of the trip, or an error when ctx ends or when the time
// of the trip or of p is over: also if its Reader does not heed its context.
func (t *trip[T]) wait(ctx context.Context, p *patience) (value T, err error) {
	select {
	case <-t.done:
		return t.value, t.err
	case <-ctx.Done():
		return value, lookupError(ctx.Err())
	case <-t.ctx.Done():
	case <-p.limit(t.ctx, t.cache.lookupTimeout):
	}
	select {
	case <-t.done:
		return t.value, t.err
	default:
	}
	err = lookupError(context.DeadlineExceeded)
	t.cache.note(err)
	return value, err
}

// ask makes trips until one brings an answer that holds, which may be that there
// is none. If stale is true, the caller gives out the answer that it has; servable
// reports whether it may.
func ask[T any](ctx context.Context, c *Cache, p *patience, now int64,
	servable func() bool, join func() (T, *trip[T], error), holds func(*trip[T]) bool,
) (v T, stale bool, err error) {
	if c.serveStale > 0 && servable() {
		failed, retry := c.failing(now)
		if retry {
			_, _, _ = join() // for those who come later
		}
		if failed {
			return v, true, nil
		}
	}
	for range maxTrips {
		v, t, err := join()
		if t == nil {
			return v, false, err
		}
		v, err = t.wait(ctx, p)
		switch {
		case err == nil || errors.Is(err, ErrNotFound):
			if holds(t) {
				return v, false, err
			}
		case c.serveStale > 0 && ctx.Err() == nil && servable():
			return v, true, nil
		default:
			return v, false, err
		}
	}
	return v, false, errUnsettled
}
