package postgresstore

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
	// CountTimeout bounds every call of Add and Lend, beside its context: a request
	// has no deadline by itself, and a server that hangs says nothing. It is longer
	// than callers of one key wait for each other.
	// Defaults to 2 seconds, which is as long as a cache waits for a look-up.
	CountTimeout time.Duration

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
// [ratelimit.Lender] in a PostgreSQL database, with the methods of those
// interfaces. It keeps the last 10 000 changes for the feed, and of the windows
// of a counted key the eight that were made last.
//
// Use [New] to make one. It is safe for concurrent use.
type Store struct {
	*base
	channel      string
	countTimeout time.Duration
}

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
	if o.CountTimeout == 0 {
		o.CountTimeout = 2 * time.Second
	}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("postgresstore: db is nil"))
	}
	if err := sqlstore.ValidatePrefix(o.TablePrefix); err != nil {
		errs = append(errs, fmt.Errorf("postgresstore: TablePrefix %w", err))
	}
	if o.CountTimeout < 0 {
		errs = append(errs, errors.New("postgresstore: CountTimeout is negative"))
	}
	retention, err := row.NewRetention("postgresstore", o.UseRetention, o.Now)
	if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Store{sqlstore.New(db, sqlstore.Postgres, o.TablePrefix, retention), o.TablePrefix + "changes", o.CountTimeout}, nil
}

// Add implements [ratelimit.Counter], within [Options].CountTimeout. Windows are kept
// until eight others of the same key were made after them, or until the last key of
// the family is purged, and no less for being old, since a store goes by no clock
// of its own for that.
func (s *Store) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.countTimeout)
	defer cancel()
	return s.base.Add(ctx, key, end, n, max)
}

// Lend implements [ratelimit.Lender], within [Options].CountTimeout. Accounts are kept
// as long as their window; of those that are not live, the hundred with something
// outstanding that called last.
func (s *Store) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	ctx, cancel := context.WithTimeout(ctx, s.countTimeout)
	defer cancel()
	return s.base.Lend(ctx, account, key, end, spent, want, limit, now)
}

// NotifyChannel returns the channel that every transaction notifies which changes
// what the feed tells of: the table prefix and "changes". Package pgnotify listens
// there and wakes caches. A notification has no payload. Stores with the same prefix
// in other schemas of the database have the same channel, and wake each other for
// nothing.
func (s *Store) NotifyChannel() string { return s.channel }

// Migrate makes the tables that are missing and changes those of an earlier
// version, one transaction for each step. It is idempotent, and may be called by
// any number of processes at a time: each step is done once. A database that has
// nothing missing is only read.
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
