package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
)

// The use facts of a key are one row, in which the lists are JSON: they are short
// and always read and written together, and row.Add keeps them in bounds by the
// same rules in every store. Times are stored as in columns.
type (
	addrUse struct {
		Addr  netip.Addr `json:"addr"`
		First int64      `json:"first"`
		Last  int64      `json:"last"`
		Count int64      `json:"count"`
	}
	dayUse struct {
		Day   int64 `json:"day"`
		Count int64 `json:"count"`
	}
)

// RecordUses implements [store.Uses].
func (s *Store) RecordUses(ctx context.Context, uses []store.Use) error {
	const op = "record uses"
	uses, err := row.Uses(uses)
	if err != nil {
		return s.failure(ctx, op, err)
	}
	byKey := make(map[string][]store.Use)
	for _, u := range uses {
		byKey[u.KeyID] = append(byKey[u.KeyID], u)
	}
	ids := slices.Collect(maps.Keys(byKey))
	bounds := s.retention.Bounds()
	like := ""
	if len(ids) > 0 {
		like = ids[0]
	}
	var after, reached string
	var due bool
	if err := s.write(ctx, op, func(tx *sql.Tx) error {
		if err := s.lockUses(ctx, tx); err != nil {
			return err
		}
		for chunk := range slices.Chunk(ids, rowsAtOnce) {
			var sums []store.UseSummary
			if err := s.eachUses(ctx, tx, chunk, func(_ string, sum store.UseSummary) {
				bounds.Add(&sum, byKey[sum.KeyID]...)
				sums = append(sums, sum)
			}); err != nil {
				return err
			}
			if err := s.putUses(ctx, tx, sums); err != nil {
				return err
			}
		}
		// Asked for while others wait for their turn, so that few look at the same keys.
		if after, due = s.rounds.Next(bounds, like); !due {
			return nil
		}
		var err error
		reached, err = s.forgetUses(ctx, tx, bounds, after)
		return err
	}); err != nil {
		return err
	}
	if due {
		s.rounds.Reached(bounds, after, reached)
	}
	return nil
}

// forgetUses looks at the use facts of the rowsAtOnce keys after one, in the order
// of their IDs, and forgets what is not to be kept. It returns the last of these
// keys, and none after the last one of all.
//
// The order is that of the primary key, and not that of the last use: an index of
// that would have to be written at every use, and would not find an old address of
// a key that is in use elsewhere. The transaction has the turn of use facts, so
// that nobody else writes these rows between the reading and the writing.
func (s *Store) forgetUses(ctx context.Context, tx *sql.Tx, bounds row.Bounds, after string) (last string, err error) {
	var sums []store.UseSummary
	looked := 0
	if err := queryAll(ctx, tx, func(r scanner) error {
		var sum store.UseSummary
		err := scanUses(r, nil, &sum)
		last = sum.KeyID
		looked++
		if errors.Is(err, errCorrupt) {
			// It is a failure for who asks for this key, and not of a batch that has
			// nothing to do with it. Nor is it overwritten.
			return nil
		}
		if err == nil && bounds.Apply(&sum) {
			sums = append(sums, sum)
		}
		return err
	}, s.sql(`SELECT u.key_id, u.last_used, u.user_agent, u.addrs, u.days FROM keystile_uses u
		WHERE u.key_id > $1 ORDER BY u.key_id LIMIT `+strconv.Itoa(rowsAtOnce)), after); err != nil {
		return "", err
	}
	if looked < rowsAtOnce {
		last = ""
	}
	return last, s.putUses(ctx, tx, sums)
}

// lockUses waits for the turn of a transaction that writes or deletes use facts.
func (s *Store) lockUses(ctx context.Context, tx *sql.Tx) error {
	if s.dialect.UsesLock == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, s.sql(s.dialect.UsesLock))
	return err
}

