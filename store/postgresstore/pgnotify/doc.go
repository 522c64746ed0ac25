// Package pgnotify wakes the caches of a service on several machines when one of
// them has changed a key, by LISTEN and NOTIFY of PostgreSQL. A revocation then
// reaches the other machines within milliseconds, and not with their next poll.
//
// Every transaction of package postgresstore that changes a key, a user or
// settings notifies a channel when it is committed. A [Listener] holds a
// connection of its own that listens there:
//
//	listener, err := pgnotify.New(dsn, s.NotifyChannel(), nil)
//	...
//	defer listener.Close()
//	mgr, err := keys.New(s, &keys.Options{Cache: &store.CacheOptions{
//		Feed:     s,
//		FeedWake: listener.Wake(),
//	}})
//
// # What it does not do
//
// It guarantees nothing, and need not: a notification says only that it is worth
// looking, and the cache reads the feed of the store. One that is late, lost or for
// nothing changes no answer. While the listener is not connected the cache polls as
// often as it does without one, and the bounds of CacheOptions hold; when
// it is again, the first thing that it does is to wake the cache.
//
// # The connection
//
// It is one more connection to the server for each process, idle nearly always. It
// must be the listener's own: behind PgBouncer in transaction mode notifications
// are lost, since there a connection belongs to a client for a transaction only. So
// give it a data source name that goes past the pooler, while the store's goes
// through it. The listener makes sure once, with its first connection, which takes
// another for a moment, and reports [ErrNotDelivered] otherwise. A replica does not do
// either.
//
// A connection that says nothing is asked for a sign of life, so that a server that
// hangs, or a firewall that has forgotten the connection, is noticed and the
// listener connects anew: after a tenth of a second first, and then less and less
// often, at least once a second.
package pgnotify
