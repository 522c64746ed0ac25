package sqlstore

import (
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
	// and 0 is not found.
	Position string

	// Lock is the first statement of every transaction that writes. It takes the
	// lock that makes transactions with the same lock wait for each other.
	Lock string

	// Writers is how many goroutines of a store write at a time. The others wait
	// before they ask for a connection.
	Writers int

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

	// SQLite has one writer at a time. A transaction that reads before it writes
	// fails at once if another wrote in between, whatever its busy timeout is. So
	// it begins with a statement that writes, to no row. That makes it wait for
	// its turn also where the data source name does not say _txlock=immediate,
	// which is spelled differently by every driver.
	Lock: "DELETE FROM keystile_migrations WHERE 0",

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

func (d *Dialect) files() fs.FS {
	files, err := fs.Sub(migrationFiles, d.migrations)
	must(err)
	return files
}
