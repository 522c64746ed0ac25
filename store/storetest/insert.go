package storetest

import (
	"slices"
	"time"

	"github.com/keystile/keystile/store"
)

// seedCap is the cap of the seed: keys per user (S12).
const seedCap = 5

var insertCases = []testCase{
	{
		name: "insert keeps the key",
		rule: "InsertKey keeps every field but Version, which is 1 for a new row whatever was given.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			for n, version := range []int64{0, 1, 7, -1} {
				k := fullKey(u, n)
				k.Version = version
				s.stored(s.insert(k), "insertion")
			}
		},
	},
	{
		name: "insert needs the user",
		rule: "A key is only inserted for a user that exists in the key's organization, else ErrNotFound.",
		run: func(s *suite) {
			s.addUser("globex", "ada")
			s.addUser("acme", "bob")
			k := newKey(&store.User{Org: "acme", ID: "ada"}, 1)
			s.is(s.Store.InsertKey(s.ctx, k, nil, noCap), store.ErrNotFound, "InsertKey without its user")
			s.absent(k, "it was refused")
			s.insert(newKey(s.addUser("acme", "ada"), 1))
		},
	},
	{
		name: "ID taken",
		rule: "InsertKey is ErrExists if the ID is taken, in whatever organization and by whatever key, a revoked one too, and changes nothing (D27).",
		run: func(s *suite) {
			s.taken(func(k, holder *store.Key) { k.ID = holder.ID })
		},
	},
	{
		name: "digest taken",
		rule: "InsertKey is ErrExists if the digest is taken, in whatever organization and by whatever key, a revoked one too, and changes nothing (S71).",
		run: func(s *suite) {
			s.taken(func(k, holder *store.Key) { k.Digest = holder.Digest })
		},
	},
	{
		name: "cap",
		rule: "A user has at most max keys: five creations work, the sixth is ErrLimit, and the five go on working (S12). A max of 0 admits none, a negative max is no cap (D11).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 0), nil, 0), store.ErrLimit, "InsertKey with a max of 0")
			for n := range seedCap {
				s.ok(s.Store.InsertKey(s.ctx, newKey(u, n), nil, seedCap), "InsertKey %d of %d", n+1, seedCap)
			}
			k := newKey(u, seedCap)
			s.is(s.Store.InsertKey(s.ctx, k, nil, seedCap), store.ErrLimit, "InsertKey %d of %d", seedCap+1, seedCap)
			s.is(s.Store.InsertKey(s.ctx, k, nil, 3), store.ErrLimit, "InsertKey with a max below the number of keys")
			s.absent(k, "ErrLimit")
			for n := range seedCap {
				s.lookup(digest(n))
			}
			if got := len(s.keys(store.Query{})); got != seedCap {
				s.errorf("Keys: got %d keys, want %d", got, seedCap)
			}
			s.ok(s.Store.InsertKey(s.ctx, k, nil, seedCap+1), "InsertKey with a greater max")
			s.ok(s.Store.InsertKey(s.ctx, newKey(u, 7), nil, noCap), "InsertKey with a negative max")
			s.ok(s.Store.InsertKey(s.ctx, newKey(u, 8), nil, -1000), "InsertKey with a negative max")
		},
	},
	{
		name: "cap under parallel creations",
		rule: "50 creations at once leave exactly 5 keys: the cap is checked in the step that inserts (S13).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			got := s.outcomes(50, func(i int) error {
				return s.either(i).InsertKey(s.ctx, newKey(u, i), nil, seedCap)
			})
			if got[nil] != seedCap || got[store.ErrLimit] != 50-seedCap {
				s.errorf("got %v, want %d without an error and %d with ErrLimit", got, seedCap, 50-seedCap)
			}
			if n := len(s.keys(store.Query{Revoked: true})); n != seedCap {
				s.errorf("Keys: got %d keys, want %d", n, seedCap)
			}
		},
	},
	{
		name: "cap under parallel creations of many users",
		rule: "The cap is exact for each user when several create at once, and a user's creation is not refused for another's (S13).",
		run: func(s *suite) {
			const users = 4
			us := make([]*store.User, users)
			for i := range us {
				us[i] = s.addUser("acme", string(rune('a'+i)))
			}
			got := s.outcomes(users*10, func(i int) error {
				return s.either(i/users).InsertKey(s.ctx, newKey(us[i%users], i), nil, seedCap)
			})
			if got[nil] != users*seedCap {
				s.errorf("got %v, want %d without an error", got, users*seedCap)
			}
			for _, u := range us {
				if n := len(s.keys(store.Query{Org: u.Org, User: u.ID})); n != seedCap {
					s.errorf("user %s: got %d keys, want %d", u.ID, n, seedCap)
				}
			}
		},
	},
	{
		name: "cap counts what can come back",
		rule: "Expired and disabled keys count toward the cap, and so do those of a suspended user: they can come back (D10).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			expired, disabled, old := newKey(u, 1), newKey(u, 2), newKey(u, 3)
			expired.NotAfter = base.AddDate(-1, 0, 0)
			disabled.DisabledAt = base
			old.CreatedAt = time.Time{}
			s.insert(expired)
			s.insert(disabled)
			s.insert(old)
			u.SuspendedAt = base
			s.putUser(u)
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 4), nil, 3), store.ErrLimit, "InsertKey at the cap")
			s.ok(s.Store.InsertKey(s.ctx, newKey(u, 4), nil, 4), "InsertKey below the cap")
		},
	},
	{
		name: "cap does not count revoked keys",
		rule: "Deleting a key frees a place: a key whose RevokedAt is set, even in the future, does not count toward the cap (S14, D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			a, b := s.insert(newKey(u, 1)), s.insert(newKey(u, 2))
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 3), nil, 2), store.ErrLimit, "InsertKey at the cap")
			a.RevokedAt = base.AddDate(-1, 0, 0)
			s.update(a)
			s.ok(s.Store.InsertKey(s.ctx, newKey(u, 3), nil, 2), "InsertKey after one was revoked")
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 4), nil, 2), store.ErrLimit, "InsertKey at the cap again")
			b.RevokedAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
			s.update(b)
			s.ok(s.Store.InsertKey(s.ctx, newKey(u, 4), nil, 2), "InsertKey after one was given an end")
		},
	},
	{
		name: "cap is per user",
		rule: "The cap counts the keys of one user in one organization (S12).",
		run: func(s *suite) {
			for n, u := range []*store.User{
				s.addUser("acme", "ada"), s.addUser("acme", "bob"), s.addUser("globex", "ada"),
				s.addUser("acme", "ADA"), s.addUser("acmeada", "x"), s.addUser("a", "cmeada"),
			} {
				s.ok(s.Store.InsertKey(s.ctx, newKey(u, n), nil, 1), "InsertKey of %s in %s", u.ID, u.Org)
				s.is(s.Store.InsertKey(s.ctx, newKey(u, 100+n), nil, 1), store.ErrLimit, "InsertKey at the cap of %s in %s", u.ID, u.Org)
			}
		},
	},
	{
		name: "same key under parallel creations",
		rule: "Of several creations of one ID or one digest at once exactly one works, the others are ErrExists (D27).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			got := s.outcomes(20, func(i int) error {
				k := newKey(u, i)
				k.ID = "csk_live_00000000"
				return s.either(i).InsertKey(s.ctx, k, nil, noCap)
			})
			if got[nil] != 1 || got[store.ErrExists] != 19 {
				s.errorf("one ID: got %v, want 1 without an error and 19 with ErrExists", got)
			}
			got = s.outcomes(20, func(i int) error {
				k := newKey(u, 100+i)
				k.Digest = digest(100)
				return s.either(i).InsertKey(s.ctx, k, nil, noCap)
			})
			if got[nil] != 1 || got[store.ErrExists] != 19 {
				s.errorf("one digest: got %v, want 1 without an error and 19 with ErrExists", got)
			}
		},
	},
	{
		name: "arguments are copied",
		rule: "A store copies what it is given, slices too, and does not change it.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			check := func(k *store.Key, what string, write func() error) {
				given := clone(k)
				s.ok(write(), "%s", what)
				s.same(k, given, "the argument of %s", what)
			}
			k, want := fullKey(u, 1), fullKey(u, 1)
			want.Version = 1
			check(k, "InsertKey", func() error { return s.Store.InsertKey(s.ctx, k, nil, noCap) })
			k.Name, k.Scopes[0], k.RevokedAt, k.Revoked = "changed later", "changed:later", time.Time{}, false
			s.stored(want, "InsertKey's argument was changed")

			k = fullKey(u, 1)
			k.Version = 1
			want.Version = 2
			check(k, "UpdateKey", func() error { return s.Store.UpdateKey(s.ctx, k) })
			k.Name, k.Scopes[1], k.RevokedAt, k.Revoked = "changed later", "changed:later", time.Time{}, false
			s.stored(want, "UpdateKey's argument was changed")

			old := s.insert(newKey(u, 2))
			old.Scopes, old.RevokedAt = []string{"not", "written"}, base
			k, want = fullKey(u, 3), fullKey(u, 3)
			want.Version = 1
			check(old, "InsertKey of a rotation", func() error { return s.Store.InsertKey(s.ctx, k, old, noCap) })
			k.Scopes[2], old.Scopes[0] = "changed:later", "changed:later"
			s.stored(want, "the argument of a rotation was changed")

			before := *u
			s.ok(s.Store.PutUser(s.ctx, u), "PutUser")
			s.same(u, &before, "the argument of PutUser")
			u.Tier, u.Owner = "changed later", true
			before.Version++
			s.same(s.user("acme", "ada"), &before, "Users after PutUser's argument was changed")
			s.same(s.lookup(k.Digest).User, &before, "Lookup after PutUser's argument was changed")
		},
	},
	{
		name: "results are copies",
		rule: "What Keys, Users and Settings return is the caller's: to change it changes nothing in the store.",
		run: func(s *suite) {
			u := fullUser("acme", "ada")
			s.putUser(u)
			k := s.insert(fullKey(u, 1))
			for range 2 {
				got := s.key(k.ID)
				got.Name, got.Scopes[0], got.RevokedAt, got.Version = "changed", "changed", time.Time{}, 9
				s.stored(k, "a result was changed")

				got2 := s.user("acme", "ada")
				got2.Permitted, got2.Tier, got2.Version = false, "changed", 9
				s.same(s.user("acme", "ada"), u, "Users after a result was changed")
				s.same(s.lookup(k.Digest).User, u, "Lookup after a result was changed")
			}
			for range 2 {
				got := s.settings("acme")
				s.same(got, zeroSettings("acme"), "Settings")
				got.RestrictUsers, got.MaxAge, got.Version = true, time.Hour, 9
			}
			written := fullSettings(s, "acme")
			s.putSettings(written)
			for range 2 {
				got := s.settings("acme")
				s.same(got, written, "Settings")
				got.RestrictUsers, got.MaxAge, got.Version = false, time.Hour, 9
			}
		},
	},
}

