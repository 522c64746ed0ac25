package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
)

// Settings implements [store.Reader]. Settings that do not read back as what was
// written are a failure, never settings that restrict less.
func (s *Store) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	const op = "settings"
	set := &policy.Settings{Org: org}
	if !row.Text(org) {
		return set, s.failure(ctx, op, ctx.Err())
	}
	var maxAge int64
	err := s.db.QueryRowContext(ctx, s.sql(`SELECT max_age_seconds, allowed_ips, restrict_users, version
		FROM keystile_settings WHERE org = $1`), org).
		Scan(&maxAge, (*addressList)(&set.AllowedIPs), &set.RestrictUsers, &set.Version)
	if errors.Is(err, sql.ErrNoRows) {
		return set, nil
	}
	if err == nil {
		set.MaxAge, err = policy.MaxAgeFromSeconds(maxAge)
	}
	if err != nil {
		return nil, s.failure(ctx, op, err)
	}
	return set, nil
}

// UpdateSettings implements [store.Store].
func (s *Store) UpdateSettings(ctx context.Context, set *policy.Settings) error {
	const op = "update settings"
	set, err := row.Settings(set)
	if err != nil {
		return s.failure(ctx, op, err)
	}
	statement := `UPDATE keystile_settings
		SET max_age_seconds = $2, allowed_ips = $3, restrict_users = $4, version = version + 1
		WHERE org = $1 AND version = $5`
	args := []any{set.Org, int64(set.MaxAge / time.Second), nullList(set.AllowedIPs), set.RestrictUsers}
	if set.Version == 0 {
		statement = `INSERT INTO keystile_settings (org, max_age_seconds, allowed_ips, restrict_users, version)
			VALUES ($1, $2, $3, $4, 1) ON CONFLICT DO NOTHING`
	} else {
		args = append(args, set.Version)
	}
	return s.write(ctx, op, func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, s.sql(statement), args...)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("settings: %w", store.ErrConflict)
		}
		return s.changed(ctx, tx, []store.Change{{Kind: store.ChangedSettings, Org: set.Org}})
	})
}
