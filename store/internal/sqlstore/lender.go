package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

var _ ratelimit.Lender = (*Store)(nil)

const (
	// maxSpent is what an account can tell.
	maxSpent = 1 << 53

	// keptDebts is how many accounts of a window are kept that have something
	// outstanding and are not live: those that called last.
	keptDebts = 100
)

// opLend names the operation in errors.
const opLend = "lend"

// An account is what a window knows of a borrower.
type account struct {
	name        []byte
	lent, spent int64
	until       time.Time // when it is not live any more
	ended       bool
}

func (a *account) outstanding() int64 { return a.lent - a.spent }

// Lend implements [ratelimit.Lender]. Accounts are kept as long as their window;
// of those that are not live, the hundred with something outstanding that called
// last.
func (s *Store) Lend(ctx context.Context, name, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	err := checkCount(end, 0)
	if spent < 0 || spent > maxSpent {
		err = errors.Join(err, errors.New("spent is below 0 or above 2^53"))
	}
	if err != nil {
		return ratelimit.Loan{}, s.failure(ctx, opLend, err)
	}
	w := window{s, quota(key), micros(end)}
	var loan ratelimit.Loan
	err = s.write(ctx, opLend, func(tx *sql.Tx) error {
		count, made, err := w.hold(ctx, tx)
		for ; err == nil && !made; count, made, err = w.hold(ctx, tx) {
			if want <= 0 || limit <= 0 {
				loan = ratelimit.Loan{Lent: spent}
				return nil
			}
			if _, err := w.insert(ctx, tx, 0); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		// A statement of its own, begun after the row of the window is held: so it
		// sees what those did who had held it.
		all, err := w.accounts(ctx, tx)
		if err != nil {
			return err
		}
		a := account{name: quota(name)}
		if i := slices.IndexFunc(all, func(o account) bool { return bytes.Equal(o.name, a.name) }); i >= 0 {
			a = all[i]
			all = slices.Delete(all, i, i+1)
		}
		a.spent = max(a.spent, spent)
		a.lent = max(a.lent, a.spent)
		a.until = now.Add(ratelimit.LoanTime)

		loan = ratelimit.Loan{}
		nodes := 1
		for _, o := range all {
			if o.outstanding() > 0 {
				loan.Others += o.outstanding()
				if o.until.After(now) {
					nodes++
				}
			}
		}
		var n int64
		switch {
		case want <= 0:
			n = -a.outstanding()
			a.ended = true
		case !a.ended:
			n = max(min(want, ratelimit.LoanSize(limit, max(limit, 0)-count, nodes))-a.outstanding(), 0)
		}
		a.lent += n
		loan.Lent, loan.Count = a.lent, count+n
		if err := w.lend(ctx, tx, a, n); err != nil {
			return err
		}
		return w.forget(ctx, tx, all, now)
	})
	if err != nil {
		return ratelimit.Loan{}, err
	}
	return loan, nil
}

// A window is a window of a quota, as the database knows it.
type window struct {
	*Store
	quota []byte
	end   int64
}

// hold returns the count of the window, which no other transaction changes until
// the end of this one, and whether there is one.
func (w window) hold(ctx context.Context, tx *sql.Tx) (count int64, made bool, err error) {
	err = tx.QueryRowContext(ctx, w.sql(`SELECT spent FROM keystile_counts WHERE quota = $1 AND window_end = $2`+w.dialect.ForUpdate),
		w.quota, w.end).Scan(&count)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return count, err == nil, err
}

// insert makes the window with a count of n, unless there is one, and forgets the
// windows of the quota before the last keptWindows.
func (w window) insert(ctx context.Context, tx *sql.Tx, n int64) (made bool, err error) {
	// Two that make windows at one moment give both the same number. So neither
	// counts as made after the other, and nothing is forgotten too early.
	var last int64
	if err := tx.QueryRowContext(ctx, w.sql(`SELECT coalesce(max(made), 0) FROM keystile_counts WHERE quota = $1`), w.quota).
		Scan(&last); err != nil {
		return false, err
	}
	rows, err := exec(ctx, tx, w.sql(`INSERT INTO keystile_counts (quota, window_end, made, spent)
		VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`), w.quota, w.end, last+1, n)
	if err != nil || rows == 0 {
		return false, err
	}
	forgotten, err := exec(ctx, tx, w.sql(`DELETE FROM keystile_counts WHERE quota = $1 AND made <= $2`), w.quota, last+1-keptWindows)
	if err != nil || forgotten == 0 {
		return true, err
	}
	_, err = tx.ExecContext(ctx, w.sql(`DELETE FROM keystile_loans WHERE quota = $1
		AND window_end NOT IN (SELECT window_end FROM keystile_counts WHERE quota = $1)`), w.quota)
	return true, err
}

// accounts returns the accounts of the window.
func (w window) accounts(ctx context.Context, tx *sql.Tx) ([]account, error) {
	var all []account
	err := queryAll(ctx, tx, func(r scanner) error {
		var a account
		err := r.Scan(&a.name, &a.lent, &a.spent, (*instant)(&a.until), &a.ended)
		if a.name == nil {
			a.name = []byte{} // what some drivers return as nil, and take for NULL
		}
		all = append(all, a)
		return err
	}, w.sql(`SELECT account, lent, spent, live_until, ended FROM keystile_loans WHERE quota = $1 AND window_end = $2`), w.quota, w.end)
	return all, err
}

// lend writes an account, and adds n to the count.
func (w window) lend(ctx context.Context, tx *sql.Tx, a account, n int64) error {
	_, err := tx.ExecContext(ctx, w.sql(`INSERT INTO keystile_loans (quota, window_end, account, lent, spent, live_until, ended)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (quota, window_end, account) DO UPDATE
		SET lent = excluded.lent, spent = excluded.spent, live_until = excluded.live_until, ended = excluded.ended`),
		w.quota, w.end, a.name, a.lent, a.spent, micros(a.until), a.ended)
	if err != nil || n == 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, w.sql(`UPDATE keystile_counts SET spent = spent + $3 WHERE quota = $1 AND window_end = $2`), w.quota, w.end, n)
	return err
}

// forget forgets the accounts that need not be kept.
func (w window) forget(ctx context.Context, tx *sql.Tx, all []account, now time.Time) error {
	all = slices.DeleteFunc(all, func(a account) bool { return a.until.After(now) })
	slices.SortFunc(all, func(a, b account) int { return b.until.Compare(a.until) })
	debts := 0
	for _, a := range all {
		if a.outstanding() > 0 {
			if debts++; debts <= keptDebts {
				continue
			}
		}
		if _, err := tx.ExecContext(ctx, w.sql(`DELETE FROM keystile_loans WHERE quota = $1 AND window_end = $2 AND account = $3`),
			w.quota, w.end, a.name); err != nil {
			return err
		}
	}
	return nil
}
