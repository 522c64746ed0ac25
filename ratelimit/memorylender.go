package ratelimit

import (
	"context"
	"errors"
	"hash/maphash"
	"strings"
	"time"
)

var errSpent = errors.New("ratelimit: Lend with a spent below 0 or above 2^53")

// A memoryLoan is an account.
type memoryLoan struct {
	lent, spent int64
	until       time.Time // when it is not live any more
	ended       bool
}

func (a memoryLoan) outstanding() int64 { return a.lent - a.spent }

// Lend implements [Lender]. It takes a lock, unlike Add. Memory lends within
// one process, where there is nothing to save: it is there to test with.
func (m *Memory) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (Loan, error) {
	switch {
	case m == nil || m.shards == nil:
		return Loan{}, errNoMemory
	case spent < 0 || spent > maxSpent:
		return Loan{}, errSpent
	case ctx.Err() != nil:
		return Loan{}, ended(ctx)
	}
	hash := maphash.String(m.seed, key)
	s := &m.shards[hash>>(64-memoryShardBits)]
	s.mu.Lock()
	defer s.mu.Unlock()
	var w *memoryWindow
	if e := s.table.Load().find(uint32(hash), key); e != nil {
		e.touch(m.epoch.Load()) // it lives: keys are forgotten under the lock
		w = e.window(end)
	}
	if w == nil {
		if want <= 0 || limit <= 0 {
			return Loan{Lent: spent}, nil
		}
		w = m.makeCount(s, uint32(hash), key, end)
	}
	return s.lend(w, account, spent, want, limit, now), nil
}

// lend is Lend in the window w. The caller holds the lock of s.
func (s *memoryShard) lend(w *memoryWindow, account string, spent, want, limit int64, now time.Time) Loan {
	accounts := s.accounts[w]
	if accounts == nil {
		accounts = make(map[string]memoryLoan)
		if s.accounts == nil {
			s.accounts = make(map[*memoryWindow]map[string]memoryLoan)
		}
		s.accounts[w] = accounts
	}
	a := accounts[account] // or the zero one, which was lent less than it spent
	a.spent = max(a.spent, spent)
	a.lent = max(a.lent, a.spent)
	a.until = now.Add(LoanTime)

	var others int64
	nodes := 1
	for name, o := range accounts {
		switch live := o.until.After(now); {
		case name == account:
		case o.outstanding() > 0:
			others += o.outstanding()
			if live {
				nodes++
			}
		case !live:
			delete(accounts, name)
		}
	}

	switch {
	case want <= 0:
		w.count.Add(-a.outstanding())
		a.lent, a.ended = a.spent, true
	case !a.ended:
		a.lent += w.lend(want, limit, a.outstanding(), nodes)
	}
	accounts[strings.Clone(account)] = a
	return Loan{Lent: a.lent, Count: w.count.Load(), Others: others}
}

// lend adds to the count what is missing to a loan, and returns it. Others add
// at the same time.
func (w *memoryWindow) lend(want, limit, outstanding int64, nodes int) int64 {
	for {
		count := w.count.Load()
		n := max(min(want, LoanSize(limit, max(limit, 0)-count, nodes))-outstanding, 0)
		if w.count.CompareAndSwap(count, count+n) {
			return n
		}
	}
}
