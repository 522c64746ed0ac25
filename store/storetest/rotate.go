package storetest

import (
	"time"

	"github.com/keystile/keystile/store"
)

var rotateCases = []testCase{
	{
		name: "rotation",
		rule: "A rotation inserts the new key, sets RevokedAt, which may lie ahead, and Revoked of the old one, raises its version by one, and writes nothing else of it (D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			for n, end := range []time.Time{
				base.Add(24*time.Hour + 123456*time.Microsecond), // with a period of grace
				base, // at once
				base.AddDate(-1, 0, 0),
			} {
				old, k := fullKey(u, 10*n), fullKey(u, 10*n+1)
				old.RevokedAt, k.RevokedAt, old.Revoked, k.Revoked = time.Time{}, time.Time{}, false, false
				s.insert(old)
				given := clone(old)
				given.RevokedAt, given.Revoked = end, n > 0
				given.Name, given.Scopes, given.DailyLimit = "not written", []string{"not", "written"}, 77
				given.NotAfter, given.DisabledAt = time.Time{}, time.Time{}
				s.ok(s.Store.InsertKey(s.ctx, k, given, noCap), "InsertKey of a rotation")
				old.RevokedAt, old.Revoked, old.Version, k.Version = end, n > 0, 2, 1
				s.stored(old, "rotation, the old key")
				s.stored(k, "rotation, the new key")
			}
		},
	},
	{
		name: "rotation at the cap",
		rule: "The key that is rotated away does not count toward the cap, and the new one does (S12, D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			var last *store.Key
			for n := range seedCap {
				last = s.insert(newKey(u, n))
			}
			for n := range 3 { // again and again, with the revoked ones still there
				old, k := clone(last), newKey(u, 10+n)
				old.RevokedAt = base.AddDate(1, 0, 0)
				s.ok(s.Store.InsertKey(s.ctx, k, old, seedCap), "InsertKey of rotation %d at the cap", n+1)
				k.Version = 1
				last = k
			}
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 20), nil, seedCap), store.ErrLimit, "InsertKey at the cap after rotations")
			if got := len(s.keys(store.Query{})); got != seedCap {
				s.errorf("Keys: got %d unrevoked keys, want %d", got, seedCap)
			}
		},
	},
	{
		name: "rotation above the cap",
		rule: "A rotation is ErrLimit if the other keys of the user are max or more, and then the old key is not revoked (S12, D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			var old *store.Key
			for n := range seedCap + 1 {
				old = s.insert(newKey(u, n))
			}
			given, k := clone(old), newKey(u, 10)
			given.RevokedAt = base
			s.is(s.Store.InsertKey(s.ctx, k, given, seedCap), store.ErrLimit, "InsertKey of a rotation above the cap")
			s.stored(old, "a refused rotation")
			s.absent(k, "a refused rotation")
		},
	},
	{
		name: "rotation of what changed",
		rule: "A rotation is ErrConflict if the old key's version is not current, and then nothing is written (D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			old := s.insert(newKey(u, 1))
			s.update(old)
			for _, version := range []int64{0, 1, 3, -1} {
				s.refuseRotation(old, store.ErrConflict, "another version", func(given *store.Key) { given.Version = version })
			}
		},
	},
	{
		name: "rotation of a revoked key",
		rule: "A key whose RevokedAt is set, even in the future, cannot rotate again: ErrConflict (D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			for n, end := range []time.Time{base.AddDate(-1, 0, 0), base.AddDate(10, 0, 0)} {
				old := newKey(u, n)
				old.RevokedAt = end
				s.insert(old)
				s.refuseRotation(old, store.ErrConflict, "a revoked key", func(*store.Key) {})
			}
			old := s.insert(newKey(u, 5))
			s.rotate(newKey(u, 6), old, base.AddDate(10, 0, 0))
			s.refuseRotation(old, store.ErrConflict, "a rotated key", func(*store.Key) {})
		},
	},
	{
		name: "rotation of another key",
		rule: "A rotation is ErrNotFound if there is no key with the old one's ID, and ErrConflict if that key has another digest, so that a key which was purged and whose ID was used again is not taken for it (D27, D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			old := s.insert(newKey(u, 1))
			s.refuseRotation(old, store.ErrNotFound, "an unknown key", func(given *store.Key) { given.ID = "csk_live_ffffffff" })
			s.refuseRotation(old, store.ErrConflict, "another digest", func(given *store.Key) { given.Digest = digest(2) })
		},
	},
	{
		name: "rotation of another user's key",
		rule: "The key to be rotated away must be one of the same user in the same organization: all else is refused, and nothing is written (D39).",
		run: func(s *suite) {
			ada, bob, namesake := s.addUser("acme", "ada"), s.addUser("acme", "bob"), s.addUser("globex", "ada")
			old := s.insert(newKey(ada, 1))
			for _, u := range []*store.User{bob, namesake} {
				for what, claimed := range map[string]*store.User{"as it is": ada, "claimed": u} {
					given, k := clone(old), newKey(u, 2)
					given.Org, given.User, given.RevokedAt = claimed.Org, claimed.ID, base
					if err := s.Store.InsertKey(s.ctx, k, given, noCap); err == nil {
						s.errorf("InsertKey for %s in %s, which rotates a key of ada in acme away, %s: no error", u.ID, u.Org, what)
					} else if what == "claimed" {
						s.is(err, store.ErrConflict, "InsertKey with a key that is not the user's")
					}
					s.stored(old, "a refused rotation")
					s.absent(k, "a refused rotation")
				}
			}
		},
	},
	{
		name: "rotation without an end",
		rule: "The RevokedAt of the key to be rotated away must be set: else both would work for ever, beyond the cap (D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			old, k := s.insert(newKey(u, 1)), newKey(u, 2)
			s.failed(s.Store.InsertKey(s.ctx, k, clone(old), noCap), "InsertKey of a rotation without an end")
			s.stored(old, "a refused rotation")
			s.absent(k, "a refused rotation")
		},
	},
	{
		name: "parallel rotations",
		rule: "Of 20 rotations of one key at once exactly one wins, and the others are ErrConflict and leave nothing behind (D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			old := s.insert(newKey(u, 100))
			got := s.outcomes(20, func(i int) error {
				given := clone(old)
				given.RevokedAt = base.AddDate(0, 0, i)
				return s.either(i).InsertKey(s.ctx, newKey(u, i), given, 1)
			})
			if got[nil] != 1 || got[store.ErrConflict] != 19 {
				s.errorf("got %v, want 1 without an error and 19 with ErrConflict", got)
			}
			if n := len(s.keys(store.Query{Revoked: true})); n != 2 {
				s.errorf("Keys: got %d keys, want the old one and a new one", n)
			}
			if v := s.key(old.ID).Version; v != 2 {
				s.errorf("Version of the old key is %d, want 2", v)
			}
		},
	},
	{
		name: "parallel rotation and update",
		rule: "Of rotations and updates of one version of a key at once exactly one wins: a revocation is never lost to an update that did not see it (S19, D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			old := s.insert(newKey(u, 100))
			got := s.outcomes(20, func(i int) error {
				given := clone(old)
				if i%4 < 2 {
					given.Name = "updated"
					return s.either(i).UpdateKey(s.ctx, given)
				}
				given.RevokedAt = base
				return s.either(i).InsertKey(s.ctx, newKey(u, i), given, noCap)
			})
			if got[nil] != 1 || got[store.ErrConflict] != 19 {
				s.errorf("got %v, want 1 without an error and 19 with ErrConflict", got)
			}
			now := s.key(old.ID)
			if now.Version != 2 {
				s.errorf("Version is %d, want 2", now.Version)
			}
			if n, rotated := len(s.keys(store.Query{Revoked: true})), !now.RevokedAt.IsZero(); rotated != (n == 2) {
				s.errorf("Keys: got %d keys, and the old one's RevokedAt is %v", n, now.RevokedAt)
			}
		},
	},
}

// refuseRotation checks that old, which is stored, is not rotated away if it is
// given with a change, and that nothing is written.
func (s *suite) refuseRotation(old *store.Key, want error, what string, change func(given *store.Key)) {
	given, k := clone(old), newKey(&store.User{Org: old.Org, ID: old.User}, 1000)
	given.RevokedAt = base.Add(time.Hour)
	change(given)
	s.is(s.Store.InsertKey(s.ctx, k, given, noCap), want, "InsertKey of a rotation of %s", what)
	s.stored(old, "a refused rotation")
	s.absent(k, "a refused rotation")
}
