// Package postgresstore keeps keys, users, settings, use facts and daily counts
// in a PostgreSQL database, by database/sql, for a service that runs on several
// machines.
//
// It imports no driver: the host opens the database, with the driver of its
// choice. The package is tested with pgx v5 on PostgreSQL 15; it asks for nothing
// that PostgreSQL 12 does not have.
//
//	import _ "github.com/jackc/pgx/v5/stdlib"
//
//	db, err := sql.Open("pgx", "host=db.example.com dbname=keys user=service")
//	...
//	db.SetMaxOpenConns(8)
//	db.SetMaxIdleConns(8)
//	s, err := postgresstore.New(db, nil)
//	...
//	err = s.Migrate(ctx)
//
// Bound the pool, as here: without a bound a burst of requests opens a connection
// for each of them, and by default all but two of those are closed again. The encoding of the database must be UTF8, as it is by
// default. Its collation does not matter: strings are compared byte for byte.
//
// # Processes
//
// Any number of processes on any number of machines can share a database, and
// every guarantee holds among them: a limit is exact, a user never has more keys
// than allowed, a row that changed meanwhile is not overwritten, and a change is
// never missed by who follows the feed. No clock of the database is read.
//
// A count is one statement while there is room, on one row. Callers of the same
// key wait for each other's commits, those of different keys do not. Changes of
// keys, users and settings wait for each other at their end, for the row that
// numbers them; neither lookups nor counts do.
//
// A process that is suspended in the middle of a change is cut off by the
// database after 5 seconds, so that it cannot keep the others from revoking keys.
// Its call fails. The isolation level of transactions is set to READ COMMITTED
// for each of them, whatever the default is.
//
// # Notifications
//
// Every change of keys, users and settings notifies [Store.NotifyChannel] at its
// commit, so that caches need not wait for their next poll; package pgnotify, a
// module of its own, listens there. PostgreSQL lets the transactions of a server
// that notify commit one after the other. Those of one store do so anyway, and
// neither look-ups nor counts notify. For a listener that stays in a transaction
// PostgreSQL keeps notifications, up to 8 GB, and beyond that fails whoever
// notifies; pg_notification_queue_usage() tells how full it is.
//
// # Failures
//
// Whatever the database does not answer is an error and never an answer
// (S76): no connection, a deadline, a statement timeout, a server that only
// reads. Every call ends with its context. Give it a deadline, since a server
// that hangs says nothing; a cache does so for its lookups and polls, and a count
// ends after [Options].CountTimeout. A transaction that the database undoes
// because of another one, such as by a deadlock with the host's own, is done
// again, three times at most. Nothing else is: when a connection is lost it is not
// known whether the last statement was done.
//
// # Durability
//
// What a method has written when it returns is as durable as the server makes a
// commit. With synchronous_commit off, or after a failover to a replica that
// lagged behind, a revocation that was acknowledged can be undone, a quota be
// spent twice, and the feed go back: caches that were ahead of it may then keep
// what changed for longer than they say. Use synchronous replication where a
// failover must lose nothing, or restart the service after one that did. Never
// use a replica for reading: it may not know yet that a key was revoked.
//
// # Poolers
//
// The package needs nothing that outlives a transaction: no prepared statements,
// no settings of a session, no temporary tables, no locks. So it works behind
// PgBouncer in transaction mode, if the driver does not prepare statements
// either. With pgx that is
//
//	default_query_exec_mode=exec
//
// in the data source name. The simple protocol works too.
//
// # Migrations
//
// [Store.Migrate] makes the tables and brings them up to date, [Store.Validate]
// checks that they are, without writing, and [Store.Migrations] has the plain SQL
// for hosts with a tool of their own. All tables have names that begin with
// [Options].TablePrefix, so that they can live in the host's database. They are
// in the first schema of the search path. To use another, set the path for the
// role, since a pooler may not keep it for a connection:
//
//	ALTER ROLE service SET search_path = keys
//
// A process that only uses the store needs SELECT, INSERT, UPDATE and DELETE on
// the tables, and calls Validate instead of Migrate.
//
// # What it does not do
//
// It keeps no token, only digests (S71). PurgeKeys deletes revoked keys when
// it is called, in one transaction. Nothing else is deleted by age, but for
// addresses and user agents with [Options].UseRetention. What is deleted is unknown
// to SQL, and stays in the server's files until they are vacuumed, and in its log.
// It has no goroutines, and never closes the database.
package postgresstore
