package ratelimit

import (
	"context"
	"time"
)

// LoanTime is how long a loan lasts, from the call of [Lender.Lend] that made or
// renewed it.
const LoanTime = 10 * time.Second

const (
	// The least and the most that are lent, whatever the limit: 1 % of an unlimited
	// key's would be more than any limit set later could take back.
	smallLoan = 10
	largeLoan = 1000

	// maxSpent is what an account can tell. Stores that calculate in floating point
	// are exact up to here.
	maxSpent = 1 << 53
)

// A Lender is a [Counter] that also lends units to nodes, which then spend them
// without asking: the store of [Leased]. Implementations must pass TestLender of
// package ratelimittest and are safe for concurrent use.
//
// A node borrows under the name of an account, which belongs to one key and
// window. An account's name is any string, and as long as the store knows it no
// other node, and no later use of the same node, may take it. Of an account the
// store knows what it was lent and what of this it spent, each in all: numbers
// that only grow. The difference is outstanding. So it does not matter whether
// the answer to a call is lost, or how often it is repeated: a node finds what it
// may spend from the last answer that it got.
//
// The count of a window is what was added to it and what was lent. Add refuses
// what would exceed max together with units that are lent and not spent. Therefore
// never more is admitted than the limit, whatever crashes.
//
// What is outstanding comes back only from the node that has it, when it says so
// and with what it spent. Nobody else can know what that node served, so what a
// dead node has not accounted for stays in the count of its window: at most one
// loan. That time has passed gives nothing back.
//
// A loan lasts for [LoanTime]. A node does not spend from one that has expired
// until the store has renewed it; so a node that the store does not hear of stops
// by itself. To the store an account that has not called for LoanTime is that of
// a node that is not live, and this is all it makes of time. Accounts are live
// while something is outstanding and they have called within LoanTime. How many
// there are decides about the size of loans and about nothing else: clocks that
// differ make loans larger or smaller, and admit nothing.
//
// A store keeps accounts as long as their window. But it may forget an account
// that has not called for LoanTime and has nothing outstanding, and of the others
// that have not called for LoanTime all but the hundred that called last, whose
// units stay in the count. An account that a store does not know begins as one
// that was lent what it says it spent, so that nothing is outstanding; so does one
// that says it spent more than the store knows it was lent.
type Lender interface {
	Counter

	// Lend does three things in one atomic step, exact among all callers that share
	// the lender, those of Add included.
	//
	// It notes that account has spent so much of what it was lent in the window of
	// key that ends at end, in all. A number that is lower than one told before comes
	// from a call that was late, and changes nothing.
	//
	// It lends to account what is missing to a loan of [LoanSize], or of want if that
	// is less, of which what is outstanding is a part: nothing if more is outstanding,
	// and at least one unit if nothing is and the count is below limit. Nodes are the
	// account itself and the other accounts of the window that are live. Limit is that
	// of the call. One that was lowered below the count lends nothing, and takes
	// nothing back; one that was raised lends.
	//
	// A want of 0 or less gives back: what is outstanding leaves the count, whatever
	// the limit, and the account has ended. A call that comes under its name later
	// lends nothing, since it was late. Whoever borrows again takes another name. The
	// node must have stopped spending before it gives back, and repeats the call until
	// it is answered.
	//
	// What lends nothing must not make a count where there is none, nor push another
	// window out. As with Add, looking at a window touches it.
	//
	// Now is the caller's clock. A store reads none: two that it reads at once can
	// differ, and those who test it could not set it. Calls may come in any order of
	// now.
	//
	// A spent below 0 or above 2^53 is an error and does nothing; so is a context that
	// has ended before the step: ctx.Err is returned wrapped. Any other error means
	// that it is unknown whether the step was done.
	Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (Loan, error)
}

// A Loan is how an account and its window stand after a call of [Lender.Lend].
type Loan struct {
	// Lent is what the account was lent, in all. What the node may spend is the
	// difference to what it spent; never less than 0.
	Lent int64

	// Count is the count of the window, with everything that is lent.
	Count int64

	// Others is what is outstanding of other accounts of the window, live or not: how
	// much of Count can come back.
	Others int64
}

// LoanSize returns how many units a node is lent, for implementations of
// [Lender]. Of a limit left are neither counted nor lent; nodes are live, at least
// one.
//
// A loan is 1 % of the limit, at least 10 and at most 1000, so that a crash costs
// little of the day, but no more than left / (2 × nodes), so that the last units
// go round instead of lying with one node while others are refused. While units
// are left it is at least 1.
func LoanSize(limit, left int64, nodes int) int64 {
	if left <= 0 {
		return 0
	}
	size := min(max(limit/100, smallLoan), largeLoan)
	return max(min(size, left/(2*int64(nodes))), 1)
}
