package ratelimittest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

var lenderCases = []lenderCase{
	{
		name:        "lends",
		explanation: "a loan must be in the count at once, and Lent must be all that the account was lent, spent or not",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 250, 0, 10, 10, 0},
			borrowing{"a", "k", monday, 10, all, 250, 0, 20, 20, 0},
			borrowing{"a", "k", monday, 20, all, 250, 0, 30, 30, 0},
		},
	},
	{
		name:        "size",
		explanation: "a loan must be 1 % of the limit, at least 10 and at most 1000, but not more than half of it",
		calls: []call{
			borrowing{"a", "1", monday, 0, all, 1, 0, 1, 1, 0},
			borrowing{"a", "2", monday, 0, all, 2, 0, 1, 1, 0},
			borrowing{"a", "3", monday, 0, all, 3, 0, 1, 1, 0},
			borrowing{"a", "4", monday, 0, all, 4, 0, 2, 2, 0},
			borrowing{"a", "19", monday, 0, all, 19, 0, 9, 9, 0},
			borrowing{"a", "20", monday, 0, all, 20, 0, 10, 10, 0},
			borrowing{"a", "1099", monday, 0, all, 1099, 0, 10, 10, 0},
			borrowing{"a", "1100", monday, 0, all, 1100, 0, 11, 11, 0},
			borrowing{"a", "10 000", monday, 0, all, 10_000, 0, 100, 100, 0},
			borrowing{"a", "99 999", monday, 0, all, 99_999, 0, 999, 999, 0},
			borrowing{"a", "100 000", monday, 0, all, 100_000, 0, 1000, 1000, 0},
			borrowing{"a", "10^9", monday, 0, all, 1e9, 0, 1000, 1000, 0},
			borrowing{"a", "unlimited", monday, 0, all, unlimited, 0, 1000, 1000, 0},
		},
	},
	{
		name:        "left",
		explanation: "a loan must not be more than half of what is neither counted nor lent, and at least 1 while there is any",
		calls: []call{
			step{"k", monday, 235, 250, 235, true},
			borrowing{"a", "k", monday, 0, all, 250, 0, 7, 242, 0},
			borrowing{"a", "k", monday, 7, all, 250, 0, 11, 246, 0},
			borrowing{"a", "k", monday, 11, all, 250, 0, 13, 248, 0},
			borrowing{"a", "k", monday, 13, all, 250, 0, 14, 249, 0},
			borrowing{"a", "k", monday, 14, all, 250, 0, 15, 250, 0},
			borrowing{"a", "k", monday, 15, all, 250, 0, 15, 250, 0},
			step{"k", monday, 1, 250, 250, false},
		},
	},
	{
		name:        "nodes",
		explanation: "a loan must not be more than left / (2 × nodes), of which there are as many as live accounts, the borrower's own included",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 60, 0, 10, 10, 0},
			borrowing{"b", "k", monday, 0, all, 60, 0, 10, 20, 10},
			borrowing{"c", "k", monday, 0, all, 60, 0, 6, 26, 20},
			borrowing{"d", "k", monday, 0, all, 60, 0, 4, 30, 26},
			borrowing{"e", "k", monday, 0, all, 60, 0, 3, 33, 30},
			borrowing{"f", "k", monday, 0, all, 60, 0, 2, 35, 33},
			// Its own account is one of the nodes and not another.
			borrowing{"b", "k", monday, 10, all, 60, 0, 12, 37, 25},
		},
	},
	{
		name:        "fills up",
		explanation: "what is outstanding must be a part of the loan: only what is missing is lent, and nothing if more is outstanding",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 1000, 0, 10, 10, 0},
			borrowing{"a", "k", monday, 4, all, 1000, 0, 14, 14, 0},
			borrowing{"a", "k", monday, 5, all, 1000, 0, 15, 15, 0},
			step{"k", monday, 975, 1000, 990, true},
			borrowing{"a", "k", monday, 5, all, 1000, 0, 15, 990, 0},
			borrowing{"a", "k", monday, 9, all, 1000, 0, 15, 990, 0},
			borrowing{"a", "k", monday, 13, all, 1000, 0, 18, 993, 0},
		},
	},
	{
		name:        "want",
		explanation: "a loan must not be more than what is wanted, which what is outstanding is a part of, and whatever is wanted not more than without it",
		calls: []call{
			borrowing{"a", "k", monday, 0, 3, 1000, 0, 3, 3, 0},
			borrowing{"a", "k", monday, 1, 3, 1000, 0, 4, 4, 0},
			borrowing{"a", "k", monday, 1, 2, 1000, 0, 4, 4, 0},
			borrowing{"a", "k", monday, 4, 1, 1000, 0, 5, 5, 0},
			borrowing{"a", "k", monday, 4, 11, 1000, 0, 14, 14, 0},
			borrowing{"b", "k", monday, 0, 1, 19, 0, 1, 15, 10},
			borrowing{"b", "k", monday, 1, 4, 19, 0, 2, 16, 10},
			borrowing{"c", "k", monday, 0, 1, 16, 0, 0, 16, 11},
		},
	},
	{
		name:        "repeated",
		explanation: "a call that is repeated because its answer was lost must lend nothing more, and answer the same",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 10_000, 0, 100, 100, 0},
			borrowing{"a", "k", monday, 0, all, 10_000, time.Second, 100, 100, 0},
			borrowing{"a", "k", monday, 80, all, 10_000, 2 * time.Second, 180, 180, 0},
			borrowing{"a", "k", monday, 80, all, 10_000, 3 * time.Second, 180, 180, 0},
			borrowing{"a", "k", monday, 80, all, 10_000, 3 * time.Second, 180, 180, 0},
		},
	},
	{
		name:        "late",
		explanation: "a call that says that less is spent than was told before was late, and must not make that unspent again",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 10_000, 0, 100, 100, 0},
			borrowing{"a", "k", monday, 90, all, 10_000, 0, 190, 190, 0},
			borrowing{"a", "k", monday, 20, all, 10_000, 0, 190, 190, 0},
			borrowing{"b", "k", monday, 0, all, 10_000, 0, 100, 290, 100},
			borrowing{"a", "k", monday, 190, all, 10_000, 0, 290, 390, 100},
			borrowing{"a", "k", monday, 0, 0, 1000, 0, 190, 290, 100},
		},
	},
	{
		name:        "taken",
		explanation: "Add must count and refuse as if what is lent were spent",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 250, 0, 10, 10, 0},
			step{"k", monday, 0, 250, 10, true},
			step{"k", monday, 241, 250, 10, false},
			step{"k", monday, 240, 250, 250, true},
			step{"k", monday, 1, 250, 250, false},
			borrowing{"b", "k", monday, 0, all, 250, 0, 0, 250, 10},
			borrowing{"a", "k", monday, 3, all, 250, 0, 10, 250, 0},
			step{"k", monday, 1, 250, 250, false},
		},
	},
	{
		name:        "gives back",
		explanation: "a want of 0 or less must take what is outstanding of the account out of the count, and nothing of what is spent or another's",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 20, 0, 10, 10, 0},
			borrowing{"b", "k", monday, 0, all, 20, 0, 2, 12, 10},
			step{"k", monday, 8, 20, 20, true},
			borrowing{"a", "k", monday, 4, 0, 1000, 0, 4, 14, 2},
			step{"k", monday, 7, 20, 14, false},
			step{"k", monday, 6, 20, 20, true},
			borrowing{"b", "k", monday, 1, -1, 1000, 0, 1, 19, 0},
			borrowing{"c", "k", monday, 0, all, 20, 0, 1, 20, 0},
			borrowing{"c", "k", monday, 1, math.MinInt64, 1000, 0, 1, 20, 0},
		},
	},
	{
		name:        "gives back once",
		explanation: "giving back must give nothing back when it is repeated, whatever was lent to others meanwhile",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 100, 0, 10, 10, 0},
			borrowing{"a", "k", monday, 3, 0, 1000, 0, 3, 3, 0},
			borrowing{"a", "k", monday, 3, 0, 1000, 0, 3, 3, 0},
			borrowing{"b", "k", monday, 0, all, 100, 0, 10, 13, 0},
			borrowing{"a", "k", monday, 3, 0, 1000, 0, 3, 13, 10},
			step{"k", monday, 0, 100, 13, true},
		},
	},
	{
		name:        "ended",
		explanation: "an account that was given back must be lent nothing any more, since the call was late and nobody holds what it is lent",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 100, 0, 10, 10, 0},
			borrowing{"a", "k", monday, 3, 0, 1000, 0, 3, 3, 0},
			borrowing{"a", "k", monday, 3, all, 100, 0, 3, 3, 0},
			borrowing{"a", "k", monday, 0, all, 100, time.Second, 3, 3, 0},
			// Also if it was not known when it was given back.
			borrowing{"b", "k", monday, 0, 0, 1000, 0, 0, 3, 0},
			borrowing{"b", "k", monday, 0, all, 100, 0, 0, 3, 0},
			borrowing{"c", "k", monday, 0, all, 100, 0, 10, 13, 0},
		},
	},
	{
		name:        "others",
		explanation: "Others must be what is outstanding of other accounts: not the borrower's own, not what they spent, and whether they are live or not",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 1000, 0, 10, 10, 0},
			borrowing{"b", "k", monday, 0, all, 1000, 0, 10, 20, 10},
			borrowing{"a", "k", monday, 9, all, 1000, 0, 19, 29, 10},
			borrowing{"c", "k", monday, 0, all, 1000, 0, 10, 39, 20},
			borrowing{"d", "k", monday, 0, all, 1000, time.Hour, 10, 49, 30},
			borrowing{"a", "k", monday, 9, 0, 1000, time.Hour, 9, 39, 30},
			borrowing{"d", "k", monday, 10, all, 1000, time.Hour, 20, 49, 20},
		},
	},
	{
		name:        "dead",
		explanation: "what a node does not account for must stay in the count, however long it has not called, and whoever calls; only the node may give it back, at any time",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 20, 0, 10, 10, 0},
			borrowing{"b", "k", monday, 0, all, 20, time.Hour, 5, 15, 10},
			borrowing{"b", "k", monday, 5, all, 20, 2 * time.Hour, 7, 17, 10},
			borrowing{"b", "k", monday, 7, all, 20, 24 * time.Hour, 8, 18, 10},
			borrowing{"b", "k", monday, 8, all, 20, 9000 * time.Hour, 9, 19, 10},
			borrowing{"b", "k", monday, 9, all, 20, 9000 * time.Hour, 10, 20, 10},
			borrowing{"b", "k", monday, 10, all, 20, 9999 * time.Hour, 10, 20, 10},
			step{"k", monday, 1, 20, 20, false},
			borrowing{"a", "k", monday, 2, all, 20, 9999 * time.Hour, 10, 20, 0},
			borrowing{"a", "k", monday, 4, 0, 1000, 9999 * time.Hour, 4, 14, 0},
			step{"k", monday, 6, 20, 20, true},
		},
	},
	{
		name:        "live",
		explanation: "an account must count as a node while something of it is outstanding and its last call is less than LoanTime old, and not longer",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 40, 0, 10, 10, 0},
			borrowing{"b", "k", monday, 0, all, 40, ratelimit.LoanTime - time.Millisecond, 7, 17, 10},
			// The account a is dead, b lives.
			borrowing{"c", "k", monday, 0, all, 40, ratelimit.LoanTime, 5, 22, 17},
			// It lives again, since it called.
			borrowing{"a", "k", monday, 0, all, 40, ratelimit.LoanTime, 10, 22, 12},
			borrowing{"d", "k", monday, 0, all, 40, 2*ratelimit.LoanTime - 2*time.Millisecond, 2, 24, 22},
			// Whoever has spent everything does not count.
			borrowing{"b", "k", monday, 7, all, 24, 2*ratelimit.LoanTime - 2*time.Millisecond, 7, 24, 17},
			borrowing{"c", "k", monday, 5, all, 24, 2*ratelimit.LoanTime - 2*time.Millisecond, 5, 24, 12},
			borrowing{"d", "k", monday, 2, all, 40, 2*ratelimit.LoanTime - 2*time.Millisecond, 6, 28, 10},
		},
	},
	{
		name:        "clocks",
		explanation: "calls may come with any time, in any order: nothing may be lost, and nothing be lent twice, because clocks differ or jump",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 1000, 0, 10, 10, 0},
			borrowing{"b", "k", monday, 0, all, 1000, 300 * 24 * time.Hour, 10, 20, 10},
			borrowing{"c", "k", monday, 0, all, 1000, -300 * 24 * time.Hour, 10, 30, 20},
			borrowing{"a", "k", monday, 0, all, 1000, 0, 10, 30, 20},
			borrowing{"b", "k", monday, 4, all, 1000, -time.Hour, 14, 34, 20},
			borrowing{"c", "k", monday, 10, all, 1000, 290 * 24 * time.Hour, 20, 44, 20},
			borrowing{"a", "k", monday, 5, 0, 1000, -time.Minute, 5, 39, 20},
			borrowing{"b", "k", monday, 4, 0, 1000, time.Minute, 4, 29, 10},
			borrowing{"c", "k", monday, 10, 0, 1000, 0, 10, 19, 0},
		},
	},
	{
		name:        "limit changes",
		explanation: "limit must be that of the call: one that is lowered below the count lends nothing and takes nothing back, one that is raised lends at once",
		calls: []call{
			borrowing{"a", "k", monday, 0, all, 100, 0, 10, 10, 0},
			borrowing{"a", "k", monday, 6, all, 5, 0, 10, 10, 0},
			borrowing{"a", "k", monday, 10, all, 10, 0, 10, 10, 0},
			borrowing{"a", "k", monday, 10, all, 11, 0, 11, 11, 0},
			borrowing{"a", "k", monday, 11, all, 10_000, 0, 111, 111, 0},
			borrowing{"a", "k", monday, 12, all, 100, 0, 111, 111, 0},
			borrowing{"b", "k", monday, 0, all, 100, 0, 0, 111, 99},
			borrowing{"b", "k", monday, 0, all, 114, 0, 1, 112, 99},
			borrowing{"b", "k", monday, 1, all, 0, 0, 1, 112, 99},
			borrowing{"b", "k", monday, 1, all, -1, 0, 1, 112, 99},
			borrowing{"b", "k", monday, 1, all, math.MinInt64, 0, 1, 112, 99},
		},
	},
	{
		name:        "unknown",
		explanation: "an account that is not known must begin as one that was lent what it spent, with nothing outstanding, and what it says must not change the count",
		calls: []call{
			step{"k", monday, 30, 1000, 30, true},
			borrowing{"a", "k", monday, 25, all, 1000, 0, 35, 40, 0},
			borrowing{"b", "k", monday, 500, all, 1000, 0, 510, 50, 10},
			borrowing{"c", "k", monday, 7, 0, 1000, 0, 7, 50, 20},
			borrowing{"d", "k", monday, 7, all, 5, 0, 7, 50, 20},
			// More than the lender knows of is as much as it does not know of.
			borrowing{"a", "k", monday, 47, all, 1000, 0, 57, 60, 10},
			borrowing{"a", "k", monday, 60, 0, 1000, 0, 60, 60, 10},
		},
	},
	{
		name:        "accounts",
		explanation: "accounts must be different if the name, the key or the window is, whatever bytes they are of",
		run:         accounts,
	},
	{
		name:        "windows",
		explanation: "a loan must make a window as an addition does: it may push out the one made first of nine, and an account must not outlive its window",
		run:         loanWindows,
	},
	{
		name:        "nothing made",
		explanation: "what lends nothing must make no count: neither asking in vain nor giving back may push another window out",
		run:         noLoanMade,
	},
	{
		name:        "large numbers",
		explanation: "counts and limits up to the largest int64 must be exact, and so must be what is spent up to 2^53",
		calls: []call{
			step{"k", monday, math.MaxInt64 - 25, unlimited, math.MaxInt64 - 25, true},
			borrowing{"a", "k", monday, 0, all, unlimited, 0, 12, math.MaxInt64 - 13, 0},
			borrowing{"a", "k", monday, 12, all, unlimited, 0, 18, math.MaxInt64 - 7, 0},
			borrowing{"b", "k", monday, 0, all, unlimited, 0, 1, math.MaxInt64 - 6, 6},
			borrowing{"b", "k", monday, 1, all, unlimited - 6, 0, 1, math.MaxInt64 - 6, 6},
			borrowing{"a", "k", monday, 17, 0, 1000, 0, 17, math.MaxInt64 - 7, 0},
			step{"above 2^53", monday, 1<<53 + 1, unlimited, 1<<53 + 1, true},
			borrowing{"a", "above 2^53", monday, 0, all, 1<<53 + 3, 0, 1, 1<<53 + 2, 0},
			borrowing{"a", "above 2^53", monday, 1, all, 1<<53 + 3, 0, 2, 1<<53 + 3, 0},
			borrowing{"a", "above 2^53", monday, 2, all, 1<<53 + 3, 0, 2, 1<<53 + 3, 0},
			borrowing{"a", "much spent", monday, 1<<53 - 5, all, 1000, 0, 1<<53 + 5, 10, 0},
			borrowing{"a", "much spent", monday, 1<<53 - 4, all, 1000, 0, 1<<53 + 6, 11, 0},
			borrowing{"a", "much spent", monday, 1 << 53, all, 1000, 0, 1<<53 + 10, 15, 0},
		},
	},
	{
		name:        "bad spent",
		explanation: "a spent that is negative or above 2^53 must be an error and change nothing",
		run:         badSpent,
	},
	{
		name:        "context",
		explanation: "a context that has ended must give an error that wraps its Err, and nothing may be lent or given back",
		run:         endedLendContext,
	},
	{
		name:        "parallel lending",
		explanation: "many nodes that borrow at once must be lent exactly the limit together, and nobody nothing while units are left",
		run:         parallelLending,
	},
	{
		name:        "parallel mix",
		explanation: "borrowing, giving back and adding at once must be atomic each: at the end the count must be what was spent and added, and never more than the limit",
		run:         parallelMix,
	},
}

