package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store/internal/row"
)

var _ ratelimit.Counter = (*Store)(nil)

// keptWindows is how many windows of a key are kept, those made last.
const keptWindows = 8

// opCount names the operation in errors.
const opCount = "count"

// Add implements [ratelimit.Counter]. Windows are kept until eight others of the
// same key were made after them, or until the last key of the family is purged,
// and no less for being old, since a store goes by no clock of its own for that.
func (s *Store) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	if err := checkCount(end, n); err != nil {
		return 0, false, s.failure(ctx, opCount, err)
	}
	if s.dialect.SpendFirst && 0 < n && n <= max {
		if count, ok, err = s.spend(ctx, key, end, n, max); err != nil || ok {
			return count, ok, err
		}
	}
	for {
		count, made, err := s.spent(ctx, key, end)
		switch {
		case err != nil:
			return 0, false, err
		case n == 0:
			return count, true, nil
		case n > max || count > max-n: // In this order nothing overflows.
			// A refusal only reads. It waits for no writer, so that a flood of requests
			// over their limit keeps nobody else from spending theirs.
			return count, false, nil
		}
		add := s.makeWindow
		if made {
			add = s.spend
		}
		if count, ok, err = add(ctx, key, end, n, max); err != nil || ok {
			return count, ok, err
		}
		// Somebody else was faster: what was read is not so any more.
	}
}

// maxQuota bounds the bytes by which a quota is known to the database.
const maxQuota = 1024

// quota returns the bytes by which the database knows a key of Add. There is no
// bound to those, but there is to what a database takes into an index. One that
// is too long is known by its beginning and its hash, which make it one byte
// longer than any other.
func quota(key string) []byte {
	b := []byte(key)
	if len(b) > maxQuota {
		sum := sha256.Sum256(b)
		b = append(b[:maxQuota+1-len(sum):maxQuota+1-len(sum)], sum[:]...)
	}
	return b
}

// checkCount reports what is wrong with the arguments of Add.
func checkCount(end time.Time, n int64) error {
	switch {
	case n < 0:
		return errors.New("n is negative")
	case end.UTC().Year() < 1 || end.UTC().Year() > 9999:
		return errors.New("end is outside of the years 1 to 9999")
	case !end.Equal(row.Time(end)):
		// Cut off, two windows would become one.
		return errors.New("end is not in whole microseconds")
	}
	return nil
}

// spent returns the count of a window, and whether there is one.
func (s *Store) spent(ctx context.Context, key string, end time.Time) (count int64, made bool, err error) {
	err = s.db.QueryRowContext(ctx, s.sql(`SELECT spent FROM keystile_counts WHERE quota = $1 AND window_end = $2`),
		quota(key), micros(end)).Scan(&count)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return count, err == nil, s.failure(ctx, opCount, err)
}

// spend adds n to the count of a window that is there, if it has room.
func (s *Store) spend(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return 0, false, s.failure(ctx, opCount, err)
	}
	defer unlock()
	// The row is read to its end and not by QueryRow: a statement that is not part
	// of a transaction commits when there are no more rows, and can fail then.
	add := func(q querier) error {
		return queryAll(ctx, q, func(r scanner) error {
			ok = true
			return r.Scan(&count)
		}, s.sql(`UPDATE keystile_counts SET spent = spent + $3
			WHERE quota = $1 AND window_end = $2 AND spent <= $4 RETURNING spent`), quota(key), micros(end), n, max-n)
	}
	if err = add(s.db); s.aborted(err) {
		// The host made another level the default of its connections. At that of
		// our transactions it waits.
		ok = false
		err = s.transact(ctx, func(tx *sql.Tx) error { return add(tx) })
	}
	return count, ok && err == nil, s.failure(ctx, opCount, err)
}

// makeWindow makes a window that is not there yet, with a count of n.
func (s *Store) makeWindow(ctx context.Context, key string, end time.Time, n, _ int64) (count int64, ok bool, err error) {
	w := window{s, quota(key), micros(end)}
	err = s.write(ctx, opCount, func(tx *sql.Tx) error {
		ok, err = w.insert(ctx, tx, n)
		return err
	})
	return n, ok && err == nil, err
}

// forgetCounts forgets what was counted for those of the families that have no
// key any more: nobody can spend it, and nothing else would ever forget it.
func (s *Store) forgetCounts(ctx context.Context, tx *sql.Tx, families []string) error {
	for chunk := range slices.Chunk(families, rowsAtOnce) {
		var asked, gone []any
		for _, f := range chunk {
			asked = append(asked, f)
		}
		have := make(map[string]bool)
		if err := queryAll(ctx, tx, func(r scanner) error {
			var f string
			err := r.Scan(&f)
			have[f] = true
			return err
		}, s.names.Replace(`SELECT family FROM keystile_keys WHERE family IN (`+placeholders(1, len(asked))+`)`), asked...); err != nil {
			return err
		}
		for _, f := range chunk {
			if !have[f] {
				gone = append(gone, quota(f))
			}
		}
		if len(gone) == 0 {
			continue
		}
		for _, table := range []string{"keystile_counts", "keystile_loans"} {
			if _, err := tx.ExecContext(ctx, s.names.Replace(`DELETE FROM `+table+` WHERE quota IN (`+placeholders(1, len(gone))+`)`), gone...); err != nil {
				return err
			}
		}
	}
	return nil
}
