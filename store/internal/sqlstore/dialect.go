package sqlstore

import (
	"database/sql"
	"embed"
	"io/fs"
	"time"
)

//go:embed migrations
var migrationFiles embed.FS

// A Dialect is all that the statements of this package need to be told about a
// database: what differs between databases stands in this file, and in the
// migrations, which have the types.
type Dialect struct {
	// Package begins every error.
	Package string

	// Placeholder goes before the number of a parameter. The statements are
	// written with "$", which names a parameter in SQLite instead of numbering it.
	Placeholder string

	// Position is the function that finds a string in another: 1 is its beginning
	// and 0 is not found. Collation is the one that compares bytes, in which lower
	// knows no letters but those of ASCII. The columns have it by their schema, but
	// parameters do not.
	Position  string
	Collation string

	// Isolation is that of transactions which write. Begin is their first
	// statement.
	Isolation sql.IsolationLevel
	Begin     string

	// ForUpdate ends a query for a row that the transaction holds until its end
	// against others that would hold it.
	ForUpdate string

	// UsesLock, if not empty, makes transactions on use facts, and those that
	// delete keys, wait for each other. MigrationsLock does so for migrations.
	UsesLock       string
	MigrationsLock string

	// Notify, if not empty, is a statement that wakes those who wait for changes once
	// the transaction is committed.
	Notify string

	// Writers is how many goroutines of a store write at a time; 0 is any number.
	// The others wait before they ask for a connection.
	Writers int

	// SpendFirst has Add spend before it reads what is spent, as if there were
	// room: a round trip less if there is.
	SpendFirst bool

	// Aborted are the SQLSTATEs of errors after which the database has undone a
	// transaction because of another, so that it can be done again.
	Aborted []string

	// Patience is for how long Migrate tries to make a connection.
	Patience time.Duration

	// TableExists counts the tables with the name $1.
	TableExists string

	migrations string // the directory of its migrations
}

// SQLite is the dialect of SQLite 3.37 or later.
var SQLite = Dialect{
	Package:     "sqlitestore",
	Placeholder: "?",
	Position:    "instr",
	Collation:   "BINARY",

	// SQLite has one writer at a time. A transaction that reads before it writes
	// fails at once if another wrote in between, whatever its busy timeout is. So
	// it begins with a statement that writes, to no row. That makes it wait for
	// its turn also where the data source name does not say _txlock=immediate,
	// which is spelled differently by every driver. No further lock is needed.
	Begin: "DELETE FROM keystile_migrations WHERE 0",

	// They would wait in the database all the same, but there they sleep and try
	// again, in no order, which takes several times as long.
	Writers: 1,

	// A new file gets its write-ahead log from the first connection. A second one
	// that comes at that moment, as when two processes start, fails at once
	// without regard to its busy timeout.
	Patience: 2 * time.Second,

	TableExists: "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",

	migrations: "migrations/sqlite",
}

// Postgres is the dialect of PostgreSQL 12 or later.
var Postgres = Dialect{
	Package:     "postgresstore",
	Placeholder: "$",
	Position:    "strpos",
	Collation:   `"C"`,

	// Any number of transactions write at a time. Every statement sees what was
	// committed before it began; one that meets a row which another transaction is
	// writing waits, and then goes by what that one left. So a row is changed on
	// the condition of its version or its count alone, and where that is not
	// enough, as for the number of a user's keys, a row is held first. Other
	// levels would have transactions fail instead of wait.
	Isolation: sql.LevelReadCommitted,

	// A process that is suspended in the middle of a transaction, or a machine
	// that is gone, must not keep the row of the feed's sequence: all others would
	// wait for it, and no key could be revoked. The setting ends with the
	// transaction.
	Begin: "SET LOCAL idle_in_transaction_session_timeout = 5000",

	ForUpdate: " FOR UPDATE",

	// Use facts are read, added to in Go and written. Rows that are not there yet
	// cannot be held, and batches that hold rows in different orders would wait
	// for each other; so batches take turns. The numbers are the host's too: ours
	// have "keys" as their upper half. A table has its own, and the migrations
	// make the tables.
	UsesLock:       "SELECT pg_advisory_xact_lock(7738725069534265344 + 'keystile_uses'::regclass::oid::bigint)",
	MigrationsLock: "SELECT pg_advisory_xact_lock(7738725069534265344)",

	// The channel is that of postgresstore's NotifyChannel. It has no payload: what
	// has changed is read from the feed.
	Notify: "SELECT pg_notify('keystile_changes', '')",

	SpendFirst: true,

	Aborted: []string{"40001", "40P01"}, // serialization_failure, deadlock_detected

	TableExists: "SELECT count(to_regclass($1))",

	migrations: "migrations/postgres",
}

func (d *Dialect) files() fs.FS {
	files, err := fs.Sub(migrationFiles, d.migrations)
	must(err)
	return files
}