func accounts(p *lenderProbe) error {
	names := []string{"", "a", "A", "a ", "a\x00", "a\x00b", "a:b", "a b", "a\n", `a"`, "a'", "é", "e\u0301", "\xff", "\xfe", "\ufffd", "1", "01", "lent", "count"}
	var lent int64
	for _, name := range names {
		if err := (borrowing{name, "k", monday, 0, all, 100_000, 0, 1000, lent + 1000, lent}).check(p); err != nil {
			return err
		}
		lent += 1000
	}
	for i, name := range names {
		lent -= 1000 - int64(i)
		others := int64(len(names)-1-i) * 1000
		if err := (borrowing{name, "k", monday, int64(i), 0, 1000, 0, int64(i), lent, others}).check(p); err != nil {
			return err
		}
	}
	return p.follow([]call{
		borrowing{"a", "k1", monday, 0, all, 100, 0, 10, 10, 0},
		borrowing{"a", "k2", monday, 0, all, 100, 0, 10, 10, 0},
		borrowing{"a", "k1", day(1), 0, all, 100, 0, 10, 10, 0},
		borrowing{"a", "k1", monday.Add(time.Microsecond), 0, all, 100, 0, 10, 10, 0},
		borrowing{"a", "k1", monday.In(time.FixedZone("east", 3600)), 5, 0, 1000, 0, 5, 5, 0},
		borrowing{"a", "k2", monday, 0, all, 100, 0, 10, 10, 0},
		borrowing{"a", "k1", day(1), 1, all, 100, 0, 11, 11, 0},
		borrowing{"a", "k1", monday.Add(time.Microsecond), 1, all, 100, 0, 11, 11, 0},
		// The name of one and the key of the other, joined.
		borrowing{"ak", "", monday, 0, all, 100, 0, 10, 10, 0},
		borrowing{"a", "k", monday.AddDate(0, 1, 0), 0, all, 100, 0, 10, 10, 0},
	})
}

