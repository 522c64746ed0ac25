package rediscounter

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

const (
	// maxSpent is what an account can tell. Numbers of Lua are exact up to here.
	maxSpent = 1 << 53

	// allWant is more than any loan.
	allWant = 1 << 31
)

// Lend implements [ratelimit.Lender], in one trip. Accounts are kept as long as
// their window; of those that are not live, the hundred with something outstanding
// that called last.
func (c *Counter) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	if err := c.check(ctx); err != nil {
		return ratelimit.Loan{}, err
	}
	if spent < 0 || spent > maxSpent {
		return ratelimit.Loan{}, errSpent
	}
	answer := make([]int64, 4)
	err := c.run(ctx, lendScript, key, answer, window(end), account, spent,
		min(max(want, 0), allWant), strconv.FormatInt(max(limit, 0), 10),
		ratelimit.LoanSize(limit, math.MaxInt64, 1), // of one who is alone and has room enough
		now.UnixMilli(), ratelimit.LoanTime.Milliseconds())
	if err != nil {
		return ratelimit.Loan{}, fmt.Errorf("rediscounter: lending: %w", err)
	}
	return ratelimit.Loan{Lent: answer[0] + answer[1], Count: answer[2], Others: answer[3]}, nil
}
