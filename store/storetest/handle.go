package storetest

import (
	"github.com/keystile/keystile/store"
)

var handleCases = []testCase{
	{
		name: "handles share the medium",
		rule: "Once a write has returned, every read by whatever process sees it, and versions and the cap hold between processes (S19, S46).",
		run: func(s *suite) {
			mine, theirs := s, s.swapped()
			u := mine.addUser("acme", "ada")
			theirs.same(theirs.user("acme", "ada"), u, "Users by the other handle")
			k := theirs.insert(newKey(u, 1))
			for n := range 5 {
				writer, reader := mine, theirs
				if n%2 == 1 {
					writer, reader = reader, writer
				}
				reader.stored(k, "a write by the other handle")
				k.DailyLimit = int64(n)
				writer.update(k)
				reader.stored(k, "an update by the other handle")
				u.Permitted = !u.Permitted
				writer.putUser(u)
				reader.same(reader.lookup(k.Digest).User, u, "Lookup after PutUser by the other handle")
				set := reader.settings("acme")
				set.RestrictUsers = !set.RestrictUsers
				writer.putSettings(set)
				reader.same(reader.settings("acme"), set, "Settings after UpdateSettings by the other handle")

				stale := clone(k)
				stale.Version--
				s.is(reader.Store.UpdateKey(s.ctx, stale), store.ErrConflict, "UpdateKey of a version before that of the other handle")
				s.is(reader.Store.InsertKey(s.ctx, newKey(u, 100), nil, 1), store.ErrLimit, "InsertKey at the cap that the other handle reached")
				s.is(reader.Store.PutUser(s.ctx, &store.User{Org: "acme", ID: "ada"}), store.ErrExists, "PutUser of a user of the other handle")

				next := newKey(u, n+2)
				old := k
				writer.rotate(next, old, base)
				reader.stored(old, "a rotation by the other handle")
				k = next
			}
			k.RevokedAt = base
			mine.update(k)
			theirs.stored(k, "a revocation by the other handle")
			theirs.purges(base.AddDate(1, 0, 0), 6)
			mine.absent(k, "a purge by the other handle")
		},
	},
}