func loanWindows(p *lenderProbe) error {
	var calls []call
	for d := range 4 {
		calls = append(calls,
			borrowing{"a", "k", day(2 * d), 0, all, 1000, 0, 10, 10, 0},
			step{"k", day(2*d + 1), 1, 1000, 1, true})
	}
	for d := range 4 {
		calls = append(calls, borrowing{"a", "k", day(2 * d), 2, all, 1000, 0, 12, 12, 0})
	}
	calls = append(calls, borrowing{"a", "k", day(8), 0, all, 1000, 0, 10, 10, 0})
	for d := 1; d < 4; d++ {
		calls = append(calls, borrowing{"a", "k", day(2 * d), 2, all, 1000, 0, 12, 12, 0})
	}
	if err := p.follow(calls); err != nil {
		return err
	}
	// The first window may be gone, and then its accounts must be, too.
	count, _, err := p.add("k", day(0), 0, unlimited)
	if err != nil || count != 0 {
		return err
	}
	return p.follow([]call{
		borrowing{"a", "k", day(0), 2, all, 1000, 0, 12, 10, 0},
	})
}

func noLoanMade(p *lenderProbe) error {
	calls := []call{step{"k", day(0), 5, 250, 5, true}}
	for d := 1; d <= 10; d++ {
		calls = append(calls,
			borrowing{"a", "k", day(d), 3, 0, 1000, 0, 3, 0, 0},
			borrowing{"b", "k", day(d), 3, -1, 1000, 0, 3, 0, 0},
			borrowing{"b", "k", day(d), 3, all, 0, 0, 3, 0, 0},
			borrowing{"b", "k", day(d), 3, all, -1, 0, 3, 0, 0})
	}
	return p.follow(append(calls,
		borrowing{"a", "new", monday, 3, 0, 1000, 0, 3, 0, 0},
		step{"k", day(0), 1, 250, 6, true}))
}