// putUses writes the summaries of keys, at most rowsAtOnce.
func (s *Store) putUses(ctx context.Context, tx *sql.Tx, sums []store.UseSummary) error {
	if len(sums) == 0 {
		return nil
	}
	var args arguments
	var rows []string
	for _, sum := range sums {
		addrs := make(list[addrUse], len(sum.Addrs))
		for i, a := range sum.Addrs {
			addrs[i] = addrUse{a.Addr, micros(a.First), micros(a.Last), a.Count}
		}
		days := make(list[dayUse], len(sum.Days))
		for i, d := range sum.Days {
			days[i] = dayUse{micros(d.Day), d.Count}
		}
		rows = append(rows, "("+args.list(sum.KeyID, micros(sum.LastUsed), sum.UserAgent, addrs, days)+")")
	}
	_, err := tx.ExecContext(ctx, s.names.Replace(`INSERT INTO keystile_uses (key_id, last_used, user_agent, addrs, days)
		VALUES `+strings.Join(rows, ", ")+` ON CONFLICT (key_id) DO UPDATE SET
		last_used = excluded.last_used, user_agent = excluded.user_agent, addrs = excluded.addrs, days = excluded.days`), args...)
	return err
}

// eachUses calls f with the organization and the summary of each of the keys that
// exists, in no order.
func (s *Store) eachUses(ctx context.Context, q querier, ids []string, f func(org string, sum store.UseSummary)) error {
	var args []any
	for _, id := range ids {
		if row.Text(id) {
			args = append(args, id)
		}
	}
	if len(args) == 0 {
		return ctx.Err()
	}
	return queryAll(ctx, q, func(r scanner) error {
		var org string
		var sum store.UseSummary
		if err := scanUses(r, &org, &sum); err != nil {
			return err
		}
		f(org, sum)
		return nil
	}, s.names.Replace(`SELECT k.org, k.id, u.last_used, coalesce(u.user_agent, ''), coalesce(u.addrs, '[]'), coalesce(u.days, '[]')
		FROM keystile_keys k LEFT JOIN keystile_uses u ON u.key_id = k.id
		WHERE k.id IN (`+placeholders(1, len(args))+`)`), args...)
}

// scanUses reads a row of a key's ID, last_used, user_agent, addrs and days, with
// the organization before them if org is not nil. The ID is read also if one of
// the others cannot be.
func scanUses(r scanner, org *string, sum *store.UseSummary) error {
	var (
		addrs list[addrUse]
		days  list[dayUse]
	)
	dest := []any{&sum.KeyID, (*instant)(&sum.LastUsed), &sum.UserAgent, &addrs, &days}
	if org != nil {
		dest = slices.Insert(dest, 0, any(org))
	}
	if err := r.Scan(dest...); err != nil {
		return err
	}
	for _, a := range addrs {
		sum.Addrs = append(sum.Addrs, store.AddrUse{Addr: a.Addr, First: fromMicros(a.First), Last: fromMicros(a.Last), Count: a.Count})
	}
	for _, d := range days {
		sum.Days = append(sum.Days, store.DayUse{Day: fromMicros(d.Day), Count: d.Count})
	}
	return nil
}

// Uses implements [store.Uses].
func (s *Store) Uses(ctx context.Context, org string, keyIDs []string) ([]store.UseSummary, error) {
	bounds := s.retention.Bounds()
	found := make(map[string]store.UseSummary)
	for chunk := range slices.Chunk(keyIDs, rowsAtOnce) {
		if err := s.eachUses(ctx, s.db, chunk, func(of string, sum store.UseSummary) {
			if of == org {
				bounds.Apply(&sum)
				found[sum.KeyID] = sum
			}
		}); err != nil {
			return nil, s.failure(ctx, "uses", err)
		}
	}
	sums := make([]store.UseSummary, len(keyIDs))
	for i, id := range keyIDs {
		sums[i] = found[id]
		sums[i].KeyID = id
	}
	return sums, nil
}
