package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/store"
)

var updateCases = []testCase{
	{
		name: "update",
		rule: "UpdateKey writes Name, Scopes, DailyLimit, NotAfter, DisabledAt, RevokedAt and Revoked, sets each back to zero too, and raises Version by one; the next Lookup shows it (S19, D39).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			other := s.insert(newKey(u, 2))
			k := s.insert(newKey(u, 1))
			full := fullKey(u, 1)
			for _, change := range []func(){
				func() { k.Name = full.Name },
				func() { k.Scopes = full.Scopes },
				func() { k.DailyLimit = full.DailyLimit },
				func() { k.NotAfter = full.NotAfter },
				func() { k.DisabledAt = full.DisabledAt },
				func() { k.RevokedAt = full.RevokedAt },
				func() { k.Revoked = true },
				func() { k.Name = "" },
				func() { k.Scopes = nil },
				func() { k.DailyLimit = -1 },
				func() { k.NotAfter = time.Time{} },
				func() { k.DisabledAt = time.Time{} },
				func() { k.Revoked = false },
				func() { k.RevokedAt = time.Time{} },
				func() {}, // no change is a write too
			} {
				change()
				s.update(k)
				s.stored(k, "an update")
			}
			s.stored(other, "an update of another key")
		},
	},
	{
		name: "update keeps the rest",
		rule: "Digest, Org, User, CreatedAt and Family of a key never change, whatever UpdateKey is given (S37).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			s.addUser("globex", "bob")
			k := s.insert(fullKey(u, 1))
			given := clone(k)
			given.Digest, given.Org, given.User = digest(2), "globex", "bob"
			given.CreatedAt, given.Family = base.AddDate(5, 0, 0), "csk_live_ffffffff"
			given.Name = "written"
			s.ok(s.Store.UpdateKey(s.ctx, given), "UpdateKey")
			k.Name, k.Version = "written", 2
			s.stored(k, "an update of what never changes")
			_, err := s.Store.Lookup(s.ctx, digest(2))
			s.is(err, store.ErrNotFound, "Lookup of a digest that was given to UpdateKey")
		},
	},
	{
		name: "update of what changed",
		rule: "UpdateKey is ErrConflict unless Version is the stored one, and then changes nothing.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			k := s.insert(fullKey(u, 1))
			s.update(k)
			for _, version := range []int64{0, 1, 3, -1} {
				given := clone(k)
				given.Version, given.Name, given.RevokedAt, given.Revoked = version, "lost", time.Time{}, false
				s.is(s.Store.UpdateKey(s.ctx, given), store.ErrConflict, "UpdateKey with version %d of 2", version)
				s.stored(k, "a refused update")
			}
		},
	},
	{
		name: "update of an unknown key",
		rule: "UpdateKey is ErrNotFound if there is no key with that ID, and makes none; what the rest of the key says does not matter.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			for _, id := range []string{"csk_live_ffffffff", "CSK_LIVE_00000001", "csk_live_00000001 ", "csk_live_0000000", "csk_live_________", "%", ""} {
				given := clone(k)
				given.ID, given.Name = id, "lost"
				s.is(s.Store.UpdateKey(s.ctx, given), store.ErrNotFound, "UpdateKey of %q", id)
			}
			s.stored(k, "updates of unknown keys")
			if n := len(s.keys(store.Query{Revoked: true})); n != 1 {
				s.errorf("Keys: got %d keys, want 1", n)
			}
		},
	},
	{
		name: "parallel updates",
		rule: "Of 20 updates of one version of a key at once exactly one wins, and the others are ErrConflict.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			for round := range 3 {
				got := s.outcomes(20, func(i int) error {
					given := clone(k)
					given.DailyLimit = int64(100*round + i + 1)
					return s.either(i).UpdateKey(s.ctx, given)
				})
				if got[nil] != 1 || got[store.ErrConflict] != 19 {
					s.errorf("got %v, want 1 without an error and 19 with ErrConflict", got)
				}
				k.Version++
				if now := s.key(k.ID); now.Version != k.Version || now.DailyLimit <= int64(100*round) {
					s.errorf("after round %d: Version %d, DailyLimit %d", round, now.Version, now.DailyLimit)
				}
			}
		},
	},
	{
		name: "no update is lost",
		rule: "When several writers read, change and write a key and a user again until it works, no change is lost.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			const writers, rounds = 4, 5
			s.outcomes(writers, func(i int) error {
				st := s.either(i)
				for range rounds {
					err := retry(func() error {
						ks, err := st.Keys(s.ctx, store.Query{ID: k.ID})
						if err != nil || len(ks) != 1 {
							return fmt.Errorf("%d keys, error %w", len(ks), err)
						}
						ks[0].DailyLimit++
						return st.UpdateKey(s.ctx, ks[0])
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
			now := s.key(k.ID)
			if now.DailyLimit != writers*rounds || now.Version != 1+writers*rounds {
				s.errorf("DailyLimit %d, Version %d after %d increments", now.DailyLimit, now.Version, writers*rounds)
			}
		},
	},
	{
		name: "reads see whole writes",
		rule: "A record is one consistent read of key and user, and no read sees a part of a write: not an update, not a rotation.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			u.Tier = "false"
			s.putUser(u)
			k := newKey(u, 0)
			k.Name = "0"
			s.insert(k)
			fixed := s.insert(newKey(s.addUser("acme", "bob"), 1_000_000))
			const enough = 20 // rounds of writes, and of reads among them
			var written atomic.Int64
			var over atomic.Bool
			done := make(chan struct{})
			defer func() {
				over.Store(true)
				<-done
			}()
			go func() {
				defer close(done)
				defer written.Store(enough)
				for i := 0; !over.Load(); i++ {
					u.Permitted = i%2 == 0
					u.Owner, u.Tier = u.Permitted, fmt.Sprint(u.Permitted)
					if err := s.Other.PutUser(s.ctx, u); err != nil {
						s.errorf("PutUser: %v", err)
						return
					}
					u.Version++
					fixed.DailyLimit, fixed.Name = int64(i), fmt.Sprint("key ", i)
					fixed.Scopes = []string{fixed.Name}
					if err := s.Other.UpdateKey(s.ctx, fixed); err != nil {
						s.errorf("UpdateKey: %v", err)
						return
					}
					fixed.Version++
					next := newKey(u, i+1)
					k.RevokedAt = base
					if err := s.Other.InsertKey(s.ctx, next, k, 1); err != nil {
						s.errorf("InsertKey of a rotation: %v", err)
						return
					}
					k = next
					k.Version = 1
					written.Add(1)
				}
			}()
			for n := 0; n < enough || written.Load() < enough; n++ {
				s.wholeReads("acme", "ada", fixed.ID)
			}
		},
	},
}

// wholeReads checks what cannot be seen unless a write is seen in part.
func (s *suite) wholeReads(org, user, fixedID string) {
	r := s.lookup(digest(0))
	if r.User.Owner != r.User.Permitted || r.User.Tier != fmt.Sprint(r.User.Permitted) {
		s.errorf("Lookup saw a part of PutUser: %+v", r.User)
	}
	if r.Principal.Owner != r.User.Owner || r.Principal.Tier != r.User.Tier {
		s.errorf("Lookup: the principal is not that of the user")
	}
	if f := s.key(fixedID); f.Version > 1 && (f.Name != fmt.Sprint("key ", f.DailyLimit) || len(f.Scopes) != 1 || f.Scopes[0] != f.Name) {
		s.errorf("Keys saw a part of UpdateKey: %+v", f)
	}
	active := 0
	for _, k := range s.keys(store.Query{Org: org, User: user, Revoked: true}) {
		if k.RevokedAt.IsZero() {
			active++
		}
	}
	if active != 1 {
		s.errorf("Keys saw a part of a rotation: %d keys of a user who always has one", active)
	}
}

// retry calls f until it does not return ErrConflict.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}
