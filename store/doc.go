// Package store says what keystile keeps and what it asks of whatever keeps it.
//
// A [Key] is the record of a token, a [User] is what the host told of a user,
// and both together make the [Record] that a presented token leads to. The
// settings of an organization are kept apart from them, so that a change of
// settings touches no key that is cached.
//
// The interfaces are small, and each is asked for by name, never found by type
// assertion:
//
//   - [Reader] is all that verification needs;
//   - [Store] is a Reader that can also write, for package keys;
//   - [Uses] keeps facts about the use of keys, for the owner's table;
//   - [Feed] lists changes, so that the caches of other processes learn of them.
//
// Package memstore is their reference implementation and package storetest the
// suite that each implementation has to pass. A [Cache] is a Reader in front of
// another, and a [Verifier] is a Cache that knows the format of the tokens.
//
// A store decides nothing. It returns revoked, expired and disabled keys as they
// are, since whether a key works depends on the settings and the time of the
// request (S40); it checks neither names nor tiers nor who asks, which is for
// package keys and for the HTTP boundary; and it reads no clock, but for the age
// of a [UseRetention]. What it does guarantee are the things that only the place of storage can: that an ID and a
// digest are unique, that a user never has more keys than allowed (S13), that a
// row which changed meanwhile is not overwritten, and that a write is done whole
// or not at all.
//
// No token is ever kept, only its digest (S71).
//
// # When the store fails
//
// A store that fails lets nobody in (S76): what a [Cache] cannot answer is an
// error, which is answered as 503, and never [ErrNotFound]. No call of
// [Verifier.Verify] waits longer than [CacheOptions].LookupTimeout.
//
//	The store      A key that was seen       One that was not           When it is back
//
//	is down        used for TTL, then fails  fails at once              used at once
//	is slow        used for TTL, then waits  waits                      used at once
//	hangs          used for TTL, then waits  waits, fails               used at once; what it had been
//	               and fails                                            asked is answered
//	is half-open   the same                  the same                   used at once, but for keys whose
//	                                                                    lookup was lost: when that is given
//	                                                                    up, after LookupTimeout at most
//	was restarted  used for TTL; lookups     the same                   used at once
//	               under way fail
//
// Who waits, waits for LookupTimeout at most. While MaxLookups keys that were not
// seen are waited for, others fail at once with [ErrBusy]; as many places are kept
// for those that were. TTL is that of the clock: with [time.Now] it may stand still
// while a machine sleeps.
//
// With ServeStale, a key that was seen is used for so much longer, as
// [Verified].Stale, unless it was invalidated. The first who find that the store
// fails wait for it, and nobody after them. It is asked again once a second, so
// that it is used again a second after it is back, and in a state that is half-open
// LookupTimeout later.
//
// With a [Feed], TTL counts from the last poll that succeeded:
//
//	Polls fail, or hang      nothing is renewed: as without a Feed, each key is
//	                         looked up once in a TTL. FeedFailed is told. The next
//	                         poll is made after FeedInterval, one that hangs is given
//	                         up after LookupTimeout
//	... and work again       what has changed meanwhile is looked up, everything else
//	                         renewed, whatever its age: no change is lost
//	Changes are missing      (ChangedAll: the feed no longer has them, or was restored
//	                         from a copy) everything is looked up again
//	A wake-up is lost        the next poll comes after FeedInterval
//	Lookups fail, polls not  what was seen and has not changed is used on
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package store