func badSpent(p *lenderProbe) error {
	if err := p.follow([]call{borrowing{"a", "k", monday, 0, all, 100, 0, 10, 10, 0}}); err != nil {
		return err
	}
	for _, spent := range []int64{-1, math.MinInt64, 1<<53 + 1, math.MaxInt64} {
		for _, want := range []int64{all, 0} {
			for _, account := range []string{"a", "new"} {
				b := borrowing{account: account, key: "k", end: monday, spent: spent, want: want, limit: 100}
				if l, err := p.borrow(b); err == nil {
					return fmt.Errorf("%v = %+v; want an error", b, l)
				}
			}
		}
	}
	return p.follow([]call{
		borrowing{"a", "k", monday, 4, all, 100, 0, 14, 14, 0},
		borrowing{"new", "k", monday, 0, all, 100, 0, 10, 24, 10},
	})
}

func endedLendContext(p *lenderProbe) error {
	if err := p.follow([]call{borrowing{"a", "k", monday, 0, all, 100, 0, 10, 10, 0}}); err != nil {
		return err
	}
	canceled, cancel := context.WithCancel(p.ctx)
	cancel()
	expired, cancel := context.WithDeadline(p.ctx, time.Unix(1, 0))
	defer cancel()
	for _, ctx := range []context.Context{canceled, expired} {
		late := *p
		late.ctx = ctx
		for _, b := range []borrowing{
			{account: "a", want: all, spent: 5},
			{account: "a", want: 0},
			{account: "new", want: all},
		} {
			b.key, b.end, b.limit = "k", monday, 100
			if l, err := late.borrow(b); !errors.Is(err, ctx.Err()) {
				return fmt.Errorf("%v = %+v, error %v; want an error that wraps %q", b, l, err, ctx.Err())
			}
		}
	}
	return p.follow([]call{
		borrowing{"a", "k", monday, 0, all, 100, 0, 10, 10, 0},
		borrowing{"new", "k", monday, 0, all, 100, 0, 10, 20, 10},
	})
}

