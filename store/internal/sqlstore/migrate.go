package sqlstore

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// A migration is one step of the schema.
type migration struct {
	version  int64 // from 1, without gaps
	file     string
	checksum string // of the file as it is embedded, and so the same for every prefix
	sql      string // the whole step, with the prefix
}

// createMigrations makes the table of the migrations that were applied. Every
// step begins with it and ends with its own row there, so that it makes no
// difference by whom it is run.
const createMigrations = `CREATE TABLE IF NOT EXISTS keystile_migrations (
    version  INTEGER NOT NULL PRIMARY KEY,
    checksum TEXT    NOT NULL
)`

// load returns the migrations of the dialect, for a prefix.
func (d *Dialect) load(prefix string) []migration {
	files := d.files()
	names, err := fs.Glob(files, "*.sql") // in the order of their numbers
	must(err)
	var all []migration
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		must(err)
		sum := sha256.Sum256(text)
		m := migration{version: int64(i + 1), file: name, checksum: hex.EncodeToString(sum[:])}
		m.sql = strings.ReplaceAll(fmt.Sprintf("%s;\n\n%s\nINSERT INTO keystile_migrations (version, checksum)\nVALUES (%d, '%s');\n",
			createMigrations, text, m.version, m.checksum), defaultPrefix, prefix)
		all = append(all, m)
	}
	return all
}

// Migrations returns the steps of the schema as files, with the prefix of the
// store.
func (s *Store) Migrations() fs.FS {
	// An archive in memory is the one kind of file system that the standard library
	// makes of texts that are not embedded.
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range s.migrations {
		f, err := w.Create(m.file)
		must(err)
		_, err = f.Write([]byte(m.sql))
		must(err)
	}
	must(w.Close())
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	must(err)
	return r
}

// must panics for what cannot fail, since no input has a part in it.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Migrate brings the schema up to date, each step in a transaction of its own.
func (s *Store) Migrate(ctx context.Context) error {
	const op = "migrate"
	if err := s.connect(ctx); err != nil {
		return s.failure(ctx, op, err)
	}
	applied, err := s.applied(ctx)
	if err != nil {
		return s.failure(ctx, op, err)
	}
	pending, err := s.compare(applied)
	if err != nil || len(pending) == 0 {
		return s.failure(ctx, op, err)
	}
	if err := s.makeMigrations(ctx); err != nil {
		return s.failure(ctx, op, err)
	}
	for _, m := range pending {
		if err := s.write(ctx, op, func(tx *sql.Tx) error { return s.apply(ctx, tx, m) }); err != nil {
			return err
		}
	}
	return nil
}

// makeMigrations makes the table of the migrations that were applied.
func (s *Store) makeMigrations(ctx context.Context) error {
	statements := createMigrations
	if s.dialect.MigrationsLock != "" {
		// Two that make one table at a time can fail, although each says if not
		// exists. Statements in one text are one transaction.
		statements = s.dialect.MigrationsLock + ";\n" + createMigrations
	}
	_, err := s.db.ExecContext(ctx, s.sql(statements))
	return err
}

// connect makes sure that there is a connection. It is the one thing that is
// tried again, since it is the one that has no lock to wait for.
func (s *Store) connect(ctx context.Context) error {
	var waited time.Duration
	for pause := time.Millisecond; ; pause *= 2 {
		err := s.db.PingContext(ctx)
		if err == nil || waited >= s.dialect.Patience {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
			waited += pause
		}
	}
}

// apply applies a migration, unless somebody else just did.
func (s *Store) apply(ctx context.Context, tx *sql.Tx, m migration) error {
	if s.dialect.MigrationsLock != "" {
		if _, err := tx.ExecContext(ctx, s.sql(s.dialect.MigrationsLock)); err != nil {
			return err
		}
	}
	var n int
	err := tx.QueryRowContext(ctx, s.sql(`SELECT count(*) FROM keystile_migrations WHERE version = $1`), m.version).Scan(&n)
	if err != nil || n > 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, m.sql); err != nil {
		return fmt.Errorf("%s: %w", m.file, err)
	}
	return nil
}

// Validate reports whether the schema is up to date, without writing.
func (s *Store) Validate(ctx context.Context) error {
	const op = "validate"
	applied, err := s.applied(ctx)
	if err != nil {
		return s.failure(ctx, op, err)
	}
	pending, err := s.compare(applied)
	for _, m := range pending {
		err = errors.Join(err, fmt.Errorf("migration %d (%s) is not applied", m.version, m.file))
	}
	return s.failure(ctx, op, err)
}

// applied returns the checksums of the migrations that were applied, by version.
func (s *Store) applied(ctx context.Context) (map[int64]string, error) {
	var tables int
	err := s.db.QueryRowContext(ctx, s.sql(s.dialect.TableExists), s.names.Replace(defaultPrefix+"migrations")).Scan(&tables)
	if err != nil || tables == 0 {
		return nil, err
	}
	applied := make(map[int64]string)
	err = queryAll(ctx, s.db, func(r scanner) error {
		var version int64
		var checksum string
		err := r.Scan(&version, &checksum)
		applied[version] = checksum
		return err
	}, s.sql(`SELECT version, checksum FROM keystile_migrations`))
	return applied, err
}

// compare returns the migrations that are to be applied still, and an error if
// one was applied that is not one of this program's.
func (s *Store) compare(applied map[int64]string) (pending []migration, err error) {
	for _, m := range s.migrations {
		checksum, ok := applied[m.version]
		switch {
		case !ok:
			pending = append(pending, m)
		case checksum != m.checksum:
			err = errors.Join(err, fmt.Errorf("migration %d was applied with another text than %s", m.version, m.file))
		}
		delete(applied, m.version)
	}
	if len(applied) > 0 {
		err = errors.Join(err, fmt.Errorf("the database has %d later migrations than this program knows of", len(applied)))
	}
	return pending, err
}
