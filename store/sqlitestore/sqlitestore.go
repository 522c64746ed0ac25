package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
	"github.com/keystile/keystile/store/internal/sqlstore"
)

var (
	_ store.Store      = (*Store)(nil)
	_ store.Uses       = (*Store)(nil)
	_ store.Feed       = (*Store)(nil)
	_ ratelimit.Lender = (*Store)(nil)
)

// Options configure a [Store]. A nil *Options is the zero Options.
type Options struct {
	// Now is the clock that UseRetention goes by. It is read for nothing else.
	// Defaults to [time.Now].
	Now func() time.Time

	// TablePrefix begins the name of every table and index: a lower-case letter
	// followed by lower-case letters, digits and underscores, 32 bytes at most.
	// Stores with different prefixes have nothing in common.
	// Defaults to "keystile_".
	TablePrefix string

	// UseRetention is how much is kept of where keys were used, and for how long
	// (D24). Each batch of uses looks at the facts of up to a hundred other keys
	// while a round is under way.
	// Defaults to the last ten addresses of a key, until it is purged.
	UseRetention store.UseRetention
}

// A Store is a [store.Store], [store.Uses], [store.Feed] and
// [ratelimit.Lender] in a SQLite database, with the methods of those
// interfaces. It keeps the last 10 000 changes for the feed, and of the windows
// of a counted key the eight that were made last.
//
// Use [New] to make one. It is safe for concurrent use. Use one Store for a
// database in a process: its writers take turns, while those of several wait for
// each other as processes do, in no order.
type Store struct{ *base }

// base is embedded for its methods.
type base = sqlstore.Store

// New returns a store in db, which it does not own: the caller closes db when
// the store is not used any more. It reports all problems of opts at once and
// does not use db yet; call [Store.Migrate] or [Store.Validate] before the first
// use.
func New(db *sql.DB, opts *Options) (*Store, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.TablePrefix == "" {
		o.TablePrefix = "keystile_"
	}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("sqlitestore: db is nil"))
	}
	if err := sqlstore.ValidatePrefix(o.TablePrefix); err != nil {
		errs = append(errs, fmt.Errorf("sqlitestore: TablePrefix %w", err))
	}
	retention, err := row.NewRetention("sqlitestore", o.UseRetention, o.Now)
	if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Store{sqlstore.New(db, sqlstore.SQLite, o.TablePrefix, retention)}, nil
}

// Migrate makes the tables that are missing and changes those of an earlier
// version, one transaction for each step. It is idempotent, and may be called by
// any number of processes at a time: each step is done once. A database that has
// nothing missing is only read. If no connection can be made it tries again for
// two seconds, since SQLite refuses one while another makes the log of a new
// file.
//
// It is an error, and nothing is changed, if a step was applied with another text
// than this version of the package has, or if the database is of a later version.
func (s *Store) Migrate(ctx context.Context) error { return s.base.Migrate(ctx) }

// Validate returns an error unless [Store.Migrate] would do nothing. It names
// every migration that is missing, or was applied with another text. It writes
// nothing, so that a process without the right to change tables can call it at
// its start.
func (s *Store) Validate(ctx context.Context) error { return s.base.Validate(ctx) }

// Migrations returns the steps that [Store.Migrate] does, as files of plain SQL
// whose names begin with their number, for hosts that use goose, golang-migrate,
// atlas or the like. The files have the table prefix in place, and no
// transactions: each is to be run in one. A file is never changed once it was
// released; later versions add files.
//
// Each file begins by making the table of applied migrations if there is none
// and ends by adding its own number and checksum to it. So Validate accepts what
// was run by hand, and Migrate goes on from there.
func (s *Store) Migrations() fs.FS { return s.base.Migrations() }
