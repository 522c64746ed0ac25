package storetest

import (
	"time"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

var lookupCases = []testCase{
	{
		name: "lookup finds by digest",
		rule: "Lookup returns the record of the key with that digest, and of no other (S71).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			a, b := s.insert(newKey(u, 1)), s.insert(newKey(u, 2))
			s.same(s.lookup(a.Digest).Key, a, "Lookup of the first key")
			s.same(s.lookup(b.Digest).Key, b, "Lookup of the second key")
		},
	},
	{
		name: "lookup of an unknown digest",
		rule: "Lookup of a digest that no key has is ErrNotFound, however near it is to that of a key (S71).",
		run: func(s *suite) {
			_, err := s.Store.Lookup(s.ctx, digest(1))
			s.is(err, store.ErrNotFound, "Lookup in an empty store")
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			near := map[string]token.Digest{"the zero digest": {}, "another digest": digest(2)}
			first, last, swapped := k.Digest, k.Digest, k.Digest
			first[0] ^= 0x80
			last[31] ^= 1
			for i := range swapped {
				swapped[i] = k.Digest[31-i]
			}
			var id token.Digest
			copy(id[:], k.ID)
			near["the first bit differs"], near["the last bit differs"] = first, last
			near["bytes in reverse"], near["the bytes of the ID"] = swapped, id
			for what, d := range near {
				r, err := s.Store.Lookup(s.ctx, d)
				s.is(err, store.ErrNotFound, "Lookup, %s", what)
				if r != nil {
					s.errorf("Lookup, %s: got a record beside the error", what)
				}
			}
		},
	},
	{
		name: "lookup returns the whole record",
		rule: "A Record has every field of the key and of its user, and the Principal that NewRecord makes of them (D16, D26, D39, S31).",
		run: func(s *suite) {
			u := fullUser("acme", "ada")
			s.putUser(u)
			full, plain := s.insert(fullKey(u, 1)), s.insert(newKey(u, 2))
			for what, k := range map[string]*store.Key{"a key with every field": full, "a plain key": plain} {
				got, want := s.lookup(k.Digest), store.NewRecord(k, u)
				s.same(got.Key, want.Key, "Key of %s", what)
				s.same(got.User, want.User, "User of %s", what)
				s.same(got.Principal, want.Principal, "Principal of %s", what)
			}
		},
	},
	{
		name: "lookup hides nothing",
		rule: "Revoked, disabled, expired and suspended ones are returned as they are: status is computed, never stored, and the store decides nothing (S40, D17).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			long := time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)
			for n, change := range []func(k *store.Key){
				func(k *store.Key) { k.RevokedAt = long },
				func(k *store.Key) { k.DisabledAt = long },
				func(k *store.Key) { k.NotAfter = long },
				func(k *store.Key) { k.CreatedAt = long },
				func(k *store.Key) { k.CreatedAt = time.Time{} },
				func(k *store.Key) { k.CreatedAt = time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC) },
			} {
				k := newKey(u, n)
				change(k)
				s.stored(s.insert(k), "insertion")
			}
			u.SuspendedAt = long
			s.putUser(u)
			for n := range 6 {
				s.same(s.lookup(digest(n)).User, u, "Lookup of a suspended user's key")
			}
		},
	},
	{
		name: "lookup shows changes of the user",
		rule: "A change of the user is in the next record of every key of the user, with its grant, tier, e-mail and suspension, and of no other user (S28, S33, D16, D17).",
		run: func(s *suite) {
			u, namesake := s.addUser("acme", "ada"), s.addUser("globex", "ada")
			a, b := s.insert(newKey(u, 1)), s.insert(newKey(u, 2))
			other := s.insert(newKey(namesake, 3))
			check := func(what string) {
				for _, k := range []*store.Key{a, b} {
					r := s.lookup(k.Digest)
					s.same(r.User, u, "User after %s", what)
					s.same(r.Principal, store.NewRecord(k, u).Principal, "Principal after %s", what)
				}
				s.same(s.lookup(other.Digest).User, namesake, "User of the same ID in another organization after %s", what)
			}
			full := *fullUser("acme", "ada")
			full.Version = u.Version
			*u = full
			s.putUser(u)
			check("everything was set")
			u.Permitted, u.Owner = false, false
			s.putUser(u)
			check("the grant was withdrawn")
			u.SuspendedAt, u.Email, u.Tier = time.Time{}, "", ""
			s.putUser(u)
			check("the rest was taken back")
		},
	},
	{
		name: "records do not change",
		rule: "A record that was given out is not changed by later writes: it is shared between requests.",
		run: func(s *suite) {
			u := fullUser("acme", "ada")
			s.putUser(u)
			k := s.insert(fullKey(u, 1))
			before, wantKey, wantUser := s.lookup(k.Digest), *clone(k), *u

			k.Name, k.Scopes, k.DisabledAt = "renamed", []string{"x", "y", "z"}, time.Time{}
			s.update(k)
			u.Tier, u.Permitted = "Free", false
			s.putUser(u)

			after := s.lookup(k.Digest)
			s.same(before.Key, &wantKey, "Key of the record from before")
			s.same(before.User, &wantUser, "User of the record from before")
			s.same(before.Principal, store.NewRecord(&wantKey, &wantUser).Principal, "Principal of the record from before")
			s.same(after.Key, k, "Key of the record from after")
			s.same(after.User, u, "User of the record from after")
		},
	},
}
