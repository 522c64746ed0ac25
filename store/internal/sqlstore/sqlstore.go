// Package sqlstore is what the stores over database/sql have in common: every
// statement, and the engine of the migrations. A [Dialect] tells it what differs
// between databases.
//
// It knows of no driver: what a statement ran into is told by the rows that it
// affected, and by nothing else of an error than its SQLSTATE. It asks for nothing that outlives a transaction,
// neither prepared statements nor settings of a session, so that it works through
// a pool that gives each transaction another connection.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/keystile/keystile/store/internal/row"
)

// A Store is a store over a database. It does not own db.
type Store struct {
	db         *sql.DB
	dialect    Dialect
	names      *strings.Replacer // of the tables, and the placeholders
	statements sync.Map          // as they are written here: as the database takes them
	migrations []migration
	writers    chan struct{} // holds one element for each goroutine that writes
	retention  row.Retention
	rounds     row.Rounds
}

// New returns a store over db whose tables have names that begin with prefix, and
// which keeps use facts as the retention says. The prefix must have passed
// [ValidatePrefix].
func New(db *sql.DB, d Dialect, prefix string, retention row.Retention) *Store {
	return &Store{
		db:         db,
		dialect:    d,
		names:      strings.NewReplacer(defaultPrefix, prefix, "$", d.Placeholder),
		migrations: d.load(prefix),
		writers:    make(chan struct{}, d.Writers),
		retention:  retention,
	}
}

// defaultPrefix is the one that statements and migrations are written with.
const defaultPrefix = "keystile_"

// Nothing in such a prefix needs quotes in SQL. Its length leaves room for the
// names of tables and indexes in the 63 bytes that PostgreSQL takes of a name.
var validPrefix = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// ValidatePrefix reports what is wrong with a prefix of table names.
func ValidatePrefix(prefix string) error {
	switch {
	case !validPrefix.MatchString(prefix):
		return fmt.Errorf("does not match %s", validPrefix)
	case strings.HasPrefix(prefix, "sqlite_"), strings.HasPrefix(prefix, "pg_"):
		return errors.New("begins a name that the database keeps for itself")
	}
	return nil
}

// sql returns a constant statement with the names and placeholders of this store.
func (s *Store) sql(statement string) string {
	if v, ok := s.statements.Load(statement); ok {
		return v.(string)
	}
	v := s.names.Replace(statement)
	s.statements.Store(statement, v)
	return v
}

// maxAttempts is how often a transaction is begun that the database aborts.
const maxAttempts = 4

// write calls f in a transaction. It commits if f returns nil, and changes
// nothing if it returns an error. If the database undoes the transaction because
// of another it does all of it again, f included, a few times at most.
func (s *Store) write(ctx context.Context, op string, f func(tx *sql.Tx) error) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return s.failure(ctx, op, err)
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		err := s.transact(ctx, f)
		if attempt == maxAttempts || !s.aborted(err) {
			return s.failure(ctx, op, err)
		}
	}
}

// transact calls f in one transaction.
func (s *Store) transact(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: s.dialect.Isolation})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // Does nothing after Commit.
	if _, err := tx.ExecContext(ctx, s.sql(s.dialect.Begin)); err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// aborted reports whether the database said by err that it has undone what it
// was asked for, because of another transaction. An error without an SQLSTATE,
// such as of a connection that was lost, says nothing: what was asked for may
// have been done.
func (s *Store) aborted(err error) bool {
	e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && slices.Contains(s.dialect.Aborted, e.SQLState())
}

// lock waits for the turn of this goroutine to write.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	if s.dialect.Writers == 0 {
		return func() {}, nil
	}
	select {
	case s.writers <- struct{}{}:
		return func() { <-s.writers }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// failure returns err as an error of the operation. If ctx has ended the error
// wraps ctx.Err, which not every driver returns, and what came too late is not
// taken for an answer.
func (s *Store) failure(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if end := ctx.Err(); end != nil && !errors.Is(err, end) {
		err = fmt.Errorf("%w: %s", end, err.Error())
	}
	return fmt.Errorf("%s: %s: %w", s.dialect.Package, op, err)
}

// A querier is a database, or a transaction of it.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// exec runs a statement and reports how many rows it affected.
func exec(ctx context.Context, q querier, statement string, args ...any) (int64, error) {
	r, err := q.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// queryAll runs a query and calls scan for each of its rows.
func queryAll(ctx context.Context, q querier, scan func(scanner) error, query string, args ...any) (err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// A scanner is one row of an answer.
type scanner interface{ Scan(dest ...any) error }
