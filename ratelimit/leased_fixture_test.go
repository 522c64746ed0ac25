package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
)

// A line is the way from a node to a lender: it takes time, counts the trips, and
// loses what it is told to.
type line struct {
	to ratelimit.Lender

	latency atomic.Int64 // of a trip, there and back

	adds, borrows, backs atomic.Int64

	// fault says what becomes of the n-th trip, from 1. Nil: nothing is lost.
	fault func(n int64) fault
	cut   atomic.Bool // every trip is lost
}

type fault int

const (
	none       fault = iota
	lost             // it never arrives
	unanswered       // it arrives, and the answer does not
	late             // it arrives five seconds after the caller gave it up
)

var errLine = errors.New("line: no answer")

func (l *line) trips() int64 { return l.adds.Load() + l.borrows.Load() + l.backs.Load() }

// trip makes a trip: do is what happens at its end.
func (l *line) trip(ctx context.Context, count *atomic.Int64, do func() error) error {
	count.Add(1)
	f := none
	if l.fault != nil {
		f = l.fault(l.trips())
	}
	if l.cut.Load() {
		f = lost
	}
	switch f {
	case lost:
		return errLine
	case late:
		go func() {
			<-time.After(5 * time.Second)
			_ = do()
		}()
		return errLine
	}
	latency := time.Duration(l.latency.Load())
	if latency > 0 {
		select {
		case <-time.After(latency / 2):
		case <-ctx.Done():
			return fmt.Errorf("line: %w", ctx.Err())
		}
	}
	err := do()
	if latency > 0 {
		<-time.After(latency - latency/2)
	}
	if f == unanswered {
		return errLine
	}
	return err
}

func (l *line) Add(ctx context.Context, key string, end time.Time, n, max int64) (int64, bool, error) {
	var count int64
	var ok bool
	err := l.trip(ctx, &l.adds, func() (err error) {
		count, ok, err = l.to.Add(context.WithoutCancel(ctx), key, end, n, max)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	return count, ok, nil
}

func (l *line) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	count := &l.borrows
	if want <= 0 {
		count = &l.backs
	}
	var loan ratelimit.Loan
	err := l.trip(ctx, count, func() (err error) {
		loan, err = l.to.Lend(context.WithoutCancel(ctx), account, key, end, spent, want, limit, now)
		return err
	})
	if err != nil {
		return ratelimit.Loan{}, err
	}
	return loan, nil
}

// closed closes l, and requires that it can give back what it holds.
func closed(t testing.TB, l *ratelimit.Leased) {
	t.Helper()
	require.NoError(t, l.Close(context.Background()))
}

// addOK adds one unit and returns the count; it must be admitted.
func addOK(t testing.TB, c ratelimit.Counter, key string, max int64) int64 {
	t.Helper()
	count, ok, err := c.Add(t.Context(), key, midnight, 1, max)
	require.NoError(t, err)
	require.True(t, ok, "refused at a count of %d of %d", count, max)
	return count
}

// refused adds one unit, which must be refused.
func refused(t testing.TB, c ratelimit.Counter, key string, max int64) {
	t.Helper()
	count, ok, err := c.Add(t.Context(), key, midnight, 1, max)
	require.NoError(t, err)
	require.False(t, ok, "admitted to a count of %d of %d", count, max)
}

// burst makes n additions of one unit at once, and returns how many were admitted
// and the errors of the others.
func burst(c ratelimit.Counter, key string, max int64, n int) (admitted int, errs []error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range n {
		wg.Go(func() {
			_, ok, err := c.Add(context.Background(), key, midnight, 1, max)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				admitted++
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return admitted, errs
}

// A sharedClock is a wall clock that a test sets while others read it.
type sharedClock struct{ nanos atomic.Int64 }

func (c *sharedClock) Set(now time.Time) { c.nanos.Store(now.UnixNano()) }

func (c *sharedClock) Now() time.Time { return time.Unix(0, c.nanos.Load()) }
