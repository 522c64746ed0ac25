package ratelimit

import (
	"context"
	"errors"
	"slices"
)

var errNoLimiter = errors.New("ratelimit: All of no limiters, or with a nil one")

// All returns a [Limiter] that asks the given ones in order and stops at the
// first that refuses or fails.
//
// What the earlier ones took before a later one refused is not given back (D5):
// so the one whose units matter most comes last, All(burst, daily). Then a
// client that is too fast spends nothing of its day.
//
// A refusal is that of the limiter that refused. An admission is the Result of
// the last limiter: it is what the client is told, and what a client plans by is
// the day's quota, not how many tokens a bucket happens to hold. Peek looks in
// the same way: the first that would refuse, otherwise the last.
//
// All of no limiters, and one with a nil among them, answers every Take and
// Peek with an error: a list that was meant to be filled must not admit.
func All(limiters ...Limiter) Limiter {
	if slices.Contains(limiters, nil) {
		return all(nil)
	}
	return all(slices.Clone(limiters))
}

type all []Limiter

// Take implements [Limiter].
func (a all) Take(ctx context.Context, key string, limit int64) (Result, error) {
	return a.ask(func(l Limiter) (Result, error) { return l.Take(ctx, key, limit) })
}

// Peek implements [Limiter].
func (a all) Peek(ctx context.Context, key string, limit int64) (Result, error) {
	return a.ask(func(l Limiter) (Result, error) { return l.Peek(ctx, key, limit) })
}

// ask returns the first answer that does not admit, otherwise the last.
func (a all) ask(question func(Limiter) (Result, error)) (r Result, err error) {
	if len(a) == 0 {
		return Result{}, errNoLimiter
	}
	for _, l := range a {
		if r, err = question(l); err != nil {
			return Result{}, err
		}
		if !r.OK {
			break
		}
	}
	return r, nil
}
