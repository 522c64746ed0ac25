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
// package keys and for the HTTP boundary; and it reads no clock. What it does
// guarantee are the things that only the place of storage can: that an ID and a
// digest are unique, that a user never has more keys than allowed (S13), that a
// row which changed meanwhile is not overwritten, and that a write is done whole
// or not at all.
//
// No token is ever kept, only its digest (S71).
package store
