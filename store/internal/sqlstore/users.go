package sqlstore

import (
	"context"
	"database/sql"
	"strconv"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
)

const userColumns = "u.org, u.id, u.email, u.tier, u.owner, u.permitted, u.suspended_at, u.version"

// userFields returns where to scan userColumns to.
func userFields(u *store.User) []any {
	return []any{&u.Org, &u.ID, &u.Email, &u.Tier, &u.Owner, &u.Permitted, (*instant)(&u.SuspendedAt), &u.Version}
}

// Users implements [store.Store].
func (s *Store) Users(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
	const op = "users"
	q, ok := row.UserQuery(q)
	if !ok {
		return nil, s.failure(ctx, op, ctx.Err())
	}
	var w where
	w.and("u.org = " + w.list(q.Org))
	w.equal("u.id", q.ID)
	w.and("u.id > " + w.list(q.After))
	var found []*store.User
	err := queryAll(ctx, s.db, func(r scanner) error {
		u := new(store.User)
		found = append(found, u)
		return r.Scan(userFields(u)...)
	}, s.names.Replace(`SELECT `+userColumns+` FROM keystile_users u`+w.String()+
		` ORDER BY u.id LIMIT `+strconv.Itoa(q.Limit)), w.arguments...)
	if err != nil {
		return nil, s.failure(ctx, op, err)
	}
	return found, nil
}

// PutUser implements [store.Store].
func (s *Store) PutUser(ctx context.Context, u *store.User) error {
	const op = "put user"
	u, err := row.User(u)
	if err != nil {
		return s.failure(ctx, op, err)
	}
	return s.write(ctx, op, func(tx *sql.Tx) error {
		put := s.updateUser
		if u.Version == 0 {
			put = s.insertUser
		}
		if err := put(ctx, tx, u); err != nil {
			return err
		}
		return s.changed(ctx, tx, []store.Change{{Kind: store.ChangedUser, Org: u.Org, User: u.ID}})
	})
}

func (s *Store) insertUser(ctx context.Context, tx *sql.Tx, u *store.User) error {
	n, err := exec(ctx, tx, s.sql(`INSERT INTO keystile_users
		(org, id, email, tier, owner, permitted, suspended_at, version)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 1) ON CONFLICT DO NOTHING`),
		u.Org, u.ID, u.Email, u.Tier, u.Owner, u.Permitted, nullMicros(u.SuspendedAt))
	if err == nil && n == 0 {
		return store.ErrExists
	}
	return err
}

func (s *Store) updateUser(ctx context.Context, tx *sql.Tx, u *store.User) error {
	n, err := exec(ctx, tx, s.sql(`UPDATE keystile_users
		SET email = $1, tier = $2, owner = $3, permitted = $4, suspended_at = $5, version = version + 1
		WHERE org = $6 AND id = $7 AND version = $8`),
		u.Email, u.Tier, u.Owner, u.Permitted, nullMicros(u.SuspendedAt), u.Org, u.ID, u.Version)
	if err != nil || n > 0 {
		return err
	}
	var version int64
	err = tx.QueryRowContext(ctx, s.sql(`SELECT version FROM keystile_users WHERE org = $1 AND id = $2`), u.Org, u.ID).
		Scan(&version)
	if err != nil {
		return notFound(err)
	}
	return store.ErrConflict
}
