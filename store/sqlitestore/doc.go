// Package sqlitestore keeps keys, users, settings, use facts and daily counts in
// a SQLite database, by database/sql.
//
// It imports no driver: the host opens the database, with the driver of its
// choice. The package is tested with modernc.org/sqlite, which needs no cgo, and
// [DSN] returns a data source name for that driver:
//
//	import _ "modernc.org/sqlite"
//
//	db, err := sql.Open("sqlite", sqlitestore.DSN("keys.db"))
//	...
//	db.SetMaxOpenConns(8)
//	s, err := sqlitestore.New(db, nil)
//	...
//	err = s.Migrate(ctx)
//
// Bound the pool, as here: without a bound a burst of requests opens a connection
// for each of them.
//
// SQLite 3.37 or later is needed, on a local file system: its write-ahead log
// does not work over a network. The log is two more files beside the database,
// with -wal and -shm at the end of their names; copy a live database with VACUUM
// INTO, never file by file.
//
// # Processes
//
// Any number of processes of one machine can share a file, and every guarantee
// holds among them: a limit is exact, a user never has more keys than allowed,
// and a row that changed meanwhile is not overwritten. There is one writer at a
// time. The others wait, at most for the busy timeout of the data source name,
// and then get an error, which is an outage and not an answer: a request is
// refused with 503 then. Readers wait for nobody.
//
// # Durability
//
// What a method has written when it returns survives the end of the process,
// however sudden. With the data source name of [DSN] it also survives the end of
// the power, since every commit waits for the disk: a revocation that was
// acknowledged must not be undone, nor a quota be spent twice. A count is a
// commit, so that this bounds the requests that can be admitted in a second to
// the syncs that the disk does in one. Where losing the last moments of counts
// to a power failure is the lesser harm, use synchronous(NORMAL) instead, or a
// counter in memory.
//
// # Databases in memory
//
// Every connection to ":memory:" is a database of its own, so that a pool of
// them loses rows at random. Use package memstore. Where it must be SQLite, use
// db.SetMaxOpenConns(1) and leave the lifetime of connections unlimited.
//
// # Migrations
//
// [Store.Migrate] makes the tables and brings them up to date, [Store.Validate]
// checks that they are, without writing, and [Store.Migrations] has the plain SQL
// for hosts with a tool of their own. All tables have names that begin with
// [Options].TablePrefix, so that they can live in the host's database.
//
// # What it does not do
//
// It keeps no token, only digests (S71). PurgeKeys deletes revoked keys when
// it is called, in one transaction, in which no other can write; call it often
// enough that there are few. Nothing else is deleted by age, but for addresses and
// user agents with [Options].UseRetention. What is deleted is unknown to SQL, and
// stays in free pages of the file until they are used again; PRAGMA secure_delete
// is the host's to set. It has no goroutines, and
// never closes the database.
package sqlitestore
