package storetest

import (
	"slices"
	"time"

	"github.com/keystile/keystile/store"
)

var purgeCases = []testCase{
	{
		name: "purge",
		rule: "PurgeKeys deletes exactly the keys, of every organization, whose RevokedAt is set and before that time, and returns how many; expired and disabled keys are not touched (S40, D37).",
		run: func(s *suite) {
			ada, eve := s.addUser("acme", "ada"), s.addUser("globex", "eve")
			before := base
			gone, kept := []*store.Key{}, []*store.Key{}
			add := func(list *[]*store.Key, n int, change func(k *store.Key)) {
				for i, u := range []*store.User{ada, eve} {
					k := newKey(u, 2*n+i)
					change(k)
					*list = append(*list, s.insert(k))
				}
			}
			add(&gone, 1, func(k *store.Key) { k.RevokedAt = before.Add(-time.Microsecond) })
			add(&gone, 2, func(k *store.Key) { k.RevokedAt = before.AddDate(-50, 0, 0) })
			add(&gone, 3, func(k *store.Key) { k.RevokedAt = time.Unix(0, 0) })
			add(&gone, 4, func(k *store.Key) { k.RevokedAt = time.Unix(-1, 0) })
			add(&gone, 5, func(k *store.Key) { k.RevokedAt = time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC) })
			add(&kept, 6, func(k *store.Key) { k.RevokedAt = before })
			add(&kept, 7, func(k *store.Key) { k.RevokedAt = before.Add(time.Microsecond) })
			add(&kept, 8, func(k *store.Key) { k.RevokedAt = before.AddDate(50, 0, 0) })
			add(&kept, 9, func(k *store.Key) {})
			add(&kept, 10, func(k *store.Key) { k.NotAfter = before.AddDate(-50, 0, 0) })
			add(&kept, 11, func(k *store.Key) { k.DisabledAt = before.AddDate(-50, 0, 0) })
			add(&kept, 12, func(k *store.Key) { k.CreatedAt = time.Time{} })

			for _, nothing := range []time.Time{{}, time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)} {
				s.purges(nothing, 0)
			}
			s.purges(before.In(time.FixedZone("", 5*3600)), len(gone))
			for _, k := range gone {
				s.absent(k, "the purge")
				s.is(s.Store.UpdateKey(s.ctx, k), store.ErrNotFound, "UpdateKey after the purge")
			}
			for _, k := range kept {
				k.RevokedAt, k.NotAfter = k.RevokedAt.UTC(), k.NotAfter.UTC()
				s.stored(k, "the purge")
			}
			if got := len(s.keys(store.Query{Revoked: true})); got != len(kept) {
				s.errorf("Keys after the purge: got %d keys, want %d", got, len(kept))
			}
			s.purges(before, 0)
			s.purges(before.Add(time.Microsecond-1), 0) // is cut off to before
			s.same(s.user("acme", "ada"), ada, "Users after the purge")
		},
	},
	{
		name: "purged keys make room",
		rule: "The ID and the digest of a purged key may be used again, by anybody, and nothing of it comes back with them (D27).",
		run: func(s *suite) {
			ada, eve := s.addUser("acme", "ada"), s.addUser("globex", "eve")
			old := fullKey(ada, 1)
			s.insert(old)
			s.purges(base.AddDate(10, 0, 0), 1)
			k := newKey(eve, 1) // the same ID, the same digest
			s.ok(s.Store.InsertKey(s.ctx, k, nil, 1), "InsertKey with what was purged")
			k.Version = 1
			s.stored(k, "insertion")
			s.is(s.Store.UpdateKey(s.ctx, &store.Key{ID: old.ID, Version: 2}), store.ErrConflict, "UpdateKey of the key before")
		},
	},
	{
		name: "purge of many keys",
		rule: "One call of PurgeKeys deletes all that it should, however many, and under parallel calls each key is counted once.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			const total = 1100
			var kept []string
			for n := range total {
				k := newKey(u, n)
				if n%100 != 0 {
					k.RevokedAt = base
				} else {
					kept = append(kept, k.ID)
				}
				s.insert(k)
			}
			counts := make([]int, 4)
			s.outcomes(len(counts), func(i int) (err error) {
				counts[i], err = s.either(i).PurgeKeys(s.ctx, base.Add(time.Hour))
				return err
			})
			sum := 0
			for _, n := range counts {
				sum += n
			}
			if sum != total-len(kept) {
				s.errorf("PurgeKeys: %v keys in parallel calls, want %d in all", counts, total-len(kept))
			}
			slices.Reverse(kept)
			s.lists(store.Query{Revoked: true}, kept...)
		},
	},
}

func (s *suite) purges(before time.Time, want int) {
	n, err := s.Store.PurgeKeys(s.ctx, before)
	s.ok(err, "PurgeKeys")
	if n != want {
		s.errorf("PurgeKeys before %v: got %d keys, want %d", before, n, want)
	}
}
