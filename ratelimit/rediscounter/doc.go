// Package rediscounter counts and lends in Redis or Valkey, by go-redis, for a
// service that runs on several machines.
//
//	client, err := rediscounter.Open("rediss://user:password@redis.example.com:6379")
//	...
//	leased := ratelimit.NewLeased(rediscounter.New(client, nil), nil)
//	limiter := ratelimit.NewDaily(leased, nil)
//
// Every process that shares the server and [Options].Prefix shares the limits,
// exactly. Without a [ratelimit.Leased] between, each request is a trip of its own.
// The package is tested with Redis 7, alone and as a cluster, and asks for nothing
// that Redis 6 and Valkey do not have.
//
// # In the server
//
// A quota is one key, a hash with its windows and their accounts. Its name is the
// prefix and the quota as it is, which for keystile's own keys is their public ID
// and no secret. So every script touches one key, and a cluster can have it
// anywhere. A key expires three days after the last call for it; calls renew that,
// at most once in 22 hours. No call is told a time by the server, and none of the
// clocks of its callers matters; only if that of the server were set ahead by more
// than two days, counts would be gone.
//
// Counts are exact up to the largest int64. A user needs these rights:
//
//	ACL SETUSER keystile on >password ~keystile:* +evalsha +eval +hget +hmget +hset +hdel +hincrby +pttl +pexpire
//
// # When the server fails
//
// What the server does not answer is an error (S76), and a Guard answers 503, or
// lets the request through uncounted if its host has set LimiterFailOpen. No call
// takes longer than Options.Timeout, whatever the client does.
//
//	The server                  Add and Lend                      When it is back
//
//	is down, or refuses         fail at once; without Open when   used at once; without Open it may take
//	                            the client has tried for half a   a second, since go-redis looks for it
//	                            second                            once a second
//	is slow                     wait; fail after Timeout          used at once
//	hangs                       fail after Timeout                used at once; it does then what it
//	                                                              was asked
//	is half-open: connections   fail after Timeout, one call for  used at once on new connections
//	lead nowhere                each connection
//	was restarted               fail once if under way            used at once, scripts are sent again
//	loads its data              fail at once                      used at once
//	is a replica, is full       fail at once where they would     used at once
//	(maxmemory), cannot save    count or lend; reading and
//	                            refusing go on
//
// A [ratelimit.Leased] goes on admitting from what it has borrowed, and fails
// then.
//
// A call that failed may have been done. Then its units are spent for nothing,
// which can refuse too early and never admits too much. To keep it at that, no
// command is sent twice, whatever the MaxRetries of the client; a loan can be asked
// for again without harm.
//
// # When the server loses its data
//
// Nobody can tell a count that was lost from one that was never made: what the day
// has counted is forgotten, and the limit is admitted once more. Loans that nodes
// hold are not affected.
//
//	What happens                 Counts lost                       Setting that prevents it
//
//	restart, stopped or killed   all, or since the last snapshot   appendonly yes
//	the machine fails            of the last second, or two        appendfsync always
//	a replica takes over         what it had not been sent         min-replicas-to-write and -max-lag
//	                                                               bound it
//	memory is full               of any key, if maxmemory-policy   maxmemory-policy noeviction: who would
//	                             lets it be evicted                count is refused instead
//	FLUSHALL, FLUSHDB            all                               rights as above
//
// Where a limit must hold through all of that, count in postgresstore.
//
// # What it does not do
//
// It does not close the client, and has no goroutines but that of a call under way,
// which ends when the client gives up: a client without a ReadTimeout keeps it for
// as long as the server hangs.
// It keeps no keys, settings or use facts: those need a store. It does not tell
// nodes what has changed: that is for a feed. What go-redis logs about connections
// goes to standard error unless the host calls redis.SetLogger.
package rediscounter