func parallelLending(p *lenderProbe) error {
	const nodes, limit = 16, 700
	lent := make([]int64, nodes)
	err := together(nodes, func(node int) error {
		for {
			b := borrowing{account: fmt.Sprint("node ", node), key: "k", end: monday, spent: lent[node], want: all, limit: limit}
			l, err := p.borrow(b)
			switch {
			case err != nil:
				return err
			case l.Count > limit || l.Lent < lent[node] || l.Others > l.Count-l.Lent:
				return fmt.Errorf("%v = %+v, which cannot be", b, l)
			case l.Lent == lent[node] && l.Count < limit:
				return fmt.Errorf("%v = %+v: nothing, while units are left", b, l)
			case l.Lent == lent[node]:
				return nil
			}
			lent[node] = l.Lent
		}
	})
	if err != nil {
		return err
	}
	var sum int64
	for _, n := range lent {
		sum += n
	}
	if sum != limit {
		return fmt.Errorf("%d units were lent; want %d", sum, limit)
	}
	return p.want(step{"k", monday, 0, limit, limit, true})
}

func parallelMix(p *lenderProbe) error {
	// Every caller uses 40 units: one half adds them, the other borrows them, spends
	// them by threes, and gives the rest back every time.
	const callers, each, limit = 12, 40, 12*40 + 12*10
	err := together(callers, func(caller int) error {
		for used, i := int64(0), 0; used < each; i++ {
			if caller%2 == 0 {
				count, ok, err := p.add("k", monday, 1, limit)
				if err != nil {
					return err
				}
				if !ok || count > limit {
					return fmt.Errorf("an addition of 1 = %d, %t; want at most %d, true", count, ok, limit)
				}
				used++
				continue
			}
			b := borrowing{account: fmt.Sprint("node ", caller, " ", i), key: "k", end: monday, want: all, limit: limit}
			l, err := p.borrow(b)
			if err != nil {
				return err
			}
			if l.Lent < 1 || l.Count > limit {
				return fmt.Errorf("%v = %+v; want at least 1, and a count of at most %d", b, l, limit)
			}
			b.spent, b.want = min(l.Lent, 3, each-used), 0
			used += b.spent
			if l, err = p.borrow(b); err != nil {
				return err
			}
			if l.Lent != b.spent {
				return fmt.Errorf("%v = %+v; want %d lent", b, l, b.spent)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.want(step{"k", monday, 0, limit, callers * each, true})
}
