package sqlstore

import (
	"context"
	"database/sql"
	"maps"
	"net/netip"
	"slices"
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
	return s.write(ctx, op, func(tx *sql.Tx) error {
		if err := s.lockUses(ctx, tx); err != nil {
			return err
		}
		for chunk := range slices.Chunk(ids, rowsAtOnce) {
			var sums []store.UseSummary
			if err := s.eachUses(ctx, tx, chunk, func(_ string, sum store.UseSummary) {
				row.Add(&sum, byKey[sum.KeyID]...)
				sums = append(sums, sum)
			}); err != nil {
				return err
			}
			if err := s.putUses(ctx, tx, sums); err != nil {
				return err
			}
		}
		return nil
	})
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
		var (
			org   string
			sum   store.UseSummary
			addrs list[addrUse]
			days  list[dayUse]
		)
		if err := r.Scan(&org, &sum.KeyID, (*instant)(&sum.LastUsed), &sum.UserAgent, &addrs, &days); err != nil {
			return err
		}
		for _, a := range addrs {
			sum.Addrs = append(sum.Addrs, store.AddrUse{Addr: a.Addr, First: fromMicros(a.First), Last: fromMicros(a.Last), Count: a.Count})
		}
		for _, d := range days {
			sum.Days = append(sum.Days, store.DayUse{Day: fromMicros(d.Day), Count: d.Count})
		}
		f(org, sum)
		return nil
	}, s.names.Replace(`SELECT k.org, k.id, u.last_used, coalesce(u.user_agent, ''), coalesce(u.addrs, '[]'), coalesce(u.days, '[]')
		FROM keystile_keys k LEFT JOIN keystile_uses u ON u.key_id = k.id
		WHERE k.id IN (`+placeholders(1, len(args))+`)`), args...)
}

// Uses implements [store.Uses].
func (s *Store) Uses(ctx context.Context, org string, keyIDs []string) ([]store.UseSummary, error) {
	found := make(map[string]store.UseSummary)
	for chunk := range slices.Chunk(keyIDs, rowsAtOnce) {
		if err := s.eachUses(ctx, s.db, chunk, func(of string, sum store.UseSummary) {
			if of == org {
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
