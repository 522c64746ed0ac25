package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Unlimited, as the limit of a key, admits every request; what is used is
// counted all the same (D6).
const Unlimited = -1

// The names of the limiters of this package, in [Result].Name.
const (
	DailyName = "daily"
	BurstName = "burst"
)

// A Limiter spends a caller's quota. Implementations are safe for concurrent
// use. Whatever cannot be decided is an error, and comes with the zero Result:
// the caller refuses then (S76).
type Limiter interface {
	// Take spends one unit of key, in one atomic step, or spends nothing and
	// returns a Result that is not OK. Limit is the key's own limit: 0 stands for
	// the limiter's default and Unlimited for none; other negative limits are an
	// error (D6).
	Take(ctx context.Context, key string, limit int64) (Result, error)

	// Peek spends nothing. Its Result is OK if Take would be admitted; the numbers
	// are those before such a Take, which is how the key stands.
	Peek(ctx context.Context, key string, limit int64) (Result, error)
}

// A Result tells what a [Limiter] decided and how the key stands after it. The
// zero Result is a refusal.
type Result struct {
	OK     bool
	Name   string        // of the limiter that decided, such as DailyName; the policy name of the RateLimit fields
	Window time.Duration // that Limit is counted over

	Limit     int64 // Unlimited if there is none
	Used      int64 // in the window, after this decision
	Remaining int64 // never negative; Unlimited if there is no limit

	Start time.Time // of the window; zero where the window has none
	Reset time.Time // when the window ends and the count starts anew

	// RetryAfter is how long to wait before the next Take can be admitted; 0 if
	// Remaining is not 0. Measured from the limiter's clock at the decision.
	RetryAfter time.Duration
}

// A Counter counts by key and window: the store of a daily limit.
// Implementations must pass ratelimittest and are safe for concurrent use.
//
// A key is any string, the empty one included; equal means equal in every byte.
// A window is named by the instant at which it ends, the zero Time included.
// Instants count, not their form: the zone and the monotonic reading of end do
// not matter, and ends that are a microsecond or more apart are different
// windows.
//
// Every pair of key and end has a count of its own, which starts at 0 and is
// made by the first addition to it. A counter reads no wall clock: windows may
// come in any order, and going back to an earlier end finds its count as it was
// left (D4). Therefore a counter forgets a window of a key only when eight other
// windows of that key were made after it, or when neither it nor any other window
// of that key was touched for two days of real (monotonic) time.
type Counter interface {
	// Add adds n, which is not negative, to the count of key in the window that
	// ends at end, unless that would exceed max: then it adds nothing and ok is
	// false. Either is one atomic step, exact among all callers that share the
	// counter: no caller is refused while there is room for what it adds, and none
	// is admitted beyond max. It returns the count after the step. Max belongs to
	// the call, not to the window; it may differ from one to the next.
	//
	// An n of 0 reads: it is ok whatever max is, and must not make a count where
	// there is none. A negative n is an error and adds nothing; so is a context
	// that has ended before the step: ctx.Err is returned wrapped. Any other error
	// means that it is unknown whether n was added.
	Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error)
}

// errLimit is the answer to a limit that D6 refuses.
var errLimit = errors.New("ratelimit: the limit of the key is negative and not Unlimited")

// ended returns the error of a context that has ended, nil for any other.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ratelimit: %w", err)
	}
	return nil
}