// taken checks that a key that collides with another is refused, and that
// nothing is left behind.
func (s *suite) taken(collide func(k, holder *store.Key)) {
	ada, eve := s.addUser("acme", "ada"), s.addUser("globex", "eve")
	active, revoked, leaving := newKey(ada, 1), newKey(ada, 2), newKey(ada, 3)
	revoked.RevokedAt = base.AddDate(-1, 0, 0)
	leaving.RevokedAt = base.AddDate(1, 0, 0)
	old := s.insert(newKey(eve, 4))
	oldAda := s.insert(newKey(ada, 5))
	holders := []*store.Key{s.insert(active), s.insert(revoked), s.insert(leaving)}
	before := ids(s.keys(store.Query{Revoked: true}))

	for i, holder := range holders {
		for j, u := range []*store.User{ada, eve} {
			k := fullKey(u, 10+2*i+j)
			collide(k, holder)
			s.is(s.Store.InsertKey(s.ctx, k, nil, noCap), store.ErrExists, "InsertKey by %s", u.ID)

			replaced := clone(old)
			if u == ada {
				replaced = clone(oldAda)
			}
			replaced.RevokedAt = base
			s.is(s.Store.InsertKey(s.ctx, k, replaced, noCap), store.ErrExists, "InsertKey of a rotation by %s", u.ID)
			if k.Digest != holder.Digest {
				s.absent(k, "a collision")
			}
		}
		s.stored(holder, "a collision")
	}
	s.stored(old, "a rotation that collided")
	s.stored(oldAda, "a rotation that collided")
	if after := ids(s.keys(store.Query{Revoked: true})); !slices.Equal(after, before) {
		s.errorf("Keys after collisions: got %v, want %v", after, before)
	}
	for n := range 20 {
		if k := fullKey(ada, 10+n); !slices.Contains(before, k.ID) {
			if got := s.keys(store.Query{ID: k.ID, Revoked: true}); len(got) != 0 {
				s.errorf("Keys: %s is left behind by a collision", k.ID)
			}
		}
	}
}
