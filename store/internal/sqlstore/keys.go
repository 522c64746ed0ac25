package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
	"github.com/keystile/keystile/token"
)

const keyColumns = "k.id, k.digest, k.org, k.user_id, k.name, k.scopes, k.daily_limit, k.created_at, k.not_after, k.disabled_at, k.revoked_at, k.revoked, k.family, k.version"

// keyFields returns where to scan keyColumns to.
func keyFields(k *store.Key) []any {
	return []any{
		&k.ID, (*digest)(&k.Digest), &k.Org, &k.User, &k.Name, (*list[string])(&k.Scopes), &k.DailyLimit,
		(*instant)(&k.CreatedAt), (*instant)(&k.NotAfter), (*instant)(&k.DisabledAt), (*instant)(&k.RevokedAt),
		&k.Revoked, &k.Family, &k.Version,
	}
}

// Lookup implements [store.Reader].
func (s *Store) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	const op = "lookup"
	var k store.Key
	var u store.User
	err := s.db.QueryRowContext(ctx, s.sql(`SELECT `+keyColumns+`, `+userColumns+`
		FROM keystile_keys k JOIN keystile_users u ON u.org = k.org AND u.id = k.user_id
		WHERE k.digest = $1`), d[:]).
		Scan(append(keyFields(&k), userFields(&u)...)...)
	if err != nil {
		return nil, s.failure(ctx, op, notFound(err))
	}
	return store.NewRecord(&k, &u), nil
}

// notFound returns [store.ErrNotFound] for the absence of a row.
func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	}
	return err
}

// InsertKey implements [store.Store].
func (s *Store) InsertKey(ctx context.Context, k, replaces *store.Key, max int) error {
	const op = "insert key"
	var err error
	if replaces == nil {
		k, err = row.Key(k)
	} else {
		k, replaces, err = row.Rotation(k, replaces)
	}
	if err != nil {
		return s.failure(ctx, op, err)
	}
	return s.write(ctx, op, func(tx *sql.Tx) error {
		// The row of the user is held, so that nobody else makes keys of the same user
		// until the commit: they are counted below.
		var version int64
		if err := tx.QueryRowContext(ctx, s.sql(`SELECT version FROM keystile_users WHERE org = $1 AND id = $2`+s.dialect.ForUpdate),
			k.Org, k.User).Scan(&version); err != nil {
			return fmt.Errorf("user of the new key: %w", notFound(err))
		}
		var changes []store.Change
		if replaces != nil {
			if err := s.revoke(ctx, tx, replaces); err != nil {
				return fmt.Errorf("key to be replaced: %w", err)
			}
			changes = append(changes, changeOf(replaces))
		}
		n, err := exec(ctx, tx, s.sql(`INSERT INTO keystile_keys
			(id, digest, org, user_id, name, scopes, daily_limit, created_at, not_after, disabled_at, revoked_at, revoked, family, version)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1) ON CONFLICT DO NOTHING`),
			k.ID, k.Digest[:], k.Org, k.User, k.Name, list[string](k.Scopes), k.DailyLimit,
			micros(k.CreatedAt), nullMicros(k.NotAfter), nullMicros(k.DisabledAt), nullMicros(k.RevokedAt),
			k.Revoked, k.Family)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("ID or digest of the new key: %w", store.ErrExists)
		}
		if max >= 0 {
			// The others than the new key, which may be made revoked.
			var have int
			if err := tx.QueryRowContext(ctx, s.sql(`SELECT count(*) FROM keystile_keys
				WHERE org = $1 AND user_id = $2 AND revoked_at IS NULL AND id <> $3`),
				k.Org, k.User, k.ID).Scan(&have); err != nil {
				return err
			}
			if have >= max {
				return fmt.Errorf("keys of the user: %w", store.ErrLimit)
			}
		}
		return s.changed(ctx, tx, append(changes, changeOf(k)))
	})
}

// revoke sets RevokedAt and Revoked of a key that is as it was read and not revoked.
func (s *Store) revoke(ctx context.Context, tx *sql.Tx, k *store.Key) error {
	n, err := exec(ctx, tx, s.sql(`UPDATE keystile_keys SET revoked_at = $1, revoked = $2, version = version + 1
		WHERE id = $3 AND version = $4 AND revoked_at IS NULL AND org = $5 AND user_id = $6 AND digest = $7`),
		micros(k.RevokedAt), k.Revoked, k.ID, k.Version, k.Org, k.User, k.Digest[:])
	if err != nil || n > 0 {
		return err
	}
	return s.notUpdated(ctx, tx, k.ID)
}

