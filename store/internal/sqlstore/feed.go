package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
	"github.com/keystile/keystile/token"
)

// keptChanges is how many changes are kept.
const keptChanges = 10_000

func changeOf(k *store.Key) store.Change {
	return store.Change{Kind: store.ChangedKey, Digest: k.Digest, Org: k.Org, User: k.User}
}

// changed adds changes to the feed. It must be the last that a transaction does:
// from the update of the sequence until the commit no other transaction can take a
// number, so that the numbers are in the order of the commits, and a reader that has
// seen one has seen all before it.
func (s *Store) changed(ctx context.Context, tx *sql.Tx, changes []store.Change) error {
	if len(changes) == 0 {
		return nil
	}
	if len(changes) > row.MaxChanges {
		// No poll could return them all, and to write them would take longer than
		// to forget everything.
		changes = []store.Change{{Kind: store.ChangedAll}}
	}
	if s.dialect.Notify != "" {
		if _, err := tx.ExecContext(ctx, s.sql(s.dialect.Notify)); err != nil {
			return err
		}
	}
	var last int64
	if err := tx.QueryRowContext(ctx, s.sql(`UPDATE keystile_sequence SET last_seq = last_seq + $1 RETURNING last_seq`),
		len(changes)).Scan(&last); err != nil {
		return err
	}
	seq := last - int64(len(changes))
	for _, c := range changes {
		seq++
		if _, err := tx.ExecContext(ctx, s.sql(`INSERT INTO keystile_changes (seq, kind, digest, org, user_id)
			VALUES ($1, $2, $3, $4, $5)`), seq, int64(c.Kind), c.Digest[:], c.Org, c.User); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, s.sql(`DELETE FROM keystile_changes WHERE seq <= $1`), last-keptChanges)
	return err
}

// Changes implements [store.Feed]. After a place that it cannot go on from it
// returns a single change of ChangedAll and the feed's end, since that change
// covers everything up to there.
func (s *Store) Changes(ctx context.Context, after int64) (changes []store.Change, last int64, err error) {
	const op = "changes"
	if after < 0 {
		err := s.db.QueryRowContext(ctx, s.sql(`SELECT last_seq FROM keystile_sequence`)).Scan(&last)
		return nil, last, s.failure(ctx, op, err)
	}
	// One statement, so that the changes and the end of the feed are of one moment.
	// If there are no changes it returns a row with nothing but the end.
	var end int64
	found := false
	err = queryAll(ctx, s.db, func(r scanner) error {
		var (
			seq, kind sql.NullInt64
			d         sql.Null[digest]
			org, user sql.NullString
		)
		if err := r.Scan(&end, &seq, &kind, &d, &org, &user); err != nil {
			return err
		}
		found = true
		if last = end; seq.Valid {
			last = seq.Int64
			changes = append(changes, store.Change{
				Kind: store.ChangeKind(kind.Int64), Digest: token.Digest(d.V), Org: org.String, User: user.String,
			})
		}
		return nil
	}, s.sql(`SELECT s.last_seq, c.seq, c.kind, c.digest, c.org, c.user_id
		FROM keystile_sequence s LEFT JOIN keystile_changes c ON c.seq > $1
		WHERE s.one = 1 ORDER BY c.seq LIMIT $2`), after, row.MaxChanges)
	if err == nil && !found {
		err = fmt.Errorf("sequence: %w", errCorrupt)
	}
	if err != nil {
		return nil, 0, s.failure(ctx, op, err)
	}
	if last-after != int64(len(changes)) {
		// The numbers have no gaps, so that some of the changes are gone, or the end
		// lies before the place asked for.
		return []store.Change{{Kind: store.ChangedAll}}, end, nil
	}
	return changes, last, nil
}