// notUpdated tells why a key was not: it is another now, or there is none.
func (s *Store) notUpdated(ctx context.Context, tx *sql.Tx, id string) error {
	var version int64
	err := tx.QueryRowContext(ctx, s.sql(`SELECT version FROM keystile_keys WHERE id = $1`), id).Scan(&version)
	if err != nil {
		return notFound(err)
	}
	return store.ErrConflict
}

// UpdateKey implements [store.Store].
func (s *Store) UpdateKey(ctx context.Context, k *store.Key) error {
	const op = "update key"
	k, err := row.Update(k)
	if err != nil {
		return s.failure(ctx, op, err)
	}
	if !row.Text(k.ID) {
		return s.failure(ctx, op, store.ErrNotFound)
	}
	return s.write(ctx, op, func(tx *sql.Tx) error {
		c := store.Key{ID: k.ID}
		err := tx.QueryRowContext(ctx, s.sql(`UPDATE keystile_keys
			SET name = $1, scopes = $2, daily_limit = $3, not_after = $4, disabled_at = $5, revoked_at = $6, revoked = $7, version = version + 1
			WHERE id = $8 AND version = $9 RETURNING digest, org, user_id`),
			k.Name, list[string](k.Scopes), k.DailyLimit, nullMicros(k.NotAfter), nullMicros(k.DisabledAt), nullMicros(k.RevokedAt),
			k.Revoked, k.ID, k.Version).
			Scan((*digest)(&c.Digest), &c.Org, &c.User)
		if errors.Is(err, sql.ErrNoRows) {
			return s.notUpdated(ctx, tx, k.ID)
		}
		if err != nil {
			return err
		}
		return s.changed(ctx, tx, []store.Change{changeOf(&c)})
	})
}

// PurgeKeys implements [store.Store]. It also forgets what was counted for the
// families of which no key is left.
func (s *Store) PurgeKeys(ctx context.Context, revokedBefore time.Time) (int, error) {
	var changes []store.Change
	err := s.write(ctx, "purge keys", func(tx *sql.Tx) error {
		changes = nil
		if err := s.lockUses(ctx, tx); err != nil {
			return err
		}
		before := micros(row.Time(revokedBefore))
		if _, err := tx.ExecContext(ctx, s.sql(`DELETE FROM keystile_uses
			WHERE key_id IN (SELECT id FROM keystile_keys WHERE revoked_at < $1)`), before); err != nil {
			return err
		}
		var families []string
		if err := queryAll(ctx, tx, func(r scanner) error {
			var k store.Key
			if err := r.Scan((*digest)(&k.Digest), &k.Org, &k.User, &k.Family); err != nil {
				return err
			}
			changes = append(changes, changeOf(&k))
			families = append(families, k.Family)
			return nil
		}, s.sql(`DELETE FROM keystile_keys WHERE revoked_at < $1 RETURNING digest, org, user_id, family`), before); err != nil {
			return err
		}
		if err := s.forgetCounts(ctx, tx, families); err != nil {
			return err
		}
		return s.changed(ctx, tx, changes)
	})
	if err != nil {
		return 0, err
	}
	return len(changes), nil
}

// Keys implements [store.Store].
func (s *Store) Keys(ctx context.Context, q store.Query) ([]*store.Key, error) {
	const op = "keys"
	q, ok := row.Query(q)
	if !ok {
		return nil, s.failure(ctx, op, ctx.Err())
	}
	var w where
	w.equal("k.org", q.Org)
	w.equal("k.user_id", q.User)
	w.equal("k.id", q.ID)
	if q.Name != "" {
		w.and(s.dialect.Position + "(lower(k.name), lower(" + w.list(q.Name) + " COLLATE " + s.dialect.Collation + ")) > 0")
	}
	if !q.Revoked {
		w.and("k.revoked_at IS NULL")
	}
	if q.After != (store.Cursor{}) {
		w.and("(k.created_at, k.id) < (" + w.list(micros(q.After.CreatedAt), q.After.ID) + ")")
	}
	var found []*store.Key
	err := queryAll(ctx, s.db, func(r scanner) error {
		k := new(store.Key)
		found = append(found, k)
		return r.Scan(keyFields(k)...)
	}, s.names.Replace(`SELECT `+keyColumns+` FROM keystile_keys k`+w.String()+
		` ORDER BY k.created_at DESC, k.id DESC LIMIT `+strconv.Itoa(q.Limit)), w.arguments...)
	if err != nil {
		return nil, s.failure(ctx, op, err)
	}
	return found, nil
}
